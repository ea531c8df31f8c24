"""The catalog: what Kafka has no place for, in one compacted topic: declared topics, subscriptions, their members.

Topics' owners and keys, subscriptions' services and starting points, and what members say about themselves are JSON
records, readable with any Kafka tool. Changes that depend on what is there are serialized by the catalog's own
transactional id: whoever begins fences whoever has not finished, and that one looks again and tries again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer

from postline.errors import LogCorrupt, LogUnavailable, UnknownTopic
from postline.log.kafka.cluster import Cluster
from postline.log.kafka.reading import STABLE_SECONDS, Readers, held_back
from postline.log.kafka.topics import Topics
from postline.log.kafka.transactions import Aborted, Died, Outgoing, Transactions, failure_of
from postline.log.port import TopicSpec
from postline.log.transfer import Mark, Phase, moved
from postline.message import UNREADABLE

__all__ = [
    "FROZEN",
    "MIGRATION",
    "Catalog",
    "Changes",
    "Entries",
    "MemberEntry",
    "RepartitionEntry",
    "SubscriptionEntry",
    "catalog_topic",
    "changelog_key",
    "changelogs_in",
    "members_in",
    "subscriptions_in",
    "topic_key",
    "topic_specs_in",
    "written",
]

#: By kind and name, as JSON.
Entries = Mapping[str, bytes]
#: Entries to write; None removes one.
Changes = dict[str, bytes | None]

#: Where a migration's mark lies.
MIGRATION = "migration"
#: Where the settings lie that freezing has changed, as topics had them.
FROZEN = "frozen"

_TRIES = 20
_SECONDS = 30.0
_AGAIN_SECONDS = 0.02
_encode = msgspec.json.encode


class SubscriptionEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription: its group has its name; its state lies in `state_topic`, which keeps its name for ever."""

    name: str
    topic: str
    service: str
    created_ms: int
    state_topic: str
    #: Where each partition begins, decided when the subscription was made.
    starts: list[int]
    #: Names it had before, which nobody may join under.
    former: list[str] = []
    #: The cluster's id of the topic: one that is made again under the same name has another, and other offsets.
    topic_id: str = ""

    @property
    def key(self) -> str:
        """Its place in the catalog."""
        return f"subscription/{self.name}"


class MemberEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What a member says of itself; it lives as long as the group's coordinator says so."""

    subscription: str
    #: Its client id, by which the coordinator knows it too.
    client: str
    instance: str
    joined_ms: int
    formats: dict[str, int] = {}
    #: The id that it commits under.
    transactional_id: str = ""

    @property
    def key(self) -> str:
        """Its place in the catalog."""
        return f"member/{self.subscription}/{self.client}"


class RepartitionEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A topic that is being given other partitions: nobody joins its subscriptions while this is here."""

    topic: str
    before: int
    partitions: int

    @property
    def key(self) -> str:
        """Its place in the catalog."""
        return f"repartition/{self.topic}"


def catalog_topic(prefix: str) -> TopicSpec:
    """The topic that the catalog lies in."""
    return TopicSpec(name=f"{prefix}postline.catalog", partitions=1, owner="", compacted=True)


class Catalog:
    """Reads the catalog as it is at the moment of asking, and changes it. Blocking; thread-safe."""

    def __init__(self, cluster: Cluster, topics: Topics, readers: Readers) -> None:
        self._cluster, self._topics, self._readers = cluster, topics, readers
        self.spec = catalog_topic(cluster.prefix)
        self._lock = threading.Lock()
        #: Held for writing; kept open between updates, since nobody wrote who has not fenced them.
        self._updating = threading.Lock()
        self._transactions = Transactions(cluster, f"{self.spec.name}.update", seconds=_SECONDS)
        self._producer: Producer | None = None
        self._entries: dict[str, bytes] = {}
        self._read_to = 0

    # -- reading ------------------------------------------------------------------------------

    def entries(self) -> Entries:
        """Everything that is written by now; nothing if there is no catalog yet."""
        with self._lock:
            self._catch_up()
            return dict(self._entries)

    def _catch_up(self) -> None:
        name = self.spec.name
        if self._topics.known(name) is None and self._topics.look(name) is None:
            self._entries, self._read_to = {}, 0
            return
        try:
            end = self._topics.end(name, 0)
        except UnknownTopic as error:
            if self._topics.look(name) is not None:  # said by a broker that has just come up
                raise LogUnavailable(
                    f"{self._cluster.address} does not find its topic {name}.", remedy="Try again; look at the brokers."
                ) from error
            self._entries, self._read_to = {}, 0
            return
        if end == self._read_to:
            return
        if end < self._read_to:  # it was deleted and made again
            self._entries, self._read_to = {}, 0
        clock, patience = self._cluster.clock, STABLE_SECONDS + self._cluster.options.transaction_seconds
        until = clock.monotonic() + patience
        for messages in self._readers.stream(name, 0, self._read_to, end):
            if messages:
                until = clock.monotonic() + patience
            elif clock.monotonic() > until:
                raise held_back(self._cluster.address, self._read_to, name, 0)
            for message in messages:
                # Ours are ASCII: what is no text is another program's.
                self._take((message.key() or b"").decode(errors="replace"), message.value())
        self._read_to = max(end, self._read_to)

    def _take(self, key: str, value: bytes | None) -> None:
        if value is None:
            self._entries.pop(key, None)
        else:
            self._entries[key] = value

    def topic_specs(self) -> dict[str, TopicSpec]:
        """The declared topics by name."""
        return topic_specs_in(self.entries())

    def partitions(self, topic: str) -> int:
        """How many partitions of the topic are known here: the declared ones, else all. Raises UnknownTopic."""
        there = self._topics.partitions(topic)
        declared = self.topic_specs().get(topic)
        return min(there, declared.partitions) if declared else there

    def subscriptions(self) -> dict[str, SubscriptionEntry]:
        """All subscriptions by name."""
        return subscriptions_in(self.entries())

    def members(self, subscription: str) -> dict[str, MemberEntry]:
        """What members of the subscription said of themselves, by client id; some may be dead."""
        return {each.client: each for each in self._all(f"member/{subscription}/", MemberEntry)}

    def changelogs(self) -> set[str]:
        """Changelogs that were made before their subscriptions."""
        return changelogs_in(self.entries())

    def mark(self) -> Mark | None:
        """What a migration has written about itself."""
        found: list[Mark] = self._all(MIGRATION, Mark)
        return found[0] if found else None

    def require_standing(self) -> None:
        """Raise LogMoved unless this is a log to work on."""
        mark = self.mark()
        if mark is not None and mark.phase is not Phase.FILLED:
            raise moved(mark, self._cluster.address)

    def moving(self) -> dict[str, RepartitionEntry]:
        """Topics whose repartitioning has begun and not ended, by name."""
        return {each.topic: each for each in self._all("repartition/", RepartitionEntry)}

    def _all(self, prefix: str, kind: type[Any]) -> list[Any]:
        return _read_all(self.entries(), prefix, kind)

    # -- writing ------------------------------------------------------------------------------

    def update(self, change: Callable[[Entries], Changes]) -> Entries:
        """Write what `change` makes of the entries, as one step that no other update comes between.

        `change` may be called several times and may raise. Gives the entries as they are afterwards.
        """
        self._ensure_topic()
        with self._updating:
            if not change(self.entries()):
                return self.entries()
            # Processes of one machine take turns; between machines, who is overtaken begins again.
            with self._cluster.turn("catalog"):
                return self._update(change)

    def _update(self, change: Callable[[Entries], Changes]) -> Entries:
        for number in range(_TRIES):
            try:
                self._transactions.open()
                if changes := change(self.entries()):
                    self._transactions.run(self._outgoing(changes))
                return self.entries()
            except (Aborted, Died) as error:
                last = error
                self._transactions.close()
                if error.error.code() not in _OVERTAKEN:
                    raise failure_of(error, "write to the catalog", self._cluster.address) from error
            self._cluster.stopping.wait(_AGAIN_SECONDS * (1 + number * (1 + self._cluster.slot.number)))
        raise LogUnavailable(
            f"The catalog of {self._cluster.address} is being changed by others all the time.", remedy="Try again."
        ) from last

    def put(self, changes: Changes) -> None:
        """Write entries that depend on nothing else."""
        self._ensure_topic()
        failures: list[KafkaError] = []
        with self._updating, self._cluster.asking("write to the catalog"):
            producer = self._producer = self._producer or self._cluster.plain_producer()
            for key, value in changes.items():
                producer.produce(
                    self.spec.name,
                    value=value,
                    key=key.encode(),
                    partition=0,
                    on_delivery=lambda error, _: failures.append(error) if error is not None else None,
                )
            producer.flush()
            if failures:
                raise KafkaException(failures[0])

    def _outgoing(self, changes: Changes) -> list[Outgoing]:
        return [Outgoing(self.spec.name, 0, key.encode(), value) for key, value in changes.items()]

    def make(self) -> None:
        """Make the catalog's topic unless it is there; for operators' tools."""
        if self._topics.look(self.spec.name) is None:
            self._topics.create(self.spec)

    def _ensure_topic(self) -> None:
        if self._topics.known(self.spec.name) is None and self._topics.look(self.spec.name) is None:
            if not self._cluster.options.create_topics:
                raise self._topics.unknown(self.spec.name)
            self._topics.create(self.spec)


_OVERTAKEN = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,  # forgotten by its coordinator, after a week without an update
        KafkaError._STATE,
    }
)


def subscriptions_in(entries: Entries) -> dict[str, SubscriptionEntry]:
    """The subscriptions among these entries, by name."""
    return {each.name: each for each in _read_all(entries, "subscription/", SubscriptionEntry)}


def topic_specs_in(entries: Entries) -> dict[str, TopicSpec]:
    """The declared topics among these entries, by name."""
    return {spec.name: spec for spec in _read_all(entries, "topic/", TopicSpec)}


def members_in(entries: Entries) -> list[MemberEntry]:
    """What members of all subscriptions said of themselves; some may be dead."""
    return _read_all(entries, "member/", MemberEntry)


def changelogs_in(entries: Entries) -> set[str]:
    """Changelogs among these entries that were made before their subscriptions."""
    return {key.partition("/")[2] for key in entries if key.startswith("changelog/")}


def _read_all(entries: Entries, prefix: str, kind: type[Any]) -> list[Any]:
    """Entries of a kind. Raises LogCorrupt for one that can't be read: nobody knows what it would have said."""
    decode = msgspec.json.Decoder(kind).decode
    found = []
    for key, value in entries.items():
        if key.startswith(prefix):
            try:
                found.append(decode(value))
            except UNREADABLE as error:
                raise LogCorrupt(
                    f"The catalog's entry {key!r} can't be read: {error}",
                    remedy="Another program wrote it: produce a record without a value under that key into the topic "
                    "postline.catalog, and let services alone write there.",
                ) from error
    return found


def written(entry: SubscriptionEntry | MemberEntry | RepartitionEntry) -> bytes:
    """The entry as the catalog keeps it."""
    return _encode(entry)


def changelog_key(name: str) -> str:
    """A changelog's place in the catalog."""
    return f"changelog/{name}"


def topic_key(name: str) -> str:
    """A topic's place in the catalog."""
    return f"topic/{name}"
