"""A set of records whose producer dies: the engine finds out how that ended, and no caller has to guess."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from msgspec.structs import replace

from postline.errors import LogUnavailable
from postline.log.kafka.transactions import Transactions
from tests.brokers.cluster import Cluster
from tests.conformance.apps import ORDERS, World, orders
from tests.conformance.engines import KafkaEngine

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def engine(kafka_one: Cluster, tmp_path: Path) -> AsyncIterator[KafkaEngine]:
    made = KafkaEngine(kafka_one, "consumer", tmp_path)
    yield made
    await made.close()


def _dies(step: str, monkeypatch: pytest.MonkeyPatch, *, times: int, done: bool = False) -> list[str]:
    """Have a step of transactions kill its producer so often, after it was done or instead; gives the deaths."""
    plain, deaths = Transactions._until_done, list[str]()

    def until_done(self: Transactions, call: Callable[[float], Any]) -> None:
        if getattr(call, "__name__", "") != step or len(deaths) >= times:
            plain(self, call)
            return
        if done:
            plain(self, call)
        deaths.append(step)
        raise KafkaException(KafkaError(KafkaError._FATAL, "planted", fatal=True))

    monkeypatch.setattr(Transactions, "_until_done", until_done)
    return deaths


async def _numbers(world: World) -> list[int]:
    return sorted(each.message.number for each in await world.read(ORDERS))


@pytest.mark.parametrize("done", [True, False], ids=["stored", "not stored"])
async def test_a_set_of_unknown_outcome_is_looked_for_and_stored_once(
    done: bool, engine: KafkaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World(engine) as world:
        await world.publish(orders(5))
        deaths = _dies("commit_transaction", monkeypatch, times=1, done=done)
        placed = await world.publisher.publish_many(orders(20, first=5))
        assert deaths
        assert await _numbers(world) == sorted(order.number for order in [*orders(5), *orders(20, first=5)])
        read = {(each.partition, each.offset) for each in await world.read(ORDERS)}
        assert {(each.partition, each.offset) for each in placed} <= read


async def test_a_set_that_is_repeated_with_its_ids_is_not_taken_for_an_earlier_one(
    engine: KafkaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World(engine) as world:
        await world.publish(orders(3))
        deaths = _dies("commit_transaction", monkeypatch, times=1)
        await world.publish(orders(3))
        assert deaths
        assert await _numbers(world) == sorted(2 * [order.number for order in orders(3)])


async def test_a_set_whose_producers_keep_dying_fails_in_time_with_nothing_stored(
    engine: KafkaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine._options = replace(engine._options, publish_seconds=2)
    async with World(engine) as world:
        await world.publish(orders(3))
        deaths = _dies("commit_transaction", monkeypatch, times=1_000)
        with pytest.raises(LogUnavailable, match="planted"):
            await world.publish(orders(3, first=3))
        assert len(deaths) > 1
        monkeypatch.undo()
        await world.publish(orders(3, first=6))
        assert await _numbers(world) == sorted(order.number for order in [*orders(3), *orders(3, first=6)])
