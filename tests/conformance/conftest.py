"""The engines that the conformance suite runs on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from postline.log.port import Log
from tests.conformance.engines import ENGINES, KAFKA_ENGINES, KafkaEngine, SqliteEngine
from tests.conformance.harness import Engine, Unsupported


@pytest.fixture(params=[*sorted(ENGINES), *(pytest.param(name, marks=pytest.mark.brokers) for name in KAFKA_ENGINES)])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    """One engine with an empty log."""
    made: Engine
    if request.param in KAFKA_ENGINES:
        fixture, protocol = KAFKA_ENGINES[request.param]
        made = KafkaEngine(request.getfixturevalue(fixture), protocol, tmp_path)
    else:
        made = ENGINES[request.param](tmp_path)
    yield made
    await made.close()


@pytest.fixture(params=["file", pytest.param("kafka", marks=pytest.mark.brokers)])
async def target(request: pytest.FixtureRequest, engine: Engine, tmp_path: Path) -> AsyncIterator[Engine]:
    """Another, empty log: a file, or, for what is none itself, a cluster."""
    made: Engine
    if request.param == "file":
        made = SqliteEngine(tmp_path / "target.db")
    elif isinstance(engine, KafkaEngine):
        pytest.skip("one cluster is no other one")
    else:
        fixture, protocol = KAFKA_ENGINES["kafka-1"]
        made = KafkaEngine(request.getfixturevalue(fixture), protocol, tmp_path / "cache")
    yield made
    await made.close()


@pytest.fixture
async def log(engine: Engine) -> Log:
    """The first handle to the engine's log."""
    return await engine.open()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    """Skip what an engine's harness can't do."""
    try:
        return (yield)
    except Unsupported as reason:
        pytest.skip(str(reason))
