"""`KafkaTransfer`: the cluster as a migration reads, fills, freezes and marks it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Generator, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from postline.errors import TopicMismatch, UsageError
from postline.log.kafka.cache import Change
from postline.log.kafka.catalog import (
    MIGRATION,
    Changes,
    Entries,
    SubscriptionEntry,
    topic_key,
    written,
)
from postline.log.kafka.changelog import COPIES, checkpoint_of, outgoing, progress_of
from postline.log.kafka.filling import FORM, Filler, as_written
from postline.log.kafka.freezing import Freezer
from postline.log.kafka.groups import Committed
from postline.log.kafka.parts import Parts
from postline.log.kafka.pins import copy_of
from postline.log.kafka.stamp import Stamp
from postline.log.kafka.subscribing import find_subscription, remove_subscription
from postline.log.kafka.topics import STATE_SUFFIX
from postline.log.kafka.transactions import Aborted, Died, Transactions, failure_of
from postline.log.kafka.turn import MigrationTurn
from postline.log.kafka.views import Views
from postline.log.kafka.wire import envelope_of, is_gap, record_of
from postline.log.needs import TopicSpec
from postline.log.port import FLAG_STRUCTURED, Bounds, Record
from postline.log.transfer import Batch, Mark, MovedPartition, MovedSubscription, StateRow
from postline.message import Envelope

__all__ = ["KafkaTransfer"]

_STATE_PAGE = 1_000
#: Beside everything that an engine keeps for itself.
_FIRST_NAMESPACE = ("\1", b"")
#: What a topic is until its records are compared: nothing of it goes, whatever time they bear.
_UNLIMITED = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "message.timestamp.type": "CreateTime",
    "message.timestamp.before.max.ms": str((1 << 63) - 1),
    "message.timestamp.after.max.ms": str((1 << 63) - 1),
}


class KafkaTransfer:
    """The cluster at either end of a migration (transfer.Transfer). Blocking work runs in the cluster's threads."""

    form = FORM

    def __init__(self, parts: Parts, views: Views) -> None:
        self._parts, self._views = parts, views
        self._cluster, self._topics, self._catalog = parts.cluster, parts.topics, parts.catalog
        self._filler = Filler(parts.cluster, parts.topics)
        self._transactions = Transactions(parts.cluster, f"{parts.cluster.transactions_prefix}migration")
        self._turn, self._freezer = MigrationTurn(parts), Freezer(parts)
        self.address = parts.cluster.address

    # -- at both ends ---------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """Keep other migrations from this cluster meanwhile. Raises UsageError if there is one at work."""
        await self._cluster.run(self._catalog.make)
        await self._cluster.run(self._turn.take)
        try:
            yield
        finally:
            await self._cluster.run(self._turn.give_back)

    async def mark(self) -> Mark | None:
        """What a migration has written on the log."""
        return await self._cluster.run(self._catalog.mark)

    async def set_mark(self, mark: Mark | None) -> None:
        """Write it, durably, or remove it."""
        self._turn.require()
        data = None if mark is None else msgspec.json.encode(mark)
        await self._cluster.run(self._catalog.put, {MIGRATION: data})

    async def topics(self) -> list[TopicSpec]:
        """The topics that were declared to this log, or that subscriptions read."""
        return await self._cluster.run(self._own_topics)

    def _own_topics(self) -> list[TopicSpec]:
        declared, there = self._catalog.topic_specs(), self._topics.all()
        for entry in self._catalog.subscriptions().values():
            if entry.topic not in declared:
                declared[entry.topic] = TopicSpec(name=entry.topic, partitions=len(entry.starts), owner="")
        told = self._topics.specs([spec for name, spec in declared.items() if name in there])
        # How large a message may be is this cluster's matter, and next to nothing while it is frozen.
        return [msgspec.structs.replace(spec, message_bytes_max=None) for spec in sorted(told, key=attrgetter("name"))]

    async def bounds(self, topic: str) -> list[Bounds]:
        """First and next offset of each partition, before the first transaction that is still open."""
        return await self._cluster.run(self._topics.stable_bounds, topic)

    async def records(self, topic: str, partition: int, start: int, end: int) -> AsyncIterator[list[Record]]:
        """All records from offset `start` to before `end`, in order, a page at a time."""
        pages = self._pages(topic, partition, start, end)
        try:
            while (page := await self._cluster.run(next, pages, None)) is not None:
                if page:
                    yield page
        finally:
            await self._cluster.run(pages.close)

    def _pages(self, topic: str, partition: int, start: int, end: int) -> Generator[list[Record], None, None]:
        for messages in self._parts.readers.stream(topic, partition, start, end):
            found = [record for message in messages if not is_gap(record := record_of(message))]
            if found and (found[0][0] < start or found[-1][0] >= end):
                found = [record for record in found if start <= record[0] < end]
            yield found

    def envelope(self, record: Record) -> Envelope:
        """The envelope of one of these records."""
        return envelope_of(record)

    async def subscriptions(self) -> list[MovedSubscription]:
        """All subscriptions, by name, as last committed. Raises UsageError where others have moved a position."""
        found = await self._cluster.run(self._catalog.subscriptions)
        return [await self._cluster.run(self._subscription, found[name]) for name in sorted(found)]

    def _subscription(self, entry: SubscriptionEntry) -> MovedSubscription:
        committed = self._parts.groups.stable(entry.name, entry.topic, range(len(entry.starts)))
        return MovedSubscription(
            name=entry.name,
            topic=entry.topic,
            service=entry.service,
            created_ms=entry.created_ms,
            former=entry.former,
            partitions=[self._partition(entry, each) for each in committed],
        )

    def _partition(self, entry: SubscriptionEntry, committed: Committed) -> MovedPartition:
        number, position, stamp = committed
        checkpoint = self._views.checkpoint(entry, number)
        if checkpoint is not None and position is None:
            position, stamp = checkpoint.position, checkpoint.stamp
        if checkpoint is not None and stamp is None:
            raise UsageError(
                f"Another program has moved subscription {entry.name!r} in {entry.topic} partition {number} to"
                f" {position}, which its service has not taken up yet.",
                remedy="Let the service run once, so that it counts what that passes over; then go on.",
            )
        if position is None:
            position = entry.starts[number]
        if stamp is None:
            return MovedPartition(position=position, progress=b"", epoch=0)
        progress = stamp.progress
        if progress is None:
            progress = self._views.progress(entry, number)
        return MovedPartition(position=position, progress=progress, epoch=stamp.epoch)

    async def state(self, subscription: MovedSubscription, partition: int) -> AsyncIterator[list[StateRow]]:
        """All entries of a partition's state but the engine's own, by namespace and key."""
        entry = await self._cluster.run(find_subscription, self._parts, subscription.name)
        place: tuple[str, bytes] = _FIRST_NAMESPACE
        while page := await self._cluster.run(self._views.entries, entry, partition, place, _STATE_PAGE):
            place = page[-1][:2]
            yield page

    # -- at the source --------------------------------------------------------------------------

    async def freeze(self, mark: Mark) -> None:
        """Have brokers refuse appends, and everybody who would join. Raises UsageError while members live."""
        names = [spec.name for spec in await self.topics()]
        await self._cluster.run(self._freezer.freeze, mark, names)

    async def thaw(self) -> None:
        """Take `freeze` and its mark back."""
        await self._cluster.run(self._freezer.thaw)

    # -- at the target --------------------------------------------------------------------------

    async def prepare(self, specs: Sequence[TopicSpec]) -> None:
        """Have these topics, without retention and compaction for now. Raises TopicMismatch."""
        await self._cluster.run(self._prepare, specs)

    def _prepare(self, specs: Sequence[TopicSpec]) -> None:
        there = self._topics.all()
        self._topics.create_all([spec for spec in specs if spec.name not in there], _UNLIMITED)
        for spec in specs:
            count = self._topics.partitions(spec.name)
            if count != spec.partitions:
                raise TopicMismatch(
                    f"Topic {spec.name!r} has {count} partitions in the target and {spec.partitions} in the source.",
                    remedy="Delete it there, so that it is made as it has to be.",
                )
            if spec.name in there:
                self._topics.change(spec.name, _UNLIMITED)

        def change(entries: Entries) -> Changes:
            told = {topic_key(spec.name): msgspec.json.encode(spec) for spec in specs}
            return {key: value for key, value in told.items() if entries.get(key) != value}

        self._catalog.update(change)
        self._filler.watch([spec.name for spec in specs])

    async def begin(self, topic: str, partition: int, start: int) -> None:
        """Have an empty partition begin at this offset."""
        self._turn.require()
        await self._cluster.run(self._filler.begin, topic, partition, start)

    async def restore(self, batch: Batch) -> None:
        """Write the records, durably, at exactly their offsets. Raises TopicMismatch, MessageTooLarge."""
        self._turn.require()
        if batch.end > batch.first:
            await self._cluster.run(self._filler.write, batch)

    async def trim(self, topic: str, partition: int, start: int) -> None:
        """Drop the records before this offset."""
        await self._cluster.run(self._trim, topic, partition, start)

    def _trim(self, topic: str, partition: int, start: int) -> None:
        if self._topics.start(topic, partition) < start:
            self._topics.trim(topic, partition, start)

    async def settle(self, spec: TopicSpec) -> None:
        """Give the topic its own retention and compaction."""
        await self._cluster.run(self._topics.alter, spec)

    async def restore_state(self, subscription: MovedSubscription, partition: int, rows: Sequence[StateRow]) -> None:
        """Write entries of state; those that are there stay."""
        await self._cluster.run(self._write_state, subscription.name, partition, list(rows))

    async def restore_spared(self, subscription: MovedSubscription, partition: int, batch: Batch) -> None:
        """Keep copies of these records beside the state that names them."""
        copies = [(COPIES, record[0].to_bytes(8), copy_of(_plain(record, batch))) for record in batch.records]
        await self._cluster.run(self._write_state, subscription.name, partition, copies)

    def _write_state(self, subscription: str, partition: int, changes: Sequence[Change]) -> None:
        entry = find_subscription(self._parts, subscription)
        try:
            self._transactions.run(list(outgoing(entry.state_topic, partition, changes)))
        except (Aborted, Died) as error:
            raise failure_of(error, f"write the state of {subscription}", self.address) from error

    async def clear_subscription(self, subscription: MovedSubscription) -> None:
        """Have the subscription with no position and no state, whatever an earlier attempt left."""
        self._turn.require()
        await self._cluster.run(self._clear, subscription)

    def _clear(self, subscription: MovedSubscription) -> None:
        topic, count = subscription.topic, len(subscription.partitions)
        entry = SubscriptionEntry(
            name=subscription.name,
            topic=topic,
            service=subscription.service,
            created_ms=subscription.created_ms,
            state_topic=subscription.name + STATE_SUFFIX,
            starts=[each.position for each in subscription.partitions],
            former=subscription.former,
            topic_id=self._topics.id_of(topic),
        )
        there = self._topics.look(entry.state_topic) is not None
        if not there:
            self._topics.create_state(entry.state_topic, count)
        self._catalog.update(lambda _: {entry.key: written(entry)})
        for number in range(count) if there else ():
            namespaces = self._views.namespaces(entry, number)
            if namespaces:
                self._write_state(entry.name, number, [(namespace, None, None) for namespace in namespaces])

    async def restore_subscription(self, subscription: MovedSubscription) -> None:
        """Give the group its offsets, and its state the checkpoints."""
        await self._cluster.run(self._place, subscription)

    def _place(self, subscription: MovedSubscription) -> None:
        positions = []
        for number, each in enumerate(subscription.partitions):
            if not each.epoch and not each.progress:
                continue  # nobody has committed it: the subscription's start says where it begins
            stamp = Stamp(each.epoch, 0, "", each.progress)
            if not stamp.fits:
                self._write_state(subscription.name, number, [progress_of(each.progress)])
                stamp = msgspec.structs.replace(stamp, progress=None)
            self._write_state(subscription.name, number, [checkpoint_of(each.position, stamp)])
            positions.append(Committed(number, each.position, stamp))
        self._parts.groups.place(subscription.name, subscription.topic, positions)

    async def discard(self, topics: Sequence[str], subscriptions: Sequence[str]) -> None:
        """Remove these topics and subscriptions with all they have; what isn't there is passed over."""
        await self._cluster.run(self._discard, topics, subscriptions)

    def _discard(self, topics: Sequence[str], subscriptions: Sequence[str]) -> None:
        known, there = self._catalog.subscriptions(), self._topics.all()
        for name in subscriptions:
            if name in known:
                remove_subscription(self._parts, name)
        for name in topics:
            if name in there:
                self._topics.delete(name)
        keys = [topic_key(name) for name in topics]
        self._catalog.update(lambda entries: {key: None for key in keys if key in entries})


def _plain(record: Record, batch: Batch) -> Record:
    """The record in this engine's own form, its envelope in headers of its own."""
    if batch.form == FORM:
        return record
    plain: Any = (*record[:5], record[5] & ~FLAG_STRUCTURED, record[6])
    headers, value = as_written(plain, batch)
    packed = [(name, told.encode() if isinstance(told, str) else told) for name, told in headers]
    return (*record[:4], value, plain[5], packed)
