"""`Migration`: one log's way to another one, as often interrupted and gone on with as one likes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec

from postline.clock import Clock
from postline.errors import TopicMismatch, UnknownTopic, UsageError
from postline.log.needs import TopicSpec
from postline.log.port import Bounds
from postline.log.transfer import Mark, MovableLog, Phase, Verified, moved
from postline.migration.comparing import Place
from postline.migration.copying import PartitionCopy
from postline.migration.handover import SubscriptionReport, compare_subscriptions, hand_over

__all__ = ["Migration", "Progress", "Report", "TopicReport"]

#: After so many seconds of copying what was compared is written down.
_NOTED_SECONDS = 2.0
_NAMED_MAX = 5


class Progress(msgspec.Struct, frozen=True):
    """How far it is."""

    #: "copying", "freezing", "comparing", "handing over" or "settling".
    doing: str
    topic: str = ""
    #: Offsets of all topics that are copied, and that there are.
    copied: int = 0
    total: int = 0


class TopicReport(msgspec.Struct, frozen=True, kw_only=True):
    """A topic as it was compared: the same counts and digests on both sides."""

    name: str
    records: int
    #: Of each partition.
    digests: list[str]
    #: Records that the source has compacted away since they were copied.
    dropped: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one run came to."""

    #: Whether the target is the log now; else the source still is.
    moved: bool
    source: str
    target: str
    topics: list[TopicReport]
    subscriptions: list[SubscriptionReport]


class Migration:
    """Moves everything from one log to another one. Event loop only.

    `told` hears of progress now and then. All calls may be repeated after any failure, and go on where they were.
    """

    def __init__(
        self,
        source: MovableLog,
        target: MovableLog,
        clock: Clock,
        new_id: Callable[[], str],
        told: Callable[[Progress], None],
    ) -> None:
        self._source, self._target = source.transfer(), target.transfer()
        self._source_log = source
        self._clock, self._new_id, self._told = clock, new_id, told
        self._copies: dict[tuple[str, int], PartitionCopy] = {}
        self._specs: dict[str, TopicSpec] = {}
        self._mark: Mark
        self._noted_at = 0.0
        self._copied = self._total = 0

    async def copy(self) -> Report:
        """Copy what there is, while services go on with the source; gives what was compared.

        Raises UsageError, TopicMismatch, LogMoved where it can't be, and whatever the logs raise.
        """
        async with self._alone():
            if await self._begun() is Phase.FILLED:
                return await self._finish()
            await self._copy_topics()
            return self._report([])

    async def cut_over(self) -> Report:
        """Freeze the source, copy the rest, hand everything over; the target is the log when it returns.

        Raises UsageError as long as services are at work, and whatever `copy` raises; the source is the log then.
        """
        async with self._alone():
            if await self._begun() is Phase.FILLED:
                return await self._finish()
            await self._require_stopped()
            await self._copy_topics()
            await self._freeze()
            await self._copy_topics()
            await self._compare_compacted()
            subscriptions = await self._hand_over()
            await self._copy_topics()  # nothing, where freezing holds
            self._mark = msgspec.structs.replace(self._mark, phase=Phase.FILLED)
            await self._note()
            await self._finish()
            return msgspec.structs.replace(self._report(subscriptions), moved=True)

    async def abandon(self, *, force: bool) -> None:
        """Take everything back: the source is open again, the target empty of what was brought.

        Raises UsageError, unless forced, if the target has been handed everything: then it stays as it is, and both
        logs can be worked on, each for itself.
        """
        async with self._alone():
            ours, theirs = await self._source.mark(), await self._target.mark()
            done = theirs is not None and theirs.phase is Phase.FILLED and ours is not None and ours.id == theirs.id
            if done and not force:
                raise UsageError(
                    f"{self._target.address} has everything already, and may have been worked on.",
                    remedy="With --force the source is opened again, and the target stays as it is.",
                )
            if theirs is not None and theirs.phase is Phase.FILLING:
                self._require_same(theirs, self._target.address, self._source.address)
                # Whoever is interrupted here and then migrates after all has to compare everything again.
                await self._target.set_mark(msgspec.structs.replace(theirs, verified={}))
                names = [each.name for each in await self._source.subscriptions()]
                await self._target.discard([spec.name for spec in await self._source.topics()], names)
                await self._target.set_mark(None)
            if ours is not None and ours.phase in (Phase.MOVING, Phase.MOVED):
                self._require_same(ours, self._source.address, self._target.address)
                await self._source.thaw()

    async def reopen(self) -> None:
        """Open the source again, whatever the target has: for when that is gone for good."""
        async with self._source.lock():
            await self._source.thaw()

    # -- who may --------------------------------------------------------------------------------

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        if self._source.address == self._target.address:
            raise UsageError(
                f"{self._source.address} is both source and target.", remedy="Name another log as the second one."
            )
        async with self._source.lock(), self._target.lock():
            yield

    async def _begun(self) -> Phase:
        """Whether it is to be copied, or all is there; marks the target at the first time."""
        ours, theirs = await self._source.mark(), await self._target.mark()
        if ours is not None and ours.phase is Phase.FILLING:
            raise moved(ours, self._source.address)
        if ours is not None and ours.phase in (Phase.MOVING, Phase.MOVED):
            self._require_same(ours, self._source.address, self._target.address)
            if theirs is None or theirs.id != ours.id:
                raise UsageError(
                    f"{self._source.address} was frozen by a migration that {self._target.address} knows nothing of.",
                    remedy="`postline migrate … --abandon --force` opens it again.",
                )
        if theirs is not None and theirs.phase is Phase.FILLING:
            self._require_same(theirs, self._target.address, self._source.address)
            self._mark = theirs
        elif theirs is not None and theirs.phase is Phase.FILLED and ours is not None and theirs.id == ours.id:
            self._mark = theirs
        else:
            await self._require_empty(theirs)
            self._mark = Mark(
                phase=Phase.FILLING,
                id=self._new_id(),
                other=self._source.address,
                since_ms=self._clock.now_ms(),
            )
            await self._note()
        return self._mark.phase

    def _require_same(self, mark: Mark, address: str, other: str) -> None:
        if mark.other != other:
            raise UsageError(
                f"{address} is at one end of another migration: the other end is {mark.other}, not {other}.",
                remedy="End that one first, or take it back with --abandon.",
            )

    async def _require_empty(self, theirs: Mark | None) -> None:
        """Raise UsageError if the target was moved itself, TopicMismatch if it has what would be in the way."""
        if theirs is not None and theirs.phase in (Phase.MOVING, Phase.MOVED):
            raise UsageError(
                f"{self._target.address} is closed: what it had was moved to {theirs.other}.",
                remedy="Name an empty log as the target: a new file, or a cluster or namespace without these topics.",
            )
        there = {spec.name for spec in await self._target.topics()}
        names = {each.name for each in await self._target.subscriptions()}
        taken = sorted(names & {each.name for each in await self._source.subscriptions()})
        full = [
            spec.name
            for spec in await self._source.topics()
            if spec.name in there and any(each.end for each in await self._target.bounds(spec.name))
        ]
        for what, found in (("records in", full), ("subscriptions", taken)):
            if found:
                raise TopicMismatch(
                    f"{self._target.address} has {what} {_some(found)} already, which are not of this migration.",
                    remedy="Name an empty log, or remove them there if nobody needs them.",
                )

    async def _require_stopped(self) -> None:
        at_work = []
        for each in await self._source.subscriptions():
            if members := await self._source_log.members(each.name):
                at_work.append(f"{each.name} ({', '.join(sorted({member.instance for member in members}))})")
        if at_work:
            raise UsageError(
                f"Services are at work on {self._source.address}: {_some(at_work)}.",
                remedy="Stop them and run the same again. What they publish until then is copied, too.",
            )

    # -- topics ---------------------------------------------------------------------------------

    async def _copy_topics(self) -> None:
        specs = {spec.name: spec for spec in await self._source.topics()}
        if new := [spec for name, spec in specs.items() if name not in self._specs]:
            await self._target.prepare(new)
        self._specs = specs
        bounds = {name: await self._source.bounds(name) for name in specs}
        there: dict[str, list[Bounds]] = {}
        self._total = sum(each.end for every in bounds.values() for each in every)
        self._copied = 0
        for name, spec in specs.items():
            noted = self._mark.verified.get(name, [])
            for number in range(spec.partitions):
                place, end = (name, number), bounds[name][number].end
                copy = self._copies.get(place)
                if copy is None:
                    verified = noted[number] if number < len(noted) else None
                    copy = PartitionCopy(self._source, self._target, Place(name, number, spec.compacted), verified)
                    there[name] = there.get(name) or await self._target.bounds(name)
                    await copy.begin(bounds[name][number], there[name][number])
                    self._copies[place] = copy
                self._require_within(copy, end)
                self._copied += copy.copied
                await copy.copy(end, self._noted)
        await self._note()

    def _require_within(self, copy: PartitionCopy, end: int) -> None:
        if copy.copied > end:
            raise TopicMismatch(
                f"Topic {copy.place.topic!r} partition {copy.place.partition} ends at {end} in the source, and at"
                f" {copy.copied} in the target.",
                remedy="Something else wrote to the target: `--abandon` empties it; then begin again.",
            )

    async def _noted(self, offsets: int) -> None:
        """Tell of a stretch that was copied, and write down from time to time what was compared."""
        self._copied += offsets
        self._told(Progress("copying", copied=self._copied, total=self._total))
        if self._clock.monotonic() - self._noted_at > _NOTED_SECONDS:
            await self._note()

    async def _note(self) -> None:
        verified: dict[str, list[Verified]] = {}
        for (name, _), copy in sorted(self._copies.items()):
            verified.setdefault(name, []).append(copy.resumable)
        if self._copies:
            self._mark = msgspec.structs.replace(self._mark, verified=verified)
        await self._target.set_mark(self._mark)
        self._noted_at = self._clock.monotonic()

    async def _compare_compacted(self) -> None:
        """Once more where the source may have dropped what was equal when it was copied; and what retention took."""
        bounds = {name: await self._source.bounds(name) for name in self._specs}
        for (name, number), copy in self._copies.items():
            start = bounds[name][number].start
            await self._target.trim(name, number, start)
            if copy.place.compacted:
                self._told(Progress("comparing", name))
                copy.dropped = await copy.walk(start)

    # -- the rest -------------------------------------------------------------------------------

    async def _freeze(self) -> None:
        self._told(Progress("freezing"))
        frozen = msgspec.structs.replace(self._mark, phase=Phase.MOVING, other=self._target.address, verified={})
        await self._source.freeze(frozen)

    async def _hand_over(self) -> list[SubscriptionReport]:
        reports, subscriptions = [], await self._source.subscriptions()
        for each in subscriptions:
            self._told(Progress("handing over", each.name))
            spec = self._specs.get(each.topic)
            if spec is None:
                raise UnknownTopic(
                    f"Subscription {each.name!r} reads topic {each.topic!r}, which {self._source.address} has no more.",
                    remedy=f"`postline subscriptions remove {each.name}` there, after --abandon; then go on.",
                )
            reports.append(await hand_over(each, spec, self._source, self._source_log, self._target))
        await compare_subscriptions(subscriptions, self._target)
        return reports

    async def _finish(self) -> Report:
        """Everything is at the target and equal: give topics their limits, and say at the source where it is."""
        self._told(Progress("settling"))
        ours = await self._source.mark()
        if ours is None or ours.phase is not Phase.MOVED:
            for spec in await self._source.topics():
                await self._target.settle(spec)
            gone = msgspec.structs.replace(self._mark, phase=Phase.MOVED, other=self._target.address, verified={})
            await self._source.set_mark(gone)
        return msgspec.structs.replace(self._report([]), moved=True)

    def _report(self, subscriptions: Sequence[SubscriptionReport]) -> Report:
        topics: dict[str, list[PartitionCopy]] = {}
        for (name, _), copy in sorted(self._copies.items()):
            topics.setdefault(name, []).append(copy)
        return Report(
            moved=False,
            source=self._source.address,
            target=self._target.address,
            topics=[
                TopicReport(
                    name=name,
                    records=sum(copy.digest.records for copy in copies),
                    digests=[copy.digest.digest for copy in copies],
                    dropped=sum(copy.dropped for copy in copies),
                )
                for name, copies in topics.items()
            ],
            subscriptions=list(subscriptions),
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return ", ".join(names[:_NAMED_MAX]) + more
