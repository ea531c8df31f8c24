"""How the conformance suite reaches an engine: opening handles, ageing records, ending processes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from postline.clock import SystemClock
from postline.ids import IdSource
from postline.log.port import (
    Append,
    Assignment,
    Fetched,
    GroupSpec,
    Log,
    Membership,
    PartitionCommit,
    Record,
    StartAt,
    TopicSpec,
)
from postline.message import Envelope

__all__ = [
    "Engine",
    "JumpingClock",
    "Owner",
    "Unsupported",
    "appended",
    "fetch_all",
    "joined",
    "message",
    "settled",
    "spec",
    "topic",
    "turns",
    "until",
    "values",
]

#: Conditions that never come true fail a test after this long; nothing waits for it to pass.
_PATIENCE_SECONDS = 20.0


class Unsupported(Exception):
    """The harness can't do that with this engine; the test is skipped."""


class JumpingClock(SystemClock):
    """The machine's clock, with wall time that can be moved to age records."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now_ms(self) -> int:
        """Wall-clock milliseconds, moved."""
        return super().now_ms() + self.ahead_ms


class Engine(Protocol):
    """One log under test; each handle stands for another process's."""

    name: str
    clock: JumpingClock

    async def open(self) -> Log:
        """Another started handle to the same log, closed by the fixture; Unsupported if there can be only one."""

    async def kill(self, log: Log) -> None:
        """End the handle's process as SIGKILL would."""

    async def hang(self, log: Log) -> None:
        """Stop the handle's process from doing anything, its heartbeats included."""

    async def go_on(self, log: Log) -> None:
        """End what `hang` began."""

    async def maintain(self, log: Log) -> None:
        """Apply retention and compaction now, completely."""

    async def close(self) -> None:
        """Close all handles."""


class Owner:
    """A partition owner that notes what it is told."""

    def __init__(self) -> None:
        self.owned: dict[int, Assignment] = {}
        self.events: list[tuple[str, list[int]]] = []
        self.on_assigned: Callable[[Sequence[Assignment]], object] | None = None
        self.on_revoked: Callable[[Sequence[Assignment]], object] | None = None

    async def assigned(self, assignments: Sequence[Assignment]) -> None:
        """Note them; then do what the test asks."""
        self.events.append(("assigned", sorted(a.partition for a in assignments)))
        if self.on_assigned is not None:
            await self.on_assigned(assignments)  # type: ignore[misc]
        self.owned.update({a.partition: a for a in assignments})

    async def revoked(self, assignments: Sequence[Assignment]) -> None:
        """Do what the test asks, then let go."""
        self.events.append(("revoked", sorted(a.partition for a in assignments)))
        if self.on_revoked is not None:
            await self.on_revoked(assignments)  # type: ignore[misc]
        self._drop(assignments)

    def lost(self, assignments: Sequence[Assignment]) -> None:
        """Let go."""
        self.events.append(("lost", sorted(a.partition for a in assignments)))
        self._drop(assignments)

    def _drop(self, assignments: Sequence[Assignment]) -> None:
        for assignment in assignments:
            if self.owned.get(assignment.partition) == assignment:
                del self.owned[assignment.partition]


_IDS = IdSource(SystemClock().now_ms, random.Random(7))


def topic(name: str = "shop.orders", partitions: int = 1, **changes: object) -> TopicSpec:
    """A topic's declaration."""
    return TopicSpec(name=name, partitions=partitions, owner="shop", key="customer_id", **changes)  # type: ignore[arg-type]


def message(
    value: bytes | None = b"{}", *, key: bytes | None = b"k", topic: str = "shop.orders", partition: int = 0
) -> Append:
    """A record to append."""
    envelope = Envelope(id=_IDS.next_id(), source="shop", type="shop.OrderPlaced", time_ms=1_700_000_000_000)
    return Append(topic, partition, key, value, envelope)


def spec(subscription: str = "billing", *, start: str = "earliest", time_ms: int = 0, **changes: object) -> GroupSpec:
    """What a process says when it joins."""
    given = {"topic": "shop.orders", "service": "billing", "start": StartAt(start, time_ms), **changes}
    return GroupSpec(subscription=subscription, **given)  # type: ignore[arg-type]


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not condition():
            await SystemClock().sleep(0.002)


async def turns(count: int = 1) -> None:
    """Let the event loop go round so often, for what was started to get to where it waits."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        gone_round = loop.create_future()
        loop.call_soon(gone_round.set_result, None)
        await gone_round


async def appended(log: Log, *values: bytes, partition: int = 0, topic: str = "shop.orders") -> list[int]:
    """Append these values, one call; gives their offsets."""
    return await log.append([message(value, partition=partition, topic=topic) for value in values])


async def joined(log: Log, partitions: int = 1, **changes: object) -> tuple[Membership, Owner]:
    """Join and wait until that many partitions are owned."""
    owner = Owner()
    membership = await log.join(spec(**changes), owner)  # type: ignore[arg-type]
    await until(lambda: len(owner.owned) == partitions)
    return membership, owner


def settled(assignment: Assignment, position: int, progress: bytes = b"p") -> PartitionCommit:
    """A commit of a position alone."""
    return PartitionCommit(assignment, position, progress)


async def fetch_all(membership: Membership, count: int, *, max_records: int = 100) -> list[Fetched]:
    """Fetch until so many records came; gives what was fetched."""
    found: list[Fetched] = []
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while sum(len(fetched.records) for fetched in found) < count:
            found += await membership.fetch(max_records, 1 << 20, 0.5)
    return found


def values(records: Sequence[Record]) -> list[bytes | None]:
    """The records' values."""
    return [record[4] for record in records]


def fetched_values(found: Sequence[Fetched], topic: str = "shop.orders") -> list[bytes | None]:
    """The values fetched of one topic, in order."""
    return [record[4] for fetched in found if fetched.topic == topic for record in fetched.records]
