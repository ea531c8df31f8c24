"""The OpenAPI document: valid, and what its schemas say is what is answered."""

from __future__ import annotations

from typing import Any

import jsonschema  # type: ignore[import-untyped]
from msgspec import Struct
from openapi_spec_validator import validate
from pydantic import BaseModel

from postline import App, CommandTopic, Schemas
from postline.http.gateway import gateway
from tests.unit.commands.ledger import Ledger
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
