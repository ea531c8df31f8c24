"""The engines that the conformance suite runs on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from postline.log.port import Log
from tests.conformance.engines import ENGINES, KAFKA_ENGINES, KafkaEngine
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
