"""Topics as server-sent events: where a stream begins and goes on, what it leaves out, and who is cut off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from msgspec import Struct

from postline import App, Topic
from postline.errors import SettingsError
from postline.http.limits import Limits
from postline.http.notifications import notifications
from postline.http.streams import Streams
from postline.log.port import Append
from postline.message import Envelope
from postline.testing import TestApp
from tests.unit.http.asgi import Listening
from tests.unit.http.shop import Shop

PATH = "/topics/shop.orders/events"


class Followed:
    """A shop whose orders can be followed."""

    def __init__(self, shop: Shop, harness: TestApp, **options: Any) -> None:
        self.shop, self.harness = shop, harness
        self.web = notifications(shop.app, **{"streams": [shop.orders], **options})
        self.listening: list[Listening] = []

    def listen(self, query: str = "", path: str = PATH, **headers: str) -> Listening:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.listening.append(Listening(self.web, path, query, named))
        return self.listening[-1]

    async def get(self, path: str, peer: str = "127.0.0.1", **more: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.web, client=(peer, 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path, **more)

    async def order(self, *orders: str, customer: str = "ann", **fields: Any) -> None:
        for order in orders:
            await self.harness.publish(self.shop.OrderPlaced(order, customer, **fields))


@asynccontextmanager
async def following(**options: Any) -> AsyncIterator[Followed]:
    shop = Shop(priorities=options.pop("priorities", None))
    async with TestApp(shop.app) as harness:
        made = Followed(shop, harness, **options)
        try:
            yield made
        finally:
            made.web.let_go()
            for each in made.listening:
                await each.close()


def orders_in(events: list[dict[str, str]]) -> list[str]:
    return [json.loads(event["data"])["data"]["order"] for event in events]


async def test_what_comes_is_told_as_events_with_sensitive_fields_masked():
    async with following() as followed:
        await followed.order("o-0")
        stream = followed.listen()
        await stream.wait_for_words(b"retry: ")
        await followed.order("o-1", card="4000")
        (event,) = await stream.wait_for(1)
        said = json.loads(event["data"])
        assert said["data"] == {"order": "o-1", "customer": "ann", "total": 0, "card": "***"}
        assert said["type"] == "shop.OrderPlaced"
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert (stream.headers["x-accel-buffering"], stream.headers["cache-control"]) == ("no", "no-store")


async def test_a_stream_goes_on_where_it_broke_with_nothing_twice_and_nothing_missed():
    async with following() as followed:
        first = followed.listen("from=earliest")
        for number in range(50):
            await followed.order(f"o-{number}", customer=f"c-{number % 7}")
        events = await first.wait_for(50)
        await first.close()
        await followed.order("o-50", "o-51", customer="c-1")
        for place in (0, 20, 49):
            again = followed.listen(last_event_id=events[place]["id"])
            rest = await again.wait_for(51 - place)
            heard = orders_in(events[: place + 1]) + orders_in(rest)
            assert sorted(heard) == sorted({f"o-{number}" for number in range(52)})
            await again.close()


async def test_streams_with_much_to_tell_leave_room_for_others():
    async with following() as followed:
        await followed.shop.app.publish_many([followed.shop.OrderPlaced(f"o-{n}", "ann") for n in range(1_000)])
        streams = [followed.listen("from=earliest") for _ in range(5)]
        told = [0]
        while told[-1] < 5_000:
            await asyncio.sleep(0)
            told.append(sum(stream.heard.count(b"data: ") for stream in streams))
        assert max(after - before for before, after in pairwise(told)) <= 100  # a page of one


async def test_who_breaks_off_before_the_first_event_misses_none():
    async with following() as followed:
        first = followed.listen()
        await first.wait_for_words(b"id: ")
        await first.close()
        await followed.order("o-1")
        assert orders_in(await followed.listen(last_event_id=first.last_id).wait_for(1)) == ["o-1"]
        by_url = followed.listen(f"last-event-id={first.last_id}")
        assert orders_in(await by_url.wait_for(1)) == ["o-1"]


async def test_what_no_event_can_say_is_left_out_and_does_not_end_the_stream():
    bills = Topic("shop.bills", owner="shop", key="bill", partitions=1)

    @bills.event("shop.Billed")
    class Billed(Struct, frozen=True):
        bill: str
        total: Decimal

    app = App("shop", owns=[bills])
    web = notifications(app, streams=[bills])
    async with TestApp(app) as harness:
        envelope = Envelope(id="1", source="others", type="shop.Billed")
        value = b'{"bill":"b-1","total":"NaN"}'  # which may be read, and not be written
        await harness.log.append([Append(bills.name, 0, b"b-1", value, envelope)])
        await app.publish(Billed("b-2", Decimal(5)))
        stream = Listening(web, "/topics/shop.bills/events", "from=earliest")
        left_out, told = await stream.wait_for(2)
        assert (left_out["event"], json.loads(left_out["data"])) == ("unreadable", {"partition": 0, "offset": 0})
        assert json.loads(told["data"])["data"] == {"bill": "b-2", "total": "5"}
        web.let_go()
        await stream.close()


async def test_only_what_was_chosen_is_told_and_the_place_moves_on_all_the_same():
    async with following() as followed:
        rule = quote(json.dumps({"field": "total", "gt": 100}))
        stream = followed.listen(f"from=earliest&filter={rule}")
        await followed.order("small", total=5)
        await followed.order("large", total=500)
        await followed.harness.publish(followed.shop.OrderCancelled("small", "ann"))
        assert orders_in(await stream.wait_for(1)) == ["large"]
        cancelled = followed.listen("from=earliest&types=shop.OrderCancelled")
        assert orders_in(await cancelled.wait_for(1)) == ["small"]
        ends = [each.end for each in await followed.shop.app.log.bounds("shop.orders")]
        while [int(each) for each in stream.last_id.split(".")] != ends:
            await asyncio.sleep(0.001)
        assert len(stream.events) == 1


async def test_a_silent_stream_shows_that_it_is_alive():
    async with following() as followed:
        stream = followed.listen()
        await stream.wait_for_words(b": alive")
        for number in range(2, 5):
            await followed.harness.advance(seconds=15)
            while stream.heard.count(b": alive") < number:
                await asyncio.sleep(0.001)
    assert Limits().heartbeat_seconds <= 15


async def test_requests_that_cannot_be_served_are_problems():
    async with following(limits=Limits(streams_max=1)) as followed:
        for query, status in [
            ("from=yesterday", 400),
            ("filter={", 400),
            ('filter={"field":"nothing","gt":1}', 400),
            ('filter={"field":"total","gt":"a"}', 400),
            ("filter=" + "[" * 9000, 400),
            ("types=shop.Nothing", 400),
            ("last-event-id=x", 400),
            ("last-event-id=" + ".".join(["1"] * 999), 400),
        ]:
            answer = await followed.get(f"{PATH}?{query}")
            assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), query
        assert (await followed.get("/topics/shop.secrets/events")).status_code == 404
        assert (await followed.get(PATH, peer="192.0.2.1")).status_code == 403
        await followed.listen().wait_for_words(b"retry")
        assert (await followed.get(PATH)).status_code == 429


async def test_the_hook_says_who_may_follow():
    def authenticate(request: Any) -> str | None:
        return "ann" if request.headers.get("authorization") == "Bearer a" else None

    async with following(authenticate=authenticate) as followed:
        assert (await followed.get(PATH, peer="192.0.2.1")).status_code == 401
        stream = followed.listen("from=earliest", authorization="Bearer a")
        await followed.order("o-1")
        assert orders_in(await stream.wait_for(1)) == ["o-1"]


async def test_what_retention_took_is_told():
    async with following() as followed:
        await followed.order(*[f"o-{number}" for number in range(5)])
        place = followed.listen()
        await place.wait_for_words(b"id: ")
        bounds = await followed.shop.app.log.bounds("shop.orders")
        (partition,) = [number for number, each in enumerate(bounds) if each.end]
        from postline.log.port import Bounds

        log = followed.shop.app.log
        real = log.bounds

        async def later(topic: str, *, stable: bool = False) -> list[Bounds]:
            found = await real(topic, stable=stable)
            return [Bounds(3, each.end) if number == partition else each for number, each in enumerate(found)]

        log.bounds = later  # type: ignore[method-assign]
        stream = followed.listen(last_event_id=".".join(["0"] * len(bounds)))
        events = await stream.wait_for(3)
        assert (events[0]["event"], json.loads(events[0]["data"])) == (
            "lost",
            {"partition": partition, "from": 0, "to": 3},
        )
        assert orders_in(events[1:]) == ["o-3", "o-4"]


async def test_a_client_that_takes_nothing_is_cut_off_and_costs_no_memory(caplog: Any):
    async with following() as followed:
        shop = followed.shop
        streams = Streams(
            shop.app, [shop.orders], Limits(), asyncio.Event(), reveal=False, slow_seconds=0.05,
        )  # fmt: skip
        from starlette.applications import Starlette
        from starlette.routing import Route

        async def endpoint(request: Any) -> Any:
            return await streams.events(request, "ann")

        stuck = Listening(Starlette(routes=[Route("/topics/{name}/events", endpoint)]), PATH, "from=earliest")
        await stuck.wait_for_words(b"retry")
        stuck.takes.clear()
        await followed.order(*[f"o-{number}" for number in range(300)])
        while not stuck.task.done():
            await asyncio.sleep(0.001)
        assert isinstance(stuck.task.exception(), TimeoutError)
        assert "took nothing" in caplog.text
        assert streams._open == 0


async def test_streams_end_when_the_server_stops():
    async with following() as followed:
        stream = followed.listen()
        await stream.wait_for_words(b"retry")
        followed.web.let_go()
        while not stream.task.done():
            await asyncio.sleep(0.001)


async def test_each_priority_of_a_topic_is_a_stream_of_its_own():
    async with following(priorities={"high": 0.5, "normal": 0.1}) as followed:
        normal, high = followed.listen(), followed.listen(path="/topics/shop.orders.high/events")
        for stream in (normal, high):
            await stream.wait_for_words(b"id: ")
        await followed.shop.app.publish(followed.shop.OrderPlaced("o-1", "ann"), priority="high")
        await followed.order("o-2")
        assert orders_in(await high.wait_for(1)) == ["o-1"]
        assert orders_in(await normal.wait_for(1)) == ["o-2"]


def test_a_topic_that_the_app_does_not_know_is_refused_where_it_is_exposed():
    with pytest.raises(SettingsError, match="does not know"):
        notifications(Shop().app, streams=[Shop().orders])
