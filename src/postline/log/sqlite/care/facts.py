"""Facts about a log's file, gathered without changing it, and beside services that use it."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import apsw
import msgspec

from postline.clock import Clock
from postline.log.sqlite.appending import OFFSET_BITS
from postline.log.sqlite.care import readers
from postline.log.sqlite.care.examination import DiskSpeed, Process, Reader, Sizes, StateSize, TableSize, TopicSize
from postline.log.sqlite.connection import fetch
from postline.log.sqlite.liveness import living_processes
from postline.log.sqlite.statements import statements

__all__ = ["Locks", "disk_speed", "processes", "sizes", "state_sizes", "stuck", "table_sizes", "topic_sizes"]

_SYNCS = 25
_BLOCK = b"\0" * 4096
#: Between two looks at who reads: services' own reads take milliseconds.
_LOOK_SECONDS = 0.5
#: Hearts beat once a second.
_BEAT_SECONDS = 3.0
_EXACT_OFFSETS = 1_000
_SAMPLES, _SAMPLE_OFFSETS = 20, 50


class Locks(msgspec.Struct, frozen=True):
    """What `readers.py` has seen at one moment."""

    frames: int
    backfilled: int
    #: Slot, mark in the WAL, process.
    readers: list[tuple[int, int, int]]
    writer: int | None


def sizes(path: Path, connection: apsw.Connection) -> Sizes:
    """Bytes of the file and what lies beside it."""
    page_size, status = connection.pragma("page_size"), os.statvfs(path.parent)
    return Sizes(
        file=connection.pragma("page_count") * page_size,
        free=connection.pragma("freelist_count") * page_size,
        wal=_size(path, "-wal"),
        reserve=_size(path, "-reserve"),
        disk_free=status.f_bavail * status.f_frsize,
    )


def disk_speed(directory: Path, clock: Clock) -> DiskSpeed:
    """Make a block durable some times, in a file that has no name. Blocks for as long as the disk takes."""
    took = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        file.write(_BLOCK)
        os.fsync(file.fileno())
        for _ in range(_SYNCS):
            begun = clock.monotonic()
            os.pwrite(file.fileno(), _BLOCK, 0)
            os.fsync(file.fileno())
            took.append((clock.monotonic() - begun) * 1000)
    return DiskSpeed(median_ms=round(statistics.median(took), 3), worst_ms=round(max(took), 3))


def topic_sizes(connection: apsw.Connection) -> list[TopicSize]:
    """Records and their bytes, topic by topic; counted for small partitions, estimated for others."""
    found: dict[str, TopicSize] = {}
    for topic, partition_id, start, end in fetch(connection, statements("care")["topic_sizes"]):
        records, size = _partition_size(connection, partition_id << OFFSET_BITS, start, end)
        before = found.get(topic, TopicSize(topic=topic, records=0, bytes=0, estimated=False))
        found[topic] = TopicSize(
            topic=topic,
            records=before.records + records,
            bytes=before.bytes + size,
            estimated=before.estimated or end - start > _EXACT_OFFSETS,
        )
    return list(found.values())


def _partition_size(connection: apsw.Connection, base: int, start: int, end: int) -> tuple[int, int]:
    query, offsets = statements("care")["first_sizes"], end - start
    if offsets <= _EXACT_OFFSETS:
        records, size = fetch(connection, query, (base | start, base | end, _EXACT_OFFSETS))[0]
        return records, size
    places = [start + offsets * number // _SAMPLES for number in range(_SAMPLES)]
    seen = [fetch(connection, query, (base | at, base | at + _SAMPLE_OFFSETS, _SAMPLE_OFFSETS))[0] for at in places]
    scale = offsets / (_SAMPLES * _SAMPLE_OFFSETS)
    return round(sum(each[0] for each in seen) * scale), round(sum(each[1] for each in seen) * scale)


def table_sizes(connection: apsw.Connection) -> list[TableSize]:
    """Each table's pages; reads the head of every page."""
    rows = fetch(connection, statements("care")["table_sizes"])
    return [TableSize(name=name, bytes=size, unused=unused) for name, size, unused in rows]


def state_sizes(connection: apsw.Connection) -> list[StateSize]:
    """What subscriptions remember; reads all of it."""
    rows = fetch(connection, statements("care")["state_sizes"])
    return [StateSize(subscription=a, namespace=b, entries=c, bytes=d) for a, b, c, d in rows]


async def processes(connection: apsw.Connection, meeting: Path, clock: Clock) -> list[Process]:
    """Who has the log open, and members whose process is dead. Waits for hearts to beat, a few seconds at most."""
    members: dict[str, set[str]] = {}
    for subscription, member, *_ in fetch(connection, statements("care")["members"]):
        members.setdefault(member.partition("/")[0], set()).add(subscription)
    first = living_processes(meeting)
    silent, end = first.keys() & members.keys(), clock.monotonic() + _BEAT_SECONDS
    while silent and clock.monotonic() < end:
        await clock.sleep(0.1)
        now = living_processes(meeting)
        silent = {name for name in silent if now.get(name) == first[name]}
    return [
        Process(
            process=int(name.partition("-")[0]),
            status="dead" if name not in first else "hung" if name in silent else "alive",
            subscriptions=sorted(members.get(name, ())),
        )
        for name in sorted(first.keys() | members.keys())
    ]


async def stuck(path: Path, clock: Clock) -> tuple[list[Reader], int | None]:
    """Programs that keep one read transaction open, and the process that keeps a write transaction open."""
    before = await _look(path)
    if before is None:
        return [], None
    await clock.sleep(_LOOK_SECONDS)
    after = await _look(path)
    if after is None:
        return [], None
    found = [
        Reader(process=process, command=_command(process), pages_behind=after.frames - mark)
        for slot, mark, process in after.readers
        if (slot, mark, process) in before.readers and _holds_back(slot, mark, after)
    ]
    return found, after.writer if after.writer == before.writer else None


def _holds_back(slot: int, mark: int, locks: Locks) -> bool:
    """Slot 0 reads the file alone, so that nothing may be taken over into it; the others a part of the WAL."""
    return locks.backfilled < locks.frames if slot == 0 else mark < locks.frames


async def _look(path: Path) -> Locks | None:
    """What another process sees of the locks; None where there is nothing to see."""
    if sys.platform != "linux":
        return None
    arguments: Sequence[str] = (sys.executable, "-I", str(readers.__file__), f"{path}-shm")
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    return msgspec.convert(json.loads(output), Locks) if process.returncode == 0 else None


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _size(path: Path, suffix: str) -> int:
    beside = Path(f"{path}{suffix}")
    return beside.stat().st_size if beside.exists() else 0
