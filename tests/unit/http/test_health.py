"""The probes: alive as long as the loop turns, ready once the log answers and the groups are joined."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from msgspec import Struct

from postline import App, Topic
from postline.app import Environment
from postline.clock import SystemClock
from postline.errors import LogUnavailable
from postline.http.health import Health
from postline.log.sqlite.log import SqliteLog
from postline.settings import LogUrl, Settings

ORDERS = Topic("shop.orders", owner="shop", key="customer")


@ORDERS.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    customer: str


class Unsteady(SqliteLog):
    """A log that can be made to answer nothing."""

    away = False

    async def bounds(self, topic: str, *, stable: bool = False) -> Any:
        if self.away:
            raise LogUnavailable("nobody is there")
        return await super().bounds(topic, stable=stable)


@pytest.fixture
async def log() -> AsyncIterator[Unsteady]:
    made = Unsteady(None, clock=SystemClock())
    yield made
    await made.close()


def shop() -> App:
    app = App("shop", owns=[ORDERS])

    @app.subscribe("billing", ORDERS, start="earliest").on(OrderPlaced)
    async def bill(order: OrderPlaced) -> None:
        pass

    return app


async def asked(health: Health, path: str, method: str = "GET") -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(health), base_url="http://probe") as web:
        return await web.request(method, path)


async def test_it_is_ready_while_it_runs_and_alive_all_the_time(log: Unsteady) -> None:
    app = shop()
    health = Health([app])
    before = await asked(health, "/readyz")
    assert (before.status_code, before.json()["missing"]) == (503, ["App shop does not run yet."])
    assert (await asked(health, "/healthz")).status_code == 200
    await app.start(Environment(log, Settings(url=LogUrl("sqlite"))))
    assert (await asked(health, "/readyz")).json() == {"status": "ready"}
    await app.stop()
    assert (await asked(health, "/readyz")).status_code == 503
    assert (await asked(health, "/healthz")).json() == {"status": "ok"}


async def test_a_log_that_does_not_answer_makes_it_unready_and_not_unhealthy(log: Unsteady) -> None:
    app = shop()
    health = Health([app])
    await app.start(Environment(log, Settings(url=LogUrl("sqlite"))))
    log.away = True
    answer = await asked(health, "/readyz")
    assert (answer.status_code, answer.json()["missing"]) == (
        503,
        ["The log of app shop does not answer (LogUnavailable)."],
    )
    assert (await asked(health, "/healthz")).status_code == 200
    log.away = False
    assert (await asked(health, "/readyz")).status_code == 200
    await app.stop()


async def test_an_app_that_sends_alone_waits_for_no_group(log: Unsteady) -> None:
    app = shop()
    await app.start(Environment(log, Settings(url=LogUrl("sqlite"))), consume=False)
    missing = (await asked(Health([app]), "/readyz")).json()["missing"]
    assert missing == ["Subscription billing has not joined its group."]
    assert (await asked(Health([app], consume=False), "/readyz")).status_code == 200
    await app.stop()


async def test_a_process_that_stops_is_not_ready(log: Unsteady) -> None:
    app = shop()
    await app.start(Environment(log, Settings(url=LogUrl("sqlite"))))
    assert (await asked(Health([app], stopping=lambda: True), "/readyz")).status_code == 503
    await app.stop()


async def test_the_rest_goes_to_the_application_behind_it() -> None:
    async def behind(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    assert (await asked(Health([]), "/other")).status_code == 404
    assert (await asked(Health([], then=behind), "/other")).status_code == 418
    assert (await asked(Health([], then=behind), "/healthz")).status_code == 200
    assert (await asked(Health([]), "/healthz", "HEAD")).content == b""
