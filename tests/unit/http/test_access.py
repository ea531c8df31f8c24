"""Who may ask the gateway, and what each may see."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from postline.errors import DecodeError
from tests.unit.http.web import PAY, TRANSFER, Web, running_web


def by_header(request: Any) -> str | None:
    user: str | None = request.headers.get("x-user")
    return user


ANNA, BOB = {"X-User": "anna"}, {"X-User": "bob"}


@pytest.mark.parametrize(
    ("peer", "base", "headers"),
    [
        ("192.0.2.1", "http://localhost", {}),
        ("127.0.0.1", "http://shop.example", {}),
        ("127.0.0.1", "http://localhost", {"X-Forwarded-For": "127.0.0.1"}),
        ("127.0.0.1", "http://localhost", {"Forwarded": "for=127.0.0.1"}),
        ("nonsense", "http://localhost", {}),
    ],
)
async def test_without_a_hook_only_this_machine_is_served(peer: str, base: str, headers: dict[str, str]) -> None:
    async with running_web() as web, web.client(peer=peer, base=base, headers=headers) as http:
        for path in (TRANSFER, "/openapi.json"):
            answer = await http.request("POST" if path == TRANSFER else "GET", path, json=PAY)
            assert (answer.status_code, answer.json()["type"]) == (403, "urn:postline:problem:local-only")


@pytest.mark.parametrize(
    ("peer", "base"),
    [("::1", "http://[::1]:8080"), ("::ffff:127.0.0.1", "http://127.0.0.1"), ("127.0.0.1", "http://localhost:1")],
)
async def test_this_machine_has_several_names(peer: str, base: str) -> None:
    async with running_web() as web, web.client(peer=peer, base=base) as http:
        assert (await http.post(TRANSFER, json=PAY)).status_code == 202


async def test_the_hook_says_who_asks_also_from_elsewhere() -> None:
    async with (
        running_web(authenticate=by_header, challenge='Basic realm="shop"') as web,
        web.client(peer="192.0.2.1", base="http://shop.example") as http,
    ):
        refused = await http.post(TRANSFER, json=PAY)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Basic realm="shop"')
        assert (await http.post(TRANSFER, json=PAY, headers=ANNA)).status_code == 202


async def test_the_hook_may_be_a_coroutine_and_its_failure_lets_nobody_in() -> None:
    async def ask(request: Any) -> str | None:
        await asyncio.sleep(0)
        if "x-user" not in request.headers:
            raise ConnectionError("the directory is down")
        return by_header(request)

    async with running_web(authenticate=ask) as web:
        assert (await web.pay(ANNA)).status_code == 202
        failed = await web.pay()
        assert (failed.status_code, "directory" in failed.text) == (500, False)


async def test_a_request_is_seen_by_who_made_it_alone() -> None:
    async with running_web(authenticate=by_header) as web:
        location = (await web.pay(ANNA)).headers["location"]
        assert (await web.http.get(location, headers=ANNA)).status_code == 200
        for method, path in (("GET", location), ("DELETE", location), ("GET", f"{location}/events")):
            assert (await web.http.request(method, path, headers=BOB)).status_code == 404


async def test_a_key_is_each_callers_own() -> None:
    async with running_web(authenticate=by_header) as web:
        key = {"Idempotency-Key": "1"}
        first, second = await web.pay(ANNA | key), await web.pay(BOB | key, amount=31)
        assert (first.status_code, second.status_code) == (202, 202)
        assert first.headers["location"] != second.headers["location"]


async def test_pages_of_others_may_not_call_it_from_a_browser() -> None:
    asking = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    async with running_web() as web:
        assert "access-control-allow-origin" not in (await web.http.options(TRANSFER, headers=asking)).headers
    async with running_web(origins=["https://shop.example"]) as web:
        assert "access-control-allow-origin" not in (await web.http.options(TRANSFER, headers=asking)).headers
        allowed = await web.http.options(TRANSFER, headers=asking | {"Origin": "https://shop.example"})
        assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
        answer = await web.pay({"Origin": "https://shop.example"})
        assert "Location" in answer.headers["access-control-expose-headers"]


async def test_what_a_handler_failed_with_is_not_told() -> None:
    async with running_web() as web:
        web.ledger.failing = [RuntimeError("password=1234")] * 2
        told = await web.pay({"Prefer": "wait=5"})
        assert (told.status_code, told.json()["status"], told.json()["problem"]["status"]) == (200, "failed", 500)
        assert "1234" not in told.text


async def refused_amount(web: Web) -> dict[str, Any]:
    told: dict[str, Any] = (await web.pay({"Prefer": "wait=5"}, amount=300)).json()
    return told


async def test_a_refusal_is_told_whole() -> None:
    async with running_web() as web:
        told = await refused_amount(web)
        assert told["status"] == "refused"
        problem = told["problem"]
        assert (problem["refusal"], problem["refusal_type"]) == ({"missing": 200}, "ledger.InsufficientFunds")


async def test_an_outcome_of_a_newer_contract_is_no_fault_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_web() as web:
        location = (await web.pay({"Prefer": "wait=5"})).headers["location"]
        monkeypatch.setattr("postline.commands.reading.ReplyReader.outcome", _unreadable)
        answer = await web.http.get(location)
        assert (answer.status_code, answer.json()["type"]) == (502, "urn:postline:problem:unreadable")


def _unreadable(*_: object) -> None:
    raise DecodeError("a reply of another version")
