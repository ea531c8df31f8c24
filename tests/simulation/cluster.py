"""What survives every process in a simulation: topics, subscriptions, state, epochs, and who owns what."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from postline.errors import SubscriptionConflict, TopicMismatch, UnknownSubscription, UnknownTopic, UsageError
from postline.log.port import (
    PINNING_NAMESPACES,
    REVOKE_SECONDS,
    Append,
    Assignment,
    Bounds,
    CommitUnit,
    GroupSpec,
    MemberInfo,
    PartitionCommit,
    PartitionInfo,
    Record,
    SubscriptionInfo,
    TopicSpec,
    renamed,
    still_served,
)

__all__ = ["ENGINE_MUTANTS", "Member", "SimulatedCluster", "Slot", "StoredPartition", "Subscription"]


#: Engines that are wrong on purpose, for proving the simulator: commits are never refused; positions are
#: stored before their effects; held records can't be found again; waiting readers often aren't woken.
ENGINE_MUTANTS = ("unfenced", "position_first", "forget_held", "lost_wake_up")


def size_of(record: Record) -> int:
    """Bytes of key and value, as limits count them."""
    return len(record[2] or b"") + len(record[4] or b"")


class StoredPartition:
    """The records of one partition, in offset order, with gaps."""

    __slots__ = ("end", "kept", "newest_ms", "offsets", "records", "removed", "start")

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.records: list[Record] = []
        self.start = 0
        self.end = 0
        #: Timestamps never go back, whatever the clocks of those who append.
        self.newest_ms = 0
        #: Everything that retention or compaction took, for the checks.
        self.removed: list[Record] = []
        #: Records that retention or compaction took out of sight and a pin keeps.
        self.kept: dict[int, Record] = {}

    def append(self, item: Append, now_ms: int, gap: int = 0) -> int:
        """Store one record after leaving out `gap` offsets; gives its offset."""
        offset = self.end + gap
        now_ms = self.newest_ms = max(now_ms, self.newest_ms)
        self.offsets.append(offset)
        self.records.append((offset, now_ms, item.key, item.envelope.type, item.value, item.flags, item.envelope))
        self.end = offset + 1
        return offset

    def read(self, offset: int, limit: int, max_bytes: int) -> tuple[list[Record], int]:
        """Records from `offset` on, at least one if there is any, and the offset to go on from."""
        first = bisect_left(self.offsets, offset)
        found = self.records[first : first + max(1, limit)]
        total = 0
        for index, record in enumerate(found):
            total += size_of(record)
            if index and total > max_bytes:
                del found[index:]
                break
        following = first + len(found)
        next_offset = self.offsets[following] if following < len(self.offsets) else self.end
        return found, max(offset, next_offset)

    def at(self, offsets: Sequence[int]) -> list[Record]:
        """The records at these offsets that are still there, kept ones included."""
        found = []
        for offset in sorted(set(offsets)):
            index = bisect_left(self.offsets, offset)
            if index < len(self.offsets) and self.offsets[index] == offset:
                found.append(self.records[index])
            elif offset in self.kept:
                found.append(self.kept[offset])
        return found

    def remove(self, doomed: set[int], pinned: set[int]) -> None:
        """Take records out of sight; pinned ones stay readable by offset."""
        self.kept = {offset: record for offset, record in self.kept.items() if offset in pinned}
        for record in self.records:
            if record[0] in doomed and record[0] in pinned:
                self.kept[record[0]] = record
        self.removed += [record for record in self.records if record[0] in doomed]
        self.records = [record for record in self.records if record[0] not in doomed]
        self.offsets = [record[0] for record in self.records]


@dataclass
class StoredTopic:
    """A topic's declaration and partitions, and who waits for its records."""

    spec: TopicSpec
    partitions: list[StoredPartition]
    waiters: dict[int, Callable[[], None]] = field(default_factory=dict)


@dataclass
class Slot:
    """One partition of a subscription. `free`: it may be claimed, though `owner` may not know it yet."""

    position: int
    progress: bytes = b""
    epoch: int = 0
    owner: str = ""
    free: bool = True
    state: dict[str, dict[bytes, bytes]] = field(default_factory=dict)


@dataclass
class Member:
    """One member as the group sees it; `ring` tells it that something changed."""

    id: str
    spec: GroupSpec
    joined_ms: int
    last_seen: float
    ring: Callable[[], None]


class Subscription:
    """A subscription's positions and state, and the group that works on it."""

    def __init__(self, info: SubscriptionInfo, slots: list[Slot]) -> None:
        self.info = info
        self.slots = slots
        self.members: dict[str, Member] = {}
        self.targets: list[str] = [""] * len(slots)

    def balance(self) -> None:
        """Decide anew who should own what: evenly, moving as little as can be; then tell everyone."""
        quotas = self._quotas()
        self.targets = [""] * len(self.slots)
        for index, slot in enumerate(self.slots):
            if not slot.free and quotas.get(slot.owner, 0) > 0:
                quotas[slot.owner] -= 1
                self.targets[index] = slot.owner
        waiting = (member for member, quota in quotas.items() for _ in range(quota))
        for index, target in enumerate(self.targets):
            if not target:
                self.targets[index] = next(waiting, "")
        for member in list(self.members.values()):
            member.ring()

    def _quotas(self) -> dict[str, int]:
        owned = [slot.owner for slot in self.slots if not slot.free]
        members = sorted(self.members, key=lambda member: -owned.count(member))
        share, extra = divmod(len(self.slots), max(1, len(members)))
        return {member: share + (index < extra) for index, member in enumerate(members)}

    def claim(self, member: str) -> list[int]:
        """Give the member its free partitions, each under a new epoch; gives their numbers."""
        claimed = []
        for index, slot in enumerate(self.slots):
            if slot.free and self.targets[index] == member:
                slot.epoch += 1
                slot.owner, slot.free = member, False
                claimed.append(index)
        return claimed

    def assignment(self, partition: int) -> Assignment:
        """The partition as its present owner gets it."""
        slot = self.slots[partition]
        return Assignment(self.info.name, self.info.topic, partition, slot.epoch, slot.position, slot.progress)

    def is_owner(self, member: str, partition: int, epoch: int) -> bool:
        """Whether that assignment is in force."""
        slot = self.slots[partition]
        return slot.epoch == epoch and slot.owner == member

    def release(self, member: str, partitions: Sequence[int]) -> None:
        """Let go of these partitions, as far as they are the member's."""
        for index in partitions:
            slot = self.slots[index]
            if slot.owner == member and not slot.free:
                slot.owner, slot.free = "", True
        for other in list(self.members.values()):
            other.ring()

    def remove_member(self, member: str, *, end_epochs: bool = True) -> None:
        """Take a member out of the group and hand its partitions to others.

        With `end_epochs` its commits are refused from now on, otherwise from the next claim on.
        """
        if self.members.pop(member, None) is None:
            return
        for slot in self.slots:
            if slot.owner == member and not slot.free:
                slot.free = True
                if end_epochs:
                    slot.owner = ""
        self.balance()


class SimulatedCluster:
    """The durable part of the simulated engine; processes reach it through `SimulatedLog`."""

    def __init__(
        self,
        *,
        lease_seconds: float = 5.0,
        death_seconds: float = 0.5,
        revoke_seconds: float = REVOKE_SECONDS,
        mutant: str = "",
    ) -> None:
        self.lease_seconds = lease_seconds
        #: Longest time until a death is noticed.
        self.death_seconds = death_seconds
        self.revoke_seconds = revoke_seconds
        if mutant and mutant not in ENGINE_MUTANTS:
            raise UsageError(f"there is no mutant {mutant!r}.", remedy=f"Choose among {ENGINE_MUTANTS}.")
        self.mutant = mutant
        self.topics: dict[str, StoredTopic] = {}
        self.subscriptions: dict[str, Subscription] = {}
        #: Names that subscriptions had before, and what they are called now.
        self.former_names: dict[str, Subscription] = {}
        self.trace: Callable[..., None] = lambda *what: None
        self.environment = contextvars.Context()
        self._numbers = itertools.count(1)

    def number(self) -> int:
        """A number never given before."""
        return next(self._numbers)

    def topic(self, name: str) -> StoredTopic:
        """The topic, or UnknownTopic."""
        if (topic := self.topics.get(name)) is None:
            raise UnknownTopic(f"no topic {name!r} in the simulated log.", remedy="Let its owner create it.")
        return topic

    def subscription(self, name: str) -> Subscription:
        """The subscription, or UnknownSubscription."""
        if (found := self.subscriptions.get(name)) is None:
            raise UnknownSubscription(f"no subscription {name!r} in the simulated log.", remedy="Check the name.")
        return found

    def create_topic(self, spec: TopicSpec) -> TopicSpec:
        """Create it unless it exists; gives what is there."""
        if spec.name not in self.topics:
            self.topics[spec.name] = StoredTopic(spec, [StoredPartition() for _ in range(spec.partitions)])
            self.trace("topic", spec.name, spec.partitions)
        return self.topics[spec.name].spec

    def alter_topic(self, spec: TopicSpec) -> None:
        """Change retention, compaction and times."""
        topic = self.topic(spec.name)
        if topic.spec.partitions != spec.partitions:
            raise TopicMismatch(
                f"topic {spec.name!r} has {topic.spec.partitions} partitions, not {spec.partitions}.",
                remedy="Declare as many as the log has.",
            )
        topic.spec = spec

    def append(self, records: Sequence[Append], now_ms: int, gap: Callable[[], int] = lambda: 0) -> list[int]:
        """Store all or, if a topic is unknown, none; wakes those who wait for them."""
        places = [self._partition(item) for item in records]
        offsets = [place.append(item, now_ms, gap()) for place, item in zip(places, records, strict=True)]
        for topic in dict.fromkeys(item.topic for item in records):
            for wake in list(self.topics[topic].waiters.values()):
                wake()
        return offsets

    def _partition(self, item: Append) -> StoredPartition:
        partitions = self.topic(item.topic).partitions
        if not 0 <= item.partition < len(partitions):
            raise UsageError(f"topic {item.topic!r} has no partition {item.partition}.", remedy="Check the number.")
        return partitions[item.partition]

    def subscribe(self, spec: GroupSpec, now_ms: int) -> Subscription:
        """The subscription that the spec names, created or renamed if need be."""
        topic = self.topic(spec.topic)
        for alias in spec.aliases:
            if spec.subscription not in self.subscriptions and alias in self.subscriptions:
                self._check(self.subscriptions[alias], spec)
                if self.subscriptions[alias].members:
                    raise still_served(alias, spec.subscription)
                self._rename(alias, spec.subscription)
        if (found := self.subscriptions.get(spec.subscription)) is not None:
            self._check(found, spec)
            return found
        for name in (spec.subscription, *spec.aliases):
            if name in self.former_names:
                raise renamed(name, self.former_names[name].info.name)
        info = SubscriptionInfo(name=spec.subscription, topic=spec.topic, service=spec.service, created_ms=now_ms)
        created = Subscription(info, [Slot(self._start(part, spec)) for part in topic.partitions])
        self.subscriptions[spec.subscription] = created
        self.trace("subscription", spec.subscription, [slot.position for slot in created.slots])
        return created

    def _check(self, found: Subscription, spec: GroupSpec) -> None:
        if spec.takes_over == found.info.service and spec.topic == found.info.topic:
            found.info = msgspec.structs.replace(found.info, service=spec.service)
        if (found.info.service, found.info.topic) != (spec.service, spec.topic):
            raise SubscriptionConflict(
                f"subscription {found.info.name!r} is {found.info.service!r}'s, on {found.info.topic!r}.",
                remedy="Choose another name.",
            )

    def _rename(self, old: str, new: str) -> None:
        found = self.subscriptions.pop(old)
        found.info = msgspec.structs.replace(found.info, name=new)
        self.subscriptions[new] = found
        self.former_names.pop(new, None)
        self.former_names[old] = found

    def _start(self, partition: StoredPartition, spec: GroupSpec) -> int:
        if spec.start.kind == "earliest":
            return partition.start
        if spec.start.kind == "latest":
            return partition.end
        return self.offset_at(partition, spec.start.time_ms)

    @staticmethod
    def offset_at(partition: StoredPartition, time_ms: int) -> int:
        """The first offset of a record made at `time_ms` or later, else the end."""
        return next((record[0] for record in partition.records if record[1] >= time_ms), partition.end)

    def commit(
        self, subscription: Subscription, member: str, unit: CommitUnit, now_ms: int, gap: Callable[[], int]
    ) -> list[Assignment]:
        """Apply the unit but for the partitions whose epoch is over; gives those."""
        accepted: list[PartitionCommit] = []
        refused: list[Assignment] = []
        for part in unit:
            current = subscription.is_owner(member, part.assignment.partition, part.assignment.epoch)
            if current or self.mutant == "unfenced":
                accepted.append(part)
            else:
                refused.append(part.assignment)
        appends = [item for part in accepted for item in part.appends]
        for item in appends:
            self._partition(item)
        for part in accepted:
            slot = subscription.slots[part.assignment.partition]
            slot.position, slot.progress = part.position, part.progress
        if self.mutant == "position_first":
            # The effects follow in a second step, for which the process has to live.
            loop = asyncio.get_running_loop()
            loop.call_later(0.05, self._store_effects, subscription, accepted, now_ms, gap)
        else:
            self._store_effects(subscription, accepted, now_ms, gap)
        return refused

    def _store_effects(
        self, subscription: Subscription, parts: list[PartitionCommit], now_ms: int, gap: Callable[[], int]
    ) -> None:
        for part in parts:
            _change_state(subscription.slots[part.assignment.partition], part)
        self.append([item for part in parts for item in part.appends], now_ms, gap)

    def scan(
        self, subscription: Subscription, partition: int, namespace: str, after: bytes, limit: int
    ) -> list[tuple[bytes, bytes]]:
        """Committed entries above `after`, in key order."""
        entries = subscription.slots[partition].state.get(namespace, {})
        if self.mutant == "forget_held" and namespace == "held":
            return []
        return sorted((key, value) for key, value in entries.items() if not after or key > after)[:limit]

    def expire(self, subscription: Subscription, now: float, end_epochs: bool) -> None:
        """Remove the members whose lease ran out by steady time `now`."""
        for member in list(subscription.members.values()):
            if now - member.last_seen > self.lease_seconds:
                self.trace("expired", member.id)
                subscription.remove_member(member.id, end_epochs=end_epochs)

    def member_infos(self, name: str) -> list[MemberInfo]:
        """The group's members."""
        return [
            MemberInfo(
                member=member.id,
                instance=member.spec.instance,
                joined_ms=member.joined_ms,
                formats=member.spec.formats,
            )
            for member in self.subscription(name).members.values()
        ]

    def partition_infos(self, name: str) -> list[PartitionInfo]:
        """The subscription's partitions as last committed."""
        return [
            PartitionInfo(
                partition=index,
                position=slot.position,
                progress=slot.progress,
                epoch=slot.epoch,
                owner="" if slot.free else slot.owner,
            )
            for index, slot in enumerate(self.subscription(name).slots)
        ]

    def remove_subscription(self, name: str) -> None:
        """Forget it, unless members live."""
        if self.subscription(name).members:
            raise UsageError(f"subscription {name!r} has live members.", remedy="Stop them first.")
        removed = self.subscriptions.pop(name)
        self.former_names = {old: now for old, now in self.former_names.items() if now is not removed}

    def maintain(self, now_ms: int) -> None:
        """Apply retention and compaction to all topics, sparing pinned records."""
        for topic in self.topics.values():
            for index, partition in enumerate(topic.partitions):
                pinned = self._pinned(topic.spec.name, index)
                doomed = _overdue(partition, topic.spec, now_ms)
                if doomed:
                    partition.start = max(doomed) + 1
                if topic.spec.compacted:
                    doomed |= _superseded(partition, topic.spec, now_ms)
                partition.remove(doomed, pinned)
                if doomed:
                    self.trace("removed", topic.spec.name, index, len(doomed), partition.start)

    def _pinned(self, topic: str, partition: int) -> set[int]:
        return {
            int.from_bytes(key, "big")
            for subscription in self.subscriptions.values()
            if subscription.info.topic == topic
            for namespace in PINNING_NAMESPACES
            for key in subscription.slots[partition].state.get(namespace, ())
        }

    def bounds(self, topic: str) -> list[Bounds]:
        """First and next offset of each partition."""
        return [Bounds(partition.start, partition.end) for partition in self.topic(topic).partitions]


def _change_state(slot: Slot, part: PartitionCommit) -> None:
    for namespace in part.clears:
        slot.state.pop(namespace, None)
    for namespace, key, value in part.puts:
        slot.state.setdefault(namespace, {})[key] = value
    for namespace, key in part.deletes:
        if (entries := slot.state.get(namespace)) is not None:
            entries.pop(key, None)


def _overdue(partition: StoredPartition, spec: TopicSpec, now_ms: int) -> set[int]:
    """Offsets that retention takes: a prefix of the partition."""
    count = 0
    if spec.retention_ms is not None:
        while count < len(partition.records) and partition.records[count][1] < now_ms - spec.retention_ms:
            count += 1
    if spec.retention_bytes is not None:
        total = sum(size_of(record) for record in partition.records[count:])
        while count < len(partition.records) and total > spec.retention_bytes:
            total -= size_of(partition.records[count])
            count += 1
    return set(partition.offsets[:count])


def _superseded(partition: StoredPartition, spec: TopicSpec, now_ms: int) -> set[int]:
    """Offsets that compaction takes: what a newer record of the key replaced, and old tombstones."""
    newest = {record[2]: record[0] for record in partition.records if record[2] is not None}
    doomed = set()
    for offset, made_ms, key, _, value, _, _ in partition.records:
        if key is None:
            continue
        age = now_ms - made_ms
        replaced = newest[key] != offset and age >= spec.compact_after_ms
        forgotten = value is None and newest[key] == offset and age > spec.tombstone_ms
        if replaced or forgotten:
            doomed.add(offset)
    return doomed


def wake_future(future: asyncio.Future[None]) -> None:
    """Complete it unless it is done."""
    if not future.done():
        future.set_result(None)
