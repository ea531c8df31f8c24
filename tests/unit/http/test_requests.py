"""The status of a request: changes, waits, streams, what is forgotten, and where it lies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from postline import App, Context
from postline.contracts.cloudevents import REQUEST_ID
from postline.http.gateway import Limits, gateway
from postline.http.idempotency import RequestName
from tests.unit.commands.ledger import Ledger
from tests.unit.http.web import PAY, TRANSFER, Web, running_web

KEY = {"Idempotency-Key": "1"}


class Stream:
    """A stream of events, read by hand as it comes."""

    def __init__(self, web: Web, path: str, headers: dict[str, str]) -> None:
        self._sent: asyncio.Queue[Any] = asyncio.Queue()
        self._gone = asyncio.Event()
        raw = [(b"host", b"localhost"), *((name.lower().encode(), value.encode()) for name, value in headers.items())]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "method": "GET",
            "path": path,
            "query_string": b"",
            "headers": raw,
            "client": ("127.0.0.1", 1),
        }
        self._asked = False
        self.task = asyncio.ensure_future(web.gateway(scope, self._receive, self._put))

    async def _put(self, message: Any) -> None:
        await self._sent.put(message)

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def next(self) -> str:
        """The next piece; the status for the first."""
        message = await asyncio.wait_for(self._sent.get(), 5)
        return str(message["status"]) if "status" in message else message["body"].decode()

    async def leave(self) -> None:
        """Go away."""
        self._gone.set()
        await self.task


@asynccontextmanager
async def stopped_web(**options: Any) -> AsyncIterator[Web]:
    """A gateway whose ledger does not work for now."""
    async with running_web(**options) as web:
        await web.harness.stop(web.ledger.service)
        yield web


async def test_an_etag_spares_what_is_known() -> None:
    async with running_web() as web:
        location = (await web.pay()).headers["location"]
        await web.harness.settle()
        first = await web.http.get(location)
        assert (first.headers["cache-control"], "retry-after" in first.headers) == ("no-store", False)
        assert (await web.http.head(location)).headers["etag"] == first.headers["etag"]
        assert (await web.http.head(f"{location}/events")).status_code == 200
        for known, status in ((first.headers["etag"], 304), (f'W/{first.headers["etag"]}, "x"', 304), ('"x"', 200)):
            assert (await web.http.get(location, headers={"If-None-Match": known})).status_code == status


async def test_a_wait_ends_in_time_with_how_it_stands() -> None:
    async with stopped_web(limits=Limits(wait_seconds_max=8)) as web:
        location = (await web.pay()).headers["location"]
        waits = [
            asyncio.ensure_future(web.http.get(location, headers={"Prefer": "wait=600"})),
            asyncio.ensure_future(web.pay({"Prefer": "wait=600"})),
        ]
        await web.harness.settle()
        await web.harness.advance(seconds=7)
        assert not any(each.done() for each in waits)
        await web.harness.advance(seconds=1)
        status, accepted = [await each for each in waits]
        assert (status.json()["status"], status.headers["preference-applied"]) == ("pending", "wait=8")
        assert (accepted.status_code, accepted.headers["retry-after"]) == (202, "1")


async def test_a_wait_of_nothing_answers_at_once() -> None:
    async with stopped_web() as web:
        answer = await web.http.post("/commands/ledger.BalanceOf", json={"source": "a"}, headers={"Prefer": "wait=0"})
        assert answer.status_code == 202
        at_once = {"Prefer": "respond-async"}
        answer = await web.http.post("/commands/ledger.BalanceOf", json={"source": "a"}, headers=at_once)
        assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")


async def test_who_sends_the_same_key_meanwhile_is_asked_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_web() as web:
        begun, goes_on, append = asyncio.Event(), asyncio.Event(), web.harness.log.append

        async def slowly(records: Any) -> list[int]:
            begun.set()
            await goes_on.wait()
            return await append(records)

        monkeypatch.setattr(web.harness.log, "append", slowly)
        first = asyncio.ensure_future(web.pay(KEY))
        await begun.wait()
        second = await web.pay(KEY)
        goes_on.set()
        assert (second.status_code, second.headers["retry-after"]) == (409, "1")
        assert (await first).status_code == 202
        assert (await web.pay(KEY)).content == (await first).content


async def test_a_key_gives_the_same_answer_in_another_process_and_travels_on() -> None:
    async with running_web() as web:
        first = await web.pay(KEY)
        await web.harness.crash(web.ledger.client)
        await web.harness.settle()
        await web.harness.start(web.ledger.client)
        other = gateway(web.ledger.client)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(other), base_url="http://localhost") as http:
            again = await http.post(TRANSFER, json=PAY, headers=KEY)
            assert again.content == first.content
            waited = await http.post(TRANSFER, json=PAY, headers=KEY | {"Prefer": "wait=5"})
            assert waited.json()["result"] == {"left": 70}
        ((_, event),) = web.harness.envelopes(web.ledger.BalanceChanged)
        name = RequestName.read(first.json()["id"])
        assert name is not None
        assert event.headers[REQUEST_ID] == name.request_id


async def test_what_was_refused_may_be_sent_again_under_its_key() -> None:
    async with running_web() as web:
        assert (await web.pay(KEY, amount="x")).status_code == 422
        assert (await web.pay(KEY)).status_code == 202


async def test_what_is_no_longer_kept_is_gone() -> None:
    async with stopped_web() as web:
        location = (await web.pay()).headers["location"]
        await web.harness.advance(days=9)
        while not any(each.start for each in await web.harness.log.bounds(web.ledger.topic.tickets.name)):
            await web.harness.advance(minutes=1)
        assert (await web.http.get(location)).status_code == 410
        assert (await web.http.get(location.rpartition("-")[0])).status_code == 404
        at = RequestName.read(location.rpartition("/")[2])
        assert at is not None
        never = f"/requests/{at.text(web.harness.clock.now_ms())}"
        assert (await web.http.get(never)).status_code == 404


async def test_cancelling_what_has_ended_is_too_late() -> None:
    async with running_web() as web:
        location = (await web.pay({"Prefer": "wait=5"})).headers["location"]
        assert (await web.http.delete(location)).status_code == 409


async def test_cancelling_again_tells_that_it_is_cancelled() -> None:
    async with stopped_web() as web:
        location = (await web.pay()).headers["location"]
        await web.http.delete(location)
        await web.harness.start(web.ledger.service)
        await web.harness.settle()
        assert (await web.http.delete(location)).json()["status"] == "cancelled"


async def test_a_body_that_does_not_come_is_waited_for_no_longer_than_said() -> None:
    async with running_web(limits=Limits(body_seconds_max=3)) as web:

        async def slowly() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.Event().wait()

        headers = {"Content-Type": "application/json"}
        sending = asyncio.ensure_future(web.http.post(TRANSFER, content=slowly(), headers=headers))
        await web.harness.settle()
        await web.harness.advance(seconds=2)
        assert not sending.done()
        await web.harness.advance(seconds=1)
        answer = await sending
        assert (answer.status_code, answer.headers["connection"]) == (408, "close")


# -- streams ---------------------------------------------------------------------------------------------


async def test_a_stream_tells_each_change_and_goes_on_where_it_broke() -> None:
    ledger, goes_on = Ledger(), asyncio.Event()
    async with stopped_web() as web:
        ledger = web.ledger

        @ledger.served.on(ledger.Peek)
        async def peek(query: object, ctx: Context) -> object:
            await ctx.progress("half way")
            await goes_on.wait()
            return ledger.Balance(1)

        accepted = await web.http.post("/commands/ledger.Peek", json={"source": "a"}, headers={"Prefer": "wait=0"})
        path = f"{accepted.headers['location']}/events"
        stream = Stream(web, path, {})
        assert [await stream.next() for _ in range(2)] == ["200", "retry: 2000\n\n"]
        assert '"status":"pending"' in await stream.next()
        await web.harness.start(ledger.service)
        told = await stream.next()
        assert '"status":"running"' in told
        assert '"note":"half way"' in told
        await stream.leave()
        seen = told.split()[1]
        goes_on.set()
        await web.harness.settle()
        stream = Stream(web, path, {"Last-Event-ID": seen})
        assert [await stream.next() for _ in range(2)] == ["200", "retry: 2000\n\n"]
        told = await stream.next()
        assert '"status":"succeeded"' in told
        await stream.task
        stream = Stream(web, path, {"Last-Event-ID": told.split()[1]})
        assert await stream.next() == "204"
        whole = await web.http.get(path, headers={"Last-Event-ID": "999999"})
        assert '"status":"succeeded"' in whole.text


async def test_a_stream_shows_that_it_is_alive() -> None:
    async with stopped_web(limits=Limits(streams_max=1)) as web:
        location = (await web.pay()).headers["location"]
        stream = Stream(web, f"{location}/events", {})
        for _ in range(3):
            await stream.next()
        assert (await web.http.get(f"{location}/events")).status_code == 429
        await web.harness.advance(seconds=15)
        assert await stream.next() == ": alive\n\n"
        web.gateway.let_go()
        await asyncio.wait_for(stream.task, 5)
        assert (await web.http.get(f"{location}/events")).status_code == 200


# -- where it lies -----------------------------------------------------------------------------------------


async def test_mounted_it_knows_where_it_is() -> None:
    async with running_web() as web:
        outer = Starlette(routes=[Mount("/api", web.gateway)])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://localhost") as http:
            location = (await http.post(f"/api{TRANSFER}/", json=PAY)).headers["location"]
            assert location.startswith("/api/requests/")
            assert (await http.get(location)).status_code == 200
            assert (await http.get(f"{location}/")).status_code == 200
            assert (await http.get("/api/openapi.json")).json()["servers"] == [{"url": "/api"}]
            assert (await http.get("/api/nothing")).json()["instance"] == "/api/nothing"


async def test_its_public_url_is_told() -> None:
    async with running_web(public_url="https://shop.example/api/") as web:
        assert (await web.pay()).headers["location"].startswith("https://shop.example/api/requests/")


async def test_mounted_the_first_request_starts_the_app_and_whoever_hosts_it_ends_it(tmp_path: Path) -> None:
    ledger = Ledger()
    owner = App("ledger", owns=[ledger.topic], url=f"sqlite:///{tmp_path}/x.db")
    async with owner:
        ledger.client.url = owner.url
        web = gateway(ledger.client)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://localhost") as http:
            answers = await asyncio.gather(*(http.post(TRANSFER, json=PAY) for _ in range(3)))
            assert [each.status_code for each in answers] == [202] * 3
            async with web.running():
                assert (await http.post(TRANSFER, json=PAY)).status_code == 202
            assert (await http.post(TRANSFER, json=PAY)).status_code == 503
