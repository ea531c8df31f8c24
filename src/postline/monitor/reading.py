"""`Monitor`: reads subscriptions, lag, held records, dead letters and the audit out of a log."""

from __future__ import annotations

from collections import Counter, defaultdict

import msgspec

from postline.clock import Clock
from postline.errors import UnknownSubscription, UnknownTopic
from postline.log.port import Bounds, Log, PartitionInfo, Record, SubscriptionInfo, Survey, TopicSpec
from postline.monitor.contents import Contents
from postline.monitor.deadletters import DeadLetters, Selection
from postline.monitor.entries import entries_of
from postline.monitor.held import held_keys, held_records
from postline.monitor.history import history
from postline.monitor.letter_views import DeadLetterDetail, DeadLetterView
from postline.monitor.subscriptions import Subscriptions
from postline.monitor.views import (
    AuditView,
    EverythingView,
    HeldKeysView,
    HeldView,
    HistoryView,
    PartitionAudit,
    RecordId,
    RecordView,
    SubscriptionView,
    TopicView,
    key_shown,
    record_view,
)
from postline.registry import SCHEMAS_TOPIC
from postline.runtime.entries import HELD
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
        self._subscriptions = Subscriptions(log, clock)
        #: Dead letters by more than their key, in groups, and for export.
        self.letters = DeadLetters(log, self._contents, self)

    # -- topics -------------------------------------------------------------------------------

    async def topics(self) -> list[TopicView]:
        """All topics, by name."""
        return _topic_views(await self._log.survey())

    async def topic(self, name: str) -> TopicView:
        """One topic. Raises UnknownTopic."""
        for view in await self.topics():
            if view.name == name:
                return view
        raise UnknownTopic(
            f"The log {self._log.address} has no topic {name!r}.",
            remedy="`postline topics` lists them; a topic is made when the service that owns it starts.",
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
        """All subscriptions, by name: quick enough to ask every second, whatever they hold."""
        return await self._subscriptions.views(await self._log.survey(), all_of_them=True)

    async def subscription(self, name: str) -> SubscriptionView:
        """One subscription. Raises UnknownSubscription; UnknownTopic if what it reads is gone."""
        survey = await self._log.survey([name])
        if not survey.groups:
            raise self._unknown(name)
        topic = survey.groups[0].info.topic
        if topic not in survey.bounds:
            await self._log.bounds(topic)  # which says what is wrong
        (view,) = await self._subscriptions.views(survey, all_of_them=False)
        return view

    async def history(self, name: str, *, span_ms: int, points: int = 24) -> HistoryView:
        """How it went in the span up to now, two weeks at most, and how fast in the last minutes.

        Raises UnknownSubscription, UnknownTopic, and UsageError for a span or a number of points that is not kept.
        """
        survey = await self._log.survey([name])
        if not survey.groups:
            raise self._unknown(name)
        if survey.groups[0].info.topic not in survey.bounds:
            await self._log.bounds(survey.groups[0].info.topic)  # which says what is wrong
        return await history(self._log, self._clock, survey, span_ms=span_ms, points=points)

    async def everything(self) -> EverythingView:
        """All topics and all subscriptions, of one survey of the log."""
        survey = await self._log.survey()
        return EverythingView(
            at_ms=self._clock.now_ms(),
            topics=_topic_views(survey),
            subscriptions=await self._subscriptions.views(survey, all_of_them=True),
        )

    async def info(self, name: str) -> SubscriptionInfo:
        """The subscription as the log knows it. Raises UnknownSubscription."""
        for info in await self._log.subscriptions():
            if info.name == name:
                return info
        raise self._unknown(name)

    def _unknown(self, name: str) -> UnknownSubscription:
        return UnknownSubscription(
            f"The log {self._log.address} has no subscription {name!r}.", remedy="`postline subscriptions` lists them."
        )

    # -- held records and dead letters --------------------------------------------------------

    async def held(self, name: str, limit: int | None = None) -> list[HeldView]:
        """The first `limit` records that wait, or all, by partition and offset. Raises UnknownSubscription."""
        hidden = await self.hides_keys((await self.info(name)).topic)
        return await held_records(self._log, name, lambda key: key_shown(key, hidden), limit)

    async def held_keys(self, name: str, limit: int = 100) -> HeldKeysView:
        """The first keys that wait, with what each waits for, and until when. Raises UnknownSubscription."""
        hidden = await self.hides_keys((await self.info(name)).topic)
        return await held_keys(self._log, name, lambda key: key_shown(key, hidden), limit)

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
                held[number] = [offset async for offset, _ in entries_of(self._log, name, number, HELD)]
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


def _topic_views(survey: Survey) -> list[TopicView]:
    names = [group.info.name for group in survey.groups]
    own = {name + suffix for name in names for suffix in (DEAD_LETTER_SUFFIX, CONTROL_SUFFIX)}
    readers = defaultdict[str, list[str]](list)
    for group in survey.groups:
        readers[group.info.topic].append(group.info.name)
    return [
        _topic_view(spec, survey.bounds[spec.name], readers.get(spec.name, []), internal=spec.name in own)
        for spec in survey.topics
        if spec.name in survey.bounds
    ]


def _topic_view(spec: TopicSpec, bounds: list[Bounds], readers: list[str], *, internal: bool) -> TopicView:
    return TopicView(
        name=spec.name,
        owner=spec.owner,
        key=spec.key,
        partitions=spec.partitions,
        records=sum([each.end - each.start for each in bounds]),
        beyond=sum([each.end - each.start for each in bounds[spec.partitions :]]),
        retention_ms=spec.retention_ms,
        retention_bytes=spec.retention_bytes,
        compacted=spec.compacted,
        internal=internal or spec.name.endswith(_INTERNAL),
        subscriptions=readers,
        bounds=bounds,
    )
