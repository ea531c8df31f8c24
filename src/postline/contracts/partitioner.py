"""Which partition a key belongs to: murmur2, exactly as Java's Kafka producer places keys."""

from __future__ import annotations

import struct

__all__ = ["Partitioner", "murmur2"]

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995
_SEED = 0x9747B28C
_CACHED_KEYS_MAX = 65_536


def murmur2(data: bytes) -> int:
    """The 32-bit hash of `data` as an unsigned number (org.apache.kafka.common.utils.Utils.murmur2)."""
    length = len(data)
    h = (_SEED ^ length) & _MASK
    whole = length & ~3
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        k = (word * _M) & _MASK
        k = ((k ^ (k >> 24)) * _M) & _MASK
        h = ((h * _M) & _MASK) ^ k
    if whole != length:
        h = ((h ^ int.from_bytes(data[whole:], "little")) * _M) & _MASK
    h = ((h ^ (h >> 13)) * _M) & _MASK
    return h ^ (h >> 15)


class Partitioner:
    """Places keys among a number of partitions; remembers recent keys, since hashing takes 2 µs."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self._placed: dict[bytes, int] = {}

    def partition_of(self, key: bytes) -> int:
        """The partition of `key`, from 0."""
        placed = self._placed.get(key)
        if placed is None:
            if len(self._placed) >= _CACHED_KEYS_MAX:
                self._placed.clear()
            placed = self._placed[key] = (murmur2(key) & 0x7FFFFFFF) % self.partitions
        return placed
