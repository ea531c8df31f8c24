"""`GET /scale`: what an autoscaler outside is told."""

from __future__ import annotations

import asyncio
import importlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import Struct

from postline import App, Topic
from postline.app import Environment
from postline.clock import SystemClock, VirtualClock
from postline.errors import LogUnavailable
from postline.http.health import Health
from postline.log.sqlite.log import SqliteLog
from postline.settings import LogUrl, Settings

ROOT = Path(__file__).resolve().parents[3]
ORDERS = Topic("shop.orders", owner="shop", key="customer", partitions=4)


@ORDERS.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    customer: str


class Unsteady(SqliteLog):
    """A log that can be made to answer nothing."""

    away = False

    async def survey(self, *arguments: Any) -> Any:
        if self.away:
            raise LogUnavailable("nobody is there")
        return await super().survey(*arguments)


class Shop(VirtualClock):
    """An app, its probes, and their clock: while a second of that passes, so many records are handled."""

    def __init__(self, log: Unsteady) -> None:
        super().__init__()
        self.log, self.records_a_second = log, 20
        self.app = App("shop", owns=[ORDERS])
        self._turns = asyncio.Semaphore(0)
        self.health = Health([self.app], clock=self)

        @self.app.subscribe("billing", ORDERS, start="earliest", concurrency=1).on(OrderPlaced)
        async def bill(order: OrderPlaced) -> None:
            await self._turns.acquire()

    async def start(self, records: int) -> None:
        await self.app.start(Environment(self.log, Settings(url=LogUrl("sqlite"))))
        for number in range(records):
            await self.app.publish(OrderPlaced(f"c{number}"))

    async def sleep(self, delay_seconds: float) -> None:
        """Time passes, and work is done and committed."""
        done = await self._done() + round(self.records_a_second * delay_seconds)
        for _ in range(round(self.records_a_second * delay_seconds)):
            self._turns.release()
        async with asyncio.timeout(30):
            while await self._done() < done:
                await asyncio.sleep(0)
        self.move_to(self.monotonic() + delay_seconds)

    async def _done(self) -> int:
        return sum(each.position for each in await self.log.partitions("billing"))

    async def asked(self, query: str = "", path: str = "/scale") -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.health), base_url="http://probe") as web:
            return await web.get(path + query)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    log = Unsteady(None, clock=SystemClock())
    made = Shop(log)
    yield made
    await made.app.abort()
    await log.close()


async def test_it_says_how_many_processes_the_backlog_needs(shop: Shop) -> None:
    await shop.start(120)
    answer = (await shop.asked("?max=3&drain_seconds=2")).json()
    assert (answer["desired"], answer["workers"], answer["backlog"], answer["drain_seconds"]) == (3, 1, 100, 5.0)
    assert answer["reason"].startswith("billing: 100 to read take 5 s")
    (billing,) = answer["subscriptions"]
    assert (billing["name"], billing["partitions"], billing["handled_per_second_per_worker"]) == ("billing", 4, 20.0)
    # That nothing was changed since is no reason to say nothing.
    await shop.sleep(1.0)
    again = (await shop.asked("?max=3&drain_seconds=2")).json()
    assert (again["desired"], again["workers"], again["backlog"]) == (2, 1, 80)


async def test_it_says_no_more_than_there_are_partitions_and_one_when_all_is_done(shop: Shop) -> None:
    await shop.start(100)
    assert (await shop.asked("?drain_seconds=0.5")).json()["desired"] == 4
    await shop.sleep(4.0)
    answer = (await shop.asked("?drain_seconds=0.5")).json()
    assert (answer["desired"], answer["backlog"], answer["drain_seconds"]) == (1, 0, 0.0)


async def test_subscriptions_of_others_count_for_nothing(shop: Shop) -> None:
    await shop.start(10)
    other = App("other", publishes_to=[ORDERS])
    stuck = asyncio.Event()

    @other.subscribe("slow", ORDERS, start="earliest", concurrency=1).on(OrderPlaced)
    async def wait(order: OrderPlaced) -> None:
        await stuck.wait()

    await other.start(Environment(shop.log, Settings(url=LogUrl("sqlite"))))
    shop.records_a_second = 10
    answer = (await shop.asked()).json()
    assert [each["name"] for each in answer["subscriptions"]] == ["billing"]
    await other.abort()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?max=0", "max: '0' is no number from 1 to 1000"),
        ("?min=3&max=2", "min is above max"),
        ("?drain_seconds=soon", "drain_seconds: 'soon' is no number from 0.5 to 604800"),
        ("?drain_seconds=nan", "drain_seconds: 'nan' is no number from 0.5 to 604800"),
        ("?most=2", "'most' is none of min, max, drain_seconds"),
        ("?max=%C2%B2", "max: '²' is no number from 1 to 1000"),
    ],
)
async def test_a_query_that_says_nothing_is_refused_with_what_is_wrong(shop: Shop, query: str, said: str) -> None:
    answer = await shop.asked(query)
    assert (answer.status_code, answer.json()["reason"]) == (400, said)


async def test_it_is_503_before_the_app_runs_and_while_the_log_is_away(shop: Shop) -> None:
    before = await shop.asked()
    assert (before.status_code, before.json()["reason"]) == (503, "not all apps run")
    await shop.start(40)
    shop.log.away = True
    away = await shop.asked()
    assert (away.status_code, away.json()["reason"]) == (503, "the log does not answer (LogUnavailable)")
    shop.log.away = False
    assert (await shop.asked()).status_code == 200


async def test_what_the_page_tells_keda_to_ask_is_answered_with_the_number(shop: Shop) -> None:
    page = (ROOT / "docs/howto/scaling.md").read_text("utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    yaml: Any = importlib.import_module("yaml")
    service, scaled = yaml.safe_load_all(block)
    (trigger,) = scaled["spec"]["triggers"]
    asked = httpx.URL(trigger["metadata"]["url"])
    assert (asked.host, asked.port) == (service["metadata"]["name"], service["spec"]["ports"][0]["port"])
    assert int(dict(asked.params)["max"]) == scaled["spec"]["maxReplicaCount"]
    assert int(dict(asked.params)["min"]) == scaled["spec"]["minReplicaCount"]
    await shop.start(4_000)
    answer = await shop.asked(f"?{asked.query.decode()}", path=asked.path)
    assert answer.json()[trigger["metadata"]["valueLocation"]] == 4
