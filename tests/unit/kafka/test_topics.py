"""Asking where topics begin and end, of leaders that move."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from postline.clock import SystemClock
from postline.log.kafka.topics import Topics


class _Cluster:
    """Asks again, without a pause, for as long as there is no leader."""

    def __init__(self, refusals: int) -> None:
        self.clock, self.stopping, self.admin = SystemClock(), threading.Event(), self
        self.patience: list[float] = []
        self._refusals = refusals

    def list_offsets(self, places: dict[Any, Any], isolation_level: Any) -> dict[Any, Any]:
        return dict.fromkeys(places, self)

    def result(self, seconds: float) -> SimpleNamespace:
        self.patience.append(seconds)
        if len(self.patience) <= self._refusals:
            raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
        return SimpleNamespace(offset=17)

    def ask(self, doing: str, call: Callable[[], Any]) -> Any:
        while True:
            try:
                return call()
            except KafkaException:
                continue


def test_whoever_asks_again_and_again_waits_longer_each_time_but_never_for_long() -> None:
    cluster: Any = _Cluster(refusals=60)
    assert Topics(cluster).end("shop.orders", 0) == 17
    assert cluster.patience[:4] == [3.0, 6.0, 12.0, 24.0]
    assert max(cluster.patience) == 30.0
