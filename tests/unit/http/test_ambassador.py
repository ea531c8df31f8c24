"""A synchronous HTTP service behind commands: requests and replies by configuration, waiting while it is away."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from msgspec import Struct

from postline import (
    App,
    Breaker,
    CommandTopic,
    ContractError,
    HandlerFault,
    Refused,
    RequestTimeout,
    Retry,
    SettingsError,
)
from postline.http.ambassador import Backend, Call, ambassador
from postline.testing import TestApp

LEDGER = CommandTopic("ledger", owner="legacy", key="source")


class Transferred(Struct, frozen=True):
    left: int


class InsufficientFunds(Struct, frozen=True):
    missing: int


class Balance(Struct, frozen=True):
    amount: int


@LEDGER.command("ledger.Transfer", reply=Transferred, refusals=(InsufficientFunds,))
class Transfer(Struct, frozen=True):
    source: str
    target: str
    amount: int


@LEDGER.query("ledger.BalanceOf", reply=Balance)
class BalanceOf(Struct, frozen=True):
    source: str
    currency: str = "EUR"


TRANSFER = Call(Transfer, "POST", "/accounts/{source}/transfers", refusals={409: InsufficientFunds})
BALANCE = Call(BalanceOf, "GET", "/accounts/{source}", reply=lambda query, content: Balance(content["balance"]["now"]))


class Legacy:
    """The backend: answers as it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.answer: Callable[[httpx.Request], httpx.Response] = lambda _: httpx.Response(200, json={"left": 70})

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.answer(request)

    def test_app(self, client: App, **options: Any) -> TestApp:
        """The ambassador and a client, in memory."""
        backend = Backend(
            url="http://legacy:8080",
            headers={"Authorization": lambda: "Bearer s3cret"},
            breaker=Breaker(failures=3, probe_seconds=2, probe_seconds_max=8),
            transport=httpx.MockTransport(self.handle),
        )
        return TestApp(ambassador("legacy", LEDGER, backend, [TRANSFER, BALANCE], **options), client)


@pytest.fixture
def legacy() -> Legacy:
    return Legacy()


@pytest.fixture
def client() -> App:
    return App("shop", publishes_to=[LEDGER])


async def test_a_command_becomes_a_request_and_its_answer_a_reply(legacy: Legacy, client: App) -> None:
    async with legacy.test_app(client):
        assert await client.request(Transfer("a/b", "bob", 30)) == Transferred(70)
        (asked,) = legacy.asked
        assert (asked.method, asked.url.raw_path) == ("POST", b"/accounts/a%2Fb/transfers")
        assert json.loads(asked.content) == {"target": "bob", "amount": 30}
        assert asked.headers["Authorization"] == "Bearer s3cret"
        assert len(asked.headers["Idempotency-Key"]) == 32


async def test_a_query_is_asked_with_its_fields_and_read_by_a_function(legacy: Legacy, client: App) -> None:
    legacy.answer = lambda _: httpx.Response(200, json={"balance": {"now": 7}})
    async with legacy.test_app(client):
        assert await client.request(BalanceOf("anna")) == Balance(7)
        assert legacy.asked[0].url.raw_path == b"/accounts/anna?currency=EUR"


async def test_a_mapped_status_is_a_refusal(legacy: Legacy, client: App) -> None:
    legacy.answer = lambda _: httpx.Response(409, json={"missing": 5})
    async with legacy.test_app(client):
        with pytest.raises(Refused) as refused:
            await client.request(Transfer("anna", "bob", 30))
        assert refused.value.refusal == InsufficientFunds(5)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(404, text="no such account"),
        httpx.Response(302, headers={"Location": "http://elsewhere"}),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json={"left": "seventy"}),
        httpx.Response(409, json={"lacking": 5}),
    ],
)
async def test_an_answer_that_means_nothing_here_is_a_fault_at_once(
    legacy: Legacy, client: App, answer: httpx.Response
) -> None:
    legacy.answer = lambda _: answer
    async with legacy.test_app(client) as t:
        with pytest.raises(HandlerFault, match="BackendFault"):
            await client.request(Transfer("anna", "bob", 30))
        assert len(legacy.asked) == 1
        assert len(t.dead_letters("ledger")) == 1


def away(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("nobody is there", request=request)


async def test_commands_wait_while_the_backend_is_away_and_use_up_no_attempts(legacy: Legacy, client: App) -> None:
    legacy.answer = away
    async with legacy.test_app(client, concurrency=8) as t:
        tickets = [await client.send(Transfer(f"account {n}", "bob", 1)) for n in range(30)]
        await t.advance(minutes=10)
        probes = len(legacy.asked)
        assert 70 < probes < 90, "a look every eight seconds, however many wait"
        assert t.dead_letters("ledger") == []
        legacy.answer = lambda _: httpx.Response(200, json={"left": 1})
        await t.advance(seconds=20)
        await t.settle()
        assert [(await ticket.status()).state for ticket in tickets] == ["succeeded"] * 30


async def test_a_repeated_request_has_the_same_idempotency_key(legacy: Legacy, client: App) -> None:
    answers = [httpx.Response(503), httpx.Response(200, json={"left": 1})]
    legacy.answer = lambda _: answers.pop(0)
    async with legacy.test_app(client):
        assert await client.request(Transfer("anna", "bob", 30)) == Transferred(1)
        first, second = (asked.headers["Idempotency-Key"] for asked in legacy.asked)
        assert first == second


async def test_a_command_that_alone_fails_becomes_a_fault_while_others_get_through(legacy: Legacy, client: App) -> None:
    def poisoned(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500 if b"poison" in request.url.raw_path else 200, json={"left": 1})

    legacy.answer = poisoned
    async with legacy.test_app(client, retry=Retry(immediate=0, delays=(5, 5))) as t:
        ticket = await client.send(Transfer("poison", "bob", 1))
        for number in range(4):
            await client.request(Transfer(f"account {number}", "bob", 1))
            await t.advance(seconds=5)
        with pytest.raises(HandlerFault, match="BackendUnavailable"):
            await ticket.outcome()


async def test_a_command_expires_while_it_waits(legacy: Legacy, client: App) -> None:
    legacy.answer = away
    async with legacy.test_app(client) as t:
        ticket = await client.send(Transfer("anna", "bob", 1), timeout=60)
        await t.advance(minutes=3)
        with pytest.raises(RequestTimeout, match="expired"):
            await ticket.outcome()


async def test_no_secret_is_logged(legacy: Legacy, client: App, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    legacy.answer = away
    async with legacy.test_app(client) as t:
        await client.send(Transfer("anna", "bob", 1), timeout=30)
        await t.advance(minutes=1)
    assert "does not answer" in caplog.text
    assert "s3cret" not in caplog.text
    assert "s3cret" not in repr(Backend(url="http://legacy", headers={"Authorization": "s3cret"}))


@pytest.mark.parametrize("source", ["..", "."])
async def test_a_field_can_not_lead_out_of_its_step_of_the_path(legacy: Legacy, client: App, source: str) -> None:
    async with legacy.test_app(client):
        with pytest.raises(HandlerFault, match="is no step of a path") as fault:
            await client.request(BalanceOf(source))
        assert fault.value.request_id
        assert legacy.asked == []


async def test_calls_that_were_under_way_do_not_put_the_next_look_off(legacy: Legacy, client: App) -> None:
    legacy.answer = away
    async with legacy.test_app(client, concurrency=32) as t:
        tickets = [await client.send(Transfer(f"account {n}", "bob", 1)) for n in range(30)]
        await t.advance(seconds=0.5)  # all that were under way have failed
        legacy.answer = lambda _: httpx.Response(200, json={"left": 1})
        await t.advance(seconds=3)
        await t.settle()
        assert [(await ticket.status()).state for ticket in tickets] == ["succeeded"] * 30


async def test_fields_that_are_written_under_other_names_are_found_in_the_path(legacy: Legacy) -> None:
    topic = CommandTopic("renamed", owner="legacy", key="account_id")

    @topic.command("renamed.Close")
    class Close(Struct, frozen=True, rename="camel"):
        account_id: str
        why_not: str

    backend = Backend(url="http://legacy:8080", transport=httpx.MockTransport(legacy.handle))
    client = App("shop", publishes_to=[topic])
    async with TestApp(ambassador("legacy", topic, backend, [Call(Close, "POST", "/{account_id}/close")]), client):
        await client.request(Close("a 1", "because"))
    (asked,) = legacy.asked
    assert asked.url.raw_path == b"/a%201/close"
    assert json.loads(asked.content) == {"whyNot": "because"}


def test_calls_are_checked_when_they_are_declared() -> None:
    backend = Backend(url="http://legacy")
    with pytest.raises(ContractError, match="has no field 'account'"):
        ambassador("legacy", LEDGER, backend, [Call(Transfer, "POST", "/accounts/{account}")])
    with pytest.raises(ContractError, match="Balance is no refusal"):
        ambassador("legacy", LEDGER, backend, [Call(Transfer, "POST", "/", refusals={409: Balance})])
    with pytest.raises(SettingsError, match="before its breaker opens"):
        ambassador("legacy", LEDGER, backend, [TRANSFER], retry=Retry(immediate=0, delays=()))
