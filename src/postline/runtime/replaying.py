"""A log as a replay sees it: a stretch of one topic, of some keys, at a rate, and nothing that leaves the shadow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from postline.clock import Clock
from postline.log.port import (
    Append,
    Assignment,
    CommitUnit,
    Fetched,
    GroupSpec,
    Log,
    Membership,
    PartitionCommit,
    PartitionOwner,
)
from postline.runtime.entries import REPLAY, REPLAY_KEY
from postline.runtime.plan import CONTROL_SUFFIX, DEAD_LETTER_SUFFIX

__all__ = ["ReplayLog", "Stretch"]

_TICKS_PER_SECOND = 10


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What a replay reads, and what may leave it."""

    #: The shadow subscription.
    name: str
    #: Up to records of this time (wall-clock milliseconds); None for what is there as the shadow is made.
    until_ms: int | None = None
    #: Of these keys alone; None for all records.
    keys: Collection[bytes] | None = None
    #: Records a second.
    rate: float | None = None
    #: Whether what handlers publish is published.
    publishes: bool = False
    #: What it was asked to replay, in words; what goes on with it has to say the same. "" says nothing.
    asked: str = ""

    def is_own(self, topic: str) -> bool:
        """Whether a topic is the shadow's own."""
        return topic in (self.name + DEAD_LETTER_SUFFIX, self.name + CONTROL_SUFFIX)


class ReplayLog:
    """A log for one shadow: all of `Log`, but for what a replay must not do. As thread-safe as the log itself.

    A partition ends at the stretch's end: records behind it are never fetched, so that the position stays there.
    Records of other keys are passed as offsets without a record. What is appended to other topics than the shadow's
    own is counted and dropped, unless the stretch `publishes`; dropped records have the offset -1.
    """

    def __init__(self, log: Log, clock: Clock, stretch: Stretch) -> None:
        self._log, self._clock, self.stretch = log, clock, stretch
        #: By partition, where the replay ends; known once something is fetched.
        self.ends: dict[int, int] = {}
        #: By topic, how many records were not published.
        self.dropped = Counter[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append(self, records: Sequence[Append]) -> list[int]:
        """As `Log.append`, of what may leave."""
        kept = self.kept(records)
        offsets = iter(await self._log.append(kept) if kept else [])
        self.note_dropped(records, kept)
        there = set(map(id, kept))
        return [next(offsets) if id(each) in there else -1 for each in records]

    async def join(self, spec: GroupSpec, owner: PartitionOwner) -> Membership:
        """As `Log.join`."""
        return _ReplayMembership(await self._log.join(spec, owner), self, spec.topic, self._clock)

    async def find_ends(self, topic: str) -> None:
        """Find out where the replay ends; the shadow has joined."""
        until_ms = self.stretch.until_ms
        if until_ms is None:
            infos = await self._log.subscriptions()
            # One more, for what was stored in the same millisecond before it.
            until_ms = next(each.created_ms for each in infos if each.name == self.stretch.name) + 1
        bounds = await self._log.bounds(topic)
        self.ends = {number: await self._log.offset_at(topic, number, until_ms) for number in range(len(bounds))}

    def kept(self, records: Sequence[Append]) -> list[Append]:
        """Those that may leave."""
        return [each for each in records if self.stretch.publishes or self.stretch.is_own(each.topic)]

    def note_dropped(self, records: Sequence[Append], kept: Sequence[Append]) -> None:
        """Count what did not leave."""
        if len(kept) < len(records):
            self.dropped.update([each.topic for each in records])
            self.dropped.subtract([each.topic for each in kept])


class _ReplayMembership:
    """A shadow's place in its group."""

    def __init__(self, membership: Membership, log: ReplayLog, topic: str, clock: Clock) -> None:
        self._membership, self._log, self._topic, self._clock = membership, log, topic, clock
        self._next_at = clock.monotonic()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._membership, name)

    async def fetch(self, max_records: int, max_bytes: int, wait_seconds: float) -> list[Fetched]:
        """As `Membership.fetch`, of the stretch, at its rate."""
        if not self._log.ends:
            await self._log.find_ends(self._topic)
        rate = self._log.stretch.rate
        if rate is not None:
            await self._clock.sleep(max(0.0, self._next_at - self._clock.monotonic()))
            max_records = min(max_records, max(1, int(rate / _TICKS_PER_SECOND)))
        found = await self._membership.fetch(max_records, max_bytes, wait_seconds)
        for each in found:
            if each.topic == self._topic:
                self._cut(each)
        if rate is not None:
            number = sum(len(each.records) for each in found if each.topic == self._topic)
            self._next_at = max(self._next_at, self._clock.monotonic()) + number / rate
        return found

    def _cut(self, found: Fetched) -> None:
        end, keys = self._log.ends.get(found.assignment.partition, 0), self._log.stretch.keys
        if found.next_offset >= end:
            self._membership.pause(found.assignment)
            found.records = [record for record in found.records if record[0] < end]
            found.next_offset = max(end, found.assignment.position)
        if keys is not None:
            found.records = [record for record in found.records if record[2] in keys]

    async def commit(self, unit: CommitUnit) -> list[Assignment]:
        """As `Membership.commit`, with what may leave."""
        kept = [self._log.kept(each.appends) for each in unit]
        refused = await self._membership.commit([self._cleared(*each) for each in zip(unit, kept, strict=True)])
        self._note(unit, kept, refused)
        return refused

    def _cleared(self, commit: PartitionCommit, kept: list[Append]) -> PartitionCommit:
        asked = self._log.stretch.asked
        puts = [*commit.puts, (REPLAY, REPLAY_KEY, asked.encode())] if asked else commit.puts
        return msgspec.structs.replace(commit, appends=kept, puts=puts)

    def _note(self, unit: Sequence[PartitionCommit], kept: Sequence[list[Append]], refused: list[Assignment]) -> None:
        gone = {each.partition for each in refused}
        for each, some in zip(unit, kept, strict=True):
            if each.assignment.partition not in gone:
                self._log.note_dropped(each.appends, some)
