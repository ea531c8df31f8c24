"""Webhooks that clients make over HTTP: what they are sent, who sees them, and how they come and go everywhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from postline.http.notifications import Notifications, Webhooks, notifications
from postline.http.signing import secrets_of, verify
from postline.log.port import Capability
from postline.testing import TestApp
from tests.unit.http.shop import Partner, Shop, answered

WANTED: dict[str, Any] = {"url": "https://partner.example/hooks", "topic": "shop.orders"}


class Hooked:
    """A shop where partners make webhooks: `Authorization` is their name."""

    def __init__(self, shop: Shop, harness: TestApp, partner: Partner, web: Notifications) -> None:
        self.shop, self.harness, self.partner, self.web = shop, harness, partner, web

    async def ask(self, method: str, path: str, *, who: str = "ann", **more: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.web)
        headers = {"authorization": who, **more.pop("headers", {})}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
            return await client.request(method, path, **more)

    async def make(self, **fields: Any) -> Any:
        """Make a webhook, and wait until it is served."""
        made = await self.ask("POST", "/webhooks", json=WANTED | fields)
        assert made.status_code == 201, made.text
        await until(lambda: self.serves(made.json()["id"]))
        return made.json()

    def serves(self, endpoint_id: str) -> bool:
        return any(consumer.plan.name == f"shop.orders.{endpoint_id}" for consumer in self.shop.app.consumers)

    async def order(self, order: str, **fields: Any) -> None:
        await self.harness.publish(self.shop.OrderPlaced(order, "bob", **fields))
        await self.harness.settle()

    async def order_quietly(self, order: str) -> None:
        """Publish, and look at nothing."""
        await self.harness.publish(self.shop.OrderPlaced(order, "bob"))

    async def pass_time(self) -> None:
        """Let a little time pass, whatever stands still meanwhile."""
        self.harness.clock.move_to(self.harness.clock.monotonic() + 1)
        await asyncio.sleep(0)

    @property
    def posted(self) -> list[str]:
        return [json.loads(body)["data"]["order"] for _, _, body in self.partner.posts]


def hooking(shop: Shop, partner: Partner) -> Notifications:
    webhooks = Webhooks(topics=[shop.orders], post=partner)
    return notifications(shop.app, webhooks=webhooks, authenticate=lambda request: request.headers["authorization"])


@asynccontextmanager
async def hooked(*answers: Any) -> AsyncIterator[Hooked]:
    shop, partner = Shop(), Partner(*answers)
    web = hooking(shop, partner)
    async with TestApp(shop.app) as harness:
        yield Hooked(shop, harness, partner, web)


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def test_a_webhook_is_sent_what_is_published_from_then_on_signed_by_its_secret():
    async with hooked() as web:
        await web.order("before")
        await web.harness.advance(seconds=1)
        made = await web.make()
        await web.order("o-1", card="4000")
        ((url, headers, body),) = web.partner.posts
        assert url == WANTED["url"]
        verify(made["secret"], headers, body, now_ms=web.harness.clock.now_ms())
        assert json.loads(body)["data"] == {"order": "o-1", "customer": "bob", "total": 0, "card": "***"}


async def test_filters_and_types_choose():
    async with hooked() as web:
        await web.make(filter={"field": "total", "gt": 100})
        await web.order("small", total=1)
        await web.order("large", total=101)
        await web.harness.publish(web.shop.OrderCancelled("small", "bob"))
        await web.harness.settle()
        assert web.posted == ["large"]
        shown = (await web.ask("GET", "/webhooks")).json()["webhooks"]
        assert [each["filter"] for each in shown] == [{"field": "total", "gt": 100}]


async def test_clients_see_their_own_alone_and_no_secret_after_the_first_answer():
    async with hooked() as web:
        made = await web.make()
        place = f"/webhooks/{made['id']}"
        shown = (await web.ask("GET", place)).json()
        assert shown == {**WANTED, "id": made["id"], "status": "enabled", "pending": 0, "dead_letters": 0}
        for method, behind in [("GET", ""), ("DELETE", ""), ("POST", "/enable"), ("POST", "/secret")]:
            assert (await web.ask(method, place + behind, who="eve")).status_code == 404
        assert (await web.ask("GET", "/webhooks", who="eve")).json() == {"webhooks": []}
        records = web.harness.log_records("shop.webhooks")
        assert len(records) == 1


async def test_a_deleted_webhook_is_sent_nothing_more_and_its_subscription_is_forgotten():
    async with hooked() as web:
        made = await web.make()
        name = f"shop.orders.{made['id']}"
        assert (await web.ask("DELETE", f"/webhooks/{made['id']}")).status_code == 204
        await until(lambda: not web.serves(made["id"]))
        await web.order("o-1")
        assert web.posted == []
        assert (await web.ask("GET", f"/webhooks/{made['id']}")).status_code == 404
        while name in [info.name for info in await web.shop.app.log.subscriptions()]:
            await asyncio.sleep(0.001)


async def test_a_target_that_is_gone_disables_its_webhook_until_it_is_enabled():
    async with hooked(answered(410)) as web:
        made = await web.make()
        await web.harness.publish(web.shop.OrderPlaced("o-1", "bob"))
        await until(lambda: web.partner.posts and not web.serves(made["id"]))
        shown = (await web.ask("GET", f"/webhooks/{made['id']}")).json()
        assert (shown["status"], shown["pending"]) == ("disabled", 1)
        assert "410" in shown["reason"]
        await web.order("o-2")
        assert web.posted == ["o-1"]
        enabled = await web.ask("POST", f"/webhooks/{made['id']}/enable")
        assert enabled.json()["status"] == "enabled"
        await until(lambda: web.serves(made["id"]))
        await web.harness.advance(minutes=2)
        assert web.posted == ["o-1", "o-1", "o-2"]
        assert len(set(web.partner.ids)) == 2


async def test_a_rotated_secret_signs_beside_the_one_before():
    async with hooked() as web:
        made = await web.make()
        new = (await web.ask("POST", f"/webhooks/{made['id']}/secret")).json()["secret"]
        assert new != made["secret"]
        await until(lambda: web.serves(made["id"]))
        await web.harness.settle()
        while not web.partner.posts or len(web.partner.posts[-1][1]["webhook-signature"].split()) < 2:
            await web.order("o-1")
        _, headers, body = web.partner.posts[-1]
        for secret in secrets_of([made["secret"], new]):
            verify(secret, headers, body, now_ms=web.harness.clock.now_ms())


async def test_a_repeated_key_gives_the_first_answer():
    async with hooked() as web:
        key = {"Idempotency-Key": '"k"'}
        first = await web.ask("POST", "/webhooks", json=WANTED, headers=key)
        again = await web.ask("POST", "/webhooks", json=WANTED, headers=key)
        assert first.json() == again.json()
        assert first.headers["location"] == f"/webhooks/{first.json()['id']}"
        other = await web.ask("POST", "/webhooks", json={**WANTED, "types": ["shop.OrderPlaced"]}, headers=key)
        assert other.status_code == 422
        await web.ask("DELETE", first.headers["location"])
        assert (await web.ask("POST", "/webhooks", json=WANTED, headers=key)).status_code == 410


async def test_one_that_fails_is_begun_again_and_does_not_end_the_app():
    async with hooked() as web:
        await web.make()
        (failing,) = web.shop.app.consumers
        failed = asyncio.ensure_future(web.shop.app.wait_failed())
        failing._fail(RuntimeError("planted"))
        while failing in web.shop.app.consumers:
            await web.pass_time()
        await web.order_quietly("o-1")
        while web.posted != ["o-1"]:
            await web.pass_time()
        assert not failed.done()
        failed.cancel()


async def test_what_can_not_be_a_webhook_is_refused():
    async with hooked() as web:
        wrongs: list[dict[str, Any]] = [
            {"url": "https://10.0.0.1/"},
            {"url": "http://partner.example/"},
            {"url": 7},
            {"topic": "shop.secrets"},
            {"topic": "shop.webhooks"},
            {"filter": {"field": "nothing", "gt": 1}},
            {"filter": {"some": "thing"}},
            {"filter": "total > 5"},
            {"types": ["shop.Nothing"]},
            {"secret": "whsec_short"},
            {"secret": "hunter2"},
            {"principal": "eve"},
        ]
        for wrong in wrongs:
            refused = await web.ask("POST", "/webhooks", json=WANTED | wrong)
            assert refused.status_code == 422, (wrong, refused.text)
            assert "hunter2" not in refused.text
        for content_type, status in (("text/plain", 415), ("application/json", 400)):
            said = {"content-type": content_type}
            assert (await web.ask("POST", "/webhooks", content=b"{", headers=said)).status_code == status
        assert (await web.ask("POST", "/webhooks", json=WANTED, who="")).status_code == 401
        assert (await web.ask("PUT", "/webhooks", json=WANTED)).status_code == 405
        assert web.shop.app.consumers == []


async def test_webhooks_are_served_again_after_a_restart_and_by_every_process():
    async with hooked(answered(500)) as web:
        made = await web.make()
        await web.order("o-1")
        await web.harness.crash(web.shop.app)
        second, partner = Shop(), web.partner
        hooking(second, partner)
        third = Shop()
        hooking(third, partner)
        await web.harness.start(second.app)
        await web.harness.start(third.app)
        for app in (second.app, third.app):
            assert [each.plan.name for each in app.consumers] == [f"shop.orders.{made['id']}"]
        await web.harness.advance(minutes=1)
        assert web.posted == ["o-1", "o-1"]
        assert len(set(partner.ids)) == 1


async def test_what_was_deleted_while_nobody_served_it_is_forgotten_at_the_next_start():
    async with hooked() as web:
        made = await web.make()
        kept = await web.make()
        await web.harness.crash(web.shop.app)
        front, back = Shop(), Shop()
        other = Hooked(front, web.harness, web.partner, hooking(front, web.partner))
        await front.app.start(web.harness.environment(), consume=False)
        assert (await other.ask("DELETE", f"/webhooks/{made['id']}")).status_code == 204
        await front.app.stop()
        hooking(back, web.partner)
        await web.harness.start(back.app)
        names = [info.name for info in await back.app.log.subscriptions()]
        assert names == [f"shop.orders.{kept['id']}"]


async def test_a_process_that_sends_alone_takes_webhooks_and_serves_none():
    async with hooked() as web:
        front = Shop()
        other = hooking(front, web.partner)
        await front.app.start(web.harness.environment(), consume=False)
        try:
            made = await Hooked(front, web.harness, web.partner, other).ask("POST", "/webhooks", json=WANTED)
            await until(lambda: web.serves(made.json()["id"]))
            assert front.app.consumers == []
        finally:
            await front.app.stop()


async def test_all_priorities_of_a_topic_are_sent():
    shop, partner = Shop(priorities={"high": 0.5, "normal": 0.1}), Partner()
    web = hooking(shop, partner)
    async with TestApp(shop.app) as harness:
        hooks = Hooked(shop, harness, partner, web)
        made = await hooks.make()
        await shop.app.publish(shop.OrderPlaced("o-1", "ann"), priority="high")
        await shop.app.publish(shop.OrderPlaced("o-2", "ann"))
        await harness.settle()
        assert sorted(hooks.posted) == ["o-1", "o-2"]
        await hooks.ask("DELETE", f"/webhooks/{made['id']}")
        while [info.name for info in await shop.app.log.subscriptions()]:
            await asyncio.sleep(0.001)
        assert shop.app.consumers == []


async def test_no_webhook_is_made_where_its_topics_can_not_be():
    async with hooked() as web:
        log: Any = web.harness.log
        log.capabilities -= {Capability.CREATES_TOPICS}
        made = await web.ask("POST", "/webhooks", json=WANTED)
        assert (made.status_code, "create_topics=true" in made.json()["detail"]) == (501, True)
        assert (await web.ask("GET", "/webhooks")).json() == {"webhooks": []}
