"""`KafkaLog`: the log port on a Kafka cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from operator import itemgetter

import msgspec
from confluent_kafka import TopicPartition

from postline.clock import Clock
from postline.errors import MessageTooLarge, MissingCapability, TopicMismatch, UsageError
from postline.ids import IdSource
from postline.log.kafka.catalog import Changes, Entries, topic_key
from postline.log.kafka.changelog import COPIES
from postline.log.kafka.cluster import Cluster
from postline.log.kafka.groups import CLIENT_PREFIX
from postline.log.kafka.heads import Heads
from postline.log.kafka.membership import KafkaMembership, join
from postline.log.kafka.options import Options
from postline.log.kafka.parts import Parts, parts_of
from postline.log.kafka.pins import record_in
from postline.log.kafka.planning import Planner
from postline.log.kafka.publishing import Publisher
from postline.log.kafka.repartition import being_moved, repartition
from postline.log.kafka.subscribing import ensure_subscription, remove_subscription
from postline.log.kafka.surveying import Surveys, shown_topics
from postline.log.kafka.tailing import KafkaTail
from postline.log.kafka.transactions import end_left_open
from postline.log.kafka.transfer import KafkaTransfer
from postline.log.kafka.views import Views
from postline.log.kafka.wire import envelope_of
from postline.log.needs import Change, Need, Placer, Repartitioning
from postline.log.port import (
    Append,
    Bounds,
    Capability,
    GroupSpec,
    MemberInfo,
    Membership,
    PartitionInfo,
    PartitionOwner,
    Place,
    Record,
    SubscriptionInfo,
    Survey,
    Tail,
    TopicSpec,
)
from postline.message import Envelope

__all__ = ["KafkaLog"]

_log = logging.getLogger("postline.log.kafka")

#: How often somebody who waits for appends looks for them.
_LOOK_SECONDS = 0.05
#: So many partitions are read side by side.
_READS_AT_ONCE = 8
#: How long brokers may take to hear of a new topic.
_LEARN_SECONDS = 30.0


class KafkaLog:
    """The engine on Apache Kafka (port.Log).

    `instance` names this process's machine or container in stable transactional ids, `namespace` stands before the
    engine's own topics and ids. Blocking calls to the cluster run in threads.
    """

    def __init__(
        self, options: Options, *, clock: Clock, ids: IdSource, namespace: str = "", instance: str = ""
    ) -> None:
        self._cluster = Cluster(options, clock, namespace, instance)
        self._ids = ids
        self._parts: Parts = parts_of(self._cluster)
        self._publisher = Publisher(self._cluster, self._parts.topics, self._parts.readers)
        self._views = Views(self._parts)
        self._surveys = Surveys(self._parts, self._views)
        self._heads = Heads(self._cluster)
        self._planner = Planner(self._parts)
        self._memberships: list[KafkaMembership] = []
        self._tails: list[KafkaTail] = []
        self._ends_seen: dict[str, list[Bounds]] = {}
        self._started = False
        #: Topics asked for in this turn of the loop, and who waits for them.
        self._creating: list[tuple[TopicSpec, asyncio.Future[TopicSpec]]] = []
        self._creator: asyncio.Future[None] | None = None
        self.address = self._cluster.address
        promises = {Capability.MANY_PROCESSES, Capability.DURABLE, Capability.REPARTITIONS}
        if options.create_topics:
            promises.add(Capability.CREATES_TOPICS)
        self.capabilities: frozenset[Capability] = frozenset(promises)

    # -- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Reach the cluster. Idempotent."""
        if not self._started and not self._cluster.stopping.is_set():
            await asyncio.get_running_loop().run_in_executor(None, self._cluster.start)
            await self._cluster.run(end_left_open, self._cluster)
            self._started = True

    async def close(self) -> None:
        """Finish what was accepted and let go of everything. Idempotent."""
        if self._cluster.stopping.is_set():
            return
        await asyncio.gather(*(membership.leave() for membership in self._memberships), return_exceptions=True)
        await asyncio.gather(*(tail.close() for tail in self._tails))
        await self._publisher.close()
        self._cluster.close()
        await asyncio.get_running_loop().run_in_executor(None, self._let_go)

    def _let_go(self) -> None:
        self._surveys.close()
        self._heads.close()
        self._views.close()
        self._parts.groups.close()
        self._parts.readers.close()

    # -- topics -------------------------------------------------------------------------------

    async def create_topic(self, spec: TopicSpec) -> TopicSpec:
        """Create the topic unless it exists; gives back what the log has, equal or not."""
        if spec.partitions < 1:
            raise UsageError(f"Topic {spec.name!r} needs at least one partition.", remedy="Declare one or more.")
        made: asyncio.Future[TopicSpec] = asyncio.get_running_loop().create_future()
        self._creating.append((spec, made))
        if len(self._creating) == 1:
            self._creator = asyncio.ensure_future(self._create_waiting())
        return await made

    async def _create_waiting(self) -> None:
        """Create all topics that are asked for in this turn of the loop at once: each step is one for all of them."""
        await self._cluster.clock.sleep(0)
        waiting, self._creating = self._creating, []
        try:
            found = await self._cluster.run(self._create_topics, [spec for spec, _ in waiting])
        except Exception as error:  # noqa: BLE001 - it is raised by whoever waits
            for _, made in waiting:
                if not made.done():
                    made.set_exception(error)
            return
        for spec, made in waiting:
            if not made.done():
                made.set_result(found[spec.name])

    def _create_topics(self, specs: Sequence[TopicSpec]) -> dict[str, TopicSpec]:
        topics, catalog = self._parts.topics, self._parts.catalog
        for spec in specs:
            self._require_at_rest(spec.name)
        topics.create_all({spec.name: spec for spec in specs if topics.look(spec.name) is None}.values())
        declared = catalog.topic_specs()
        if new := {spec.name: spec for spec in specs if spec.name not in declared}:
            counted = [msgspec.structs.replace(spec, partitions=topics.partitions(spec.name)) for spec in new.values()]
            catalog.update(lambda entries: _declaring(entries, counted))
            declared = catalog.topic_specs()
        return self._told([declared[spec.name] for spec in specs])

    def _told(self, declared: Sequence[TopicSpec]) -> dict[str, TopicSpec]:
        """These topics as the cluster keeps them; waits for brokers that have not heard of one yet."""
        until = self._cluster.clock.monotonic() + _LEARN_SECONDS
        while True:
            found = {spec.name: spec for spec in self._parts.topics.specs(declared)}
            missing = [spec.name for spec in declared if spec.name not in found]
            if not missing:
                return found
            if self._cluster.stopping.wait(_LOOK_SECONDS) or self._cluster.clock.monotonic() > until:
                raise self._parts.topics.unknown(missing[0])

    async def alter_topic(self, spec: TopicSpec) -> None:
        """Change retention, compaction and times; raises TopicMismatch for other partitions or key."""
        await self._cluster.run(self._alter_topic, spec)

    def _alter_topic(self, spec: TopicSpec) -> None:
        if self._parts.topics.look(spec.name) is None:
            raise self._parts.topics.unknown(spec.name)
        there = self._parts.catalog.topic_specs().get(spec.name)
        partitions = there.partitions if there else self._parts.topics.partitions(spec.name)
        if partitions != spec.partitions:
            raise TopicMismatch(
                f"Topic {spec.name!r} has {partitions} partitions and can't get {spec.partitions} in place.",
                remedy="`postline topics repartition` changes their number after a drain.",
            )
        self._parts.topics.alter(spec)
        self._parts.catalog.update(lambda _: {topic_key(spec.name): msgspec.json.encode(spec)})

    def _require_at_rest(self, topic: str) -> None:
        if (moving := self._parts.catalog.moving().get(topic)) is not None:
            raise being_moved(moving)

    async def topics(self) -> list[TopicSpec]:
        """All topics, by name."""
        return await self._cluster.run(self._topics)

    def _topics(self) -> list[TopicSpec]:
        catalog, there = self._parts.catalog, self._parts.topics.all()
        wanted = shown_topics(catalog.entries(), there, catalog.spec.name)
        return sorted(self._parts.topics.specs(wanted.values()), key=lambda spec: spec.name)

    async def plan(self, need: Need) -> list[Change]:
        """What has to change so that these apps can run, rights of `need.principal` included."""
        return await self._cluster.run(self._planner.plan, need)

    async def apply(self, changes: Sequence[Change]) -> None:
        """Make these changes, as `plan` gave them. Raises UnknownTopic, TopicMismatch with nothing changed."""
        await self._cluster.run(self._planner.apply, changes)

    async def repartition(self, wanted: Repartitioning, place: Placer) -> None:
        """Give the topic and its subscriptions other partitions. Raises UsageError if anybody is at work there."""
        await self._cluster.run(repartition, self._parts, wanted, place)

    async def bounds(self, topic: str, *, stable: bool = False) -> list[Bounds]:
        """First and next offset of each partition, with `stable` before open transactions. Raises UnknownTopic."""
        topics = self._parts.topics
        return await self._cluster.run(topics.stable_bounds if stable else topics.bounds, topic)

    async def require_standing(self) -> None:
        """Raise LogMoved unless this is a log to work on."""
        await self._cluster.run(self._parts.catalog.require_standing)

    def transfer(self) -> KafkaTransfer:
        """The log as a migration sees it."""
        return KafkaTransfer(self._parts, self._views)

    # -- records ------------------------------------------------------------------------------

    def envelope(self, record: Record) -> Envelope:
        """The record's envelope, equal to what was appended."""
        return envelope_of(record)

    async def append(self, records: Sequence[Append]) -> list[int]:
        """Store all of them, or none, durably; gives their offsets, in order."""
        try:
            return await self._publisher.append(records)
        except MessageTooLarge:
            await self.require_standing()  # for a log that is frozen everything is too large
            raise

    async def read(
        self, topic: str, partition: int, offset: int, *, limit: int = 1000, max_bytes: int = 1 << 20
    ) -> list[Record]:
        """Records from `offset` on, in order, at most `limit`, at least one if there is any."""
        return await self._cluster.run(self._parts.readers.read, topic, partition, offset, limit, max_bytes)

    async def read_first(self, places: Sequence[Place]) -> list[Record | None]:
        """The first record at or above each of these places; None where none follows."""
        found = await self._cluster.run(self._heads.first, places) if places else {}
        missing = iter([place for place in dict.fromkeys(places) if place not in found])

        async def read_missing() -> None:
            for place in missing:  # behind an open transaction, on a leader that moves, or at the end
                if records := await self.read(*place, limit=1):
                    found[place] = records[0]

        await asyncio.gather(*(read_missing() for _ in range(_READS_AT_ONCE)))
        return [found.get(place) for place in places]

    async def read_offsets(self, topic: str, partition: int, offsets: Sequence[int]) -> list[Record]:
        """The records at exactly these offsets that are still there, in offset order."""
        found = await self._cluster.run(self._parts.readers.read_offsets, topic, partition, offsets)
        if len(found) == len(set(offsets)):
            return found
        missing = set(offsets) - {record[0] for record in found}
        return sorted(found + await self._cluster.run(self._copies, topic, partition, missing), key=itemgetter(0))

    def _copies(self, topic: str, partition: int, offsets: set[int]) -> list[Record]:
        """Copies of records that are held somewhere, from the state of whoever holds them."""
        keys = [offset.to_bytes(8, "big") for offset in sorted(offsets)]
        found: dict[bytes, bytes] = {}
        for membership in self._memberships:
            found |= membership.copies(topic, partition, keys)
        if len(found) < len(keys):
            for entry in self._parts.catalog.subscriptions().values():
                if entry.topic == topic:
                    found |= self._views.get(entry, partition, COPIES, keys)
        return [record_in(copy) for copy in found.values()]

    async def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """The first offset with a timestamp of `time_ms` or later, else the end."""
        return await self._cluster.run(self._parts.topics.offset_at, topic, partition, time_ms)

    async def size_between(self, topic: str, partition: int, start: int, end: int) -> int:
        """Refused: brokers don't tell. Raises MissingCapability."""
        raise MissingCapability(
            f"{self.address} can't tell how large records {start} to {end} of {topic} partition {partition} are.",
            remedy="Go by numbers of records instead.",
        )

    async def wait_for_appends(self, topic: str, wait_seconds: float) -> None:
        """Return when something may have been appended to the topic, or after `wait_seconds`."""
        clock = self._cluster.clock
        until = clock.monotonic() + wait_seconds
        seen = self._ends_seen.get(topic)
        while True:
            ends = await self.bounds(topic)
            left = until - clock.monotonic()
            if ends != seen or left <= 0:
                self._ends_seen[topic] = ends
                return
            await clock.sleep(min(_LOOK_SECONDS, left))

    def tail(self, topic: str, partition: int, offset: int) -> Tail:
        """The partition from `offset` on, as it grows."""
        tail = KafkaTail(
            self._cluster, self._parts.topics, TopicPartition(topic, partition, offset), self._tails.remove
        )
        self._tails.append(tail)
        return tail

    # -- subscriptions ------------------------------------------------------------------------

    async def join(self, spec: GroupSpec, owner: PartitionOwner) -> Membership:
        """Join a subscription's group, creating the subscription if it is new."""
        await self.require_standing()
        await self._cluster.run(self._require_at_rest, spec.topic)
        entry = await self._cluster.run(ensure_subscription, self._parts, spec)
        name = f"{CLIENT_PREFIX}{self._cluster.instance}-{self._ids.next_id()}"
        membership = await join(self._parts, spec, entry, owner, name)
        self._memberships.append(membership)
        return membership

    async def subscriptions(self) -> list[SubscriptionInfo]:
        """All subscriptions, by name."""
        found = await self._cluster.run(self._parts.catalog.subscriptions)
        return [
            SubscriptionInfo(name=name, topic=each.topic, service=each.service, created_ms=each.created_ms)
            for name, each in sorted(found.items())
        ]

    async def partitions(self, subscription: str) -> list[PartitionInfo]:
        """Each partition as last committed. Raises UnknownSubscription."""
        return await self._cluster.run(self._views.partitions, subscription)

    async def members(self, subscription: str) -> list[MemberInfo]:
        """Its live members. Raises UnknownSubscription."""
        return await self._cluster.run(self._views.members, subscription)

    async def survey(self, names: Collection[str] | None = None) -> Survey:
        """All topics with bounds, subscriptions, members and partitions; `Surveys` says what may be told late."""
        return await self._surveys.survey(names)

    async def peek_state(
        self, subscription: str, partition: int, namespace: str, *, after: bytes = b"", limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        """Committed state entries above `after`, in key order, for operators' views."""
        return await self._cluster.run(self._views.peek, subscription, partition, namespace, after, limit)

    async def remove_subscription(self, subscription: str) -> None:
        """Forget positions and state. Raises UnknownSubscription; UsageError while members live."""
        await self._cluster.run(remove_subscription, self._parts, subscription)


def _declaring(entries: Entries, specs: Sequence[TopicSpec]) -> Changes:
    return {key: msgspec.json.encode(spec) for spec in specs if (key := topic_key(spec.name)) not in entries}
