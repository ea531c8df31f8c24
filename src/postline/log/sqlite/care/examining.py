"""Examining a log's file: what is wrong with it, or soon will be, and what to do about it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import apsw
import msgspec

from postline.clock import Clock
from postline.errors import LogError
from postline.log.sqlite.care.copying import require_whole
from postline.log.sqlite.care.examination import Examination, Finding, Reader, Setting, TopicSize
from postline.log.sqlite.care.facts import (
    disk_speed,
    processes,
    sizes,
    state_sizes,
    stuck,
    table_sizes,
    topic_sizes,
)
from postline.log.sqlite.care.threads import unhurried
from postline.log.sqlite.connection import fetch, open_reader, translated
from postline.log.sqlite.places import PASSING, SHARED, file_system, network_file_system
from postline.log.sqlite.rundir import meeting_of
from postline.log.sqlite.schema import BACKUP_ID, VERSION, recognise
from postline.log.sqlite.statements import statements
from postline.log.sqlite.storage import Settings
from postline.log.sqlite.upkeep import WAL_WARNING_BYTES

__all__ = ["examine"]

#: A commit waits for the disk once.
_SLOW_DISK_MS = 10.0
#: Free pages of so much, and of a quarter of the file.
_FREE_BYTES = 16 << 20
_FREE_SHARE = 0.25
_INCREMENTAL = 2


async def examine(path: Path, settings: Settings, clock: Clock, *, quick: bool = False) -> Examination:
    """Look at everything; `quick` leaves out what reads the whole file. Changes nothing, and raises nothing of the log.

    Without `quick` a read transaction is open for as long as reading the file takes: the WAL grows
    meanwhile by what services write.
    """
    findings = list(_place(path))
    try:
        with translated(str(path)):
            connection = open_reader(str(path))
    except LogError as error:
        return Examination(file=str(path), findings=[*findings, _from(error, "opening")])
    try:
        return await _examine(path, connection, settings, clock, findings, quick)
    except LogError as error:
        return Examination(file=str(path), findings=[*findings, _from(error, "reading")])
    finally:
        connection.close()


async def _examine(
    path: Path, connection: apsw.Connection, settings: Settings, clock: Clock, findings: list[Finding], quick: bool
) -> Examination:
    address = str(path)
    with translated(address):
        recognise(connection, address, backups=True)
        found = Examination(
            file=address,
            findings=findings,
            kind="backup" if connection.pragma("application_id") == BACKUP_ID else "log",
            format=connection.pragma("user_version"),
            oldest_reader_format=_oldest_reader(connection),
            sqlite=apsw.sqlite_lib_version(),
            file_system=file_system(path) or "",
            sizes=sizes(path, connection),
            settings=_settings(connection, settings),
            topics=_topics(connection, address, findings),
            disk=await asyncio.to_thread(disk_speed, path.parent, clock) if os.access(path.parent, os.W_OK) else None,
            processes=await processes(connection, meeting_of(path), clock),
        )
        held, writer = await stuck(path, clock)
        findings += _of_facts(found, settings, connection)
        findings += _of_locks(held, writer)
        if quick:
            return msgspec.structs.replace(found, readers=held)
        integrity = await _integrity(connection, address, findings)
        whole = integrity == "ok"
        return msgspec.structs.replace(
            found,
            readers=held,
            integrity=integrity,
            tables=await unhurried(connection, lambda: table_sizes(connection)) if whole else [],
            state=await unhurried(connection, lambda: state_sizes(connection)) if whole else [],
        )


def _topics(connection: apsw.Connection, address: str, findings: list[Finding]) -> list[TopicSize]:
    try:
        with translated(address):
            return topic_sizes(connection)
    except LogError as error:
        findings.append(_from(error, "reading"))
        return []


async def _integrity(connection: apsw.Connection, address: str, findings: list[Finding]) -> str:
    try:
        await unhurried(connection, lambda: require_whole(connection, f"The log {address}"))
    except LogError as error:
        findings.append(_from(error, "integrity"))
        return "damaged"
    return "ok"


def _oldest_reader(connection: apsw.Connection) -> int:
    rows = fetch(connection, statements("schema_checks")["min_reader_version"])
    return int(rows[0][0]) if rows else 0


def _settings(connection: apsw.Connection, settings: Settings) -> list[Setting]:
    pragmas = [(name, str(connection.pragma(name)), meaning) for name, meaning in _PRAGMAS]
    chosen = (
        (
            "durability",
            "full" if settings.durable else "relaxed",
            "full: no power cut takes what was acknowledged",
        ),
        ("lock_seconds", f"{settings.lock_seconds:g}", "so long a write waits for other processes"),
        ("lease_seconds", f"{settings.lease_seconds:g}", "silent for so long, a member counts as hung"),
        (
            "reserve_mb",
            f"{settings.reserve_bytes / (1 << 20):g}",
            "given up on a full disk, so that positions pass",
        ),
        ("upkeep_seconds", f"{settings.upkeep_seconds:g}", "between two passes of retention and compaction; 0: none"),
    )
    return [Setting(name=name, value=value, meaning=meaning) for name, value, meaning in (*pragmas, *chosen)]


_PRAGMAS = (
    ("journal_mode", "wal: readers and the writer don't wait for each other; delete: a backup, or a log just restored"),
    ("page_size", "bytes of a page, fixed for the file's life"),
    ("auto_vacuum", "2: free pages can be given back in steps"),
)


def _place(path: Path) -> Iterator[Finding]:
    """What is wrong with where it lies."""
    kind = file_system(path)
    if network := network_file_system(path):
        yield Finding(
            check="file system",
            said=f"{path} lies on a network file system ({network}), where its locks don't hold; services refuse it.",
            remedy="Put it on a local disk, or use Kafka between machines.",
        )
    elif kind in SHARED:
        yield Finding(
            check="file system",
            said=f"{path} lies in a directory shared between a host and a virtual machine ({kind}).",
            remedy="Let processes of only one of the two use it, or put it on a volume of the machine itself.",
        )
    elif kind in PASSING:
        yield Finding(
            check="file system",
            said=f"{path} lies on {kind}: {PASSING[kind]}.",
            remedy="Put it on a disk, or on a volume that outlives the container.",
        )
    names = path.stat().st_nlink if path.exists() else 1
    if names > 1:
        yield Finding(
            check="file",
            said=f"{path} has {names} names (hard links); services refuse it.",
            remedy=f"Remove all but one; `find DIRECTORY -samefile {path}` lists them.",
        )
    if not all(os.access(each, os.W_OK) for each in (path, path.parent)):
        yield Finding(
            check="file",
            said=f"This user may not write {path} and its directory.",
            remedy="Run as the user of the services, or allow it.",
        )


def _of_facts(found: Examination, settings: Settings, connection: apsw.Connection) -> Iterator[Finding]:
    there, disk, log = found.sizes, found.disk, found.kind == "log"
    if disk is not None and disk.median_ms > _SLOW_DISK_MS:
        yield Finding(
            check="disk",
            said=f"The disk takes {disk.median_ms:.1f} ms (at worst {disk.worst_ms:.1f}) to make a commit durable.",
            remedy="Use a faster disk, or publish more at once: one commit serves all callers that wait.",
        )
    if log and there.disk_free < 2 * settings.reserve_bytes + there.wal:
        yield Finding(
            check="disk",
            said=f"The disk has {there.disk_free >> 20} MB free.",
            remedy="Free some room; once it is full, nothing can be published.",
        )
    if log and found.processes and there.reserve < settings.reserve_bytes:
        yield Finding(
            check="reserve",
            said="The reserve for a full disk is not there: the disk is full, or was.",
            remedy="Free some room; it is made again by itself.",
        )
    if there.free > max(_FREE_BYTES, there.file * _FREE_SHARE):
        yield Finding(
            check="free pages",
            said=f"{there.free >> 20} of {there.file >> 20} MB are free pages.",
            remedy="`postline vacuum` gives them back to the disk; new records would use them, too.",
        )
    if there.wal > WAL_WARNING_BYTES:
        yield Finding(
            check="wal",
            said=f"The WAL has grown to {there.wal >> 20} MB: some program keeps a read transaction open, or did.",
            remedy="End the reader named here; if there is none, the next commits take the WAL over.",
        )
    if log and connection.pragma("auto_vacuum") != _INCREMENTAL:
        yield Finding(
            check="settings",
            said="The file can't give free pages back in steps (auto_vacuum).",
            remedy='Stop the services; `sqlite3 FILE "PRAGMA auto_vacuum=2; VACUUM"`.',
        )
    if log and not settings.durable:
        yield Finding(
            check="settings",
            said="durability=relaxed: a power cut may take the last commits along.",
            remedy="Leave it out of the URL, unless that is meant.",
        )
    if found.format > VERSION:
        yield Finding(
            check="format",
            said=f"The file has format {found.format}; this Postline writes {VERSION}.",
            remedy="Upgrade Postline here.",
        )
    yield from _of_processes(found, connection)


def _of_processes(found: Examination, connection: apsw.Connection) -> Iterator[Finding]:
    for each in found.processes:
        where = ", ".join(each.subscriptions)
        if each.status == "hung":
            yield Finding(
                check="members",
                said=f"Process {each.process}, a member of {where}, gives no sign of life.",
                remedy=f"Continue it or end it (kill -CONT or -KILL {each.process}).",
            )
        elif each.status == "dead" and found.kind == "log":
            yield Finding(
                check="members",
                said=f"Process {each.process} died as a member of {where}, and nobody has taken its place.",
                remedy="Start a worker of that service: it takes over where the dead one stopped.",
            )
    for subscription, partition, _ in fetch(connection, statements("care")["ownerless"]):
        yield Finding(
            check="members",
            said=f"Partition {partition} of {subscription} has an owner that is no member.",
            remedy="Start a worker of that service, or restart those that run.",
        )


def _of_locks(held: list[Reader], writer: int | None) -> Iterator[Finding]:
    for each in held:
        yield Finding(
            check="readers",
            said=f"{_named(each.process)} keeps a read transaction open, {each.pages_behind} pages of the WAL ago"
            f" ({each.command or 'unknown program'}).",
            remedy="End it, or its transaction: until then the WAL only grows.",
        )
    if writer is not None:
        yield Finding(
            check="writer",
            said=f"{_named(writer)} keeps a write transaction open; nobody else can write.",
            remedy="It is stopped or hangs: continue it or end it.",
        )


def _named(process: int) -> str:
    return f"Process {process}" if process else "A process of another container"


def _from(error: LogError, check: str) -> Finding:
    return Finding(check=check, said=error.message, remedy=error.remedy)
