"""The catalog: what keeps it from being read is told."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from postline.errors import LogUnavailable
from postline.log.kafka.catalog import Catalog


class _Clock:
    """A second goes by with each look."""

    now = 0.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


def test_an_open_transaction_of_another_program_is_told_instead_of_waited_for_without_end() -> None:
    def stream(*place: Any) -> Iterator[list[Any]]:
        while True:
            yield []

    cluster: Any = SimpleNamespace(
        prefix="", address="kafka://here", clock=_Clock(), options=SimpleNamespace(transaction_seconds=5.0)
    )
    topics: Any = SimpleNamespace(known=lambda name: 1, end=lambda name, partition: 3)
    readers: Any = SimpleNamespace(stream=stream)
    with pytest.raises(LogUnavailable, match=r"still open holds back .* postline\.catalog.*find-hanging"):
        Catalog(cluster, topics, readers).entries()
