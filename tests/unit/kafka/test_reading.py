"""Pages of a partition: an empty one is the end, never a leader that is away."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import Message

from postline.errors import LogUnavailable
from postline.log.kafka.reading import Readers

CAPACITY = (100, 1 << 20)


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class _Topics:
    """One partition with these ends."""

    def __init__(self, stable: int, end: int) -> None:
        self._stable, self._end = stable, end

    def partitions(self, topic: str) -> int:
        return 1

    def stable_end(self, topic: str, partition: int) -> int:
        return self._stable

    def end(self, topic: str, partition: int) -> int:
        return self._end


class _Readers(Readers):
    """Gives these batches, one a second."""

    def __init__(self, topics: _Topics, batches: Sequence[Sequence[int]]) -> None:
        self.clock, stopping = _Clock(), threading.Event()
        stopping.wait = self._wait  # type: ignore[method-assign]
        options = SimpleNamespace(transaction_seconds=10)
        cluster: Any = SimpleNamespace(clock=self.clock, stopping=stopping, address="kafka://one", options=options)
        super().__init__(cluster, topics)  # type: ignore[arg-type]
        self._batches = batches

    def _wait(self, timeout: float | None = None) -> bool:
        self.clock.now += timeout or 0
        return False

    def stream(self, topic: str, partition: int, offset: int, end: int) -> Iterator[list[Message]]:
        for batch in self._batches:
            self.clock.now += 1
            yield [_message(number) for number in batch if number < end]


def _message(offset: int) -> Any:
    return SimpleNamespace(
        headers=lambda: None,
        offset=lambda: offset,
        timestamp=lambda: (1, 0),
        key=lambda: None,
        value=lambda: b"v",
    )


def _offsets(readers: Readers, offset: int = 0) -> list[int]:
    return [record[0] for record in readers.read("orders", 0, offset, *CAPACITY)]


def test_a_leader_that_is_away_for_long_is_waited_for() -> None:
    assert _offsets(_Readers(_Topics(3, 3), [*[[]] * 10, [0, 1, 2]])) == [0, 1, 2]


def test_a_leader_that_stays_away_is_an_error_and_no_end() -> None:
    with pytest.raises(LogUnavailable, match="orders partition 0"):
        _offsets(_Readers(_Topics(3, 3), [[]] * 100))


def test_what_an_open_transaction_holds_back_is_an_error_and_no_end() -> None:
    readers = _Readers(_Topics(3, 9), [[0, 1, 2]])
    assert _offsets(readers) == [0, 1, 2]
    with pytest.raises(LogUnavailable, match="offset 3 of orders partition 0"):
        _offsets(readers, offset=3)


def test_the_end_is_an_empty_page() -> None:
    assert _offsets(_Readers(_Topics(3, 3), []), offset=3) == []


def test_gaps_up_to_the_end_are_an_empty_page() -> None:
    assert _offsets(_Readers(_Topics(3, 3), [[], []])) == []
