"""A process that does as it is told: takes part in a group, appends, forks. Speaks JSON lines.

`python -m tests.integration.sqlite_groups.worker FILE ROLE [OPTIONS AS JSON]`
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from postline.clock import SystemClock
from postline.log.port import Append, Assignment, GroupSpec, Membership, PartitionCommit, StartAt
from postline.log.sqlite import doorbell
from postline.log.sqlite.log import SqliteLog
from postline.log.sqlite.storage import Settings
from postline.message import Envelope


def say(event: str, **details: Any) -> None:
    """One line to the test."""
    sys.stdout.write(json.dumps({"event": event, **details}) + "\n")
    sys.stdout.flush()


class Reporter:
    """A partition owner that tells the test what it is told."""

    def __init__(self) -> None:
        self.ever: dict[int, Assignment] = {}

    async def assigned(self, assignments: Sequence[Assignment]) -> None:
        """Report them."""
        self.ever.update({each.partition: each for each in assignments})
        say("assigned", assignments=[[each.partition, each.epoch] for each in assignments])

    async def revoked(self, assignments: Sequence[Assignment]) -> None:
        """Report them."""
        say("revoked", assignments=[[each.partition, each.epoch] for each in assignments])

    def lost(self, assignments: Sequence[Assignment]) -> None:
        """Report them."""
        say("lost", assignments=[[each.partition, each.epoch] for each in assignments])


async def member(log: SqliteLog, orders: asyncio.Queue[str]) -> None:
    """Take part in the group; commit what was fetched, or what was once owned when told to."""
    reporter = Reporter()
    spec = GroupSpec(subscription="billing", topic="orders", service="billing", start=StartAt("earliest"))
    membership = await log.join(spec, reporter)
    say("joined")
    reading = asyncio.ensure_future(read(membership))
    while (order := await orders.get()) != "leave":
        if order == "commit":
            owned = list(reporter.ever.values())
            refused = await membership.commit([PartitionCommit(each, 99, b"late") for each in owned])
            say("committed", refused=[[each.partition, each.epoch] for each in refused])
        elif order == "fork":
            say("forked", pid=forked())
    reading.cancel()
    await membership.leave()
    say("left")


async def read(membership: Membership) -> None:
    """Fetch and commit positions."""
    while True:
        for fetched in await membership.fetch(100, 1 << 20, 600):
            say("records", values=[(record[4] or b"").decode() for record in fetched.records])
            await membership.commit([PartitionCommit(fetched.assignment, fetched.next_offset, b"")])


def forked() -> int:
    """A child that does nothing but live, holding whatever it was left with."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    return pid


async def writer(log: SqliteLog, partition: int) -> None:
    """Append to one partition, one record a commit, until the process is ended."""
    record = Append("orders", partition, None, b"x", Envelope(id="1", source="test", type="t"))
    while True:
        await log.append([record])


async def sitter(log: SqliteLog) -> None:
    """Begin a transaction and never end it."""

    def sit(connection: object) -> None:
        del connection
        say("inside")
        threading.Event().wait()

    await log.storage.writer.submit(sit)


async def read_orders(orders: asyncio.Queue[str]) -> None:
    """Pass the test's lines on."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        orders.put_nowait(line.decode().strip())
    orders.put_nowait("leave")


def no_socket(bell: doorbell.Doorbell) -> None:
    """What a sandbox without Unix sockets says."""
    del bell
    raise OSError("no sockets here")


async def main() -> None:
    """Play the role."""
    path, role, options = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    if "safety_seconds" in options:
        doorbell.SAFETY_SECONDS = options["safety_seconds"]
    if options.get("sockets") is False:
        doorbell.Doorbell._bind = no_socket  # type: ignore[assignment, method-assign]
    settings = Settings(lease_seconds=options.get("lease_seconds", 10.0), reserve_bytes=0)
    log = SqliteLog(str(path), clock=SystemClock(), settings=settings)
    await log.start()
    orders: asyncio.Queue[str] = asyncio.Queue()
    listening = asyncio.ensure_future(read_orders(orders))
    if role == "writer":
        await writer(log, options["partition"])
    if role == "sitter":
        await sitter(log)
    await member(log, orders)
    listening.cancel()
    await log.close()


if __name__ == "__main__":
    asyncio.run(main())
