"""Commands over HTTP on every engine: stored with their key in one step, and known again by any process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from postline import App
from postline.commands import Accepted
from postline.commands.accepting import ACCEPTED
from postline.contracts.cloudevents import REQUEST_ID
from postline.errors import UnknownTopic
from postline.http.gateway import gateway
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
    await app.start(world._environment(world.log), consume=False)
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


async def test_a_command_and_its_note_are_stored_together_or_not_at_all(world: World) -> None:
    async with world:
        ledger = Ledger()
        await world.start(ledger.app)
        async with sending(world) as app:
            requests = app.requests(LEDGER)
            note = Accepted(command="ledger.Deposit", principal="anna", fingerprint=b"1", accepted_ms=1)
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
