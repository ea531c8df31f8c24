"""What every test shares: the order of the levels, hypothesis' profiles, and the data sets beside the checkout."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.brokers.fixtures import kafka_one, kafka_three

__all__ = ["kafka_one", "kafka_three"]

ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI", "").lower() not in {"", "0", "false"}

#: Fast and telling levels first; whatever lies directly in tests/ (structure) goes before them all.
LEVELS = ("unit", "conformance", "integration", "simulation", "fault")
_CONFORMANCE = LEVELS.index("conformance") + 1

# No deadline: a test's outcome must not hang on how busy the machine is. CI repeats the same examples each time, so
# that a red run is about the change; developers' machines explore, and print the blob that brings a failure back.
settings.register_profile(
    "ci", derandomize=True, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("dev", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if IN_CI else "dev")


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


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run level after level; within one, files keep pytest's own order. Mark what needs brokers."""
    for item in items:
        if needs_brokers(item.path) or {"kafka_one", "kafka_three"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.brokers)
    items.sort(key=lambda item: level_of(item.path))
    for item in items:
        if item.get_closest_marker("brokers"):
            item.add_marker(pytest.mark.xdist_group(_group_of(item)))


def _group_of(item: pytest.Item) -> str:
    """Which tests on brokers share a process and its clusters where several run side by side: they mostly wait."""
    engine = getattr(getattr(item, "callspec", None), "id", "")[: len("kafka-N")]
    return engine if level_of(item.path) == _CONFORMANCE else "others"


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
