"""`Monitor`: reads subscriptions, lag, held records, dead letters and the audit out of a log."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence

import msgspec

from postline.clock import Clock
from postline.contracts import Bound
from postline.errors import UnknownSubscription, UnknownTopic
from postline.log.port import Bounds, Log, PartitionInfo, Record, SubscriptionInfo, TopicSpec
from postline.monitor.contents import Contents
from postline.monitor.deadletters import DeadLetters, Selection
from postline.monitor.forecasts import Forecasts
from postline.monitor.views import (
    AuditView,
    DeadLetterDetail,
    DeadLetterView,
    HeldView,
    MemberView,
    PartitionAudit,
    PartitionView,
    PriorityView,
    RecordId,
    RecordView,
    SubscriptionView,
    TopicView,
    key_shown,
    record_view,
)
from postline.registry import SCHEMAS_TOPIC
from postline.runtime.control import PAUSED
from postline.runtime.entries import (
    CONTROL,
    DEAD,
    HELD,
    PRIORITY,
    DeadEntry,
    HeldEntry,
    PriorityEntry,
    decode_entry,
    offset_of,
)
from postline.runtime.lagging import lag_in, oldest_ms
from postline.runtime.outcomes import Outcome
from postline.runtime.plan import CONTROL_SUFFIX, DEAD_LETTER_SUFFIX
from postline.runtime.progress import Progress

__all__ = ["Monitor"]

#: Outcomes in the order in which the audit adds them up; held is none yet, but counted with them.
COUNTED = tuple(outcome for outcome in Outcome if outcome is not Outcome.PENDING)

#: How names of topics end that are no service's contract.
_INTERNAL = (DEAD_LETTER_SUFFIX, CONTROL_SUFFIX, SCHEMAS_TOPIC)
_STABLE_READS_MAX = 20


class Monitor:
    """The read model; keeps nothing between calls but how contents are shown, and the last looks, for rates."""

    def __init__(self, log: Log, clock: Clock, contents: Contents | None = None) -> None:
        self._log = log
        self._clock = clock
        self._contents = contents or Contents(None)
        self._forecasts = Forecasts(log, clock)
        #: Dead letters by more than their key, in groups, and for export.
        self.letters = DeadLetters(log, self._contents, self)

    # -- topics -------------------------------------------------------------------------------

    async def topics(self) -> list[TopicView]:
        """All topics, by name."""
        subscriptions = await self._log.subscriptions()
        return [await self._topic_view(spec, subscriptions) for spec in await self._log.topics()]

    async def topic(self, name: str) -> TopicView:
        """One topic. Raises UnknownTopic."""
        for spec in await self._log.topics():
            if spec.name == name:
                return await self._topic_view(spec, await self._log.subscriptions())
        raise UnknownTopic(
            f"The log {self._log.address} has no topic {name!r}.",
            remedy="`postline topics` lists them; a topic is made when the service that owns it starts.",
        )

    async def _topic_view(self, spec: TopicSpec, subscriptions: Sequence[SubscriptionInfo]) -> TopicView:
        bounds = await self._log.bounds(spec.name)
        own = {info.name + suffix for info in subscriptions for suffix in (DEAD_LETTER_SUFFIX, CONTROL_SUFFIX)}
        return TopicView(
            name=spec.name,
            owner=spec.owner,
            key=spec.key,
            partitions=spec.partitions,
            records=sum(each.end - each.start for each in bounds),
            beyond=sum(each.end - each.start for each in bounds[spec.partitions :]),
            retention_ms=spec.retention_ms,
            retention_bytes=spec.retention_bytes,
            compacted=spec.compacted,
            internal=spec.name in own or spec.name.endswith(_INTERNAL),
            subscriptions=[info.name for info in subscriptions if info.topic == spec.name],
            bounds=bounds,
        )

    # -- records ------------------------------------------------------------------------------

    async def read(
        self, topic: str, offsets: dict[int, int], limit: int = 1000, *, key: str | None = None
    ) -> list[RecordView]:
        """The next records of these partitions, by their timestamps; moves `offsets` past what it gives.

        Order is exact within a partition and by time between them, among what was read at once. A sensitive key is
        masked, but for `key`, which who asks knows.
        """
        hidden = await self.hides_keys(topic)
        found: list[tuple[int, int, int, RecordView]] = []
        for partition, offset in offsets.items():
            records = await self._log.read(topic, partition, offset, limit=limit)
            await self._contents.learn(topic, records)
            for record in records:
                view = self.record_view(topic, partition, record, hidden, key)
                found.append((record[1], partition, record[0], view))
        found.sort(key=lambda each: each[:3])
        for _, partition, offset, _ in found[:limit]:
            offsets[partition] = offset + 1
        return [view for *_, view in found[:limit]]

    def record_view(
        self, topic: str, partition: int, record: Record, hidden: bool, known: str | None = None
    ) -> RecordView:
        """A record as it is shown, its schema learnt before; `hidden` keys are masked, but for the `known` one."""
        envelope, contents = self._log.envelope(record), self._contents
        content = contents.shown(topic, record, envelope.content_type)
        view = record_view(topic, partition, record, envelope, content, contents.fingerprint(record))
        return msgspec.structs.replace(view, key=key_shown(record[2], hidden, known))

    async def hides_keys(self, topic: str) -> bool:
        """Whether the keys of a topic are shown as masks; those of dead letters as their topic's are."""
        if not self._contents.masks:
            return False
        if (of := topic.removesuffix(DEAD_LETTER_SUFFIX)) != topic:
            topic = next((each.topic for each in await self._log.subscriptions() if each.name == of), topic)
        spec = next((each for each in await self._log.topics() if each.name == topic), None)
        return spec is not None and await self._contents.hides_keys(topic, spec.key)

    # -- subscriptions ------------------------------------------------------------------------

    async def subscriptions(self) -> list[SubscriptionView]:
        """All subscriptions, by name."""
        bounds = await self._forecasts.bounds()
        return [await self._subscription_view(info, bounds) for info in await self._log.subscriptions()]

    async def subscription(self, name: str) -> SubscriptionView:
        """One subscription. Raises UnknownSubscription."""
        return await self._subscription_view(await self.info(name), await self._forecasts.bounds())

    async def info(self, name: str) -> SubscriptionInfo:
        """The subscription as the log knows it. Raises UnknownSubscription."""
        for info in await self._log.subscriptions():
            if info.name == name:
                return info
        raise UnknownSubscription(
            f"The log {self._log.address} has no subscription {name!r}.", remedy="`postline subscriptions` lists them."
        )

    async def _subscription_view(self, info: SubscriptionInfo, declared: dict[str, Bound]) -> SubscriptionView:
        bounds = await self._log.bounds(info.topic)
        stored = await self._log.partitions(info.name)
        partitions = [await self._partition_view(info, each, bounds[each.partition]) for each in stored]
        members = [
            MemberView(
                member=member.member,
                instance=member.instance,
                joined_ms=member.joined_ms,
                partitions=[each.partition for each in partitions if each.owner == member.member],
            )
            for member in await self._log.members(info.name)
        ]
        due = [each.next_attempt_ms for each in partitions if each.next_attempt_ms is not None]
        view = SubscriptionView(
            name=info.name,
            topic=info.topic,
            service=info.service,
            created_ms=info.created_ms,
            status=_status(partitions, members),
            lag_records=sum(each.lag_records for each in partitions),
            lag_seconds=max((each.lag_seconds for each in partitions), default=0.0),
            overtaken=sum(each.overtaken for each in partitions),
            held=sum(each.held for each in partitions),
            retrying=sum(each.retrying for each in partitions),
            blocked=sum(each.blocked for each in partitions),
            unserved=sum(each.unserved for each in partitions),
            dead_letters=sum(each.dead_letters for each in partitions),
            next_attempt_ms=min(due, default=None),
            topic_partitions=len(bounds),
            beyond=sum(each.end - each.start for each in bounds[len(stored) :]),
            members=members,
            partitions=partitions,
            priority=await self._priority(info.name, stored),
            dead_letters_alarm=await self.letters.alarm(info.name, stored, self._clock.now_ms()),
        )
        return self._forecasts.completed(view, declared)

    async def _priority(self, name: str, stored: Sequence[PartitionInfo]) -> PriorityView | None:
        for each in stored[:1]:
            for _, data in await self._log.peek_state(name, each.partition, PRIORITY):
                said = decode_entry(data, PriorityEntry)
                return PriorityView(declared_as=said.declared_as, name=said.name, rank=said.rank, share=said.share)
        return None

    async def _partition_view(self, info: SubscriptionInfo, stored: PartitionInfo, bounds: Bounds) -> PartitionView:
        number, lag = stored.partition, lag_in(stored, bounds)
        held = await self._held(info.name, number, hidden=True)  # of which only counts are told
        statuses = Counter(view.status for view in held)
        due = [view.next_attempt_ms for view in held if view.next_attempt_ms is not None]
        control = dict(await self._log.peek_state(info.name, number, CONTROL))
        oldest = await oldest_ms(self._log, info.topic, number, lag)
        return PartitionView(
            partition=number,
            position=stored.position,
            end=bounds.end,
            lag_records=lag.records,
            lag_seconds=0.0 if oldest is None else max(0, self._clock.now_ms() - oldest) / 1000,
            overtaken=lag.first - stored.position,
            ahead=lag.ahead,
            retrying=statuses["retrying"] + statuses["ready"],
            blocked=statuses["blocked"],
            unserved=statuses["unserved"],
            dead_letters=sum([1 async for _ in self._entries(info.name, number, DEAD)]),
            next_attempt_ms=min(due, default=None),
            paused=PAUSED in control,
            owner=stored.owner,
            epoch=stored.epoch,
        )

    async def _entries(self, name: str, partition: int, namespace: str) -> AsyncIterator[tuple[int, bytes]]:
        after = b""
        while page := await self._log.peek_state(name, partition, namespace, after=after):
            for key, data in page:
                yield offset_of(key), data
            after = page[-1][0]

    # -- held records and dead letters --------------------------------------------------------

    async def held(self, name: str) -> list[HeldView]:
        """The records that wait, by partition and offset. Raises UnknownSubscription."""
        hidden = await self.hides_keys((await self.info(name)).topic)
        partitions = await self._log.partitions(name)
        return [view for info in partitions for view in await self._held(name, info.partition, hidden)]

    async def _held(self, name: str, partition: int, hidden: bool) -> list[HeldView]:
        holding = {dead.lane_key for _, dead in await self._dead(name, partition) if dead.holds}
        views = []
        async for offset, data in self._entries(name, partition, HELD):
            entry = decode_entry(data, HeldEntry)
            views.append(
                HeldView(
                    id=str(RecordId(partition, offset)),
                    key=key_shown(entry.lane_key, hidden),
                    status=_held_status(entry, entry.lane_key in holding),
                    attempts=entry.attempts,
                    next_attempt_ms=entry.due_ms or None,
                    error=entry.error,
                )
            )
            if entry.lane_key is not None:
                holding.add(entry.lane_key)
        return views

    async def _dead(self, name: str, partition: int) -> list[tuple[int, DeadEntry]]:
        return [(offset, decode_entry(data, DeadEntry)) async for offset, data in self._entries(name, partition, DEAD)]

    async def dead_letters(
        self, name: str, chosen: Selection | None = None, *, key: str | None = None
    ) -> list[DeadLetterView]:
        """What the subscription gave up, by partition and offset; of one key if given. Raises UnknownSubscription."""
        return await self.letters.views(await self.info(name), chosen or Selection(key=key))

    async def dead_letter(self, name: str, record: RecordId) -> DeadLetterDetail | None:
        """One dead letter with all that is known of it; None if there is no such one. Raises UnknownSubscription."""
        return await self.letters.detail(await self.info(name), record)

    # -- the audit ----------------------------------------------------------------------------

    async def audit(self, name: str) -> AuditView:
        """Whether every record below the positions has its outcome. Raises UnknownSubscription."""
        info = await self.info(name)
        partitions = [_partition_audit(stored, held) for stored, held in await self._with_held_offsets(name)]
        sums = Counter[str]({outcome.label: 0 for outcome in COUNTED})
        for each in partitions:
            sums.update(each.outcomes)
        return AuditView(
            subscription=name,
            topic=info.topic,
            handled=sum(each.position - each.start for each in partitions),
            outcomes=dict(sums),
            gaps=sum(each.gaps for each in partitions),
            missing=sum(each.missing for each in partitions),
            balanced=all(each.balanced for each in partitions),
            partitions=partitions,
        )

    async def _with_held_offsets(self, name: str) -> list[tuple[PartitionInfo, list[int] | None]]:
        """Each partition with its held offsets of one moment: no commit lies between the two reads.

        The offsets are None for a partition that was committed each time while it was read.
        """
        before = {each.partition: each for each in await self._log.partitions(name)}
        moving, held = set(before), dict[int, list[int]]()
        for _ in range(_STABLE_READS_MAX):
            for number in moving:
                held[number] = [offset async for offset, _ in self._entries(name, number, HELD)]
            after = {each.partition: each for each in await self._log.partitions(name)}
            moving = {number for number in moving if not _same(before[number], after[number])}
            before.update({number: after[number] for number in moving})
            if not moving:
                break
        return [(before[number], None if number in moving else held[number]) for number in sorted(before)]


def _same(one: PartitionInfo, other: PartitionInfo) -> bool:
    return (one.position, one.progress) == (other.position, other.progress)


def _partition_audit(stored: PartitionInfo, held_offsets: list[int] | None) -> PartitionAudit:
    progress = Progress.decode(stored.progress, stored.position)
    counts = {outcome.label: progress.counts[outcome] for outcome in COUNTED}
    missing = progress.missing(stored.position)
    held = None if held_offsets is None else sum(offset < stored.position for offset in held_offsets)
    return PartitionAudit(
        partition=stored.partition,
        generation=progress.generation,
        start=progress.start,
        position=stored.position,
        outcomes=counts,
        gaps=progress.gaps,
        missing=missing,
        held_entries=held,
        discarded_by_resets=progress.discarded_by_resets,
        balanced=missing == 0 and held in (None, progress.held) and min(counts.values()) >= 0,
    )


def _held_status(entry: HeldEntry, behind: bool) -> str:
    if entry.due_ms:
        return "retrying"
    if entry.unserved:
        return "unserved"
    return "blocked" if behind else "ready"


def _status(partitions: Sequence[PartitionView], members: Sequence[MemberView]) -> str:
    paused = sum(each.paused for each in partitions)
    if paused:
        return "paused" if paused == len(partitions) else "partly paused"
    return "running" if members else "idle"
