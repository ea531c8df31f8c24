"""Care of an embedded log's file, for operators and programs: backup, restore, examination, vacuum."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from postline.clock import Clock
from postline.errors import LogUnavailable, MissingCapability, UsageError
from postline.log.sqlite.care.comparing import Loss, LostRecords, LostSubscription, Rewound
from postline.log.sqlite.care.copying import (
    RESTORED_NOTE,
    Note,
    PageCopy,
    noted,
    require_apart,
    require_whole,
    revive,
    seal,
)
from postline.log.sqlite.care.examination import Examination, Finding
from postline.log.sqlite.care.examining import examine as examine_file
from postline.log.sqlite.care.replacing import Former, look_at
from postline.log.sqlite.care.threads import unhurried
from postline.log.sqlite.care.vacuuming import Vacuumed
from postline.log.sqlite.care.vacuuming import vacuum as vacuum_storage
from postline.log.sqlite.care.workplace import Workplace, make_durable
from postline.log.sqlite.connection import open_reader, translated
from postline.log.sqlite.log import SqliteLog
from postline.log.sqlite.options import read_options
from postline.log.sqlite.places import network_file_system
from postline.log.sqlite.storage import Settings as FileSettings
from postline.monitor import Monitor
from postline.settings import LogUrl

__all__ = [
    "Backup",
    "Examination",
    "Finding",
    "Loss",
    "LostRecords",
    "LostSubscription",
    "Progress",
    "Restored",
    "Rewound",
    "Vacuumed",
    "backup",
    "examine",
    "file_of",
    "restore",
    "vacuum",
]

#: Called now and then with what is done, and of how much.
Progress = Callable[[int, int], None]
#: For a copy that only its maker uses.
_ALONE = FileSettings(upkeep_seconds=0, reserve_bytes=0, alone=True)


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """A backup that was made."""

    source: str
    target: str
    taken_ms: int
    bytes: int
    topics: int
    subscriptions: int
    #: Subscriptions whose audit does not balance, here as in the log itself.
    unbalanced: list[str]


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """A log that was restored, or would be (`done` is false)."""

    backup: str
    target: str
    #: When the backup was taken; None if it is a plain copy, which doesn't say.
    taken_ms: int | None
    done: bool
    topics: int
    subscriptions: int
    unbalanced: list[str]
    #: Where what lay at the target is kept now.
    replaced: str | None
    #: What that had and the backup doesn't; None if nothing lay there, or it can't be read.
    loss: Loss | None
    #: Why it can't be read; "" if it can.
    unreadable: str


def file_of(url: LogUrl, doing: str) -> Path:
    """The file of an embedded log. Raises MissingCapability for a cluster, UsageError for a log in memory."""
    if url.scheme != "sqlite":
        raise MissingCapability(
            f"`postline {doing}` takes care of a file, and {url.redacted} is a cluster.",
            remedy=_ON_KAFKA[doing],
        )
    if url.path is None:
        raise UsageError("A log in memory has no file.", remedy="Name a file with --url or POSTLINE_URL.")
    return Path(url.path)


_ON_KAFKA = {
    "backup": "The cluster keeps its copies itself: a replication factor of 3, and a mirror cluster against its loss.",
    "restore": "Restore a cluster by its own means; a file's backup is restored to a file.",
    "doctor": "`postline lag` and `postline topics` show what Postline sees; the rest is the cluster's own tools'.",
    "vacuum": "The brokers delete old segments by themselves, as the topics' retention says.",
}


async def backup(source: Path, target: Path, clock: Clock, progress: Progress, *, force: bool = False) -> Backup:
    """Copy a log to the new file `target` while services use it; it is there only once it is verified and durable.

    Its pages are of one moment: what was committed before the call is in it. The writers never wait for it.
    Raises UsageError for a target that is there already (unless `force`) or is the log itself, LogFull,
    LogCorrupt, and whatever else reading the log raises; then nothing is left.
    """
    _require_file(source)
    where = _absolute(source)
    require_apart(source, target)
    _require_new(target, force)
    with Workplace(target) as place:
        taken_ms = clock.now_ms()
        copied = await _copy(source, place.file, progress)
        unbalanced = await _verified(place.file, f"The copy of {source}", clock)
        seal(place.file, Note(source=where, taken_ms=taken_ms))
        _require_new(target, force)
        with translated(str(target)):
            size = place.file.stat().st_size
            # Whoever may not read the log may not read its backup.
            os.chmod(place.file, os.stat(source).st_mode)
            place.file.replace(target)
            make_durable(target.parent)
    return Backup(
        source=str(source),
        target=str(target),
        taken_ms=taken_ms,
        bytes=size,
        topics=copied.topics,
        subscriptions=copied.subscriptions,
        unbalanced=unbalanced,
    )


async def restore(
    source: Path,
    target: Path,
    clock: Clock,
    progress: Progress,
    agree: Callable[[Restored], bool],
    *,
    skip_offsets: int = 0,
    dry_run: bool = False,
) -> Restored:
    """Make a log of a backup at `target`. What lies there is kept under another name, and compared first.

    `agree` is asked, with what would be lost, if something lies there; on a no nothing is changed. With
    `dry_run` nothing is changed either, and services may run. Raises LogUnavailable while a process has the old
    log open, UsageError if the backup is one of another log, and what reading the backup raises.
    """
    _require_file(source)
    require_apart(target, source)
    _require_place(target)
    with Workplace(target) as place:
        copied = await _copy(source, place.file, progress)
        revive(place.file, skip_offsets, clock.now_ms())
        unbalanced = await _verified(place.file, f"The backup {source}", clock)
        found = Restored(
            backup=str(source),
            target=str(target),
            taken_ms=_taken_ms(place.file),
            done=False,
            topics=copied.topics,
            subscriptions=copied.subscriptions,
            unbalanced=unbalanced,
            replaced=None,
            loss=None,
            unreadable="",
        )
        if dry_run:
            loss, unreadable = look_at(target, place.file)
            return msgspec.structs.replace(found, loss=loss, unreadable=unreadable)
        return _put_in_place(place.file, target, found, agree, clock.now_ms())


def _put_in_place(
    copy: Path, target: Path, found: Restored, agree: Callable[[Restored], bool], now_ms: int
) -> Restored:
    with Former(target) as former:
        found = msgspec.structs.replace(found, loss=former.compare(copy), unreadable=former.unreadable)
        if former.exists and not agree(found):
            return found
        former.outdo(copy)
        replaced = former.replace(copy, now_ms)
    return msgspec.structs.replace(found, done=True, replaced=None if replaced is None else str(replaced))


async def examine(url: LogUrl, clock: Clock, *, quick: bool = False) -> Examination:
    """What is wrong with an embedded log's file, or soon will be. Changes nothing. Raises what `file_of` raises."""
    path = file_of(url, "doctor")
    _require_file(path)
    return await examine_file(path, read_options(url.options), clock, quick=quick)


async def vacuum(url: LogUrl, clock: Clock, progress: Progress) -> Vacuumed:
    """Give the file's free pages back to the disk, a hundred to a step, while services go on.

    Interrupted or killed, it leaves a whole log, and what was given back is given back. Raises as `file_of`, and
    what opening the log raises.
    """
    path = file_of(url, "vacuum")
    _require_file(path)
    log = SqliteLog(
        str(path), clock=clock, settings=msgspec.structs.replace(read_options(url.options), upkeep_seconds=0)
    )
    await log.start()
    try:
        return await vacuum_storage(log.storage, progress)
    finally:
        await log.close()


async def _copy(source: Path, target: Path, progress: Progress) -> PageCopy:
    copy = PageCopy(source, target)
    try:
        while not copy.done:
            await unhurried(None, copy.step)
            progress(copy.pages_done, copy.pages)
    finally:
        copy.close()
    return copy


async def _verified(copy: Path, what: str, clock: Clock) -> list[str]:
    """Open the copy as a log is opened, read all of it, and audit it; gives what doesn't balance."""
    with translated(str(copy)):
        connection = open_reader(str(copy))
    try:
        await unhurried(connection, lambda: require_whole(connection, what))
    finally:
        connection.close()
    log = SqliteLog(str(copy), clock=clock, settings=_ALONE)
    await log.start()
    try:
        monitor = Monitor(log, clock)
        names = [each.name for each in await log.subscriptions()]
        return [name for name in names if not (await monitor.audit(name)).balanced]
    finally:
        await log.close()


def _taken_ms(copy: Path) -> int | None:
    with translated(str(copy)):
        connection = open_reader(str(copy))
        try:
            note = noted(connection, RESTORED_NOTE)
        finally:
            connection.close()
    return note.taken_ms or None if note else None


def _absolute(path: Path) -> str:
    return str(path.absolute())


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise LogUnavailable(f"There is no file {path}.", remedy="Name the right one.")


def _require_new(target: Path, force: bool) -> None:
    if not target.parent.is_dir():
        raise UsageError(f"The directory {target.parent} does not exist.", remedy="Make it, or name another place.")
    if target.is_dir():
        raise UsageError(f"{target} is a directory.", remedy="Name a file in it.")
    if target.exists() and not force:
        raise UsageError(f"{target} is there already.", remedy="Name another file, or add --force to replace it.")


def _require_place(target: Path) -> None:
    _require_new(target, force=True)
    if kind := network_file_system(target):
        raise UsageError(
            f"{target} would lie on a network file system ({kind}), where a log's locks don't hold.",
            remedy="Restore it to a local disk.",
        )
