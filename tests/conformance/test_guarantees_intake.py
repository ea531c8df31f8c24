"""Events over HTTP on every engine: stored with their key in one step, and known again by any process."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest

from postline import App
from postline.app import Environment
from postline.commands import Acceptances, Accepted
from postline.errors import UnknownTopic
from postline.http import CloudEvent
from postline.http.receiver import receiver
from postline.message import Envelope
from postline.settings import LogUrl, Settings
from tests.conformance.apps import ORDERS, Billing, OrderPlaced, World, all_records
from tests.conformance.harness import Engine

PATH = "/events/shop.orders"
BODY = {"customer": "anna", "number": 0, "total": 5}


@pytest.fixture
def world(engine: Engine) -> World:
    """A log that is told of orders over HTTP."""
    return World(engine)


@asynccontextmanager
async def door(world: World) -> AsyncIterator[tuple[App, httpx.AsyncClient]]:
    """A process that takes events, and a client of it."""
    app = App("tills", publishes_to=[ORDERS])
    web = receiver(app, path="/events/{topic}")
    environment = Environment(world.log, Settings(url=LogUrl("test")), world.engine.clock, random.Random(7))
    await app.start(environment, consume=False)
    transport = httpx.ASGITransport(web)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
            yield app, client
    finally:
        await app.stop()


async def post(client: httpx.AsyncClient, key: int, event_id: str, **fields: Any) -> int:
    """Send an event in binary mode under a key; the answer's status."""
    attributes = {"ce-specversion": "1.0", "ce-id": event_id, "ce-source": "/tills/3", "ce-type": "shop.OrderPlaced"}
    headers = {**attributes, "Idempotency-Key": f'"{key}"'}
    return (await client.post(PATH, json=BODY | {"number": key} | fields, headers=headers)).status_code


async def test_a_key_is_stored_once_whatever_the_ids_through_any_process(world: World) -> None:
    async with world:
        billing = Billing()
        await world.start(billing.app)
        async with door(world) as (_, first):
            assert set(await asyncio.gather(*(post(first, n, f"first-{n}") for n in range(20)))) == {202}
        async with door(world) as (_, second):
            assert set(await asyncio.gather(*(post(second, n, f"again-{n}") for n in range(20)))) == {202}
            assert await post(second, 0, "other", total=6) == 422
        await world.until_handled()
        assert sorted(order.number for order in billing.ran) == list(range(20))
        stored = [world.log.envelope(record).id for _, record in await all_records(world.log, ORDERS.name)]
        assert sorted(stored) == sorted(f"first-{n}" for n in range(20))


async def test_a_sender_that_keeps_its_ids_is_heard_once_through_two_processes_at_once(world: World) -> None:
    async with world:
        billing = Billing()
        await world.start(billing.app)
        async with door(world) as (_, first), door(world) as (_, second):
            for n in range(10):
                sent = [post(each, n, f"order-{n}") for each in (first, second)]
                assert await asyncio.gather(*sent) == [202, 202]
        await world.until_handled()
        assert sorted(order.number for order in billing.ran) == list(range(10))


async def test_events_and_their_note_are_stored_together_or_not_at_all(world: World) -> None:
    async with world, door(world) as (app, _):
        spec = next(each for each in await world.log.topics() if each.name == "tills.intake")
        note = Accepted(command="POST", principal="anna", fingerprint=b"1", accepted_ms=1)
        event = CloudEvent(Envelope(id="1", source="/tills/3", type="shop.OrderPlaced"), b'{"customer":"a","number":1}')
        missing = msgspec.structs.replace(spec, name="no.such.topic")
        kept, lost = (Acceptances(world.log, each, app.name) for each in (spec, missing))
        with pytest.raises(UnknownTopic):
            await app.relay([event], beside=[lost.record("r-1", note)])
        assert await all_records(world.log, ORDERS.name) == []
        (published,) = await app.relay([event], beside=[kept.record("r-2", note)])
        assert (published.id, await kept.find("r-1"), await kept.find("r-2")) == ("1", None, note)
        (order,) = await world.read(ORDERS)
        assert order.message == OrderPlaced("a", 1)
