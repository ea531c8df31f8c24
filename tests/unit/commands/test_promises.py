"""Replies that come later, and wishes that a command not be begun: how long each is kept, and what it names."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from msgspec import Struct

from postline import App, CommandTopic, Context, Refused, RequestTimeout, Retry
from postline.commands import wishes
from postline.runtime.entries import CANCELLED, EARLY, LATER
from postline.testing import TestApp
from postline.testing.ledger import entries, instantly

approvals = CommandTopic("approvals", owner="office", key="order", partitions=1)


@approvals.reply("approvals.Approved")
class Approved(Struct, frozen=True):
    """What is told later."""

    by: str


@approvals.command("approvals.Approve", reply=Approved)
class Approve(Struct, frozen=True):
    """What takes long."""

    order: str


class Office:
    """A service that promises each reply; its first `failing` attempts fail after that."""

    def __init__(self, *, name: str = "", failing: int = 0, answers: bool = False, **options: Any) -> None:
        self.tokens: list[str] = []
        self.begun = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.app = App("office", owns=[approvals])
        options.setdefault("retry", Retry(immediate=0, delays=(60,), jitter=0))
        self.served = self.app.serve(approvals, name=name, **options)

        @self.served.on(Approve)
        async def approve(command: Approve, ctx: Context) -> Approved | None:
            if answers and ctx.attempt > failing:
                return Approved("at once")
            self.tokens.append(ctx.reply_later())
            self.begun.set()
            await self.open.wait()
            if ctx.attempt <= failing:
                raise RuntimeError("the desk is closed")
            return None


def kept(t: TestApp, namespace: str, name: str = "approvals") -> int:
    return len(list(entries(t.log, name, 0, namespace)))


@pytest.mark.parametrize("days", [30, 2])
async def test_a_promise_without_an_expiry_ends_in_a_timeout_at_last(days: int) -> None:
    office = Office() if days == 30 else Office(reply_within=timedelta(days=days))
    asking = App("asking", publishes_to=[approvals])
    async with TestApp(office.app, asking) as t:
        ticket = await asking.send(Approve("1"))
        given = await asking.send(Approve("2"))
        await t.settle()
        await office.app.reply(office.tokens[1], Approved("eve"))
        await t.advance(days=days, hours=-1)
        assert (await ticket.status()).state == "open"
        await t.crash(office.app)
        await t.start(office.app)
        await t.advance(hours=2)
        with pytest.raises(RequestTimeout, match="promised did not come"):
            await ticket.outcome()
        assert await given.outcome() == Approved("eve")
        assert kept(t, LATER) == 0


async def test_a_token_outlives_the_renaming_of_whoever_gave_it() -> None:
    old, new = Office(name="desk"), Office(name="counter", aliases=("desk",))
    asking = App("asking", publishes_to=[approvals])
    async with TestApp(old.app, asking) as t:
        ticket = await asking.send(Approve("1"))
        await t.settle()
        await t.stop(old.app)
        await t.start(new.app)
        await t.settle()
        await new.app.reply(old.tokens[0], Approved("eve"))
        await t.settle()
        assert await asyncio.wait_for(ticket.outcome(), 5) == Approved("eve")


async def test_a_reply_that_comes_before_its_attempt_has_ended_is_given_with_it() -> None:
    office, asking = Office(), App("asking", publishes_to=[approvals])
    office.open.clear()
    async with TestApp(office.app, asking) as t:
        ticket = await asking.send(Approve("1"))
        await office.begun.wait()
        await office.app.reply(office.tokens[0], Approved("quick"))
        await office.app.reply(office.tokens[0], Approved("quicker"))
        while not any(owned.unit for consumer in office.app.consumers for owned in consumer.owned.values()):
            await asyncio.sleep(0)
        office.open.set()
        assert await asyncio.wait_for(ticket.outcome(), 5) == Approved("quick")
        await t.settle()
        assert kept(t, EARLY) == kept(t, LATER) == 0


async def test_a_reply_to_an_attempt_that_failed_is_given_by_the_next_that_promises_one() -> None:
    office, asking = Office(failing=1), App("asking", publishes_to=[approvals])
    async with TestApp(office.app, asking) as t:
        ticket = await asking.send(Approve("1"))
        await t.settle()
        await office.app.reply(office.tokens[0], Approved("early"))
        await t.settle()
        await t.crash(office.app)
        await t.start(office.app)
        await t.advance(minutes=2)
        assert await asyncio.wait_for(ticket.outcome(), 5) == Approved("early")
        assert kept(t, EARLY) == kept(t, LATER) == 0


async def test_a_reply_to_an_attempt_that_failed_is_dropped_where_the_next_one_answers() -> None:
    office, asking = Office(failing=1, answers=True), App("asking", publishes_to=[approvals])
    async with TestApp(office.app, asking) as t:
        ticket = await asking.send(Approve("1"))
        await t.settle()
        await office.app.reply(office.tokens[0], Approved("early"))
        await t.advance(minutes=2)
        assert await ticket.outcome() == Approved("at once")
        assert kept(t, EARLY) == kept(t, LATER) == 0


async def test_a_token_that_names_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    office = Office(failing=9, retry=Retry(immediate=0, delays=()))
    asking = App("asking", publishes_to=[approvals])
    async with TestApp(office.app, asking) as t:
        ticket = await asking.send(Approve("1"))
        await t.settle()
        await office.app.reply(office.tokens[0], Approved("too late"))
        await t.settle()
        assert (await ticket.status()).state == "failed"
        assert "the attempt that gave out this token failed" in caplog.text
        assert kept(t, EARLY) == 0


async def test_wishes_for_commands_that_never_come_are_forgotten_by_age() -> None:
    office, asking = Office(), App("asking", publishes_to=[approvals])
    async with TestApp(office.app, asking) as t:
        await asking.ticket("never").cancel()
        await t.advance(days=6)
        await asking.ticket("never either").cancel()
        await t.settle()
        assert kept(t, CANCELLED) == 2
        await t.crash(office.app)
        await t.start(office.app)
        await t.advance(days=2)
        await asking.ticket("nor this").cancel()
        await t.settle()
        assert kept(t, CANCELLED) == 2
        with pytest.raises(Refused, match="Cancelled"):
            await asking.request(Approve("1"), request_id="never either")


async def test_a_wish_that_is_forgotten_too_early_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wishes, "WISHES_MAX", 2)
    office, asking = Office(), App("asking", publishes_to=[approvals])
    async with TestApp(office.app, asking) as t:
        for each in ("a", "b"):
            await asking.ticket(each).cancel()
        await t.settle()
        assert "forgets" not in caplog.text
        await asking.ticket("c").cancel()
        await t.settle()
        assert "forgets the oldest" in caplog.text
        assert kept(t, CANCELLED) == 2
        assert instantly(t.log.partitions("approvals"))[0].position == 0
