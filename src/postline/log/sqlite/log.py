"""`SqliteLog`: the log port on one SQLite file, or on a private database in memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from postline.clock import Clock
from postline.errors import UnknownSubscription, UsageError
from postline.log.needs import Change, ChangeKind, Need, Placer, Repartitioning
from postline.log.planning import no_repartition, plan_topics, refuse
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
from postline.log.sqlite import membership
from postline.log.sqlite.connection import fetch, translated
from postline.log.sqlite.marking import require_standing
from postline.log.sqlite.packing import unpack
from postline.log.sqlite.state import scan_entries
from postline.log.sqlite.statements import statements
from postline.log.sqlite.storage import Settings, Storage
from postline.log.sqlite.surveying import survey
from postline.log.sqlite.tailing import SqliteTail
from postline.log.sqlite.topics import alter_topic, create_topic
from postline.log.sqlite.transfer import SqliteTransfer
from postline.log.sqlite.upkeep import Upkeep, remove_state
from postline.message import Envelope

__all__ = ["SqliteLog"]


class SqliteLog:
    """The embedded engine (port.Log); `path` None is a log in memory, private to this object.

    Reads are synchronous and short, on the loop's thread; writes go through one writer thread (in
    memory: inline, so that a virtual clock makes runs repeat exactly).
    """

    def __init__(self, path: str | None, *, clock: Clock, settings: Settings | None = None) -> None:
        #: What memberships stand on; not for layers above.
        self.storage = Storage(None if path is None else Path(path), clock, settings or Settings())
        self._upkeep = Upkeep(self.storage)
        self.address = "in memory" if path is None else path
        promises = {Capability.EXACT_RETENTION, Capability.CREATES_TOPICS, Capability.SIZES}
        if path is not None:
            promises |= {Capability.MANY_PROCESSES, Capability.DURABLE}
        self.capabilities: frozenset[Capability] = frozenset(promises)

    async def start(self) -> None:
        """Open it, checking and migrating what is there. Idempotent."""
        if not self.storage.started:
            self.storage.start()
            self.storage.on_close.append(self._upkeep.stop)
            self._upkeep.start()

    async def close(self) -> None:
        """Finish what was accepted and let go of everything. Idempotent."""
        await self.storage.close()

    def envelope(self, record: Record) -> Envelope:
        """The record's envelope, equal to what was appended. Raises DecodeError if what is stored is none."""
        return unpack(record[3], record[6])

    async def create_topic(self, spec: TopicSpec) -> TopicSpec:
        """Create the topic unless it exists; gives back what the log has, equal or not."""
        self.storage.require_started()
        if spec.partitions < 1:
            raise UsageError(f"Topic {spec.name!r} needs at least one partition.", remedy="Declare one or more.")
        return await self.storage.writer.submit(lambda connection: create_topic(connection, spec), appends=True)

    async def alter_topic(self, spec: TopicSpec) -> None:
        """Change retention, compaction and times; raises TopicMismatch for other partitions or key."""
        self.storage.require_started()
        await self.storage.writer.submit(lambda connection: alter_topic(connection, spec))

    async def topics(self) -> list[TopicSpec]:
        """All topics, by name."""
        self.storage.require_started()
        with translated(self.address):
            return self.storage.reader.topics()

    async def plan(self, need: Need) -> list[Change]:
        """What has to change so that these apps can run: topics to create and to alter."""
        return plan_topics(need, {spec.name: spec for spec in await self.topics()})

    async def apply(self, changes: Sequence[Change]) -> None:
        """Create and alter topics, as `plan` said. Raises TopicMismatch, UnknownTopic with nothing changed."""
        refuse(changes, self.address)
        for change in changes:
            if change.topic is not None and change.kind is ChangeKind.CREATE:
                await self.create_topic(change.topic)
            elif change.topic is not None and change.kind is ChangeKind.ALTER:
                await self.alter_topic(change.topic)

    async def repartition(self, wanted: Repartitioning, place: Placer) -> None:
        """Refused: a record's place in the file has its partition in it. Raises MissingCapability."""
        raise no_repartition(self.address)

    async def append(self, records: Sequence[Append]) -> list[int]:
        """Store all of them, or none, durably; gives their offsets, in order."""
        self.storage.require_started()
        return await self.storage.append(records)

    async def bounds(self, topic: str, *, stable: bool = False) -> list[Bounds]:
        """First and next offset of each partition; what is stored is shown. Raises UnknownTopic."""
        self.storage.require_started()
        with translated(self.address):
            return self.storage.reader.bounds(topic)

    async def read(
        self, topic: str, partition: int, offset: int, *, limit: int = 1000, max_bytes: int = 1 << 20
    ) -> list[Record]:
        """Records from `offset` on, in order, at most `limit`, at least one if there is any."""
        self.storage.require_started()
        with translated(self.address):
            return self.storage.reader.read(topic, partition, offset, limit, max_bytes)

    async def read_first(self, places: Sequence[Place]) -> list[Record | None]:
        """The first record at or above each of these places; None where none follows."""
        self.storage.require_started()
        with translated(self.address):
            reader = self.storage.reader
            return [next(iter(reader.read(*place, limit=1, max_bytes=1)), None) for place in places]

    async def read_offsets(self, topic: str, partition: int, offsets: Sequence[int]) -> list[Record]:
        """The records at exactly these offsets that are still there, in offset order."""
        self.storage.require_started()
        with translated(self.address):
            return self.storage.reader.read_offsets(topic, partition, offsets)

    async def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """The first offset with a timestamp of `time_ms` or later, else the end."""
        self.storage.require_started()
        with translated(self.address):
            return self.storage.reader.offset_at(topic, partition, time_ms)

    async def size_between(self, topic: str, partition: int, start: int, end: int) -> int:
        """Bytes of keys, values and envelopes from offset `start` to before `end`."""
        self.storage.require_started()
        with translated(self.address):
            return self.storage.reader.size_between(topic, partition, start, end)

    async def wait_for_appends(self, topic: str, wait_seconds: float) -> None:
        """Return when something may have been appended to the topic, or after `wait_seconds`.

        Nothing is missed between a read and this call if nothing is awaited between them.
        """
        self.storage.require_started()
        await self.storage.waiters.wait(topic, wait_seconds)

    def tail(self, topic: str, partition: int, offset: int) -> Tail:
        """The partition from `offset` on, as it grows. Raises UnknownTopic."""
        self.storage.require_started()
        return SqliteTail(self.storage, topic, partition, offset)

    async def join(self, spec: GroupSpec, owner: PartitionOwner) -> Membership:
        """Join a subscription's group, creating the subscription if it is new."""
        self.storage.require_started()
        return await membership.join(self.storage, spec, owner)

    async def subscriptions(self) -> list[SubscriptionInfo]:
        """All subscriptions, by name."""
        self.storage.require_started()
        with translated(self.address):
            rows = fetch(self.storage.reader.connection, statements("queries")["subscriptions"])
        return [
            SubscriptionInfo(name=name, topic=topic, service=service, created_ms=created)
            for name, topic, service, created in rows
        ]

    async def partitions(self, subscription: str) -> list[PartitionInfo]:
        """Each partition as last committed. Raises UnknownSubscription."""
        found = self._subscription_id(subscription)
        with translated(self.address):
            rows = fetch(self.storage.reader.connection, statements("queries")["subscription_partitions"], (found,))
        return [
            PartitionInfo(partition=partition, position=position, progress=progress, epoch=epoch, owner=owner)
            for partition, position, progress, epoch, owner in rows
        ]

    async def members(self, subscription: str) -> list[MemberInfo]:
        """Its live members. Raises UnknownSubscription."""
        self._subscription_id(subscription)
        return membership.live_members(self.storage, subscription)

    async def survey(self, names: Collection[str] | None = None) -> Survey:
        """All topics, bounds, subscriptions, members and partitions, of one moment; or only what `names` say."""
        self.storage.require_started()
        return survey(self.storage, names)

    async def peek_state(
        self, subscription: str, partition: int, namespace: str, *, after: bytes = b"", limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        """Committed state entries above `after`, in key order, for operators' views."""
        found = self._subscription_id(subscription)
        with translated(self.address):
            return scan_entries(self.storage.reader.connection, found, partition, namespace, after, limit)

    async def remove_subscription(self, subscription: str) -> None:
        """Forget positions and state. Raises UnknownSubscription; UsageError while members live."""
        found = self._subscription_id(subscription)
        await membership.remove_group(self.storage, subscription, found)
        submit = self.storage.writer.submit
        # Its id is never given again, so the state can go afterwards, in steps that stall no publisher.
        while await submit(lambda connection: remove_state(connection, found)):
            pass

    async def require_standing(self) -> None:
        """Raise LogMoved unless this is the log to work on."""
        self.storage.require_started()
        with translated(self.address):
            require_standing(self.storage.reader.connection, self.address)

    def transfer(self) -> SqliteTransfer:
        """The log as a migration sees it."""
        return SqliteTransfer(self.storage)

    async def run_maintenance(self) -> None:
        """One pass of retention, compaction and giving back of space, which otherwise the clock starts."""
        self.storage.require_started()
        await self._upkeep.run()

    def _subscription_id(self, name: str) -> int:
        self.storage.require_started()
        with translated(self.address):
            rows = fetch(self.storage.reader.connection, statements("queries")["subscription"], (name,))
        if not rows:
            raise UnknownSubscription(
                f"The log {self.address} has no subscription {name!r}.", remedy="`postline subscriptions` lists them."
            )
        return int(rows[0][0])
