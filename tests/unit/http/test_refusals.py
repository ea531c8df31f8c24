"""What the gateway refuses, and how it says so."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct
from pydantic import BaseModel, Field

from postline import App, Bound, CommandTopic, SettingsError
from postline.errors import LogFull, LogUnavailable
from postline.http.gateway import Limits, gateway
from postline.http.idempotency import RequestName, read_key
from postline.http.preferences import read_preferences
from postline.http.problems import Problem
from postline.testing import TestApp
from tests.unit.http.web import PAY, TRANSFER, running_web

JSON = {"Content-Type": "application/json"}


class Part(Struct):
    """A part of a command."""

    sizes: dict[str, list[int]]


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"", 400, "no JSON"),
        (b'{"source": "anna"', 400, "no JSON"),
        (b'{"source": "anna", "source": "bob", "target": "b", "amount": 1}', 400, "'source' stands twice"),
        (b'{"source": "anna", "target": "b", "amount": 1, "more": {"x": 1, "x": 2}}', 400, "'x' stands twice"),
        (b'{"source": "anna", "target": "b", "amount": NaN}', 400, "NaN is no number"),
        (b'{"source": "anna", "target": "b", "amount": 1, "more": -Infinity}', 400, "-Infinity is no number"),
        (b'{"source": "\xff", "target": "b", "amount": 1}', 400, "no UTF-8"),
        (b"[" * 100_000, 400, "nests too deeply"),
        (b"1" * 10_000, 400, ""),
        (b"null", 422, "Expected `object`"),
        (b'{"source": "\\ud800", "target": "b", "amount": 1}', 422, ""),
        (b'{"source": "anna", "target": "b"}', 422, "missing required field `amount`"),
        (b'{"source": "", "target": "b", "amount": 1}', 422, "source"),
        (b'{"source": "anna", "target": "b", "amount": 1e400}', 422, ""),
    ],
)
async def test_a_body_that_is_no_such_command(content: bytes, status: int, said: str) -> None:
    async with running_web() as web:
        answer = await web.http.post(TRANSFER, content=content, headers=JSON)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        told = answer.json()
        assert told["status"] == status
        assert told["instance"] == TRANSFER
        assert said in told["detail"]
        assert web.ledger.attempts == 0


async def test_faults_are_named_by_json_pointers() -> None:
    async with running_web() as web:
        answer = await web.http.post(TRANSFER, json=PAY | {"amount": "x"})
        assert answer.json()["errors"] == [{"pointer": "#/amount", "detail": "Expected `int`, got `str`"}]
        missing = await web.http.post(TRANSFER, json={"source": "anna", "amount": 1})
        assert [each["pointer"] for each in missing.json()["errors"]] == ["#/target"]


async def test_a_decimal_that_is_no_number_is_refused_with_its_pointer() -> None:
    topic = CommandTopic("tills", owner="tills")

    @topic.command("tills.Pay")
    class Pay(Struct):
        amount: Decimal

    app = App("tills", owns=[topic])
    async with TestApp(app):
        transport = httpx.ASGITransport(gateway(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as web:
            refused = await web.post("/commands/tills.Pay", json={"amount": "NaN"})
            assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "#/amount")


async def test_faults_within_lists_of_structs_and_of_pydantic_models_have_pointers_too() -> None:
    topic = CommandTopic("files", owner="files")

    @topic.command("files.Copy")
    class Copy(Struct):
        parts: list[Part]

    @topic.command("files.Move")
    class Move(BaseModel):
        a: int = Field(ge=0)
        b: list[int]

    app = App("files", owns=[topic])
    async with TestApp(app):
        transport = httpx.ASGITransport(gateway(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as web:
            parts = {"parts": [{"sizes": {}}, {"sizes": {"a/b": [1, "x"]}}]}
            told = (await web.post("/commands/files.Copy", json=parts)).json()
            assert told["errors"][0]["pointer"].startswith("#/parts/1/sizes/")
            told = (await web.post("/commands/files.Move", json={"a": -1, "b": [1, "x"]})).json()
            assert [each["pointer"] for each in told["errors"]] == ["#/a", "#/b/1"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/json; charset=utf-16"}, 415),
        ({**JSON, "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "application/vnd.shop+json; charset=UTF-8"}, 202),
        ({**JSON, "Idempotency-Key": ""}, 400),
        ({**JSON, "Idempotency-Key": '"'}, 400),
        ({**JSON, "Idempotency-Key": "k" * 256}, 400),
        ({**JSON, "Idempotency-Key": "bare-token"}, 202),
        ({**JSON, "Idempotency-Key": '"with \\"quotes\\" and spaces"'}, 202),
        ({**JSON, "Content-Length": "99999999999999999999999"}, 413),
    ],
)
async def test_headers(headers: dict[str, str], status: int) -> None:
    async with running_web() as web:
        assert (await web.http.post(TRANSFER, content=json.dumps(PAY), headers=headers)).status_code == status


async def test_two_keys_are_refused() -> None:
    async with running_web() as web:
        headers = [("Content-Type", "application/json"), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
        assert (await web.http.post(TRANSFER, content=json.dumps(PAY), headers=headers)).status_code == 400


async def test_a_key_can_be_required_of_commands_not_of_queries() -> None:
    async with running_web(key_required=True) as web:
        assert (await web.pay()).json()["title"] == "Idempotency-Key is missing"
        assert (await web.pay({"Idempotency-Key": "1"})).status_code == 202
        assert (await web.http.post("/commands/ledger.BalanceOf", json={"source": "anna"})).status_code == 200


async def test_a_body_over_the_limit_is_refused_however_it_comes() -> None:
    async with running_web(limits=Limits(body_bytes_max=100)) as web:
        assert (await web.pay(target="b" * 200)).status_code == 413

        async def chunks() -> Any:
            yield b" " * 60
            yield b" " * 60

        assert (await web.http.post(TRANSFER, content=chunks(), headers=JSON)).status_code == 413


async def test_a_command_over_its_topics_limit_is_too_large() -> None:
    async with running_web(limits=Limits(body_bytes_max=4 << 20)) as web:
        assert (await web.pay(target="b" * (2 << 20))).status_code == 413


async def test_what_is_not_there() -> None:
    async with running_web() as web:
        for path, method, status in [
            ("/commands/ledger.Nothing", "POST", 404),
            ("/requests/1", "GET", 404),
            ("/nothing", "GET", 404),
            (TRANSFER, "GET", 405),
            ("/requests/1", "PUT", 405),
        ]:
            answer = await web.http.request(method, path, json={})
            assert (answer.status_code, answer.json()["status"]) == (status, status)


async def test_the_rate_of_each_caller_is_limited() -> None:
    async with running_web(limits=Limits(rate=(0.5, 2))) as web:
        assert [(await web.pay()).status_code for _ in range(3)] == [202, 202, 429]
        assert (await web.pay()).headers["retry-after"] == "2"
        await web.harness.advance(seconds=2)
        assert [(await web.pay()).status_code for _ in range(2)] == [202, 429]


@pytest.mark.parametrize("error", [LogFull("no room"), LogUnavailable("locked")])
async def test_a_log_that_can_not_store_is_a_reason_to_come_again(error: Exception, monkeypatch: Any) -> None:
    async with running_web() as web:

        async def fails(records: object) -> list[int]:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(web.harness.log, "append", fails)
            answer = await web.pay({"Idempotency-Key": "1"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "room" not in answer.text
        assert (await web.pay({"Idempotency-Key": "1"})).status_code == 202


async def test_an_app_that_was_stopped_is_no_place_for_commands() -> None:
    async with running_web() as web:
        async with web.gateway.running():
            assert (await web.pay()).status_code == 202
        await web.harness.stop(web.ledger.client)
        assert (await web.pay()).status_code == 503


def test_origins_are_named_and_there_is_a_command() -> None:
    topic = CommandTopic("empty", owner="empty")
    with pytest.raises(SettingsError, match="no commands"):
        gateway(App("empty", owns=[topic]))

    @topic.command("empty.Do")
    class Do(Struct):
        pass

    with pytest.raises(SettingsError, match="any page"):
        gateway(App("empty", owns=[topic]), origins=["*"])


# -- anything in headers ---------------------------------------------------------------------------------

LATIN = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=300)


@given(st.lists(LATIN, max_size=3))
def test_no_text_breaks_the_reading_of_keys_and_preferences(values: list[str]) -> None:
    read_preferences(values)
    with suppress(Problem):
        key = read_key(values)
        assert key is None or 0 < len(key) <= 255


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=255))
def test_a_quoted_key_is_read_as_it_was_meant(key: str) -> None:
    quoted = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert read_key([quoted]) == key


@pytest.mark.parametrize(
    ("values", "preferences"),
    [
        (["respond-async, wait=10"], (True, 10)),
        (["respond-async", "wait = 5; x=1"], (True, 5)),
        (['Wait="7", wait=9'], (False, 7)),
        (["wait=x, handling=lenient"], (False, None)),
        (["wait=-1"], (False, None)),
    ],
)
def test_preferences(values: list[str], preferences: tuple[bool, int | None]) -> None:
    assert read_preferences(values) == preferences


def test_names_of_requests_are_read_back() -> None:
    name = RequestName.keyed("anna", "ledger", "POST /x", "1")
    assert RequestName.read(name.text(255)) == name._replace(accepted_ms=255)
    assert RequestName.keyed("bob", "ledger", "POST /x", "1").request_id != name.request_id
    assert RequestName.read(name.text(1).upper()) is None


HEADERS = st.dictionaries(
    st.sampled_from(
        ["Prefer", "Idempotency-Key", "Content-Type", "If-None-Match", "Last-Event-ID", "Host", "Content-Encoding"]
    ),
    LATIN.map(str.strip),
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(headers=HEADERS)
async def test_no_header_breaks_the_gateway(headers: dict[str, str]) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    async with running_web(authenticate=lambda _: "anna") as web:
        location = (await web.pay()).headers["location"]
        for method, path in (
            ("POST", TRANSFER),
            ("GET", location),
            ("GET", f"{location}/events"),
            ("DELETE", location),
        ):
            answer = await web.http.request(method, path, headers=raw, content=json.dumps(PAY).encode())
            assert answer.status_code < 500


async def test_commands_at_their_bound_are_refused_with_when_to_come_again_and_stored_once_there_is_room() -> None:
    topic = CommandTopic("slow", owner="slow", bound=Bound(records=2, wait_seconds=0.0))

    @topic.command("slow.Do")
    class Do(Struct):
        pass

    service, client = App("slow", owns=[topic]), App("web", publishes_to=[topic])
    service.serve(topic).on(Do)(lambda command: None)
    async with TestApp(service, client) as t:
        await t.stop(service)
        transport = httpx.ASGITransport(gateway(client))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as web:
            asking = [asyncio.ensure_future(web.post("/commands/slow.Do", json={})) for _ in range(4)]
            while sum(each.done() for each in asking) < 4:
                await t.advance(seconds=1)  # a bound is looked at by the clock
            answers = [each.result() for each in asking]
            assert [each.status_code for each in answers] == [202, 202, 429, 429]
            assert int(answers[-1].headers["retry-after"]) >= 1
            await t.start(service)
            await t.settle()
            again = asyncio.ensure_future(web.post("/commands/slow.Do", json={}))
            while not again.done():
                await t.advance(seconds=1)
            assert again.result().status_code == 202
