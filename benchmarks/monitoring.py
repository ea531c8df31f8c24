"""The reading model: a full answer with 1,000 topics, 100 subscriptions and a million held records."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import kafka_running
from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import Options, directory, open_log, run, settle
from postline.app import Environment
from postline.clock import SystemClock
from postline.log.port import Append, Assignment, GroupSpec, Log, Membership, PartitionCommit, StartAt, TopicSpec
from postline.message import Envelope
from postline.monitor import Monitor
from postline.runtime.entries import HELD, HeldEntry, encode_entry, offset_key
from postline.runtime.progress import Progress, Standing

__all__ = ["kafka_monitoring", "monitoring"]

_TOPICS, _SUBSCRIPTIONS, _HELD = 1_000, 100, 1_000_000
_ANSWERS = 30
#: A broker that was just started compiles what it is asked for while it is asked.
_WARM = 200
#: Held records of one commit; and records that are not read yet, of one partition.
_STEP, _UNREAD = 5_000, 3
_TARGET_MS = 50.0


def monitoring(options: Options) -> Result:
    """On a file, with 8 partitions of each topic; every partition has records to read, so that ages are looked up."""
    result = Result("monitoring", "topics, subscriptions, members, lag, held and dead letters in one answer")

    async def main() -> None:
        path = Path(place) / "log.db"
        async with open_log(path) as environment:
            made = _Made(environment.log, "", 8)
            await made.fill(options.some(_HELD))
            settle(path)
            await _measure(environment, made, result, _TARGET_MS)
            await made.leave()

    with directory() as place:
        run(main)
    return result


def kafka_monitoring(options: Options) -> Result:
    """On one broker, with one partition of each topic; members have left, so that one process can have them all."""
    result = Result("kafka-monitoring", "the same on a broker, one partition to a topic")

    async def main() -> None:
        async with kafka_running.open_log(kafka_running.fresh("monitor")) as environment:
            made = _Made(environment.log, kafka_running.fresh("m"), 1, stays=False)
            await made.fill(options.some(_HELD))
            await _measure(environment, made, result, _TARGET_MS, unmeasured=_WARM)

    run(main)
    return result


async def _measure(
    environment: Environment, made: _Made, result: Result, target_ms: float, *, unmeasured: int = 0
) -> None:
    """The first answer is measured before those `unmeasured` ones."""
    clock = SystemClock()
    monitor = Monitor(environment.log, clock)
    first_ms = await _timed(lambda: Monitor(environment.log, clock).everything())
    view = await monitor.everything()
    held = sum(each.held for each in view.subscriptions)
    if held != made.held:
        raise AssertionError(f"the answer tells {held} held records of {made.held}")
    for _ in range(unmeasured):
        await Monitor(environment.log, clock).everything()
    again = sorted([await _timed(monitor.everything) for _ in range(_ANSWERS)])
    moved = sorted([await _timed(lambda: Monitor(environment.log, clock).everything()) for _ in range(_ANSWERS)])
    one = sorted([await _timed(lambda: monitor.subscription(made.names[0])) for _ in range(_ANSWERS)])
    result.figures += [
        Figure("first answer of a process", first_ms, "ms"),
        Figure("full answer, p50", again[_ANSWERS // 2], "ms"),
        Figure("full answer, worst of 30", again[-1], "ms"),
        Figure("full answer, every position moved, p50", moved[_ANSWERS // 2], "ms"),
        Figure("one subscription, p50", one[_ANSWERS // 2], "ms"),
    ]
    result.ratios.append(Ratio("full answer", moved[_ANSWERS // 2], target_ms, at_least=False, unit="ms"))
    result.notes.append(
        f"{len(view.topics):,} topics, {len(view.subscriptions):,} subscriptions, "
        f"{sum(len(each.partitions) for each in view.subscriptions):,} partitions of them, {held:,} held records"
    )


async def _timed(ask: Callable[[], Awaitable[Any]]) -> float:
    began = time.perf_counter()
    await ask()
    return (time.perf_counter() - began) * 1000


class _Owner:
    """Takes partitions, to write into them what a benchmark wants."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.assignments: dict[int, Assignment] = {}
        self.complete = asyncio.Event()

    async def assigned(self, assignments: Sequence[Assignment]) -> None:
        self.assignments |= {each.partition: each for each in assignments}
        if len(self.assignments) == self._count:
            self.complete.set()

    async def revoked(self, assignments: Sequence[Assignment]) -> None: ...

    def lost(self, assignments: Sequence[Assignment]) -> None: ...


class _Made:
    """A log with many topics, and subscriptions that hold many records."""

    def __init__(self, log: Log, prefix: str, partitions: int, *, stays: bool = True) -> None:
        self._log, self._prefix, self._partitions, self._stays = log, prefix, partitions, stays
        self.names: list[str] = []
        self.held = 0
        self._memberships: list[Membership] = []

    async def fill(self, held: int) -> None:
        """Make all of it."""
        names = [f"{self._prefix}t{number}" for number in range(_TOPICS)]
        specs = [TopicSpec(name=name, partitions=self._partitions, owner="me") for name in names]
        for first in range(0, _TOPICS, 50):
            await asyncio.gather(*map(self._log.create_topic, specs[first : first + 50]))
        each = held // (_SUBSCRIPTIONS * self._partitions)
        for number in range(_SUBSCRIPTIONS):
            await self._subscription(f"{self._prefix}s{number}", specs[number].name, each)

    async def _subscription(self, name: str, topic: str, held: int) -> None:
        owner = _Owner(self._partitions)
        appends = [
            Append(topic, partition, b"k", b"{}", Envelope(id=str(number), source="me", type="T"))
            for partition in range(self._partitions)
            for number in range(_UNREAD)
        ]
        await self._log.append(appends)
        spec = GroupSpec(subscription=name, topic=topic, service="me", start=StartAt("earliest"))
        membership = await self._log.join(spec, owner)
        fetching = asyncio.ensure_future(membership.fetch(1, 1, 60.0))
        await owner.complete.wait()
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)
        for assignment in owner.assignments.values():
            for first in range(0, held, _STEP):
                offsets = range(first, min(first + _STEP, held))
                await membership.commit([_commit(assignment, offsets, last=offsets.stop == held)])
        self.held += held * self._partitions
        self.names.append(name)
        if self._stays:
            self._memberships.append(membership)
        else:
            await membership.leave()

    async def leave(self) -> None:
        """End the members."""
        for membership in self._memberships:
            await membership.leave()


def _commit(assignment: Assignment, offsets: range, *, last: bool) -> PartitionCommit:
    """Records held ahead of the position, which stands at the beginning."""
    puts = [
        (HELD, offset_key(offset), encode_entry(HeldEntry(b"key-%d" % offset, 1, 1_000 + offset, error="E: no")))
        for offset in offsets
    ]
    standing = Standing(retrying=offsets.stop, next_attempt_ms=1_000)
    progress = Progress(standing=standing if last else None)
    return PartitionCommit(assignment, assignment.position, progress.encode(), puts=puts)
