"""Topics of the cluster: their settings as `TopicSpec` has them, their bounds, making and changing them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from postline.errors import LogRefused, UnknownTopic
from postline.log.kafka.cluster import Cluster
from postline.log.kafka.options import RECORD_BYTES_MAX
from postline.log.port import Bounds, TopicSpec

__all__ = ["STATE_SETTINGS", "STATE_SUFFIX", "TopicState", "Topics", "settings_of", "state_topic"]

STATE_SUFFIX = ".state"

#: What stands for the id that an older broker does not tell.
_NO_IDS = ("None", "AAAAAAAAAAAAAAAAAAAAAA")
_ANSWER_SECONDS = 30.0
#: A leader that is away is waited for in vain when another one has taken over: it is asked for anew, each time with
#: twice the patience, up to a limit, for brokers may be slow as well.
_OFFSETS_SECONDS = 3.0
_LEARN_SECONDS = 0.01
#: A leader may not have heard yet of a topic that other brokers know.
_SPREAD_SECONDS = 5.0
#: Nor does a broker that is starting, for longer.
_STALE_SECONDS = 20.0
#: What headers and a batch's own fields may take of a broker's limit.
_ENVELOPE_BYTES = 4_096
_SEGMENT_BYTES_MIN, _SEGMENT_BYTES = 1 << 20, 1 << 30
_SEGMENT_MS_MIN, _SEGMENT_MS = 60_000, 7 * 86_400_000
#: Of changelogs, beside what follows from their spec: compacted soon, in small segments, so that restoring is short.
STATE_SETTINGS = {"segment.bytes": str(64 << 20), "min.cleanable.dirty.ratio": "0.3"}
_DELETE, _COMPACT = "delete", "compact"
_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class TopicState(NamedTuple):
    """A topic as the cluster has it."""

    name: str
    partitions: int
    #: Copies of its first partition.
    replicas: int
    id: str


def settings_of(spec: TopicSpec, record_bytes_max: int = RECORD_BYTES_MAX) -> dict[str, str]:
    """The topic's settings in Kafka's words.

    Kafka drops and compacts whole segments, so these are made small enough for what the topic keeps.
    """
    found = {
        "cleanup.policy": _DELETE,
        "retention.ms": "-1" if spec.retention_ms is None else str(spec.retention_ms),
        "retention.bytes": "-1" if spec.retention_bytes is None else str(spec.retention_bytes),
        "max.message.bytes": str(record_bytes_max),
        "segment.ms": str(_SEGMENT_MS if spec.retention_ms is None else _within_segment_ms(spec.retention_ms // 4)),
    }
    if spec.retention_bytes is not None:
        found["segment.bytes"] = str(min(max(spec.retention_bytes // 4, _SEGMENT_BYTES_MIN), _SEGMENT_BYTES))
    if spec.compacted:
        limited = spec.retention_ms is not None or spec.retention_bytes is not None
        found["cleanup.policy"] = f"{_COMPACT},{_DELETE}" if limited else _COMPACT
        found["delete.retention.ms"] = str(spec.tombstone_ms)
        found["min.compaction.lag.ms"] = str(spec.compact_after_ms)
    return found


def _within_segment_ms(wanted: int) -> int:
    return min(max(wanted, _SEGMENT_MS_MIN), _SEGMENT_MS)


def state_topic(name: str, partitions: int) -> TopicSpec:
    """The changelog of a subscription's partition state."""
    return TopicSpec(name=name, partitions=partitions, owner="", compacted=True)


def _as_told(spec: TopicSpec, settings: dict[str, str]) -> TopicSpec:
    """The declared topic with what the cluster says of its retention and compaction."""

    def number(name: str) -> int | None:
        value = int(settings.get(name, -1))
        return None if value < 0 else value

    cleanup = settings.get("cleanup.policy", _DELETE)
    compacted = _COMPACT in cleanup
    limited = _DELETE in cleanup
    limit = int(settings.get("max.message.bytes", RECORD_BYTES_MAX))
    changes: dict[str, Any] = {
        "message_bytes_max": None if limit >= RECORD_BYTES_MAX else max(1, limit - _ENVELOPE_BYTES),
        "compacted": compacted,
        "retention_ms": number("retention.ms") if limited else None,
        "retention_bytes": number("retention.bytes") if limited else None,
    }
    if compacted:
        changes["tombstone_ms"] = int(settings.get("delete.retention.ms", spec.tombstone_ms))
        changes["compact_after_ms"] = int(settings.get("min.compaction.lag.ms", 0))
    return TopicSpec(**{**{name: getattr(spec, name) for name in spec.__struct_fields__}, **changes})


class Topics:
    """Asks the cluster about topics and changes them. Blocking; thread-safe."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: dict[str, int] = {}

    # -- what there is ------------------------------------------------------------------------

    def all(self) -> dict[str, int]:
        """Every topic's number of partitions, but for Kafka's internal ones."""
        with self._cluster.asking("list topics"):
            found = self._cluster.admin.list_topics(timeout=_ANSWER_SECONDS).topics
        self._known = {
            name: len(each.partitions) for name, each in found.items() if not each.error and name[:2] != "__"
        }
        return dict(self._known)

    def brokers(self) -> int:
        """How many brokers the cluster has."""
        with self._cluster.asking("count brokers"):
            return len(self._cluster.admin.list_topics(timeout=_ANSWER_SECONDS).brokers)

    def partitions(self, name: str) -> int:
        """How many partitions the topic has, asked once. Raises UnknownTopic."""
        count = self._known.get(name)
        if count is None:
            count = self.look(name)
        if count is None:
            raise self.unknown(name)
        return count

    def known(self, name: str) -> int | None:
        """The same from memory alone; None if nobody asked yet."""
        return self._known.get(name)

    def forget(self, name: str) -> None:
        """Ask again at the next call."""
        self._known.pop(name, None)

    def look(self, name: str) -> int | None:
        """How many partitions the topic has at this moment; None if there is none of that name."""
        found: int | None = self._cluster.ask(f"look at topic {name}", lambda: self._looked_at(name))
        if found is None:
            self._known.pop(name, None)
        else:
            self._known[name] = found
        return found

    def _looked_at(self, name: str) -> int | None:
        found = self._cluster.admin.list_topics(topic=name, timeout=_ANSWER_SECONDS).topics[name]
        if found.error is None:
            return len(found.partitions)
        if found.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise KafkaException(found.error)
        return None

    def unknown(self, name: str) -> UnknownTopic:
        """The refusal of a topic that isn't there."""
        return UnknownTopic(
            f"The log {self._cluster.address} has no topic {name!r}.",
            remedy="`postline topics apply APP` makes the topics of an app; or correct the name.",
        )

    def describe(self, names: Collection[str]) -> dict[str, TopicState]:
        """The topics of these names that exist."""
        found: dict[str, TopicState] = {}
        if not names:
            return found
        for name in names:
            try:
                told = self._cluster.ask(f"describe topic {name}", lambda name=name: self._described(name))  # type: ignore[misc]
            except UnknownTopic:
                continue
            replicas = len(told.partitions[0].replicas) if told.partitions else 0
            found[name] = TopicState(name, len(told.partitions), replicas, str(told.topic_id))
        return found

    def _described(self, name: str) -> Any:
        answer = self._cluster.admin.describe_topics(TopicCollection([name]))
        return answer[name].result(_ANSWER_SECONDS)

    def settings(self, names: Collection[str], *, visible: bool = False) -> dict[str, dict[str, str]]:
        """The settings of topics, by name; those that vanished meanwhile are left out.

        With `visible` those that this user may not see have none, else it raises LogRefused.
        """
        asked = {name: ConfigResource(ResourceType.TOPIC, name) for name in names}
        if not asked:
            return {}
        answers = self._cluster.admin.describe_configs(list(asked.values()))
        found: dict[str, dict[str, str]] = {}
        for resource, future in answers.items():
            try:
                with self._cluster.asking(f"read the settings of topic {resource.name}"):
                    told = future.result(_ANSWER_SECONDS)
            except UnknownTopic:
                continue
            except LogRefused:
                if not visible:
                    raise
                found[resource.name] = {}
                continue
            found[resource.name] = {name: entry.value for name, entry in told.items()}
        return found

    def id_of(self, name: str) -> str:
        """The cluster's id of a topic; "" where it has none, as older brokers', or there is no such topic."""
        found = self.describe([name]).get(name)
        return found.id if found is not None and found.id not in _NO_IDS else ""

    def specs(self, declared: Iterable[TopicSpec]) -> list[TopicSpec]:
        """These topics as the cluster keeps them; the partitions, and what this user may not see, stay as declared."""
        by_name = {spec.name: spec for spec in declared}
        told = self.settings(by_name, visible=True)
        return [_as_told(by_name[name], settings) if settings else by_name[name] for name, settings in told.items()]

    # -- changing -----------------------------------------------------------------------------

    def intended(self, spec: TopicSpec) -> dict[str, str]:
        """The settings that a topic of this spec shall have on this cluster."""
        return settings_of(spec, self._cluster.options.record_bytes_max)

    def create(self, spec: TopicSpec, extra: Mapping[str, str] | None = None) -> None:
        """Make the topic, unless somebody else has made it."""
        self.create_all([spec], extra)

    def create_all(self, specs: Iterable[TopicSpec], extra: Mapping[str, str] | None = None) -> None:
        """Make these topics, but for those that somebody else has made."""
        wanted = [
            NewTopic(
                spec.name,
                spec.partitions,
                self._cluster.options.replication,
                config=self.intended(spec) | dict(extra or {}),
            )
            for spec in specs
        ]
        for name, made in (self._cluster.admin.create_topics(wanted) if wanted else {}).items():
            with self._cluster.asking(f"create topic {name}"):
                try:
                    made.result(_ANSWER_SECONDS)
                except KafkaException as error:
                    if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                        raise
        for each in wanted:
            self._learnt(each.topic)

    def _learnt(self, name: str) -> None:
        """Wait until the brokers we ask know the topic: they learn of a new one one after another."""
        until = self._cluster.clock.monotonic() + _ANSWER_SECONDS
        while self.look(name) is None:
            if self._cluster.stopping.wait(_LEARN_SECONDS) or self._cluster.clock.monotonic() > until:
                raise self.unknown(name)

    def create_state(self, name: str, partitions: int) -> None:
        """Make a changelog."""
        self.create(state_topic(name, partitions), STATE_SETTINGS)

    def alter(self, spec: TopicSpec) -> None:
        """Give an existing topic the settings of this spec."""
        self.change(spec.name, self.intended(spec))

    def change(self, name: str, settings: Mapping[str, str]) -> None:
        """Give an existing topic these settings; others stay as they are."""
        entries = [
            ConfigEntry(each, value, incremental_operation=AlterConfigOpType.SET) for each, value in settings.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        with self._cluster.asking(f"change topic {name}"):
            for future in self._cluster.admin.incremental_alter_configs([resource]).values():
                future.result(_ANSWER_SECONDS)

    def increase(self, name: str, partitions: int) -> None:
        """Give an existing topic so many partitions, unless it has them, or more, already. Raises UnknownTopic."""
        there = self.look(name)
        if there is None:
            raise self.unknown(name)
        if there >= partitions:
            return
        with self._cluster.asking(f"add partitions to topic {name}"):
            self._cluster.admin.create_partitions([NewPartitions(name, partitions)])[name].result(_ANSWER_SECONDS)
        while (self.look(name) or 0) < partitions and not self._cluster.stopping.wait(_LEARN_SECONDS):
            pass  # as with a new topic

    def delete(self, name: str) -> None:
        """Delete the topic; nothing happens if there is none."""
        try:
            with self._cluster.asking(f"delete topic {name}"):
                self._cluster.admin.delete_topics([name])[name].result(_ANSWER_SECONDS)
        except UnknownTopic:
            pass
        self.forget(name)

    # -- offsets ------------------------------------------------------------------------------

    def bounds(self, name: str) -> list[Bounds]:
        """First and next offset of each partition, open transactions included. Raises UnknownTopic."""
        places = [TopicPartition(name, number) for number in range(self.partitions(name))]
        starts, ends = self._offsets(places, _EARLIEST), self._offsets(places, _LATEST)
        return [Bounds(start, end) for start, end in zip(starts, ends, strict=True)]

    def stable_bounds(self, name: str) -> list[Bounds]:
        """The same as far as readers get: up to the first transaction that is open. Raises UnknownTopic."""
        places = [TopicPartition(name, number) for number in range(self.partitions(name))]
        starts, ends = self._offsets(places, _EARLIEST), self._offsets(places, _LATEST, IsolationLevel.READ_COMMITTED)
        return [Bounds(start, max(start, end)) for start, end in zip(starts, ends, strict=True)]

    def trim(self, name: str, partition: int, start: int) -> None:
        """Delete the records before this offset, for good."""
        place = TopicPartition(name, partition, start)
        self._cluster.ask(
            f"delete records of topic {name}",
            lambda: self._cluster.admin.delete_records([place])[place].result(_ANSWER_SECONDS),
        )

    def bounds_of(self, names: Iterable[str]) -> dict[str, list[Bounds]]:
        """The same of many topics, asked at once; of those that exist."""
        counts = {name: self._known.get(name) or self.look(name) for name in names}
        places = [TopicPartition(name, number) for name, count in counts.items() for number in range(count or 0)]
        if not places:
            return {}
        asked = [self._cluster.admin.list_offsets(dict.fromkeys(places, spec)) for spec in (_EARLIEST, _LATEST)]
        found: dict[str, list[Bounds]] = {name: [] for name, count in counts.items() if count}
        unclear = set()
        until = self._cluster.clock.monotonic() + _OFFSETS_SECONDS
        for place in places:
            left_seconds = max(0.0, until - self._cluster.clock.monotonic())
            try:
                start, end = (answers[place].result(left_seconds).offset for answers in asked)
            except (KafkaException, TimeoutError):
                start = end = -1
            if min(start, end) < 0:  # leaders move, or it is gone
                unclear.add(place.topic)
            found[place.topic].append(Bounds(start, end))
        for name in unclear:
            del found[name]
            with suppress(UnknownTopic):
                found[name] = self.bounds(name)
        return found

    def end(self, name: str, partition: int) -> int:
        """The partition's true end: past everything that was ever appended."""
        return self._offsets([TopicPartition(name, partition)], _LATEST)[0]

    def stable_end(self, name: str, partition: int) -> int:
        """Where the first transaction that is still open begins, else the end: readers get no further."""
        return self._offsets([TopicPartition(name, partition)], _LATEST, IsolationLevel.READ_COMMITTED)[0]

    def start(self, name: str, partition: int) -> int:
        """The first offset that retention has left."""
        return self._offsets([TopicPartition(name, partition)], _EARLIEST)[0]

    def offset_at(self, name: str, partition: int, time_ms: int) -> int:
        """The first offset of this time or later, else the end."""
        if partition >= self.partitions(name):
            raise self.unknown(name)
        place = TopicPartition(name, partition)
        found = self._offsets([place], OffsetSpec.for_timestamp(max(0, time_ms)))[0]
        return self.end(name, partition) if found < 0 else found

    def _offsets(
        self,
        places: Sequence[TopicPartition],
        spec: OffsetSpec,
        isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
    ) -> list[int]:
        patience_seconds = _OFFSETS_SECONDS

        def ask() -> dict[int, int]:
            nonlocal patience_seconds
            seconds, patience_seconds = patience_seconds, min(2 * patience_seconds, _ANSWER_SECONDS)
            asked = self._cluster.admin.list_offsets(dict.fromkeys(places, spec), isolation_level=isolation)
            try:
                found = {place.partition: future.result(seconds).offset for place, future in asked.items()}
            except KafkaException as error:
                if error.args[0].code() == KafkaError._NOENT and self._looked_at(name) is None:
                    raise self.unknown(name) from error  # "no leaders found" is also said of a deleted topic
                raise
            if min(found.values()) < 0 and spec in (_EARLIEST, _LATEST):  # a new leader that does not know it yet
                raise KafkaException(KafkaError(KafkaError.OFFSET_NOT_AVAILABLE))
            return found

        name, began = places[0].topic, self._cluster.clock.monotonic()
        known = name in self._known
        while True:
            try:
                by_partition = self._cluster.ask(f"find offsets of topic {name}", ask)
                return [by_partition[place.partition] for place in places]
            except UnknownTopic:
                # A leader that has just come up knows less than others; what others don't know either is gone.
                patience = _STALE_SECONDS if known and self.look(name) is not None else _SPREAD_SECONDS
                late = self._cluster.clock.monotonic() - began > patience
                if not known or late or self._cluster.stopping.wait(_LEARN_SECONDS):
                    raise
