"""Events over HTTP on every engine: stored with their key in one step, and known again by any process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from msgspec import Struct

from postline import App, Topic
from postline.commands import Acceptances, Accepted
from postline.errors import LogUnavailable, UnknownTopic
from postline.http import CloudEvent
from postline.http.receiver import receiver
from postline.log.port import Append
from postline.message import Envelope
from tests.conformance.apps import ORDERS, Billing, OrderPlaced, World, all_records
from tests.conformance.harness import Engine

LOOSE = Topic("shop.notes", owner="shop", partitions=4)


@LOOSE.event("shop.Noted")
class Noted(Struct, frozen=True):
    """What has no key."""

    text: str


PATH = "/events/shop.orders"
BODY = {"customer": "anna", "number": 0, "total": 5}


@pytest.fixture
def world(engine: Engine) -> World:
    """A log that is told of orders over HTTP."""
    return World(engine, ORDERS, LOOSE)


@asynccontextmanager
async def door(world: World) -> AsyncIterator[tuple[App, httpx.AsyncClient]]:
    """A process that takes events, and a client of it."""
    app = App("tills", publishes_to=[ORDERS, LOOSE])
    web = receiver(app, path="/events/{topic}")
    await app.start(await world.environment(), consume=False)
    transport = httpx.ASGITransport(web)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
            yield app, client
    finally:
        await app.stop()


async def post(client: httpx.AsyncClient, key: int, event_id: str, **fields: Any) -> int:
    """Send an event in binary mode under a key; the answer's status."""
    headers = {**attributes(event_id, "shop.OrderPlaced"), "Idempotency-Key": f'"{key}"'}
    return (await client.post(PATH, json=BODY | {"number": key} | fields, headers=headers)).status_code


def attributes(event_id: str, kind: str) -> dict[str, str]:
    """What binary mode says of an event."""
    return {"ce-specversion": "1.0", "ce-id": event_id, "ce-source": "/tills/3", "ce-type": kind}


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


async def test_fresh_ids_under_one_key_at_two_processes_at_once_are_handled_once(world: World) -> None:
    async with world:
        billing = Billing()
        await world.start(billing.app)
        async with door(world) as (_, first), door(world) as (_, second):
            for n in range(20):
                sent = [post(each, n, f"{who}-{n}") for who, each in (("one", first), ("other", second))]
                assert await asyncio.gather(*sent) == [202, 202]
        await world.until_handled()
        assert sorted(order.number for order in billing.ran) == list(range(20))


async def test_of_different_events_under_one_key_at_two_processes_at_once_one_is_handled(world: World) -> None:
    async with world:
        billing = Billing()
        await world.start(billing.app)
        accepted: list[tuple[int, int]] = []
        async with door(world) as (_, first), door(world) as (_, second):
            for n in range(20):
                sent = [post(each, n, f"{total}-{n}", total=total) for total, each in ((6, first), (7, second))]
                answers = await asyncio.gather(*sent)
                assert sorted(answers) == [202, 422]
                accepted.append((n, 6 + answers.index(202)))
        await world.until_handled()
        assert sorted((order.number, order.total) for order in billing.ran) == accepted


async def test_a_process_that_ends_between_the_note_of_a_key_and_its_events_leaves_their_ids_to_the_next(
    world: World,
) -> None:
    async with world:
        billing = Billing()
        await world.start(billing.app)
        async with door(world) as (app, client):
            append = app.log.append

            async def ending(records: Sequence[Append]) -> list[int]:
                if {each.topic for each in records} == {"tills.intake"}:
                    return await append(records)
                raise LogUnavailable("the process ends here")

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(app.log, "append", ending)
                assert await post(client, 1, "first") == 503
        assert await all_records(world.log, ORDERS.name) == []
        async with door(world) as (_, client):
            assert await post(client, 1, "other", total=6) == 422
            assert [await post(client, 1, f"again-{n}") for n in range(2)] == [202, 202]
        await world.until_handled()
        assert [order.number for order in billing.ran] == [1]
        stored = [world.log.envelope(record).id for _, record in await all_records(world.log, ORDERS.name)]
        assert stored == ["first"]


async def test_what_has_no_key_lies_in_one_partition_whichever_process_stores_it(world: World) -> None:
    async with world, door(world) as (_, first), door(world) as (_, second):
        for n in range(20):
            sent = [
                each.post(
                    "/events/shop.notes",
                    json={"text": str(n)},
                    headers={**attributes(f"{who}-{n}", "shop.Noted"), "Idempotency-Key": f'"{n}"'},
                )
                for who, each in (("one", first), ("other", second))
            ]
            assert [each.status_code for each in await asyncio.gather(*sent)] == [202, 202]
        lies = {
            (world.log.envelope(each).id, partition) for partition, each in await all_records(world.log, LOOSE.name)
        }
        assert len(lies) == 20


async def test_events_and_their_note_are_stored_together_or_not_at_all(world: World) -> None:
    async with world, door(world) as (app, _):
        spec = next(each for each in await world.log.topics() if each.name == "tills.intake")
        note = Accepted(command="POST", principal="anna", fingerprint=b"1", accepted_ms=1)
        event = CloudEvent(Envelope(id="1", source="/tills/3", type="shop.OrderPlaced"), b'{"customer":"a","number":1}')
        missing = msgspec.structs.replace(spec, name="no.such.topic")
        kept, lost = (Acceptances(world.log, each, app.name) for each in (spec, missing))
        with pytest.raises(UnknownTopic):
            await app.relaying().store([event], "", [lost.record("r-1", note)])
        assert await all_records(world.log, ORDERS.name) == []
        (published,) = await app.relaying().store([event], "", [kept.record("r-2", note)])
        assert (published.id, await kept.find("r-1"), await kept.find("r-2")) == ("1", None, note)
        (order,) = await world.read(ORDERS)
        assert order.message == OrderPlaced("a", 1)
