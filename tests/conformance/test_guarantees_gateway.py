"""Commands over HTTP on every engine: stored with their key in one step, and known again by any process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
import pytest

from postline import App
from postline.commands import Accepted
from postline.commands.accepting import ACCEPTED
from postline.contracts.cloudevents import REQUEST_ID
from postline.errors import LogUnavailable, UnknownTopic
from postline.http.gateway import gateway
from postline.log.port import Append
from tests.conformance.apps import World, all_records
from tests.conformance.harness import Engine
from tests.conformance.test_guarantees_commands import BALANCES, LEDGER, Deposit, Ledger, client

PATH = "/commands/ledger.Deposit"
BODY = {"customer": "anna", "amount": 5}


@pytest.fixture
def world(engine: Engine) -> World:
    """A log on which a ledger is told over HTTP."""
    return World(engine)


@asynccontextmanager
async def web(app: App) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway of its own."""
    transport = httpx.ASGITransport(gateway(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as http:
        yield http


@asynccontextmanager
async def sending(world: World) -> AsyncIterator[App]:
    """A process that sends for web clients."""
    app = client()
    await app.start(await world.environment(), consume=False)
    try:
        yield app
    finally:
        await app.stop()


async def test_a_key_is_one_execution_and_one_answer_through_any_process(world: World) -> None:
    async with world:
        ledger = Ledger()
        await world.start(ledger.app)
        keys = [{"Idempotency-Key": f'"{n}"'} for n in range(20)]
        async with sending(world) as one, web(one) as first:
            accepted = await asyncio.gather(*(first.post(PATH, json=BODY, headers=key) for key in keys))
            assert {each.status_code for each in accepted} == {202}
        async with sending(world) as another, web(another) as second:
            again = await asyncio.gather(*(second.post(PATH, json=BODY, headers=key) for key in keys))
            assert [each.content for each in again] == [each.content for each in accepted]
            waiting = {"Prefer": "wait=30"}
            ended = [await second.get(each.headers["location"], headers=waiting) for each in accepted]
            assert {each.json()["status"] for each in ended} == {"succeeded"}
            other = await second.post(PATH, json=BODY | {"amount": 6}, headers=keys[0])
            assert other.status_code == 422
        await world.until_handled("ledger")
        assert len(ledger.ran) == len(keys)


async def test_the_same_key_at_two_processes_at_once_is_one_execution(world: World) -> None:
    async with world:
        ledger = Ledger()
        await world.start(ledger.app)
        async with sending(world) as one, sending(world) as another, web(one) as first, web(another) as second:
            for n in range(10):
                headers = {"Idempotency-Key": f'"{n}"', "Prefer": "wait=30"}
                asked = [each.post(PATH, json=BODY, headers=headers) for each in (first, second)]
                answers = [each.json() for each in await asyncio.gather(*asked)]
                assert answers[0]["result"] == answers[1]["result"] == {"balance": 5 * (n + 1)}
        await world.until_handled("ledger")
        assert len(ledger.ran) == 10


async def test_of_two_bodies_under_one_key_at_two_processes_at_once_one_is_run_and_the_other_refused(
    world: World,
) -> None:
    async with world:
        ledger = Ledger()
        await world.start(ledger.app)
        accepted: set[str] = set()
        async with sending(world) as one, sending(world) as another, web(one) as first, web(another) as second:
            for n in range(20):
                headers = {"Idempotency-Key": f'"{n}"'}
                pairs = [(first, f"anna {n}"), (second, f"bob {n}")]
                asked = [each.post(PATH, json=BODY | {"customer": who}, headers=headers) for each, who in pairs]
                answers = await asyncio.gather(*(asked if n % 2 else reversed(asked)))
                told = {answer.status_code: answer for answer in answers}
                assert set(told) == {202, 422}
                assert told[422].json()["type"] == "urn:postline:problem:key-reused"
                accepted.add(json.loads(told[202].request.content)["customer"])
        await world.until_handled("ledger")
        assert {each.customer for each in ledger.ran} == accepted
        assert len(ledger.ran) == 20


async def test_one_request_at_two_processes_at_once_has_one_location(world: World) -> None:
    async with world:
        ledger = Ledger()
        await world.start(ledger.app)
        async with sending(world) as one, sending(world) as another, web(one) as first, web(another) as second:
            for n in range(20):
                headers = {"Idempotency-Key": f'"{n}"'}
                asked = [each.post(PATH, json=BODY, headers=headers) for each in (first, second)]
                answers = await asyncio.gather(*asked)
                assert [each.status_code for each in answers] == [202, 202]
                assert answers[0].headers["location"] == answers[1].headers["location"]
                assert answers[0].content == answers[1].content
        await world.until_handled("ledger")
        assert len(ledger.ran) == 20


async def test_a_process_that_ends_between_the_note_of_a_key_and_its_command_leaves_the_key_to_that_request(
    world: World,
) -> None:
    async with world:
        ledger = Ledger()
        await world.start(ledger.app)
        key = {"Idempotency-Key": '"1"'}
        async with sending(world) as app, web(app) as first:
            append = app.log.append

            async def ending(records: Sequence[Append]) -> list[int]:
                if {each.topic for each in records} == {LEDGER.tickets.name}:
                    return await append(records)
                raise LogUnavailable("the process ends here")

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(app.log, "append", ending)
                assert (await first.post(PATH, json=BODY, headers=key)).status_code == 503
        assert await all_records(world.log, LEDGER.commands.name) == []
        world.engine.clock.ahead_ms += 5_000
        async with sending(world) as app, web(app) as second:
            assert (await second.post(PATH, json=BODY | {"customer": "bob"}, headers=key)).status_code == 422
            answers = [await second.post(PATH, json=BODY, headers=key) for _ in range(2)]
            assert [each.status_code for each in answers] == [202, 202]
            assert answers[0].headers["location"] == answers[1].headers["location"]
            told = int(answers[0].headers["location"].rpartition("-")[2], 16)
            assert told <= world.engine.clock.now_ms() - 5_000
            status = await second.get(answers[0].headers["location"], headers={"Prefer": "wait=30"})
            assert status.json()["status"] == "succeeded"
        await world.until_handled("ledger")
        assert [each.customer for each in ledger.ran] == ["anna"]


async def test_a_command_and_its_note_are_stored_together_or_not_at_all(world: World) -> None:
    async with world:
        ledger = Ledger()
        await world.start(ledger.app)
        async with sending(world) as app:
            requests = app.requests(LEDGER)
            note = Accepted(command="ledger.Deposit", principal="anna", accepted_ms=1)
            await requests.accept(Deposit("anna", 5), "r-1", note)
            standing = await requests.standing("r-1")
            assert (standing.accepted, standing.version >= 0) == (note, True)
            kept = requests._kept
            requests._kept = type(kept)(name="no.such.topic", partitions=1, owner="ledger")
            with pytest.raises(UnknownTopic):
                await requests.accept(Deposit("anna", 5), "r-2", note)
            requests._kept = kept
            assert (await requests.standing("r-2")).version == -1
        await world.until_handled("ledger")
        assert ledger.ran == [Deposit("anna", 5)]
        tickets = [world.log.envelope(record) for _, record in await all_records(world.log, LEDGER.tickets.name)]
        assert {each.headers[REQUEST_ID] for each in tickets} == {"r-1"}
        assert ACCEPTED in {each.type for each in tickets}
        assert len(await all_records(world.log, BALANCES.name)) == 1
