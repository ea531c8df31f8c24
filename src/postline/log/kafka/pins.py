"""`Pins`: keeps held and dead-lettered records readable, whatever retention and compaction do to their topic.

Kafka can't spare single records, so those in danger are copied into the partition state: on a compacted topic at once,
with the commit that holds them; elsewhere once half of what retention allows has passed. The copy goes with the last
entry that names its record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from postline.log.kafka.cache import Change, StateCache
from postline.log.kafka.changelog import COPIES
from postline.log.kafka.ownership import Owned
from postline.log.kafka.parts import Parts
from postline.log.port import PINNING_NAMESPACES, PartitionCommit, Record

__all__ = ["Pins", "copy_of", "record_in"]

_PAGE = 1_000
_OFFSET_BYTES = 8
_INTEGERS_END = 1 << 64
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def copy_of(record: Record) -> bytes:
    """The copy of a record. Flags that name a schema by its GUID are more than an integer there: they go as text."""
    flags = record[5]
    return _encode((*record[:5], flags if flags < _INTEGERS_END else str(flags), record[6]))


def record_in(copy: bytes) -> Record:
    """The record that a copy holds."""
    offset, timestamp_ms, key, name, value, flags, headers = _decode(copy)
    return offset, timestamp_ms, key, name, value, int(flags), [(header, told) for header, told in headers]


class Pins:
    """The copies of one subscription's held records. Blocking; used by the commit thread alone."""

    def __init__(self, parts: Parts, topic: str) -> None:
        self._parts, self._topic = parts, topic
        self._settings: dict[str, str] = {}

    def look(self) -> None:
        """Learn what the topic keeps, as it is set now."""
        self._settings = self._parts.topics.settings([self._topic]).get(self._topic, {})

    @property
    def _compacted(self) -> bool:
        return "compact" in self._settings.get("cleanup.policy", "")

    def changes(self, commit: PartitionCommit, cache: StateCache) -> list[Change]:
        """The copies that go into, or out of, the state together with this commit."""
        pinned = {key for namespace, key, _ in commit.puts if namespace in PINNING_NAMESPACES}
        freed = {key for namespace, key in commit.deletes if namespace in PINNING_NAMESPACES} - pinned
        found: list[Change] = []
        if pinned and self._compacted:
            found += self._copies(commit.assignment.partition, _missing(cache, sorted(pinned)))
        if freed:
            gone = set(commit.deletes)
            for key in cache.get(COPIES, sorted(freed)):
                named = any(
                    (namespace, key) not in gone and cache.get(namespace, [key]) for namespace in PINNING_NAMESPACES
                )
                if not named:
                    found.append((COPIES, key, None))
        return found

    def threatened(self, owned: Owned) -> list[Change]:
        """Copies of the partition's pinned records that retention may take before long."""
        partition = owned.assignment.partition
        keys = [key for namespace in PINNING_NAMESPACES for key in _keys(owned.cache, namespace)]
        if not keys:
            return []
        below = self._safe_from(partition)
        return self._copies(partition, _missing(owned.cache, [key for key in keys if _offset(key) < below]))

    def _safe_from(self, partition: int) -> int:
        """The first offset that retention will not take soon."""
        retention_ms = int(self._settings.get("retention.ms", "-1"))
        bounds = self._parts.topics.bounds(self._topic)[partition]
        if self._compacted:
            return bounds.end
        safe = bounds.start
        if retention_ms >= 0:
            half_ago = self._parts.cluster.clock.now_ms() - retention_ms // 2
            safe = max(safe, self._parts.topics.offset_at(self._topic, partition, half_ago))
        if int(self._settings.get("retention.bytes", "-1")) >= 0:
            safe = max(safe, bounds.start + (bounds.end - bounds.start) // 2)
        return safe

    def _copies(self, partition: int, keys: Sequence[bytes]) -> list[Change]:
        if not keys:
            return []
        records = self._parts.readers.read_offsets(self._topic, partition, [_offset(key) for key in keys])
        return [(COPIES, record[0].to_bytes(_OFFSET_BYTES, "big"), copy_of(record)) for record in records]


def _missing(cache: StateCache, keys: Sequence[bytes]) -> list[bytes]:
    there = cache.get(COPIES, keys)
    return [key for key in keys if key not in there]


def _keys(cache: StateCache, namespace: str) -> Iterator[bytes]:
    after = b""
    while page := cache.scan(namespace, after, _PAGE):
        yield from (key for key, _ in page)
        after = page[-1][0]


def _offset(key: bytes) -> int:
    return int.from_bytes(key, "big")
