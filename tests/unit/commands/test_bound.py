"""A bound on waiting commands: who sends is slowed, told when to come back, and let in when the service catches up."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import Struct

from postline import App, BackPressure, Bound, CommandTopic
from postline.testing import TestApp

JOBS = CommandTopic("jobs", owner="worker", key="site", bound=Bound(records=3, wait_seconds=2))


@JOBS.command("jobs.Do")
class Do(Struct, frozen=True):
    site: str


async def test_a_sender_waits_for_the_service_and_is_refused_with_nothing_stored() -> None:
    worker, client = App("worker", owns=[JOBS]), App("client", publishes_to=[JOBS])

    @worker.serve(JOBS).on(Do)
    async def do(command: Do) -> None:
        """Nothing but the reply."""

    async with TestApp(worker, client) as t:
        await t.stop(worker)
        tickets = [await client.send(Do("a")) for _ in range(3)]
        refused = asyncio.ensure_future(client.send(Do("a")))
        await t.advance(seconds=3)
        with pytest.raises(BackPressure) as error:
            await refused
        assert error.value.subscription == "jobs"
        assert len(t.log_records(JOBS.commands)) == 3
        await t.start(worker)
        await asyncio.gather(*(ticket.outcome() for ticket in tickets))
        sending = asyncio.ensure_future(client.send(Do("a")))
        await t.advance(seconds=1)
        await (await sending).outcome()
