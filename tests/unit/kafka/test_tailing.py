"""Tails: what a broker's trouble comes with is given all the same, since it is consumed but once."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from postline.clock import SystemClock
from postline.log.kafka.tailing import KafkaTail


class _Consumed:
    """A message, or what a broker says instead of one."""

    def __init__(self, offset: int, code: int | None = None) -> None:
        self.offset = lambda: offset
        self.error = lambda: None if code is None else KafkaError(code)
        self.timestamp, self.key, self.value, self.headers = (lambda: (1, 0)), (lambda: b"k"), (lambda: b"v"), list


class _Consumer:
    """Gives these at once, and nothing after them."""

    def __init__(self, *given: _Consumed) -> None:
        self._given = list(given)

    def poll(self, seconds: float) -> _Consumed | None:
        return self._given.pop(0) if self._given else None

    def consume(self, count: int, seconds: float) -> list[_Consumed]:
        found, self._given = self._given, []
        return found

    def close(self) -> None:
        """Nothing to let go of."""


def _tail(*given: _Consumed) -> KafkaTail:
    cluster: Any = SimpleNamespace(
        clock=SystemClock(),
        stopping=threading.Event(),
        asking=lambda doing: nullcontext(),
        note=lambda error: None,
    )
    tail = KafkaTail(cluster, SimpleNamespace(), TopicPartition("replies", 0, 0), lambda tail: None)  # type: ignore[arg-type]
    tail._consumer = _Consumer(*given)  # type: ignore[assignment]
    return tail


async def _offsets(tail: KafkaTail) -> list[int]:
    return [record[0] for record in await tail.read(limit=10, max_bytes=1 << 20, wait_seconds=0)]


@pytest.mark.parametrize("code", [KafkaError.KAFKA_STORAGE_ERROR, KafkaError.TOPIC_AUTHORIZATION_FAILED])
@pytest.mark.parametrize("place", range(3))
async def test_an_error_takes_no_record_that_came_beside_it(code: int, place: int) -> None:
    given = [_Consumed(0), _Consumed(1)]
    given.insert(place, _Consumed(0, code))
    tail = _tail(*given)
    with pytest.raises(KafkaException):
        await _offsets(tail)
    assert await _offsets(tail) == [0, 1]
    await tail.close()


async def test_what_passes_by_itself_is_not_raised() -> None:
    tail = _tail(_Consumed(0, KafkaError._TRANSPORT), _Consumed(0))
    assert await _offsets(tail) == [0]
    await tail.close()
