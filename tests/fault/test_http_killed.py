"""Phones that retry while the gateway and its service are killed: every command runs once, and is answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from postline.app import open_environment
from postline.contracts.cloudevents import REQUEST_ID
from tests.conformance.apps import all_records
from tests.integration.web_shop import SHOP, process_of, serving

PHONES, CALLS, KILLS = 8, 12, 4


class Trial:
    """A gateway that is killed, and started again somewhere else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.accepted = 0
        self.locations: dict[str, set[str]] = {}
        self.ended: Counter[str] = Counter()

    async def run_gateway(self) -> None:
        """Kill it after so many answers; the last one stays."""
        for kill in range(KILLS + 1):
            async with serving(self.folder, "shop:app") as (process, self.url):
                limit = PHONES * CALLS * (kill + 1) // (KILLS + 2)
                while self.accepted < limit or kill == KILLS:
                    await asyncio.sleep(0.005)
                process.kill()

    async def run_service(self) -> None:
        """Kill it as often, each time when it has done some more."""
        for kill in range(KILLS + 1):
            process = await process_of(self.folder, "run", "shop:service")
            try:
                limit = self.ended.total() + PHONES * CALLS // (KILLS + 2)
                while self.ended.total() < limit or kill == KILLS:
                    await asyncio.sleep(0.005)
            finally:
                process.kill()
                await process.communicate()

    async def phone(self, number: int) -> None:
        """Send commands, each until it is accepted and has ended."""
        for call in range(CALLS):
            key = f"{number}-{call}"
            headers = {"Idempotency-Key": f'"{key}"'}
            body = {"source": f"account {call % 5}", "amount": 1}
            answer = await self.persist("POST", "/commands/ledger.Transfer", headers=headers, json=body)
            self.accepted += 1
            self.locations.setdefault(key, set()).add(answer.headers["location"])
            while True:
                status = await self.persist("GET", answer.headers["location"], headers={"Prefer": "wait=5"})
                if (state := status.json()["status"]) not in ("pending", "running"):
                    break
            self.ended[state] += 1
            again = await self.persist("POST", "/commands/ledger.Transfer", headers=headers, json=body)
            self.locations[key].add(again.headers["location"])

    async def persist(self, method: str, path: str, **more: object) -> httpx.Response:
        """Ask until there is an answer that is one."""
        while (answer := await self.attempt(method, path, **more)) is None:
            await asyncio.sleep(0.01)
        return answer

    async def attempt(self, method: str, path: str, **more: object) -> httpx.Response | None:
        """The answer, if there is one."""
        with suppress(httpx.TransportError):
            async with httpx.AsyncClient(base_url=self.url, timeout=30) as web:
                answer = await web.request(method, path, **more)  # type: ignore[arg-type]
                assert answer.status_code in (200, 202, 409, 503), answer.text
                return answer if answer.status_code < 300 else None
        return None


@pytest.mark.slow
async def test_every_command_runs_once_through_kills_of_the_gateway_and_of_the_service(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    trial = Trial(tmp_path)
    killed = [asyncio.ensure_future(trial.run_service()), asyncio.ensure_future(trial.run_gateway())]
    try:
        while not trial.url:
            await asyncio.sleep(0.01)
        await asyncio.gather(*(trial.phone(number) for number in range(PHONES)))
    finally:
        for each in killed:
            each.cancel()
        await asyncio.gather(*killed, return_exceptions=True)
    assert trial.ended == {"succeeded": PHONES * CALLS}
    assert {len(each) for each in trial.locations.values()} == {1}
    environment = open_environment(f"sqlite:///{tmp_path}/postline.db")
    await environment.log.start()
    events = [environment.log.envelope(record) for _, record in await all_records(environment.log, "ledger.balances")]
    await environment.log.close()
    assert Counter(Counter(each.headers[REQUEST_ID] for each in events).values()) == {1: PHONES * CALLS}
