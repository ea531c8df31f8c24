"""The OpenAPI document: valid, and what its schemas say is what is answered."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest
from msgspec import Struct
from openapi_spec_validator import validate
from pydantic import BaseModel

from postline import App, CommandTopic, Schemas, Topic
from postline.http.gateway import gateway
from postline.http.notifications import Webhooks, notifications
from postline.http.receiver import receiver
from postline.testing import TestApp
from tests.unit.commands.ledger import Ledger
from tests.unit.http.shop import Partner, Shop
from tests.unit.http.web import PAY, TRANSFER, running_web


class Part(Struct):
    path: str
    inner: list[Part] = []


def checked(document: dict[str, Any], at: str, value: Any) -> None:
    """Whether a value is as a schema of the document has it."""
    part: Any = document
    for step in at.split(" "):
        part = part[step]
    jsonschema.Draft202012Validator({**part, "components": document["components"]}).validate(value)


def test_the_document_is_valid() -> None:
    document = gateway(Ledger().client, authenticate=lambda _: "anna", key_required=True).document
    validate(document)
    assert set(document["paths"]) >= {TRANSFER, "/commands/ledger.BalanceOf", "/requests/{id}"}
    assert document["security"] == [{"caller": []}]
    (key, _) = document["paths"][TRANSFER]["post"]["parameters"]
    assert key["required"]


def test_commands_of_any_format_and_class_are_described_as_json() -> None:
    """As they stand in a body, whatever their topic has."""
    topic = CommandTopic("files", owner="files", schemas=Schemas(format="avro"))

    class Found(BaseModel):
        sizes: dict[str, int | None]

    @topic.command("files.Copy", reply=Found)
    class Copy(Struct):
        """Copy a file."""

        parts: list[Part]

    document = gateway(App("web", publishes_to=[topic])).document
    validate(document)
    operation = document["paths"]["/commands/files.Copy"]["post"]
    assert operation["summary"] == "Copy a file."
    checked(document, "paths /commands/files.Copy post requestBody content application/json schema", {"parts": []})
    assert operation["requestBody"]["content"]["application/json"]["example"]["parts"]


async def test_answers_are_as_the_document_says() -> None:
    async with running_web() as web:
        document = (await web.http.get("/openapi.json")).json()
        validate(document)
        assert document["servers"] == [{"url": "/"}]
        ended = f"paths {TRANSFER} post responses 200 content application/json schema"
        for amount in (30, 300):
            answer = await web.pay({"Prefer": "wait=5"}, amount=amount)
            assert answer.status_code == 200
            checked(document, ended, answer.json())
        accepted = await web.pay()
        status = "components schemas postline.Status"
        checked(document, status, accepted.json())
        checked(document, status, (await web.http.get(accepted.headers["location"])).json())
        refused = await web.http.post(TRANSFER, json=PAY | {"amount": "x"})
        checked(document, "components schemas postline.Problem", refused.json())


def till() -> App:
    """An app with topics that take events, and others that take none."""
    sales = Topic("shop.sales", owner="shop", key="till", schemas=Schemas(format="avro"))

    @sales.event("shop.Sold", aliases=["shop.Sale"])
    class Sold(Struct):
        """Something was sold."""

        till: str
        parts: list[Part] = []

    @sales.event("shop.Returned")
    class Returned(BaseModel):
        till: str

    visits = Topic("shop.visits", owner="other")

    @visits.event("shop.Visited")
    class Visited(Struct):
        door: int

    return App("shop", owns=[sales], publishes_to=[visits, Ledger().topic])


def test_each_topic_that_takes_events_has_an_operation() -> None:
    document = receiver(till(), path="/events/{topic}", authenticate=lambda _: "anna").document
    validate(document)
    assert set(document["paths"]) == {"/events/shop.sales", "/events/shop.visits", "/openapi.json"}
    assert document["security"] == [{"caller": []}]
    operation = document["paths"]["/events/shop.sales"]["post"]
    assert {each["name"] for each in operation["parameters"]} > {"Idempotency-Key", "ce-id"}
    assert {"202", "401", "409", "422", "429", "503"} <= set(operation["responses"])
    structured = "paths /events/shop.sales post requestBody content application/cloudevents+json schema"
    event = {"specversion": "1.0", "id": "1", "source": "/tills/1", "type": "shop.Sold", "data": {"till": "1"}}
    checked(document, structured, event)
    checked(document, structured, {**event, "type": "shop.Sale", "subject": "s", "time": None, "tenant": "t"})
    checked(
        document, structured.replace("events+json", "events-batch+json"), [event, {**event, "type": "shop.Returned"}]
    )
    checked(document, "paths /events/shop.visits post requestBody content application/json schema", {"door": 1})
    for wrong in ({**event, "type": "shop.Visited"}, {**event, "data": {}}, {"data": {"till": "1"}}):
        with pytest.raises(jsonschema.ValidationError):
            checked(document, structured, wrong)
    checked(document, structured, operation["requestBody"]["content"]["application/cloudevents+json"]["example"])


def test_a_path_for_all_topics_is_one_operation_and_no_topic_is_none() -> None:
    document = receiver(till(), path="/in").document
    validate(document)
    schema = document["paths"]["/in"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert len(schema["anyOf"]) == 3
    nothing = receiver(App("empty", owns=[])).document
    validate(nothing)
    assert set(nothing["paths"]) == {"/openapi.json"}


async def test_a_receiver_answers_with_its_document() -> None:
    app = till()
    web = receiver(app, path="/events/{topic}")
    transport = httpx.ASGITransport(web, root_path="/api")
    async with TestApp(app), httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        document = (await client.get("/openapi.json")).json()
    validate(document)
    assert document["servers"] == [{"url": "/api"}]


async def test_what_can_be_followed_is_described_and_answered_as_the_document_says() -> None:
    shop, partner = Shop(), Partner()
    webhooks = Webhooks(topics=[shop.orders], post=partner)
    web = notifications(shop.app, streams=[shop.orders], webhooks=webhooks, authenticate=lambda _: "ann")
    document: Any = web.document
    validate(document)
    assert document["security"] == [{"caller": []}]
    assert document["paths"]["/topics/{name}/events"]["parameters"][0]["schema"] == {"enum": ["shop.orders"]}
    transport = httpx.ASGITransport(web)
    async with TestApp(shop.app) as harness, httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        assert (await client.get("/openapi.json")).json() == {**document, "servers": [{"url": "/"}]}
        asked = {"url": "https://partner.example/hooks", "topic": "shop.orders", "filter": {"field": "total", "gt": 1}}
        content = "content application/json schema"
        checked(document, f"paths /webhooks post requestBody {content}", asked)
        made = (await client.post("/webhooks", json=asked)).json()
        checked(document, f"paths /webhooks post responses 201 {content}", made)
        while not any(made["id"] in consumer.plan.name for consumer in shop.app.consumers):
            await asyncio.sleep(0)
        await harness.publish(shop.OrderPlaced("17", "bob", total=5))
        await harness.settle()
        posted = "requestBody content application/cloudevents+json schema"
        for _, headers, body in partner.posts:
            checked(document, f"webhooks shop.orders post {posted}", json.loads(body))
            told = document["webhooks"]["shop.orders"]["post"]["parameters"]
            assert {each["name"] for each in told} <= headers.keys()
        assert len(partner.posts) == 1
        at = f"/webhooks/{made['id']}"
        for method, path, of in [
            ("GET", "/webhooks", "/webhooks"),
            ("GET", at, "/webhooks/{id}"),
            ("POST", f"{at}/enable", "/webhooks/{id}/enable"),
            ("POST", f"{at}/secret", "/webhooks/{id}/secret"),
        ]:
            answer = (await client.request(method, path)).json()
            checked(document, f"paths {of} {method.lower()} responses 200 {content}", answer)
        assert (await client.delete(at)).status_code == 204
        problem = (await client.get(at)).json()
        checked(document, "components schemas postline.Problem", problem)


def test_without_webhooks_none_are_described() -> None:
    shop = Shop()
    document = notifications(shop.app, streams=[shop.orders]).document
    validate(document)
    assert set(document["paths"]) == {"/topics/{name}/events", "/openapi.json"}
    assert "webhooks" not in document
