"""Keys are placed exactly as Java's Kafka producer places them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postline.contracts import Partitioner, murmur2
from postline.errors import ContractError

#: Apache Kafka's own expectations of Utils.murmur2, as signed 32-bit numbers.
PUBLISHED = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


def _signed(number: int) -> int:
    number &= 0xFFFFFFFF
    return number - (1 << 32) if number >> 31 else number


def _as_java_writes_it(data: bytes) -> int:
    """Utils.murmur2 line by line: signed bytes, wrapping multiplication, unsigned shifts."""
    bits = 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    for i in range(len(data) // 4):
        k = sum(data[4 * i + j] << (8 * j) for j in range(4))
        k = (k * 0x5BD1E995) & bits
        k ^= k >> 24
        k = (k * 0x5BD1E995) & bits
        h = (h * 0x5BD1E995) & bits
        h ^= k
    rest = len(data) % 4
    start = len(data) & ~3
    if rest == 3:
        h ^= data[start + 2] << 16
    if rest >= 2:
        h ^= data[start + 1] << 8
    if rest >= 1:
        h ^= data[start]
        h = (h * 0x5BD1E995) & bits
    h ^= h >> 13
    h = (h * 0x5BD1E995) & bits
    return h ^ (h >> 15)


@pytest.mark.parametrize(("key", "expected"), PUBLISHED.items())
def test_the_published_values_of_kafka_come_out(key: bytes, expected: int) -> None:
    assert _signed(murmur2(key)) == expected


@given(st.binary(max_size=70))
def test_any_bytes_hash_as_java_hashes_them(key: bytes) -> None:
    assert murmur2(key) == _as_java_writes_it(key)


@given(st.binary(max_size=70), st.integers(1, 10_000))
def test_a_key_is_placed_by_the_positive_hash_both_times_it_is_asked(key: bytes, partitions: int) -> None:
    place = Partitioner(partitions).partition_of
    assert place(key) == place(key) == (_as_java_writes_it(key) & 0x7FFFFFFF) % partitions


def test_more_keys_than_are_remembered_are_placed_alike() -> None:
    partitioner = Partitioner(16)
    keys = [str(number).encode() for number in range(70_000)]
    placed = [partitioner.partition_of(key) for key in keys]
    assert [partitioner.partition_of(key) for key in keys[:100]] == placed[:100]
    assert set(placed) == set(range(16))


def test_what_is_remembered_is_bounded() -> None:
    place = Partitioner(16).partition_of
    remembered: dict[bytes, int] = place.__self__  # type: ignore[attr-defined]
    place(b"x" * 65)
    assert not remembered
    for number in range(65_537):
        place(str(number).encode())
    assert remembered == {b"65536": place(b"65536")}


@pytest.mark.parametrize("partitions", [0, -1])
def test_no_partitions_are_refused(partitions: int) -> None:
    with pytest.raises(ContractError, match="1 or more"):
        Partitioner(partitions)
