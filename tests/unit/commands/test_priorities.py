"""Priorities of commands: how a request goes by the priority that it was first sent with."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec import Struct

from postline import App, CommandTopic, Context, Retry, SettingsError, UsageError
from postline.contracts.priorities import marked_id, priority_in
from postline.testing import TestApp


class Ran:
    """A service without keys, whose commands can be repeated, and its client."""

    def __init__(self) -> None:
        self.topic = CommandTopic("jobs", owner="worker", partitions=4, priorities={"high": 0, "normal": 0})

        @self.topic.command("jobs.Do")
        class Do(Struct, frozen=True):
            number: int

        @self.topic.command("jobs.Pass")
        class Pass(Struct, frozen=True):
            number: int

        self.Do, self.Pass = Do, Pass
        self.ran: list[int] = []
        self.passed: list[str] = []
        self.worker = App("worker", owns=[self.topic])
        self.client = App("client", publishes_to=[self.topic])
        served = self.worker.serve(self.topic, retry=Retry(immediate=0, delays=()))

        @served.on(Do)
        async def do(command: Do) -> None:
            self.ran.append(command.number)

        @served.on(Pass)
        async def hand_on(command: Pass, ctx: Context) -> None:
            self.passed.append(ctx.send(Do(command.number), priority="high"))


def test_an_id_that_is_made_says_its_priority() -> None:
    assert priority_in(marked_id("01a2", "high")) == "high"
    assert priority_in("order-17") == ""


async def test_an_id_that_was_made_is_repeated_where_its_first_one_lies() -> None:
    jobs = Ran()
    async with TestApp(jobs.worker, jobs.client) as t:
        tickets = [await jobs.client.send(jobs.Do(n), priority=each) for n, each in enumerate(("high", "normal", None))]
        for number, ticket in enumerate(tickets):
            for priority in ("high", "normal"):
                await jobs.client.send(jobs.Do(number), request_id=ticket.request_id, priority=priority)
        await t.settle()
        assert sorted(jobs.ran) == [0, 1, 2]
        # A handler's own is placed by its whole id, so that it is found again on a topic without keys.
        await jobs.client.request(jobs.Pass(9))
        await t.settle()
        (sent,) = jobs.passed
        await jobs.worker.request(jobs.Do(9), request_id=sent)
        assert jobs.ran.count(9) == 1


async def test_what_was_answered_is_not_sent_again_although_no_note_is_left() -> None:
    jobs = Ran()
    async with TestApp(jobs.worker, jobs.client) as t:
        # Sent by a version whose contract had no priorities, which noted none.
        append = jobs.client._require_running().outlet.sent(jobs.Do(1), "r-1")
        await jobs.client.log.append((append,))
        await t.settle()
        await jobs.client.request(jobs.Do(1), request_id="r-1", priority="high")
        assert jobs.ran == [1]
        assert "jobs.high" not in t.audit() or t.audit()["jobs.high"] == {}


async def test_an_own_id_is_noted_once_however_often_it_is_repeated() -> None:
    jobs = Ran()
    async with TestApp(jobs.worker, jobs.client) as t:
        await t.stop(jobs.worker)
        for _ in range(3):
            await jobs.client.send(jobs.Do(1), request_id="r-1", priority="high")
        await jobs.client.send(jobs.Do(2))
        assert len(t.log_records(jobs.topic.tickets)) == 1
        await t.advance(days=6)  # shorter than tickets are kept
        await t.log.run_maintenance()
        await jobs.client.send(jobs.Do(1), request_id="r-1")
        await t.start(jobs.worker)
        await t.settle()
        assert sorted(jobs.ran) == [1, 2]


async def test_an_id_that_looks_like_the_key_of_a_note_is_found_all_the_same() -> None:
    jobs = Ran()
    async with TestApp(jobs.worker, jobs.client) as t:
        await t.stop(jobs.worker)
        ticket = await jobs.client.send(jobs.Do(1), request_id="odd#priority/name", priority="high")
        assert (await ticket.status()).state == "open"
        await t.start(jobs.worker)
        await ticket.outcome()
        assert (await jobs.client.ticket("odd#priority/name").status()).state == "succeeded"


async def test_what_contradicts_priorities_is_refused() -> None:
    jobs = Ran()
    async with TestApp(jobs.worker, jobs.client):
        with pytest.raises(UsageError, match="no priority 'urgent'"):
            await jobs.client.request(jobs.Do(1), priority="urgent")
    stateful = App("worker", owns=[jobs.topic])

    @stateful.serve(jobs.topic, state=int).on(jobs.Do)
    async def do(command: object) -> None:
        """Nothing."""

    with pytest.raises(SettingsError, match="of several priorities"):
        async with TestApp(stateful):
            pass


async def test_without_priorities_none_can_be_given_and_ids_are_as_they_were() -> None:
    plain = CommandTopic("plain", owner="worker", tickets_kept=timedelta(days=1))

    class Do(Struct, frozen=True):
        number: int

    plain.command("plain.Do")(Do)
    worker, client = App("worker", owns=[plain]), App("client", publishes_to=[plain])

    @worker.serve(plain).on(Do)
    async def do(command: Do) -> None:
        """Nothing."""

    async with TestApp(worker, client) as t:
        with pytest.raises(UsageError, match="it has none"):
            await client.send(Do(1), priority="high")
        ticket = await client.send(Do(1), request_id="r-1")
        await ticket.outcome()
        assert "~" not in (await client.send(Do(2))).request_id
        assert len(t.log_records(plain.tickets)) <= 2
