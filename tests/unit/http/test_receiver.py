"""CloudEvents over HTTP into an app: what is stored under which identity, and each refusal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cloudevents.core.bindings import http as sdk
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as SdkEvent
from msgspec import Struct

from postline import App, BackPressure, CommandTopic, Context, Schemas, Topic, UsageError
from postline.errors import ContractError, EncodeError, LogFull
from postline.http import CloudEvent, event_keys, event_of, read_request, write_batch, write_request
from postline.http.notifications import Webhooks, notifications
from postline.http.receiver import receiver
from postline.message import Envelope
from postline.routing import Count, TapTopic
from postline.testing import TestApp

orders = Topic("shop.orders", owner="shop", key="customer", schemas=Schemas(message_bytes_max=300))
trips = Topic("shop.trips", owner="shop", schemas=Schemas(format="avro"))


@orders.event("shop.OrderPlaced", aliases=["shop.Ordered"])
class OrderPlaced(Struct, frozen=True):
    order: str
    customer: str


@trips.event("shop.TripMade")
class TripMade(Struct, frozen=True):
    trip: str


class OrderPaid(Struct, frozen=True):
    pass


class Pay(Struct, frozen=True):
    customer: str


async def double(number: int) -> int:
    return 2 * number


class Shop:
    """A shop that takes events in, asked over HTTP without a network."""

    def __init__(self) -> None:
        self.app = App("shop", owns=[orders, trips])
        self.handled: list[tuple[Any, Envelope]] = []
        self.relayed: list[CloudEvent] = []
        for topic, kind in ((orders, OrderPlaced), (trips, TripMade)):
            self.app.subscribe(topic.name, topic, start="earliest").on(kind)(self._note)
        self.web = receiver(self.app, body_bytes_max=1_000, origins=["eventgrid.example"])

    async def _note(self, message: Any, ctx: Context) -> None:
        self.handled.append((message, ctx.envelope))
        self.relayed.append(event_of(ctx))

    async def post(self, headers: dict[str, str], body: bytes, method: str = "POST") -> httpx.Response:
        transport = httpx.ASGITransport(self.web)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, "/", headers=headers, content=body)


@pytest.fixture
async def shop() -> AsyncIterator[tuple[Shop, TestApp]]:
    made = Shop()
    async with TestApp(made.app) as harness:
        yield made, harness


def event(data: Any = None, **more: Any) -> CloudEvent:
    said = {"id": "1", "source": "/pos/7", "type": "shop.OrderPlaced", "time_ms": 5, "headers": {"ce_subject": "a"}}
    content = {"order": "o-1", "customer": "ann"} if data is None else data
    return CloudEvent(Envelope(**{**said, **more}), json.dumps(content).encode())


@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_an_event_is_stored_under_the_identity_that_it_came_with(shop: tuple[Shop, TestApp], mode: Any):
    service, harness = shop
    assert (await service.post(*write_request(event(), mode))).status_code == 202
    await harness.settle()
    ((message, envelope),) = service.handled
    assert message == OrderPlaced("o-1", "ann")
    assert (envelope.id, envelope.source, envelope.type, envelope.time_ms) == ("1", "/pos/7", "shop.OrderPlaced", 5)
    assert envelope.headers == {"ce_subject": "a"}


async def test_a_batch_is_stored_as_a_whole_and_repetitions_are_dropped(shop: tuple[Shop, TestApp]):
    service, harness = shop
    sent = [event({"order": f"o-{n}", "customer": "ann"}, id=f"{n}") for n in range(3)]
    for _ in range(2):
        assert (await service.post(*write_batch(sent))).status_code == 202
    await harness.settle()
    assert [message.order for message, _ in service.handled] == ["o-0", "o-1", "o-2"]
    assert harness.audit()["shop.orders"] == {"done": 3, "duplicate": 3}


async def test_an_empty_batch_is_taken(shop: tuple[Shop, TestApp]):
    assert (await shop[0].post(*write_batch([]))).status_code == 202


async def test_an_event_of_a_former_type_and_json_for_a_topic_of_another_format_are_taken(shop: tuple[Shop, TestApp]):
    service, harness = shop
    await service.post(*write_request(event(type="shop.Ordered")))
    await service.post(*write_request(event({"trip": "t-1"}, type="shop.TripMade")))
    await harness.settle()
    assert {(message, envelope.content_type) for message, envelope in service.handled} == {
        (OrderPlaced("o-1", "ann"), "application/json"),
        (TripMade("t-1"), "application/avro"),
    }


async def test_what_the_sdk_sends_is_handled_and_what_we_relay_is_read_by_it(shop: tuple[Shop, TestApp]):
    service, harness = shop
    said = {"id": "9", "source": "/sdk", "type": "shop.OrderPlaced", "datacontenttype": "application/json"}
    sent = sdk.to_structured(SdkEvent(said, {"order": "o-9", "customer": "ö"}), JSONFormat())
    assert (await service.post(sent.headers, sent.body)).status_code == 202
    await harness.settle()
    assert [message for message, _ in service.handled] == [OrderPlaced("o-9", "ö")]
    for mode in ("binary", "structured"):
        headers, body = write_request(service.relayed[0], mode)
        found = sdk.from_http(sdk.HTTPMessage(headers, body), JSONFormat())
        assert (found.get_id(), found.get_source(), found.get_data()) == (
            "9",
            "/sdk",
            {"order": "o-9", "customer": "ö"},
        )


@pytest.mark.parametrize(
    ("sent", "status", "why"),
    [
        (({"content-type": "application/json"}, b"{}"), 400, "no CloudEvent"),
        (({"content-type": "application/cloudevents+json"}, b"{"), 400, "no JSON object"),
        (({"content-type": "application/cloudevents-batch+json"}, b"[{}]"), 400, "Event 0 of the batch"),
        (write_request(event(type="shop.Unknown")), 422, "'shop.Unknown'"),
        (write_request(event({"order": 5, "customer": "ann"})), 422, "order"),
        (write_request(event({"order": "o", "customer": ""}, id="13")), 422, "event '13'"),
        (write_request(event(content_type="text/csv")), 422, "text/csv"),
        (write_request(event({"order": "o" * 400, "customer": "a"})), 413, "over the limit of 300"),
        (write_request(event({"order": "o" * 1_000, "customer": "a"})), 413, "At most 1000 bytes"),
        (write_batch([event(), event({"order": 5}, id="2")]), 422, "event '2'"),
    ],
)
async def test_what_is_refused_says_why_and_what_to_do_and_nothing_is_stored(
    shop: tuple[Shop, TestApp], sent: tuple[dict[str, str], bytes], status: int, why: str
):
    service, harness = shop
    answer = await service.post(*sent)
    assert answer.status_code == status
    assert why in answer.json()["detail"]
    assert answer.headers["content-type"] == "application/problem+json"
    await harness.settle()
    assert service.handled == []


async def test_a_log_that_can_not_store_is_told_as_a_reason_to_come_again(
    shop: tuple[Shop, TestApp], monkeypatch: pytest.MonkeyPatch
):
    service, _ = shop

    async def full(appends: object) -> list[int]:
        raise LogFull("There is no room.", remedy="Make some.")

    monkeypatch.setattr(service.app.log, "append", full)
    answer = await service.post(*write_request(event()))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize(
    ("origin", "status", "granted"), [("eventgrid.example", 200, True), ("evil.example", 403, False)]
)
async def test_the_handshake_of_web_hooks_is_answered_for_known_senders(
    shop: tuple[Shop, TestApp], origin: str, status: int, granted: bool
):
    answer = await shop[0].post({"WebHook-Request-Origin": origin}, b"", "OPTIONS")
    assert (answer.status_code, answer.headers.get("webhook-allowed-origin")) == (status, origin if granted else None)


async def test_relaying_in_a_handler_is_refused_like_publishing(shop: tuple[Shop, TestApp]):
    service, harness = shop
    refused = []

    async def relay(message: Any, ctx: Context) -> None:
        try:
            await service.app.relay([event_of(ctx)])
        except UsageError as error:
            refused.append(error)

    service._note = relay  # type: ignore[method-assign]
    app = App("other")
    app.subscribe("other", orders, start="earliest").on(OrderPlaced)(relay)
    await harness.start(app)
    await service.app.relay([event()])
    await harness.settle()
    assert len(refused) == 1


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_bytes_that_are_no_text_can_not_be_sent_as_an_attribute(mode: Any):
    with pytest.raises(EncodeError, match="header ce_subject is no UTF-8"):
        write_request(event(headers={"ce_subject": "\udcff"}), mode=mode)


def test_a_message_without_an_identity_can_not_be_sent_as_an_event():
    with pytest.raises(EncodeError, match="no CloudEvent"):
        write_request(CloudEvent(Envelope(), b"{}"))


async def test_a_topic_at_its_bound_is_told_with_the_time_to_come_back(
    shop: tuple[Shop, TestApp], monkeypatch: pytest.MonkeyPatch
):
    service, _ = shop

    async def full(events: object, **_: object) -> None:
        raise BackPressure("Full.", retry_after_seconds=2.1)

    monkeypatch.setattr(service.app, "relay", full)
    answer = await service.post(*write_request(event()))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")


def test_events_of_a_request_are_read_with_their_extensions():
    headers, body = write_request(event(correlation_id="c", headers={"ce_tenant": "n", "traceparent": "00-a-b-01"}))
    (found,) = read_request(headers, body)
    assert found == event(correlation_id="c", headers={"ce_tenant": "n", "traceparent": "00-a-b-01"})


async def test_served_on_its_own_it_starts_and_stops_the_app(tmp_path: Path):
    app = App("shop", owns=[orders], url=f"sqlite:///{tmp_path}/shop.db")
    web = receiver(app)
    request = write_request(event())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://localhost") as client:
        async with web.running():
            taken = await client.post("/", headers=request.headers, content=request.body)
            assert taken.status_code == 202
        refused = await client.post("/", headers=request.headers, content=request.body)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


async def test_an_app_that_runs_already_is_left_alone(shop: tuple[Shop, TestApp]):
    service, _ = shop
    async with service.web.running():
        assert (await service.post(*write_request(event()))).status_code == 202
    assert (await service.post(*write_request(event(id="2")))).status_code == 202


async def test_only_this_machine_is_served_until_somebody_says_who_sends() -> None:
    shop = App("shop", owns=[], url="sqlite://")
    event = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t"}
    transport = httpx.ASGITransport(receiver(shop), client=("203.0.113.9", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as web:
        assert (await web.post("/", headers=event)).status_code == 403
    asked = receiver(shop, authenticate=lambda request: request.headers.get("x-who"))
    transport = httpx.ASGITransport(asked, client=("203.0.113.9", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as web:
        refused = await web.post("/", headers=event)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        known = await web.post("/", headers={**event, "x-who": "anna"})
        assert (known.status_code, known.json()["type"]) == (422, "urn:postline:problem:invalid")
    await shop.stop()


async def test_a_path_that_names_a_topic_takes_events_of_that_alone() -> None:
    ledger = CommandTopic("ledger", owner="shop")
    app = App("shop", owns=[orders, trips, ledger])
    web = receiver(app, path="/events/{topic}")
    async with TestApp(app), httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://localhost") as pos:
        headers, body = write_request(event())
        assert (await pos.post("/events/shop.orders", headers=headers, content=body)).status_code == 202
        refused = await pos.post("/events/shop.trips", headers=headers, content=body)
        assert (refused.status_code, refused.json()["type"]) == (422, "urn:postline:problem:invalid")
        assert refused.json()["detail"].endswith("Send one of shop.TripMade.")
        for unknown in ("shop.nothing", "ledger.commands", "ledger.replies"):
            nowhere = await pos.post(f"/events/{unknown}", headers=headers, content=body)
            assert (nowhere.status_code, nowhere.json()["instance"]) == (404, f"/events/{unknown}")


async def test_a_sender_has_a_rate() -> None:
    app = App("shop", owns=[orders])
    web = receiver(app, rate=(1, 2), authenticate=lambda request: request.headers.get("x-who"))
    async with TestApp(app), httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://localhost") as pos:
        headers, body = write_request(event())
        said = [await pos.post("/", headers={**headers, "x-who": "ann"}, content=body) for _ in range(3)]
        assert [each.status_code for each in said] == [202, 202, 429]
        assert said[2].headers["retry-after"] == "1"
        assert (await pos.post("/", headers={**headers, "x-who": "bob"}, content=body)).status_code == 202


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    app = App("shop", owns=[orders])
    web = receiver(app)
    sent: list[Any] = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "scheme": "http",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
    }
    waiting = asyncio.Event()

    async def receive() -> dict[str, Any]:
        waiting.set()
        await asyncio.Event().wait()
        raise AssertionError("nothing comes")

    async def send(message: Any) -> None:
        sent.append(message)

    async with TestApp(app) as harness:
        asked = asyncio.create_task(web(scope, receive, send))
        await waiting.wait()
        await harness.advance(seconds=31)
        await asked
    assert sent[0]["status"] == 408


async def test_nobody_outside_can_forge_what_the_library_keeps_for_itself():
    ledger = CommandTopic("ledger", owner="shop", key="customer")
    ledger.command("ledger.Pay", reply=OrderPaid)(Pay)
    copies = TapTopic("shop.copies", owner="shop")
    app = App("shop", owns=[orders, ledger, copies], schedules=True)
    app.serve(ledger).on(Pay)(lambda command: OrderPaid())
    app.task(double)
    options: dict[str, Any] = {"key": "customer", "complete": Count(3), "into": lambda parts: None}
    app.aggregate("threes", orders, of=OrderPlaced, start="earliest", **options)
    notifications(app, webhooks=Webhooks(topics=[orders]))
    forged = [
        "postline.WebhookEndpoint",  # would have a topic posted to whoever forges it
        *("ledger.Pay", "ledger.OrderPaid", "shop.double", "shop.double.result"),
        *("shop.schedules.Delayed", "shop.schedules.Run", "threes.parts.Part", "threes.parts.Tick", "shop.copies.Copy"),
    ]
    async with TestApp(app):
        for kind in forged:
            with pytest.raises(ContractError, match=f"No topic of the app takes {kind!r}") as refused:
                await app.relay([event(type=kind)])
            assert refused.value.remedy == "Send one of shop.OrderPlaced, shop.Ordered."


# -- Idempotency-Key ----------------------------------------------------------------------------------


KEY = {"Idempotency-Key": '"sale-1"'}


def sent_anew(number: int, mode: Any = "binary", order: str = "o-1") -> tuple[dict[str, str], bytes]:
    """The request of a sender that makes a fresh id, time and trace each time it sends, under one key."""
    trace = {"traceparent": f"00-{number:032x}-{number:016x}-01"}
    made = event({"order": order, "customer": "ann"}, id=f"fresh-{number}", time_ms=number, headers=trace)
    headers, body = write_request(made, mode)
    return {**headers, **KEY}, body


@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_a_repetition_under_its_key_stores_nothing_and_is_answered_as_the_first(
    shop: tuple[Shop, TestApp], mode: Any
):
    service, harness = shop
    answers = [await service.post(*sent_anew(number, mode)) for number in range(3)]
    assert {(each.status_code, each.content) for each in answers} == {(202, b"")}
    await harness.settle()
    ((message, envelope),) = service.handled
    assert (message.order, envelope.id) == ("o-1", "fresh-0")
    assert harness.audit()["shop.orders"] == {"done": 1}


async def test_other_events_under_a_used_key_are_refused(shop: tuple[Shop, TestApp]):
    service, harness = shop
    assert (await service.post(*sent_anew(1))).status_code == 202
    changed = await service.post(*sent_anew(1, order="o-2"))
    assert (changed.status_code, changed.json()["type"]) == (422, "urn:postline:problem:key-reused")
    one_more = await service.post(*sent_many_under_the_key(2))
    assert one_more.status_code == 422
    await harness.settle()
    assert [message.order for message, _ in service.handled] == ["o-1"]


def sent_many_under_the_key(count: int) -> tuple[dict[str, str], bytes]:
    headers, body = write_batch([event(id=f"b-{number}", headers={}) for number in range(count)])
    return {**headers, **KEY}, body


async def test_a_batch_under_a_key_is_taken_once_as_a_whole(shop: tuple[Shop, TestApp]):
    service, harness = shop
    for _ in range(2):
        assert (await service.post(*sent_many_under_the_key(3))).status_code == 202
    await harness.settle()
    assert harness.audit()["shop.orders"] == {"done": 3}
    assert (await service.post(*sent_many_under_the_key(2))).status_code == 422


async def test_a_refused_request_has_not_used_its_key(shop: tuple[Shop, TestApp]):
    service, harness = shop
    headers, body = write_request(event({"order": 5}))
    assert (await service.post({**headers, **KEY}, body)).status_code == 422
    assert (await service.post(*sent_anew(1))).status_code == 202
    await harness.settle()
    assert len(service.handled) == 1


async def test_a_key_that_can_not_be_read_is_refused(shop: tuple[Shop, TestApp]):
    headers, body = write_request(event())
    refused = await shop[0].post({**headers, "Idempotency-Key": "two words"}, body)
    assert (refused.status_code, refused.json()["type"]) == (400, "urn:postline:problem:idempotency-key")


async def test_a_repetition_is_told_to_wait_while_the_first_is_being_stored(
    shop: tuple[Shop, TestApp], monkeypatch: pytest.MonkeyPatch
):
    service, harness = shop
    append, storing, go_on = service.app.log.append, asyncio.Event(), asyncio.Event()

    async def slow(appends: Any) -> list[int]:
        storing.set()
        await go_on.wait()
        return await append(appends)

    monkeypatch.setattr(service.app.log, "append", slow)
    first = asyncio.create_task(service.post(*sent_anew(1)))
    await storing.wait()
    second = await service.post(*sent_anew(2))
    assert (second.status_code, second.headers["retry-after"]) == (409, "1")
    go_on.set()
    assert ((await first).status_code, (await service.post(*sent_anew(3))).status_code) == (202, 202)
    await harness.settle()
    assert len(service.handled) == 1


async def test_a_repetition_of_what_was_stored_and_not_confirmed_does_nothing(
    shop: tuple[Shop, TestApp], monkeypatch: pytest.MonkeyPatch
):
    service, harness = shop
    append = service.app.log.append

    async def lost(appends: Any) -> list[int]:
        await append(appends)
        raise LogFull("The answer was lost.", remedy="Ask again.")

    with monkeypatch.context() as patched:
        patched.setattr(service.app.log, "append", lost)
        assert (await service.post(*sent_anew(1))).status_code == 503
    assert (await service.post(*sent_anew(2))).status_code == 202
    await harness.settle()
    assert [envelope.id for _, envelope in service.handled] == ["fresh-1"]


async def test_a_repetition_of_what_was_noted_alone_is_stored_under_the_first_one_s_ids(
    shop: tuple[Shop, TestApp], monkeypatch: pytest.MonkeyPatch
):
    service, harness = shop
    append, full = service.app.log.append, LogFull("Nothing more fits.", remedy="Make room.")

    async def noting(appends: Any) -> list[int]:
        if {each.topic for each in appends} != {"shop.intake"}:
            raise full
        return await append(appends)

    with monkeypatch.context() as patched:
        patched.setattr(service.app.log, "append", noting)
        assert (await service.post(*sent_anew(1))).status_code == 503
        assert (await service.post(*sent_anew(2, order="o-2"))).status_code == 422
    assert (await service.post(*sent_anew(3))).status_code == 202
    await harness.settle()
    ((message, envelope),) = service.handled
    assert (message.order, envelope.id, envelope.time_ms) == ("o-1", "fresh-1", 3)


async def test_more_ids_than_the_note_of_a_key_can_hold_are_refused_and_the_key_is_not_used(
    shop: tuple[Shop, TestApp], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(event_keys, "_IDS_CHARACTERS_MAX", 5)
    service, harness = shop
    refused = await service.post(*sent_many_under_the_key(2))
    assert (refused.status_code, "send fewer at once" in refused.json()["detail"]) == (413, True)
    assert (await service.post(*sent_many_under_the_key(1))).status_code == 202
    await harness.settle()
    assert len(service.handled) == 1


async def test_keys_are_each_principal_s_own_and_each_path_s() -> None:
    app = App("shop", owns=[orders, trips])
    web = receiver(app, path="/events/{topic}", authenticate=lambda request: request.headers.get("x-who"))
    taken: list[Any] = []
    app.subscribe("orders", orders, start="earliest").on(OrderPlaced)(taken.append)
    app.subscribe("trips", trips, start="earliest").on(TripMade)(taken.append)
    async with (
        TestApp(app) as harness,
        httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://localhost") as pos,
    ):
        for who in ("ann", "bob", "ann"):
            headers, body = sent_anew(len(taken) + ord(who[0]))
            answer = await pos.post("/events/shop.orders", headers={**headers, "x-who": who}, content=body)
            assert answer.status_code == 202
        headers, body = write_request(event({"trip": "t-1"}, type="shop.TripMade"))
        trip = await pos.post("/events/shop.trips", headers={**headers, **KEY, "x-who": "ann"}, content=body)
        assert trip.status_code == 202
        await harness.settle()
    assert sorted(type(each).__name__ for each in taken) == ["OrderPlaced", "OrderPlaced", "TripMade"]


async def test_another_process_knows_the_keys_of_one_that_is_gone(tmp_path: Path) -> None:
    for number in range(2):
        app = App("shop", owns=[orders], url=f"sqlite:///{tmp_path}/shop.db")
        web = receiver(app)
        async with (
            web.running(),
            httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://localhost") as pos,
        ):
            headers, body = sent_anew(number)
            assert (await pos.post("/", headers=headers, content=body)).status_code == 202
            changed, body = sent_anew(number, order="o-2")
            assert (await pos.post("/", headers=changed, content=body)).status_code == 422
            stored = [bound.end for bound in await app.log.bounds("shop.orders")]
    assert sum(stored) == 1


async def test_two_receivers_of_an_app_share_what_they_know(tmp_path: Path) -> None:
    app = App("shop", owns=[orders])
    doors = [receiver(app), receiver(app, path="/again")]
    async with TestApp(app):
        for web, path in zip(doors, ("/", "/again"), strict=True):
            async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://localhost") as pos:
                headers, body = sent_anew(1)
                assert (await pos.post(path, headers=headers, content=body)).status_code == 202
        assert sum(bound.end for bound in await app.log.bounds("shop.orders")) == 1


async def test_a_receiver_that_is_made_too_late_is_refused(shop: tuple[Shop, TestApp]):
    with pytest.raises(UsageError, match="runs already"):
        receiver(shop[0].app)


async def test_a_key_is_forgotten_in_the_end(shop: tuple[Shop, TestApp]):
    service, harness = shop
    assert (await service.post(*sent_anew(1))).status_code == 202
    await harness.advance(days=6)
    assert (await service.post(*sent_anew(2, order="o-2"))).status_code == 422
    await harness.advance(days=3)
    while not any(each.start for each in await harness.log.bounds("shop.intake")):
        await harness.advance(minutes=1)
    assert (await service.post(*sent_anew(3, order="o-2"))).status_code == 202
