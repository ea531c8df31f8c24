"""`postline serve`: a gateway in a process of its own, asked with curl's means, stopped and killed."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import httpx
import pytest

from tests.integration.hook_receiver import Receiver, receiving
from tests.integration.web_shop import PAY, SHOP, process_of, serving


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with a service and its client."""
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


async def test_it_serves_an_app_and_stops_in_order_with_a_stream_open(shop: Path) -> None:
    async with serving(shop, "shop:service", "--consume") as (process, url), httpx.AsyncClient(base_url=url) as web:
        done = await web.post("/commands/ledger.Transfer", json=PAY, headers={"Prefer": "wait=20"})
        assert (done.status_code, done.json()["result"]) == (200, {})
        assert (await web.get(done.headers["location"])).json()["status"] == "succeeded"
        assert [(await web.get(path)).json()["status"] for path in ("/healthz", "/readyz")] == ["ok", "ready"]
    async with serving(shop, "shop:app") as (process, url), httpx.AsyncClient(base_url=url) as web:
        accepted = await web.post("/commands/ledger.Transfer", json=PAY)
        async with web.stream("GET", f"{accepted.headers['location']}/events", timeout=30) as stream:
            lines = stream.aiter_lines()
            while not (await anext(lines)).startswith("data:"):
                pass
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0


async def test_another_process_finds_what_a_killed_one_accepted(shop: Path) -> None:
    async with serving(shop, "shop:web") as (process, url), httpx.AsyncClient(base_url=url) as web:
        headers = {"X-User": "anna", "Idempotency-Key": '"1"'}
        first = await web.post("/commands/ledger.Transfer", json=PAY, headers=headers)
        process.kill()
        await process.wait()
    async with (
        serving(shop, "shop:service", "--consume"),
        serving(shop, "shop:web") as (process, url),
        httpx.AsyncClient(base_url=url) as web,
    ):
        again = await web.post("/commands/ledger.Transfer", json=PAY, headers=headers)
        assert (again.status_code, again.content) == (202, first.content)
        waiting = {"X-User": "anna", "Prefer": "wait=20"}
        status = await web.get(first.headers["location"], headers=waiting)
        assert status.json()["status"] == "succeeded"
        assert (await web.get(first.headers["location"], headers={"X-User": "bob"})).status_code == 404
        assert (await web.get(first.headers["location"])).status_code == 401


def sold(number: int, balance: int = 5) -> tuple[dict[str, str], dict[str, object]]:
    """An event of a till that makes a fresh id each time it sends, under one key."""
    headers = {
        "Idempotency-Key": '"sale-1"',
        "Ce-Specversion": "1.0",
        "Ce-Id": f"fresh-{number}",
        "Ce-Source": "/tills/3",
        "Ce-Type": "ledger.BalanceChanged",
    }
    return headers, {"source": "anna", "balance": balance}


async def test_a_till_whose_server_was_killed_before_it_answered_sells_once(shop: Path) -> None:
    place = "/events/ledger.balances"
    async with serving(shop, "shop:service", "--consume"):  # owns the topic
        async with (
            serving(shop, "shop:events", DIES_UNANSWERED="1") as (process, url),
            httpx.AsyncClient(base_url=url) as till,
        ):
            headers, body = sold(1)
            with pytest.raises(httpx.TransportError):
                await till.post(place, headers=headers, json=body)
            assert await process.wait() == -signal.SIGKILL
        async with serving(shop, "shop:events") as (process, url), httpx.AsyncClient(base_url=url) as till:
            headers, body = sold(2)
            assert (await till.post(place, headers=headers, json=body)).status_code == 202
            headers, body = sold(3, balance=6)
            assert (await till.post(place, headers=headers, json=body)).status_code == 422
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        reading = await process_of(shop, "tail", "ledger.balances", "--from", "earliest", "--json")
        told, _ = await reading.communicate()
    assert [json.loads(line)["id"] for line in told.decode().splitlines()] == ["fresh-1"]


async def test_it_serves_notifications_and_stops_in_order_with_a_stream_open(shop: Path) -> None:
    async with (
        serving(shop, "shop:service", "--consume") as (_, ledger),
        serving(shop, "shop:news") as (process, url),
        httpx.AsyncClient(base_url=url) as web,
    ):
        assert (await web.get("/readyz")).json()["status"] == "ready"
        async with web.stream("GET", "/topics/ledger.balances/events?from=earliest", timeout=30) as stream:
            async with httpx.AsyncClient(base_url=ledger) as client:
                await client.post("/commands/ledger.Transfer", json=PAY)
            lines = stream.aiter_lines()
            while not (await anext(lines)).startswith("data:"):
                pass
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0


async def test_webhooks_that_clients_make_are_posted_by_the_process_that_serves_and_consumes(shop: Path) -> None:
    async with (
        receiving(Receiver()) as partner,
        serving(shop, "shop:service", "--consume") as (_, ledger),
        serving(shop, "shop:news", "--consume") as (process, url),
        httpx.AsyncClient() as web,
    ):
        wanted = {"url": partner.url, "topic": "ledger.balances"}
        assert (await web.post(f"{url}/webhooks", json=wanted)).status_code == 201
        assert (await web.post(f"{ledger}/commands/ledger.Transfer", json=PAY)).status_code == 202
        await partner.wait_for(1)
        assert json.loads(partner.hooks[0].body)["data"] == {"source": "anna", "balance": 1}
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("shop:app", "--host", "0.0.0.0"), 2, "nobody says who may ask"),
        (("shop:nothing",), 2, "has no 'nothing'"),
        (("shop:app", "--host", "192.0.2.1"), 2, "nobody says who may ask"),
        (("shop:web", "--host", "192.0.2.1"), 2, "Can't listen"),
        (("shop:events", "--host", "0.0.0.0"), 2, "nobody says who may ask"),
        (("shop:news", "--host", "0.0.0.0"), 2, "nobody says who may ask"),
    ],
)
async def test_what_can_not_be_served_is_refused(shop: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    process = await process_of(shop, "serve", *arguments)
    _, told = await process.communicate()
    assert process.returncode == code
    assert said in told.decode()


@pytest.mark.parametrize(("served", "path"), [("shop:web", "/commands/ledger.Transfer"), ("shop:news", "/webhooks")])
async def test_the_openapi_document_is_written(shop: Path, served: str, path: str) -> None:
    process = await process_of(shop, "serve", served, "--openapi", "-o", "openapi.json")
    _, told = await process.communicate()
    assert (process.returncode, "written" in told.decode()) == (0, True)
    assert path in json.loads((shop / "openapi.json").read_text())["paths"]


@pytest.mark.slow
@pytest.mark.parametrize("served", ["shop:service", "shop:events"])
async def test_nothing_that_schemathesis_makes_up_is_answered_otherwise_than_the_document_says(
    shop: Path, served: str
) -> None:
    """Data that fits and data that doesn't, sequences of requests by the document's links; no answer is a 500."""
    # A key that is used for two bodies is refused, however right the bodies are: that no schema can say.
    options = ("--max-examples", "25", "--seed", "1", "--no-color", "--exclude-checks", "positive_data_acceptance")
    async with serving(shop, "shop:service", "--consume"), serving(shop, served) as (_, url):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("run", f"{url}/openapi.json", *options),
            cwd=shop,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        told, _ = await process.communicate()
        assert process.returncode == 0, told.decode()
