"""Asking a cluster whose coordinators move: the client that holds on to one that was is replaced."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from postline.clock import SystemClock
from postline.errors import LogUnavailable
from postline.log.kafka import cluster as module
from postline.log.kafka.cluster import Cluster
from postline.log.kafka.options import read_options


class _Admin:
    """An administrative client without a cluster."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def list_topics(self, timeout: float) -> None:
        """All is known."""

    def describe_cluster(self) -> Any:
        """The cluster has an id."""
        return SimpleNamespace(result=lambda seconds: SimpleNamespace(cluster_id="c"))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(module, "AdminClient", _Admin)
    made = Cluster(read_options(["nowhere:1"], {}), SystemClock())
    made.start()
    return made


def test_a_client_that_keeps_a_coordinator_which_moved_is_replaced(cluster: Cluster) -> None:
    first = cluster.admin

    def describe() -> str:
        if cluster.admin is first:
            raise KafkaException(KafkaError(KafkaError.NOT_COORDINATOR))
        return "described"

    assert cluster.ask("describe group billing", describe) == "described"


def test_a_client_is_kept_while_leaders_move(cluster: Cluster) -> None:
    first, answers = cluster.admin, iter([KafkaError.NOT_LEADER_FOR_PARTITION, None])

    def find() -> str:
        if (code := next(answers)) is not None:
            raise KafkaException(KafkaError(code))
        return "found"

    assert cluster.ask("find offsets", find) == "found"
    assert cluster.admin is first


def test_clients_are_not_replaced_one_after_another(cluster: Cluster) -> None:
    seen = [cluster.admin]

    def describe() -> str:
        if cluster.admin is not seen[-1]:
            seen.append(cluster.admin)
        raise KafkaException(KafkaError(KafkaError.NOT_COORDINATOR))

    with pytest.raises(LogUnavailable):
        cluster.ask("describe group billing", describe, seconds=0.3)
    assert len(seen) == 2
