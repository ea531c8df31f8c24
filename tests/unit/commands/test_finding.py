"""The index of tickets forgets what retention has taken."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from msgspec import Struct

from postline import App, CommandTopic
from postline.commands import finding
from postline.errors import LogUnavailable
from postline.testing import TestApp


async def test_tickets_that_are_gone_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "_FORGET_RECORDS", 10)
    topic = CommandTopic("jobs", owner="worker", key="site", partitions=1, tickets_kept=timedelta(hours=1))

    @topic.command("jobs.Do")
    class Do(Struct, frozen=True):
        site: str

    worker, client = App("worker", owns=[topic]), App("client", publishes_to=[topic])

    @worker.serve(topic).on(Do)
    async def do(command: Do) -> None:
        """Nothing but the reply."""

    async with TestApp(worker, client) as t:
        for number in range(20):
            await client.request(Do("a"), request_id=f"old-{number}")
        await t.advance(hours=3)
        await t.log.run_maintenance()
        for number in range(20):
            await client.request(Do("a"), request_id=f"new-{number}")
        tickets: Any = client.requests(topic)._tickets  # what it remembers can't be told from outside
        assert len(tickets._seen[0].outcomes) < 40
        assert (await client.ticket("new-19").status()).state == "succeeded"
        assert (await client.ticket("old-1").status()).state == "open"


async def test_whoever_waits_for_an_outcome_is_told_that_the_client_has_stopped() -> None:
    topic = CommandTopic("jobs", owner="worker", key="site", partitions=1)

    @topic.command("jobs.Do")
    class Do(Struct, frozen=True):
        site: str

    client = App("client", publishes_to=[topic])
    async with TestApp(App("worker", owns=[topic]), client):
        ticket = await client.send(Do("a"), request_id="no 1")
        waiting = asyncio.ensure_future(ticket.outcome())
        await asyncio.sleep(0)
    with pytest.raises(LogUnavailable, match=r"request no 1 on jobs\.replies: the client has stopped"):
        await waiting
