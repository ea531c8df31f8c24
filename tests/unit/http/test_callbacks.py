"""Callbacks: replies posted to the URL that came with the command, whatever the outcome, and URLs that are refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from openapi_spec_validator import validate

from postline.errors import DeliveryFailed
from postline.http.callbacks import Callbacks, callbacks
from postline.http.gateway import gateway
from postline.http.signing import Secret, verify
from postline.testing import TestApp
from tests.unit.commands.ledger import Ledger
from tests.unit.http.shop import SECRET, Partner, answered
from tests.unit.http.web import TRANSFER, Web

CALLBACK = {"Postline-Callback": "https://client.example/done?token=1"}


@asynccontextmanager
async def calling_back(partner: Partner, **options: Any) -> AsyncIterator[tuple[Web, Callbacks]]:
    """A gateway whose replies are posted to a partner."""
    ledger = Ledger()
    made = callbacks(ledger.client, ledger.topic, **{"secret": SECRET, "post": partner, **options})
    async with TestApp(ledger.service, ledger.client) as harness:
        yield Web(ledger, harness), made


async def test_a_reply_is_posted_to_the_url_that_came_with_the_command():
    partner = Partner()
    async with calling_back(partner) as (web, _):
        accepted = await web.pay(CALLBACK)
        assert accepted.status_code == 202
        await web.harness.settle()
        ((url, headers, body),) = partner.posts
        assert url == CALLBACK["Postline-Callback"]
        verify(SECRET, headers, body, now_ms=web.harness.clock.now_ms())
        said = json.loads(body)
        assert said["data"] == {"left": 70}
        assert (said["type"], said["outcome"]) == ("ledger.Transferred", "success")
        assert "callbackurl" not in said
        found = await web.http.get(f"/requests/{said['requestid']}")
        assert found.json()["status"] == "succeeded"
        assert accepted.json()["id"].startswith(said["requestid"])


async def test_every_outcome_is_posted():
    partner = Partner()
    async with calling_back(partner) as (web, _):
        await web.pay(CALLBACK, amount=1_000)
        await web.harness.settle()
        web.ledger.failing = [RuntimeError("no"), RuntimeError("no")]
        await web.pay(CALLBACK)
        await web.harness.settle()
    said = [json.loads(body) for _, _, body in partner.posts]
    assert [(each["type"], each["outcome"]) for each in said] == [
        ("ledger.InsufficientFunds", "refusal"),
        ("postline.Fault", "fault"),
    ]


async def test_a_reply_without_a_url_is_posted_nowhere():
    partner = Partner()
    async with calling_back(partner) as (web, _):
        assert (await web.pay()).status_code == 202
        await web.harness.settle()
        assert web.harness.audit()["shop.ledger.callbacks"]["done"] == 1
    assert partner.posts == []


async def test_events_and_commands_that_a_command_causes_do_not_carry_its_url():
    async with calling_back(Partner()) as (web, _):
        await web.pay(CALLBACK)
        await web.harness.settle()
        ((_, envelope),) = web.harness.envelopes(web.ledger.BalanceChanged)
        assert "ce_requestid" in envelope.headers
        assert "ce_callbackurl" not in envelope.headers


async def test_urls_that_may_not_be_called_are_refused_at_acceptance():
    async with calling_back(Partner()) as (web, _):
        for url in ("http://client.example/", "https://10.0.0.1/", "https://localhost/", "x", ""):
            refused = await web.pay({"Postline-Callback": url})
            assert (refused.status_code, refused.json()["type"]) == (422, "urn:postline:problem:callback"), url
            if "10." in url:
                assert refused.json()["detail"].startswith("10.0.0.1 is no public address.")
        await web.harness.settle()
        assert web.ledger.attempts == 0


async def test_where_nobody_posts_replies_a_url_is_refused():
    ledger = Ledger()
    async with TestApp(ledger.service, ledger.client) as harness:
        refused = await Web(ledger, harness).pay(CALLBACK)
        assert refused.status_code == 400


async def test_clients_have_secrets_of_their_own_and_others_are_refused():
    partner, theirs = Partner(), Secret(b"t" * 32)

    def secret(url: str) -> Secret | None:
        return theirs if url.startswith("https://client.example/") else None

    async with calling_back(partner, secret=secret) as (web, _):
        assert (await web.pay({"Postline-Callback": "https://other.example/"})).status_code == 422
        await web.pay(CALLBACK)
        await web.harness.settle()
        ((_, headers, body),) = partner.posts
        verify(theirs, headers, body, now_ms=web.harness.clock.now_ms())


async def test_a_repeated_key_posts_once_and_another_url_under_it_is_refused():
    partner = Partner()
    async with calling_back(partner) as (web, _):
        keyed = {**CALLBACK, "Idempotency-Key": '"k"'}
        first, second = await web.pay(keyed), await web.pay(keyed)
        assert first.json()["id"] == second.json()["id"]
        other = await web.pay({**keyed, "Postline-Callback": "https://client.example/other"})
        bare = await web.pay({"Idempotency-Key": '"k"'})
        for refused in (other, bare):
            assert refused.status_code == 422
            assert "Postline-Callback" in refused.json()["detail"]  # the body is the same: this alone tells why
        await web.harness.settle()
    assert len(partner.posts) == 1


async def test_failures_are_tried_again_under_the_same_id_and_410_is_a_dead_letter():
    partner = Partner(DeliveryFailed("it hung"), answered(500), answered(410))
    async with calling_back(partner) as (web, _):
        await web.pay(CALLBACK)
        await web.harness.settle()
        await web.harness.advance(seconds=6)
        assert len(partner.posts) == 2
        await web.harness.advance(minutes=6)
        (letter,) = web.harness.dead_letters("shop.ledger.callbacks")
        assert "410" in letter.error
    assert len(set(partner.ids)) == 1
    assert len(partner.ids) == 3


async def test_a_host_that_hangs_is_left_alone_and_others_get_through():
    partner = Partner()

    async def post(url: str, headers: dict[str, str], body: bytes) -> Any:
        if "stuck" in url:
            partner.posts.append((url, headers, body))
            raise DeliveryFailed("it hung")
        return await partner(url, headers, body)

    async with calling_back(partner, post=post) as (web, _):
        for number in range(100):
            host = "stuck" if number % 2 else "well"
            posted = await web.http.post(
                TRANSFER,
                json={"source": f"s-{number}", "target": "bob", "amount": 0},
                headers={"Postline-Callback": f"https://{host}.example/{number}"},
            )
            assert posted.status_code == 202
        await web.harness.settle()
    urls = [url for url, _, _ in partner.posts]
    assert len({url for url in urls if "well" in url}) == 50
    assert sum("stuck" in url for url in urls) < 20


def test_the_gateway_describes_which_commands_take_a_callback():
    ledger = Ledger()
    assert "Postline-Callback" not in str(gateway(ledger.client).document)
    callbacks(ledger.client, ledger.topic, secret=SECRET)
    described = gateway(ledger.client).document
    validate(described)
    assert "outcome" in described["paths"][TRANSFER]["post"]["callbacks"]
