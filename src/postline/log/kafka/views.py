"""`Views`: what operators see of a subscription from outside its group: positions, members, state."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from postline.errors import LogUnavailable, UnknownTopic
from postline.log.kafka.cache import CacheBroken, CacheKey, StateCache
from postline.log.kafka.catalog import MemberEntry, SubscriptionEntry
from postline.log.kafka.changelog import Checkpoint
from postline.log.kafka.groups import Committed, LiveMember
from postline.log.kafka.parts import Parts
from postline.log.kafka.subscribing import find_subscription
from postline.log.kafka.topics import TopicState
from postline.log.port import MemberInfo, PartitionInfo

__all__ = ["Views", "member_infos"]

#: So many partitions' state is kept at hand, each in a file that goes with this object.
_KEPT_MAX = 256
_OWNERS_SECONDS = 3.0
_FRESH_SECONDS = 1.0
_SETTLE_SECONDS, _LOOK_SECONDS = 3.0, 0.02


class _View:
    __slots__ = ("cache", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.cache: StateCache | None = None


class Views:
    """Read-only looks at subscriptions. Blocking; thread-safe."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._views: OrderedDict[tuple[str, int], _View] = OrderedDict()
        self._lock = threading.Lock()
        #: Changelogs' topics, and when they were looked at.
        self._told: dict[str, tuple[TopicState, float]] = {}

    def close(self) -> None:
        """Throw the copies away."""
        with self._lock:
            for view in self._views.values():
                if view.cache is not None:
                    view.cache.close()
            self._views.clear()

    def partitions(self, subscription: str) -> list[PartitionInfo]:
        """Each partition as last committed. Raises UnknownSubscription."""
        entry = find_subscription(self._parts, subscription)
        committed = self.committed(entry)
        owners = self._owners(subscription)
        return [self.info(entry, each, owners.get(each.partition, "")) for each in committed]

    def _owners(self, subscription: str) -> dict[int, str]:
        """Who has what; nobody if the coordinator is away: positions don't need it."""
        try:
            members = self._parts.groups.members(subscription, _OWNERS_SECONDS)
        except LogUnavailable:
            return {}
        return {number: each.member for each in members for number in each.partitions}

    def committed(self, entry: SubscriptionEntry) -> list[Committed]:
        """What is committed, that of transactions just ending included, as far as they end soon."""
        numbers = range(len(entry.starts))
        until = self._parts.cluster.clock.monotonic() + _SETTLE_SECONDS
        while True:
            found = self._parts.groups.committed(entry.name, entry.topic, numbers, stable=True)
            if found is not None:
                return found
            if self._parts.cluster.stopping.wait(_LOOK_SECONDS) or self._parts.cluster.clock.monotonic() > until:
                return self._parts.groups.committed(entry.name, entry.topic, numbers, stable=False) or []

    def info(self, entry: SubscriptionEntry, each: Committed, owner: str) -> PartitionInfo:
        """A partition by what is committed for it; of one that nobody ever committed, its beginning."""
        if each.stamp is None:
            start = entry.starts[each.partition] if each.partition < len(entry.starts) else 0
            position = start if each.position is None else each.position
            return PartitionInfo(partition=each.partition, position=position, progress=b"", epoch=0, owner=owner)
        progress = each.stamp.progress
        if progress is None:
            progress = self._parts.changelog.progress(self._view(entry, each.partition))
        return PartitionInfo(
            partition=each.partition,
            position=each.position or 0,
            progress=progress,
            epoch=each.stamp.epoch,
            owner=owner,
        )

    def members(self, subscription: str) -> list[MemberInfo]:
        """Its live members, in the order in which they joined. Raises UnknownSubscription."""
        find_subscription(self._parts, subscription)
        return member_infos(self._parts.groups.members(subscription), self._parts.catalog.members(subscription))

    def peek(
        self, subscription: str, partition: int, namespace: str, after: bytes, limit: int
    ) -> list[tuple[bytes, bytes]]:
        """Committed state entries above `after`, in key order. Raises UnknownSubscription."""
        entry = find_subscription(self._parts, subscription)
        with self._readable(entry, partition) as cache:
            return cache.scan(namespace, after, limit)

    def entries(
        self, entry: SubscriptionEntry, partition: int, after: tuple[str, bytes], limit: int
    ) -> list[tuple[str, bytes, bytes]]:
        """Committed entries of all namespaces above this namespace and key, in this order."""
        with self._readable(entry, partition) as cache:
            return cache.scan_all(after, limit)

    def namespaces(self, entry: SubscriptionEntry, partition: int) -> list[str]:
        """The namespaces that have entries, the engine's own included."""
        with self._readable(entry, partition) as cache:
            return cache.namespaces()

    def checkpoint(self, entry: SubscriptionEntry, partition: int) -> Checkpoint | None:
        """The last checkpoint of the partition, if there is one."""
        where = f"Subscription {entry.name}, {entry.topic} partition {partition}"
        with self._readable(entry, partition) as cache:
            return self._parts.changelog.checkpoint(cache, where)

    def progress(self, entry: SubscriptionEntry, partition: int) -> bytes:
        """The progress that had no room in the offset's metadata."""
        with self._readable(entry, partition) as cache:
            return self._parts.changelog.progress(cache)

    @contextmanager
    def _readable(self, entry: SubscriptionEntry, partition: int) -> Iterator[StateCache]:
        try:
            yield self._view(entry, partition)
        except CacheBroken as error:
            raise LogUnavailable(
                f"The state of {entry.name!r} partition {partition} can't be kept at hand: {error}",
                remedy="Try again.",
            ) from error

    def get(self, entry: SubscriptionEntry, partition: int, namespace: str, keys: list[bytes]) -> dict[bytes, bytes]:
        """The committed entries among `keys`."""
        return self._view(entry, partition).get(namespace, keys)

    def known(self, entry: SubscriptionEntry) -> TopicState:
        """The changelog's topic, asked again after a moment: a sweep over partitions and namespaces asks once."""
        topic, now = entry.state_topic, self._parts.cluster.clock.monotonic()
        told = self._told.get(topic)
        if told is None or now - told[1] > _FRESH_SECONDS:
            found = self._parts.topics.describe([topic]).get(topic)
            if found is None:
                raise self._gone(entry)
            told = self._told[topic] = (found, now)
        return told[0]

    def _gone(self, entry: SubscriptionEntry) -> UnknownTopic:
        return UnknownTopic(
            f"The topic {entry.state_topic!r} of {self._parts.cluster.address} is gone, or part of it, which kept what "
            f"subscription {entry.name!r} holds, remembers and counts.",
            remedy="Bring it back from a mirror; or begin anew: "
            f"`postline subscriptions remove {entry.name}`, then `postline topics apply APP`.",
        )

    def _view(self, entry: SubscriptionEntry, partition: int) -> StateCache:
        """The partition's state as it is now."""
        known = self.known(entry)
        if partition >= known.partitions:
            raise self._gone(entry)
        with self._lock:
            view = self._views.setdefault((known.id, partition), _View())
            self._views.move_to_end((known.id, partition))
            old = self._views.popitem(last=False)[1] if len(self._views) > _KEPT_MAX else None
        if old is not None and old.cache is not None:
            with old.lock:
                old.cache.close()
        with view.lock:
            if view.cache is None:
                view.cache = StateCache.open(None, CacheKey(known.id, self._parts.cluster.cluster_id))
            self._parts.changelog.catch_up(view.cache, entry.state_topic, partition, _go_on)
            return view.cache


def member_infos(live: Iterable[LiveMember], said: Mapping[str, MemberEntry | None]) -> list[MemberInfo]:
    """Members as the coordinator knows them, with what they say of themselves, in the order in which they joined."""
    found = []
    for each in live:
        told = said.get(each.client)
        found.append(
            MemberInfo(
                member=each.member,
                instance=told.instance if told else each.host,
                joined_ms=told.joined_ms if told else 0,
                formats=told.formats if told else {},
            )
        )
    return sorted(found, key=lambda each: each.joined_ms)


def _go_on() -> None:
    """Wait for as long as an open transaction takes: it ends by its time limit."""
