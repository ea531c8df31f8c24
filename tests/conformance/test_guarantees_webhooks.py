"""Webhooks on every engine: each message reaches each endpoint under one id, through deaths of processes."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from postline import App, Retry
from postline.http.calling import Answer
from postline.http.notifications import Webhooks, notifications
from postline.http.signing import Secret
from postline.http.webhooks import Endpoint, notify
from postline.log.port import Append, Record
from tests.conformance.apps import ORDERS, World, all_records, eventually, orders
from tests.conformance.harness import Engine

SECRET = Secret(b"c" * 32)
WANTED = {"url": "https://partner.example/", "topic": "shop.orders"}


class Partner:
    """Takes what is posted to it; each third post is taken and its answer lost."""

    def __init__(self, *, loses: bool = False, hangs: bool = False) -> None:
        self.loses, self.hangs = loses, hangs
        self.count = 0
        #: Numbers by customer, each with the ids that it came under.
        self.came: dict[tuple[str, int], list[str]] = defaultdict(list)

    async def __call__(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        data = json.loads(body)["data"]
        self.came[data["customer"], data["number"]].append(headers["webhook-id"])
        self.count += 1
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        return Answer(500 if self.loses and self.count % 3 == 0 else 204, {}, b"")


def notifying(*partners: Partner) -> App:
    """A process of the service that notifies each of the partners."""
    app = App("notifier")
    for number, partner in enumerate(partners):
        notify(
            *(app, f"partner-{number}", ORDERS, Endpoint(url="https://partner.example/", secret=SECRET)),
            start="earliest",
            post=partner,
            retry=Retry(immediate=0, delays=(0.01,) * 20),
        )
    return app


@pytest.fixture
def world(engine: Engine) -> World:
    """A log with a shop's orders."""
    return World(engine)


async def test_each_message_reaches_each_endpoint_under_one_id_in_the_order_of_its_key(world: World) -> None:
    losing, hanging, well = Partner(loses=True), Partner(hangs=True), Partner()
    async with world:
        await world.start(notifying(losing, hanging, well))
        await world.publish(orders(60))
        await world.until_handled("partner-0")
        await world.until_handled("partner-2")
        wanted = {(order.customer, order.number) for order in orders(60)}
        for partner in (losing, well):
            assert set(partner.came) == wanted
            assert all(len(set(ids)) == 1 for ids in partner.came.values())
            assert len({ids[0] for ids in partner.came.values()}) == 60
            for customer in {order.customer for order in orders(60)}:
                numbers = [number for name, number in partner.came if name == customer]
                assert numbers == sorted(numbers)
        assert all(len(ids) == 1 for ids in well.came.values())
        await world.balanced("partner-2", done=60)


async def test_a_process_that_is_killed_between_post_and_commit_posts_again_under_the_same_id(world: World) -> None:
    partner = Partner(hangs=True)
    async with world:
        first = notifying(partner)
        await world.start(first)
        await world.publish(orders(12))
        await eventually(lambda: len(partner.came) == 12, "all were posted, none was answered")
        await world.kill(first)
        partner.hangs = False
        await world.start(notifying(partner))
        await world.until_handled("partner-0")
        assert all(len(ids) >= 2 and len(set(ids)) == 1 for ids in partner.came.values())
        await world.balanced("partner-0", done=12)


async def test_a_webhook_made_over_http_is_served_by_another_process_after_a_death(world: World) -> None:
    partner = Partner()
    async with world:
        front = App("notifier", publishes_to=[ORDERS])
        web = notifications(front, webhooks=Webhooks(topics=[ORDERS], post=partner))
        await front.start(world._environment(world.log), consume=False)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://localhost") as client:
            made = (await client.post("/webhooks", json=WANTED)).json()
        await world.publish(orders(12))
        name = f"shop.orders.{made['id']}"
        for _ in range(2):
            back = App("notifier", publishes_to=[ORDERS])
            notifications(back, webhooks=Webhooks(topics=[ORDERS], post=partner))
            await world.start(back)
            await world.until_handled(name)
            if _ == 0:
                await world.kill(back)
                await world.publish(orders(12, first=12))
        assert set(partner.came) == {(order.customer, order.number) for order in orders(24)}
        assert all(len(set(ids)) == 1 for ids in partner.came.values())
        await front.stop()


@asynccontextmanager
async def front(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a process that takes webhooks."""
    app = App("notifier", publishes_to=[ORDERS])
    web = notifications(app, webhooks=Webhooks(topics=[ORDERS], post=Partner()))
    await app.start(await world.environment(), consume=False)
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://localhost") as client:
            yield client
    finally:
        await app.stop()


async def test_of_webhooks_made_under_one_key_at_two_processes_at_once_the_first_stands(world: World) -> None:
    async with world, front(world) as one, front(world) as another:
        stands: dict[str, str] = {}
        for number in range(10):
            key = {"Idempotency-Key": f'"{number}"'}
            same = [each.post("/webhooks", json=WANTED, headers=key) for each in (one, another)]
            made = [each.json() for each in await asyncio.gather(*same)]
            assert made[0] == made[1]
            stands[made[0]["id"]] = WANTED["url"]
            key = {"Idempotency-Key": f'"other {number}"'}
            urls = [f"https://partner.example/{who}" for who in ("one", "another")]
            asked = [
                each.post("/webhooks", json=WANTED | {"url": url}, headers=key)
                for each, url in zip((one, another), urls, strict=True)
            ]
            answers = await asyncio.gather(*asked)
            assert sorted(each.status_code for each in answers) == [201, 422]
            (first,) = [each.json() for each in answers if each.status_code == 201]
            stands[first["id"]] = first["url"]
        async with front(world) as later:
            for client in (one, another, later):
                found = (await client.get("/webhooks")).json()["webhooks"]
                assert {each["id"]: each["url"] for each in found} == stands
        newest = {record[2]: record[4] for _, record in await all_records(world.log, "notifier.webhooks")}
        assert {(key or b"").decode(): json.loads(value or b"")["url"] for key, value in newest.items()} == stands


async def test_of_two_webhooks_the_first_stands_though_the_second_ones_process_was_killed_at_once(world: World) -> None:
    topic = "notifier.webhooks"

    async def newest() -> Record:
        return (await all_records(world.log, topic))[-1][1]

    async with world, front(world) as client:
        await client.post("/webhooks", json=WANTED)
        first = await newest()
        told = json.loads(first[4] or b"") | {"url": "https://partner.example/second", "made": "by another"}
        await world.log.append([Append(topic, 0, first[2], json.dumps(told).encode(), world.log.envelope(first))])
        back = App("notifier", publishes_to=[ORDERS])
        notifications(back, webhooks=Webhooks(topics=[ORDERS], post=Partner()))
        await world.start(back)
        while (await newest())[4] != first[4]:  # which compaction keeps
            await asyncio.sleep(0.01)


async def test_a_webhook_that_was_deleted_stays_so_though_a_process_that_did_not_know_it_stored_it_again(
    world: World,
) -> None:
    topic = "notifier.webhooks"

    async def newest() -> Record:
        return (await all_records(world.log, topic))[-1][1]

    async with world, front(world) as client:
        made = (await client.post("/webhooks", json=WANTED)).json()
        stored = await newest()
        assert (await client.delete(f"/webhooks/{made['id']}")).status_code == 204
        await world.log.append([Append(topic, 0, stored[2], stored[4], world.log.envelope(stored))])
        back = App("notifier", publishes_to=[ORDERS])
        notifications(back, webhooks=Webhooks(topics=[ORDERS], post=Partner()))
        await world.start(back)
        while (await newest())[4] is not None:  # which compaction keeps, and then nothing
            await asyncio.sleep(0.01)
        assert (await client.get("/webhooks")).json() == {"webhooks": []}
