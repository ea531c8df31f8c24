"""Two gateways that are asked the same at once, and killed between the note of a key and what it is for."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import Process
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest

from postline.app import open_environment
from postline.contracts.cloudevents import REQUEST_ID
from tests.conformance.apps import all_records
from tests.integration.web_shop import SHOP, process_of, serving

KEYS, KILLS = 12, 2

Asking = Callable[[str, str, int], Awaitable[httpx.Response]]


class Race:
    """Two gateways on one log, each killed a few times; and clients who use each key twice, at both at once."""

    def __init__(self, folder: Path, served: str) -> None:
        self.folder, self.served = folder, served
        self.urls = ["", ""]
        self.kills = 0
        self.attempts = 0

    async def run_gateway(self, place: int) -> None:
        """It dies once it has noted so many keys, each time in the midst of one; the last one stays."""
        for kill in range(KILLS):
            async with self.serving(place, 3 + 2 * kill + place) as (process, self.urls[place]):
                await process.wait()
            self.kills += 1
        async with self.serving(place, 0) as (_, self.urls[place]):
            await asyncio.Event().wait()

    def serving(self, place: int, dies: int) -> AbstractAsyncContextManager[tuple[Process, str]]:
        """The gateway as a process: it meets the other one at each key, and dies after so many notes (0: never)."""
        around = {"POSTLINE_INSTANCE": f"web-{place}", "MEETS": "1", "DIES_AFTER_NOTES": str(dies)}
        return serving(self.folder, self.served, port=0, **around)

    async def use(self, key: str, ask: Asking) -> list[httpx.Response]:
        """Both clients of a key, at once."""
        return await asyncio.gather(*(self.persist(place, key, ask) for place in range(2)))

    async def persist(self, place: int, key: str, ask: Asking) -> httpx.Response:
        """Ask one gateway, until there is an answer that says what became of it."""
        while (answer := await self.attempt(place, key, ask)) is None:
            await asyncio.sleep(0.01)
        return answer

    async def attempt(self, place: int, key: str, ask: Asking) -> httpx.Response | None:
        """The answer, if it is one."""
        self.attempts += 1
        with suppress(httpx.TransportError):
            answer = await ask(self.urls[place], key, place)
            assert answer.status_code in (202, 409, 422, 503), answer.text
            return answer if answer.status_code in (202, 422) else None
        return None

    async def run(self, ask: Asking) -> dict[str, list[httpx.Response]]:
        """What both were answered, by key; with new keys until all kills are done."""
        told: dict[str, list[httpx.Response]] = {}
        gateways = [asyncio.ensure_future(self.run_gateway(place)) for place in range(2)]
        try:
            while not all(self.urls):
                await asyncio.sleep(0.01)
            while self.kills < len(gateways) * KILLS:
                keys = [str(len(told) + number) for number in range(KEYS)]
                told |= zip(keys, await asyncio.gather(*(self.use(key, ask) for key in keys)), strict=True)
        finally:
            for each in gateways:
                each.cancel()
            await asyncio.gather(*gateways, return_exceptions=True)
        return told


@pytest.fixture(params=["sqlite", pytest.param("kafka-1", marks=pytest.mark.brokers)])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the shop, whose processes have a log of their own."""
    url = f"sqlite:///{tmp_path}/postline.db"
    if request.param == "kafka-1":
        url = f"{request.getfixturevalue('kafka_one').url}?create_topics=true&cache_dir={tmp_path}/cache"
        monkeypatch.setenv("POSTLINE_NAMESPACE", f"race-{uuid4().hex[:8]}")
    monkeypatch.setenv("POSTLINE_URL", url)
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


async def transfer(url: str, key: str, place: int) -> httpx.Response:
    """The two clients of a key want something else."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as web:
        headers = {"Idempotency-Key": f'"{key}"', "X-User": "anna"}
        body = {"source": f"{key}/{place}", "amount": 1}
        return await web.post("/commands/ledger.Transfer", json=body, headers=headers)


async def stored() -> list[tuple[str, str, Any]]:
    """Of each balance that was told: the request, the id, and what it says."""
    environment = open_environment()
    await environment.log.start()
    try:
        topic = environment.settings.full_name("ledger.balances")
        records = [record for _, record in await all_records(environment.log, topic)]
        envelopes = [environment.log.envelope(record) for record in records]
    finally:
        await environment.log.close()
    return [
        (envelope.headers.get(REQUEST_ID, ""), envelope.id, msgspec.json.decode(record[4] or b""))
        for envelope, record in zip(envelopes, records, strict=True)
    ]


@pytest.mark.slow
async def test_of_two_bodies_under_each_key_one_is_run_through_kills_between_note_and_command(place: Path) -> None:
    service = await process_of(place, "run", "shop:service")
    race = Race(place, "shop:app")
    try:
        told = await race.run(transfer)
        accepted = {key: next(n for n in range(2) if pair[n].status_code == 202) for key, pair in told.items()}
        assert {tuple(sorted(each.status_code for each in pair)) for pair in told.values()} == {(202, 422)}
        while len(ran := await stored()) < len(told):
            await asyncio.sleep(0.01)
    finally:
        service.terminate()
        await service.communicate()
    assert Counter(body["source"] for _, _, body in ran) == {f"{key}/{n}": 1 for key, n in accepted.items()}
    located = {key: pair[accepted[key]].headers["location"].rpartition("/")[2] for key, pair in told.items()}
    assert {request for request, _, _ in ran} == {each.partition("-")[0] for each in located.values()}


@pytest.mark.slow
async def test_fresh_ids_under_each_key_are_one_event_through_kills_between_note_and_event(place: Path) -> None:
    race = Race(place, "shop:events")

    async def sold(url: str, key: str, _: int) -> httpx.Response:
        headers = {
            "Ce-Specversion": "1.0",
            "Ce-Id": f"{race.attempts}",
            "Ce-Source": "/tills/3",
            "Ce-Type": "ledger.BalanceChanged",
            "Idempotency-Key": f'"{key}"',
        }
        async with httpx.AsyncClient(base_url=url, timeout=30) as web:
            body = {"source": key, "balance": 1}
            return await web.post("/events/ledger.balances", json=body, headers=headers)

    async with serving(place, "shop:service", "--consume"):  # owns the topic
        told = await race.run(sold)
    assert {each.status_code for pair in told.values() for each in pair} == {202}
    ids: defaultdict[str, set[str]] = defaultdict(set)
    for _, event_id, body in await stored():
        ids[body["source"]].add(event_id)
    assert {len(each) for each in ids.values()} == {1}
    assert ids.keys() == told.keys()
