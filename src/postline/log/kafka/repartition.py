"""Giving a topic other partitions: it and its subscriptions' own topics grow, and state moves to where its keys go now.

A mark in the catalog keeps everybody from joining meanwhile. State moves in transactions of some entries each, which
put each where it belongs and delete it where it lay; one that is where it belongs stays. So whatever interrupts it, the
same call goes on, or takes everything back. The last step, the new number in the catalog, is one transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from postline.errors import LogUnavailable, TopicMismatch, UsageError
from postline.log.kafka.cache import CacheBroken, CacheKey, Change, StateCache
from postline.log.kafka.catalog import (
    Changes,
    Entries,
    RepartitionEntry,
    SubscriptionEntry,
    subscriptions_in,
    topic_key,
    written,
)
from postline.log.kafka.changelog import change_in, outgoing
from postline.log.kafka.parts import Parts
from postline.log.kafka.transactions import Aborted, Died, Outgoing, Transactions, failure_of
from postline.log.needs import Placer, Repartitioning, StateEntry, TopicSpec
from postline.logs.events import event

__all__ = ["being_moved", "repartition"]

_log = logging.getLogger("postline.log.kafka")

_LOOK_SECONDS = 0.25
#: What one transaction moves at most.
_PAGE, _PAGE_BYTES = 2_000, 4 << 20
_SCAN = 250
#: Namespaces of the engine's own begin so; they belong to the partition and stay.
_ENGINES = "\0"


def being_moved(entry: RepartitionEntry) -> TopicMismatch:
    """The refusal of whoever comes to a topic meanwhile."""
    return TopicMismatch(
        f"Topic {entry.topic!r} is being given {entry.partitions} partitions, which has not ended.",
        remedy=f"Wait for it; if it was interrupted, `postline topics repartition {entry.topic} {entry.partitions}`"
        f" goes on with it, and with {entry.before} takes it back.",
    )


def repartition(parts: Parts, wanted: Repartitioning, place: Placer) -> None:
    """Do it, go on with it, or (with the number of before) take it back. Blocking."""
    moving = _Moving(parts, wanted, place)
    if wanted.partitions == wanted.before:
        moving.take_back()
        return
    moving.mark()
    try:
        moving.look()
        moving.increase()
        moving.move(wanted.partitions)
        moving.require_quiet()
    except UsageError:
        moving.take_back()
        raise
    moving.declare()


class _Moving:
    """One topic on its way to other partitions."""

    def __init__(self, parts: Parts, wanted: Repartitioning, place: Placer) -> None:
        self._parts, self._wanted, self._place = parts, wanted, place
        self._transactions = Transactions(parts.cluster, f"{parts.cluster.transactions_prefix}catalog.repartition")
        self._mark = RepartitionEntry(topic=wanted.topic, before=wanted.before, partitions=wanted.partitions)

    # -- the mark -----------------------------------------------------------------------------

    def mark(self) -> None:
        """Keep others from joining, from now on and until it has ended."""

        def change(entries: Entries) -> Changes:
            there = entries.get(self._mark.key)
            if there is None:
                return {self._mark.key: written(self._mark)}
            known = msgspec.json.decode(there, type=RepartitionEntry)
            if known != self._mark:
                raise being_moved(known)
            return {}

        self._parts.catalog.update(change)

    def declare(self) -> None:
        """Write the new number, everywhere at once, and take the mark away."""
        wanted = self._wanted

        def change(entries: Entries) -> Changes:
            found: Changes = {self._mark.key: None}
            own = [name for names in wanted.subscriptions.values() for name in names]
            for key in map(topic_key, (wanted.topic, *own)):
                if key in entries:
                    spec = msgspec.json.decode(entries[key], type=TopicSpec)
                    spec = msgspec.structs.replace(spec, partitions=wanted.partitions)
                    found[key] = msgspec.json.encode(spec)
            for entry in _subscriptions_of(wanted.topic, entries):
                starts = entry.starts + [0] * (wanted.partitions - len(entry.starts))
                found[entry.key] = written(msgspec.structs.replace(entry, starts=starts))
            return found

        self._parts.catalog.update(change)
        _log.info(
            "topic %s has %d partitions now",
            wanted.topic,
            wanted.partitions,
            extra=event("topic.repartitioned", topic=wanted.topic, partitions=wanted.partitions),
        )

    def take_back(self) -> None:
        """Bring state back to the partitions of before, and take the mark away; nothing happens if there is none."""
        if self._wanted.topic not in self._parts.catalog.moving():
            return
        self.move(self._wanted.before)
        self._parts.catalog.update(lambda entries: {self._mark.key: None} if self._mark.key in entries else {})

    # -- nobody else --------------------------------------------------------------------------

    def look(self) -> None:
        """Look for so long whether anybody is at work. Raises UsageError."""
        cluster = self._parts.cluster
        end = cluster.clock.monotonic() + self._wanted.look_seconds
        while True:
            self.require_quiet()
            if cluster.clock.monotonic() >= end:
                return
            if cluster.stopping.wait(_LOOK_SECONDS):
                raise cluster.closed()

    def require_quiet(self) -> None:
        """Raise UsageError if somebody publishes or works for a subscription."""
        wanted = self._wanted
        ends = [each.end for each in self._parts.topics.bounds(wanted.topic)][: wanted.before]
        if ends != list(wanted.ends):
            raise UsageError(
                f"Something was published to {wanted.topic!r} meanwhile, so that its partitions stay as they are.",
                remedy="Stop whatever publishes to it, let the subscriptions catch up, stop them, and try again.",
            )
        for entry in self._subscriptions():
            if self._parts.groups.members(entry.name):
                raise UsageError(
                    f"Subscription {entry.name!r} has live members, so that partitions stay as they are.",
                    remedy="Stop the service that runs it, and try again.",
                )

    def _subscriptions(self) -> list[SubscriptionEntry]:
        return _subscriptions_of(self._wanted.topic, self._parts.catalog.entries())

    # -- the topics ---------------------------------------------------------------------------

    def increase(self) -> None:
        """Add the partitions; the topic itself comes last."""
        for name in (name for names in self._wanted.subscriptions.values() for name in names):
            self._parts.topics.increase(name, self._wanted.partitions)
        for entry in self._subscriptions():
            self._parts.topics.increase(entry.state_topic, self._wanted.partitions)
        self._parts.topics.increase(self._wanted.topic, self._wanted.partitions)

    # -- the state ----------------------------------------------------------------------------

    def move(self, partitions: int) -> None:
        """Move every entry of state to its place among so many partitions."""
        for entry in self._subscriptions():
            try:
                self._move_state(entry, partitions)
            except CacheBroken as error:
                raise LogUnavailable(
                    f"The state of {entry.name!r} can't be kept at hand while it is moved: {error}",
                    remedy="Make room and try again: it goes on.",
                ) from error
            except (Aborted, Died) as error:
                raise failure_of(error, f"move the state of {entry.name}", self._parts.cluster.address) from error

    def _move_state(self, entry: SubscriptionEntry, partitions: int) -> None:
        with _Copy(self._parts, entry.state_topic) as copy:
            moved = 0
            for page in copy.pages():
                changes = self._changes(copy, page, partitions)
                if changes:
                    self._transactions.run(list(_outgoing(entry.state_topic, changes)))
                    copy.apply(changes)
                    moved += sum(value is not None for _, (_, _, value) in changes)
            _log.info(
                "subscription %s: %d entries of state have moved",
                entry.name,
                moved,
                extra=event("state.moved", subscription=entry.name, entries=moved),
            )

    def _changes(self, copy: _Copy, page: Sequence[StateEntry], partitions: int) -> list[tuple[int, Change]]:
        """Puts where entries belong, unless there is one there already, and deletes where they don't."""
        others: list[StateEntry] = []
        found: list[tuple[int, Change]] = []
        for entry in page:
            belongs = self._place(entry, partitions)
            elsewhere = [each for each in belongs if each.partition != entry.partition]
            others += elsewhere
            if len(elsewhere) == len(belongs):
                found.append((entry.partition, (entry.namespace, entry.key, None)))
        return found + [(each.partition, (each.namespace, each.key, each.value)) for each in copy.absent(others)]


class _Copy:
    """All partitions of a subscription's state in one private file, to look things up in while they move."""

    def __init__(self, parts: Parts, topic: str) -> None:
        self._parts, self._topic = parts, topic
        self._namespaces: set[tuple[int, str]] = set()
        known = parts.topics.describe([topic]).get(topic)
        if known is None:
            raise parts.topics.unknown(topic)
        self._cache = StateCache.open(None, CacheKey(known.id, parts.cluster.cluster_id))
        self._partitions = known.partitions

    def __enter__(self) -> _Copy:
        try:
            for partition in range(self._partitions):
                self._read(partition)
        except BaseException:
            self._cache.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._cache.close()

    def _read(self, partition: int) -> None:
        end = self._parts.topics.end(self._topic, partition)
        for messages in self._parts.readers.stream(self._topic, partition, 0, end):
            found = [change_in(key, each.value()) for each in messages if (key := each.key()) is not None]
            self.apply([(partition, change) for change in found if change is not None])

    def apply(self, changes: Sequence[tuple[int, Change]]) -> None:
        """Take in what was, or is, written."""
        self._namespaces |= {(partition, namespace) for partition, (namespace, _, _) in changes}
        placed = [(_placed(partition, namespace), key, value) for partition, (namespace, key, value) in changes]
        self._cache.apply(placed, 0, self._parts.cluster.clock.now_ms())

    def pages(self) -> Iterator[list[StateEntry]]:
        """All entries but the engine's own, as many at a time as one transaction moves."""
        for partition, namespace in sorted(self._namespaces):
            if namespace.startswith(_ENGINES):
                continue
            page, size = list[StateEntry](), 0
            for entry in self._entries(partition, namespace):
                page.append(entry)
                size += len(entry.value)
                if len(page) >= _PAGE or size >= _PAGE_BYTES:
                    yield page
                    page, size = [], 0
            yield page

    def _entries(self, partition: int, namespace: str) -> Iterator[StateEntry]:
        after = b""
        while found := self._cache.scan(_placed(partition, namespace), after, _SCAN):
            for key, value in found:
                yield StateEntry(partition, namespace, key, value)
            after = found[-1][0]

    def absent(self, entries: Sequence[StateEntry]) -> list[StateEntry]:
        """Those that have nothing in their place."""
        keys: dict[str, list[bytes]] = {}
        for each in entries:
            keys.setdefault(_placed(each.partition, each.namespace), []).append(each.key)
        there = {place: self._cache.get(place, some) for place, some in keys.items()}
        return [each for each in entries if each.key not in there[_placed(each.partition, each.namespace)]]


def _placed(partition: int, namespace: str) -> str:
    return f"{partition}\0{namespace}"


def _outgoing(topic: str, changes: Sequence[tuple[int, Change]]) -> Iterator[Outgoing]:
    for partition, change in changes:
        yield from outgoing(topic, partition, [change])


def _subscriptions_of(topic: str, entries: Mapping[str, bytes]) -> list[SubscriptionEntry]:
    return [each for each in subscriptions_in(entries).values() if each.topic == topic]
