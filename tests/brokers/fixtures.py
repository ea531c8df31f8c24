"""The clusters that the tests share: started by the first test that asks, stopped and removed after the last."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers.cluster import Cluster
from tests.brokers.install import HOME, missing
from tests.brokers.process import is_alive

__all__ = ["cluster_for_tests", "kafka_one", "kafka_three", "remove_stale", "require_kafka"]

_PREFIX = "tests-"


def require_kafka() -> None:
    """Skip the test where no broker can run, and say why; in CI fail it."""
    if not (reason := missing()):
        return
    if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def cluster_for_tests(name: str, brokers: int = 1, *, tls: bool = False, sasl: bool = False) -> Iterator[Cluster]:
    """A cluster of this pytest process alone, with the quick settings; for fixtures to `yield from`."""
    require_kafka()
    remove_stale()
    cluster = Cluster(HOME / f"{_PREFIX}{os.getpid()}-{name}", brokers, tls=tls, sasl=sasl, tests=True)
    cluster.stop(remove=True, gently=False)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop(remove=True, gently=False)


def remove_stale() -> None:
    """Stop and remove the clusters of pytest processes that are gone, as after a SIGKILL."""
    for directory in HOME.glob(f"{_PREFIX}*"):
        owner = directory.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not is_alive(int(owner)):
            _remove(directory)


@pytest.fixture(scope="session")
def kafka_one() -> Iterator[Cluster]:
    """One broker, shared by the session: use topics, groups and transactional ids of your own, and leave it up."""
    yield from cluster_for_tests("one")


@pytest.fixture(scope="session")
def kafka_three() -> Iterator[Cluster]:
    """Three brokers, shared by the whole session: whoever kills, pauses or stops one brings it back."""
    yield from cluster_for_tests("three", 3)


def _remove(directory: Path) -> None:
    # A start that was killed half-way has left no cluster, perhaps.
    cluster = Cluster.found(directory) or Cluster(directory)
    cluster.stop(remove=True, gently=False)
