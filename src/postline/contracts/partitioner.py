"""Which partition a key belongs to: murmur2, exactly as Java's Kafka producer places keys."""

from __future__ import annotations

import struct
from collections.abc import Callable

from postline.errors import ContractError

__all__ = ["Partitioner", "murmur2"]

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995
_SEED = 0x9747B28C
_CACHED_KEYS_MAX = 65_536
#: Longer keys are hashed each time, so that what is remembered stays under some 10 MB.
_CACHED_KEY_BYTES_MAX = 64


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


class _Placed(dict[bytes, int]):
    """Recent keys' partitions; a dict of its own, so that a known key costs one look-up in C."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions

    def __missing__(self, key: bytes) -> int:
        # The sign bit is cleared, as Java's toPositive does.
        partition = (murmur2(key) & 0x7FFFFFFF) % self._partitions
        if len(key) <= _CACHED_KEY_BYTES_MAX:
            if len(self) >= _CACHED_KEYS_MAX:
                self.clear()
            self[key] = partition
        return partition


class Partitioner:
    """Places keys among a number of partitions; remembers recent keys, since hashing takes 2 µs."""

    #: The partition of a key, from 0. Thread-safe.
    partition_of: Callable[[bytes], int]

    def __init__(self, partitions: int) -> None:
        if partitions < 1:
            raise ContractError(f"Keys can't be placed among {partitions} partitions.", remedy="Use 1 or more.")
        self.partitions = partitions
        self.partition_of = _Placed(partitions).__getitem__
