"""What every test shares: the order of the levels, hypothesis' profiles, and the data sets beside the checkout."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.brokers.fixtures import kafka_one, kafka_three

__all__ = ["kafka_one", "kafka_three"]

ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI", "").lower() not in {"", "0", "false"}

#: Fast and telling levels first; whatever lies directly in tests/ (structure) goes before them all.
LEVELS = ("unit", "conformance", "integration", "simulation", "fault")

# No deadline: a test's outcome must not hang on how busy the machine is. CI repeats the same examples each time, so
# that a red run is about the change; developers' machines explore, and print the blob that brings a failure back.
settings.register_profile(
    "ci", derandomize=True, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("dev", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if IN_CI else "dev")


def pytest_configure() -> None:
    """Let processes that tests start hear SIGINT: a shell that starts us in the background has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def level_of(path: Path) -> int:
    """The place of a test file in the order of levels; 0 for the tests of the project's structure."""
    try:
        first = path.relative_to(ROOT / "tests").parts[0]
    except (ValueError, IndexError):
        return 0
    return LEVELS.index(first) + 1 if first in LEVELS else 0


def needs_brokers(path: Path) -> bool:
    """Whether the tests of a file run on real brokers; those of the conformance suite are marked by engine."""
    return path.match("tests/fault/kafka/*") or path.name.startswith(("test_kafka_", "test_brokers"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run level after level; within one, files keep pytest's own order. Mark what needs brokers."""
    for item in items:
        if needs_brokers(item.path) or {"kafka_one", "kafka_three"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.brokers)
    items.sort(key=lambda item: level_of(item.path))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """With `--dist loadscope` the tests that share a cluster share a process."""
    return ByCluster(config, log) if config.getvalue("dist") == "loadscope" else None


class ByCluster(LoadScopeScheduling):  # type: ignore[misc]
    """Gives tests on brokers to processes by the cluster that they need: they mostly wait, and a cluster costs much.

    The groups of pytest-xdist's own `loadgroup` have no effect since pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        for engine, processes in {"kafka-3": 2, "kafka-1": 2}.items():
            if f"[{engine}" in nodeid:
                return f"{engine} {crc32(nodeid.encode()) % processes}"
        return "others"


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """Find a data set by name: `shared_data("chinook")`. Without it CI fails and other machines skip, saying so."""

    def find(name: str) -> Path:
        folder = Path(os.environ.get("POSTLINE_TEST_DATA", ROOT.parent / "shared" / "data")) / name
        if folder.exists():
            return folder
        message = f"data set {name!r} is not there (looked for {folder}; POSTLINE_TEST_DATA names another place)"
        if IN_CI:
            pytest.fail(message, pytrace=False)
        pytest.skip(message)

    return find
