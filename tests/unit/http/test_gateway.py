"""Commands over HTTP: accepted, waited for, looked up, cancelled, and refused."""

from __future__ import annotations

import asyncio

from tests.unit.http.web import TRANSFER, running_web


async def test_a_command_is_accepted_and_its_location_tells_what_became_of_it() -> None:
    async with running_web() as web:
        answer = await web.pay()
        assert answer.status_code == 202
        told = answer.json()
        location = answer.headers["location"]
        assert told == {
            "id": location.removeprefix("/requests/"),
            "status": "pending",
            "links": {"self": location, "events": f"{location}/events", "cancel": location},
        }
        assert answer.headers["retry-after"] == "1"
        await web.harness.settle()
        status = await web.http.get(location)
        assert status.status_code == 200
        assert status.json() | {"id": "", "links": {}} == {
            "id": "",
            "command": "ledger.Transfer",
            "status": "succeeded",
            "result": {"left": 70},
            "result_type": "ledger.Transferred",
            "links": {},
        }


async def test_a_key_used_again_gives_the_first_answer_and_does_nothing_twice() -> None:
    async with running_web() as web:
        first = await web.pay({"Idempotency-Key": '"abc"'})
        await web.harness.settle()
        again = await web.pay({"Idempotency-Key": '"abc"'})
        assert (again.status_code, again.headers["location"], again.content) == (
            202,
            first.headers["location"],
            first.content,
        )
        await web.harness.settle()
        assert web.ledger.attempts == 1
        assert (await web.pay({"Idempotency-Key": '"abc"'}, amount=31)).status_code == 422


async def test_who_waits_is_answered_with_the_outcome() -> None:
    async with running_web() as web:
        answer = await web.pay({"Prefer": "respond-async, wait=10"})
        assert (answer.status_code, answer.headers["preference-applied"]) == (200, "respond-async, wait=10")
        assert answer.json()["result"] == {"left": 70}


async def test_a_query_is_waited_for() -> None:
    async with running_web() as web:
        answer = await web.http.post("/commands/ledger.BalanceOf", json={"source": "anna"})
        assert (answer.status_code, answer.json()["result"]) == (200, {"amount": 100})


async def test_a_status_is_waited_for() -> None:
    async with running_web() as web:
        await web.harness.stop(web.ledger.service)
        location = (await web.pay()).headers["location"]
        assert (await web.http.get(location)).json()["status"] == "pending"
        waiting = asyncio.ensure_future(web.http.get(location, headers={"Prefer": "wait=20"}))
        await web.harness.settle()
        await web.harness.start(web.ledger.service)
        assert (await waiting).json()["status"] == "succeeded"


async def test_events_end_with_the_outcome() -> None:
    async with running_web() as web:
        location = (await web.pay()).headers["location"]
        stream = await web.http.get(f"{location}/events")
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert '"status":"succeeded"' in stream.text.splitlines()[-2]


async def test_deleting_cancels_what_was_not_begun() -> None:
    async with running_web() as web:
        await web.harness.stop(web.ledger.service)
        location = (await web.pay()).headers["location"]
        assert (await web.http.delete(location)).status_code == 202
        await web.harness.start(web.ledger.service)
        await web.harness.settle()
        told = (await web.http.get(location)).json()
        assert (told["status"], told["problem"]["status"]) == ("cancelled", 409)
        assert (await web.http.post(TRANSFER, content=b"")).status_code == 415
