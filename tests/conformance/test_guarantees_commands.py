"""Commands on every engine: each ends in one outcome for whoever asked, through deaths of clients and of servers."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from msgspec import Struct

from postline import (
    App,
    Cancelled,
    CommandTopic,
    Context,
    HandlerFault,
    Refused,
    ReplyOutcome,
    RequestTimeout,
    Ticket,
    Topic,
)
from postline.contracts.cloudevents import CLIENT_ID, REQUEST_ID
from postline.errors import SubscriptionConflict
from tests.conformance.apps import NEVER, Gate, World, all_records, eventually
from tests.conformance.harness import Engine

LEDGER = CommandTopic("ledger", owner="ledger", key="customer", partitions=4)
BALANCES = Topic("ledger.balances", owner="ledger", key="customer", partitions=4)


@BALANCES.event("ledger.BalanceChanged")
class BalanceChanged(Struct, frozen=True):
    """The domain event that a deposit leaves."""

    customer: str
    amount: int


class Deposited(Struct, frozen=True):
    """The reply to a deposit."""

    balance: int


class Overdrawn(Struct, frozen=True):
    """The refusal of a negative deposit that there is no money for."""

    missing: int


@LEDGER.command("ledger.Deposit", reply=Deposited, refusals=(Overdrawn,))
class Deposit(Struct, frozen=True):
    """Adds to an account; fails where it is told to."""

    customer: str
    amount: int
    fails: bool = False


@LEDGER.command("ledger.Ask", reply=Deposited)
class Ask(Struct, frozen=True):
    """Is answered later."""

    customer: str


class Ledger:
    """The service that handles the commands."""

    def __init__(self, gate: Gate | None = None, name: str = "ledger", takes_over: str = "") -> None:
        owns: list[Topic | CommandTopic] = [LEDGER, BALANCES]
        self.app = App(name, owns=owns) if name == "ledger" else App(name, publishes_to=owns)
        self.ran: list[Deposit] = []
        self.tokens: list[str] = []
        served = self.app.serve(LEDGER, takes_over=takes_over, state=int, retry=NEVER)

        @served.on(Deposit)
        async def deposit(command: Deposit, ctx: Context) -> Deposited:
            if gate is not None:
                await gate.pass_through()
            self.ran.append(command)
            balance = (ctx.state.get() or 0) + command.amount
            ctx.publish(BalanceChanged(command.customer, balance))
            if command.fails:
                raise RuntimeError("told to fail")
            if balance < 0:
                raise Refused(Overdrawn(-balance))
            ctx.state.put(balance)
            return Deposited(balance)

        @served.on(Ask)
        async def ask(command: Ask, ctx: Context) -> None:
            self.tokens.append(ctx.reply_later())


def client() -> App:
    """A service that sends."""
    return App("shop", publishes_to=[LEDGER])


async def with_ledger(world: World, ledger: Ledger) -> App:
    """The ledger and a client, running."""
    await world.start(ledger.app)
    asking = client()
    await asking.start(world._environment(world.log), consume=False)
    return asking


@pytest.fixture
def world(engine: Engine) -> World:
    """A log on which the ledger is told and asked."""
    return World(engine)


async def test_the_four_outcomes_never_merge(world: World) -> None:
    async with world:
        asking = await with_ledger(world, Ledger())
        assert await asking.request(Deposit("anna", 5)) == Deposited(5)
        with pytest.raises(Refused) as refused:
            await asking.request(Deposit("anna", -9))
        assert refused.value.refusal == Overdrawn(4)
        with pytest.raises(HandlerFault, match="told to fail"):
            await asking.request(Deposit("anna", 1, fails=True))
        with pytest.raises(RequestTimeout, match="expired"):
            await (await asking.send(Deposit("anna", 1), timeout=0)).outcome()
        await world.balanced("ledger", done=2, dead_lettered=1, expired=1)
        events = await world.read(BALANCES)
        assert [each.message.amount for each in events] == [5]
        await asking.stop()


async def test_every_request_ends_once_although_servers_die(world: World) -> None:
    async with world:
        gate = Gate()
        ledgers = [Ledger(gate)]
        asking = await with_ledger(world, ledgers[0])
        gate.shut(passes=5)
        tickets = [await asking.send(Deposit(f"account {n % 7}", 1), request_id=f"r-{n}") for n in range(40)]
        for _ in range(2):
            await gate.until_somebody_waits()
            await world.kill(ledgers[-1].app)
            gate.open()
            gate.shut(passes=5)
            ledgers.append(Ledger(gate))
            await world.start(ledgers[-1].app)
        gate.open()
        outcomes = await asyncio.gather(*(ticket.ended(60) for ticket in tickets))
        assert {each.outcome for each in outcomes} == {ReplyOutcome.SUCCESS}
        replies = [world.log.envelope(record) for _, record in await all_records(world.log, LEDGER.replies.name)]
        assert Counter(each.headers[REQUEST_ID] for each in replies) == Counter(f"r-{n}" for n in range(40))
        events = [world.log.envelope(record) for _, record in await all_records(world.log, BALANCES.name)]
        assert Counter((each.headers[CLIENT_ID], each.headers[REQUEST_ID]) for each in events) == Counter(
            ("shop", f"r-{n}") for n in range(40)
        )
        await world.until_handled("ledger")
        await world.balanced("ledger", done=40)
        await asking.stop()


async def test_a_client_that_dies_finds_its_outcome_and_repeating_does_nothing_twice(world: World) -> None:
    async with world:
        ledger = Ledger()
        asking = await with_ledger(world, ledger)
        await asking.send(Deposit("anna", 5), request_id="r-1")
        await asking.abort()
        await world.until_handled("ledger")
        again = client()
        await again.start(world._environment(world.log), consume=False)
        assert await again.ticket("r-1").outcome(60) == Deposited(5)
        assert await again.request(Deposit("anna", 5), request_id="r-1") == Deposited(5)
        assert ledger.ran == [Deposit("anna", 5)]
        await world.until_handled("ledger")
        await world.balanced("ledger", done=1)  # what is answered is not even sent again
        await again.stop()


async def test_a_cancelled_command_is_not_begun(world: World) -> None:
    async with world:
        ledger = Ledger()
        asking = await with_ledger(world, ledger)
        assert await asking.request(Deposit("anna", 1)) == Deposited(1)
        await world.stop(ledger.app)
        ticket = await asking.send(Deposit("anna", 5))
        await ticket.cancel()
        again = Ledger()
        await world.start(again.app)
        with pytest.raises(Refused) as refused:
            await ticket.outcome(60)
        assert refused.value.refusal == Cancelled()
        assert (await ticket.status()).state == "cancelled"
        assert again.ran == []
        await asking.stop()


async def test_a_later_reply_comes_once_also_from_another_process(world: World) -> None:
    async with world:
        ledger = Ledger()
        asking = await with_ledger(world, ledger)
        ticket: Ticket = await asking.send(Ask("anna"))
        await eventually(lambda: ledger.tokens, "the handler has promised a reply")
        await world.until_handled("ledger")
        await world.stop(ledger.app)
        again = Ledger()
        await world.start(again.app)
        await again.app.reply(ledger.tokens[0], Deposited(7))
        await again.app.reply(ledger.tokens[0], Deposited(8))
        assert await ticket.outcome(60) == Deposited(7)
        await asking.request(Deposit("anna", 1))
        assert len(await all_records(world.log, LEDGER.replies.name)) == 2
        await asking.stop()


async def test_a_redriven_fault_adds_to_the_ticket_and_replies_no_second_time(world: World) -> None:
    async with world:
        ledger = Ledger()
        asking = await with_ledger(world, ledger)
        ticket = await asking.send(Deposit("anna", 1, fails=True))
        assert (await ticket.ended(60)).outcome is ReplyOutcome.FAULT
        before = len(await all_records(world.log, LEDGER.replies.name))
        await world.until_handled("ledger", dead=1)
        await world.redrive_all("ledger")
        await eventually(lambda: len(ledger.ran) == 2, "the command was tried again")
        await world.until_handled("ledger", dead=1)
        assert len(await all_records(world.log, LEDGER.replies.name)) == before
        assert (await ticket.status()).state == "failed"
        await asking.stop()


async def test_another_service_is_refused_unless_it_takes_over_and_then_the_client_notices_nothing(
    world: World,
) -> None:
    async with world:
        old = Ledger()
        asking = await with_ledger(world, old)
        with pytest.raises(SubscriptionConflict, match="'ledger'"):
            await world.start(Ledger(name="bank").app)
        first = [await asking.send(Deposit(f"account {n % 7}", 1), request_id=f"r-{n}") for n in range(20)]
        new = Ledger(name="bank", takes_over="ledger")
        await world.start(new.app)
        then = [await asking.send(Deposit(f"account {n % 7}", 1), request_id=f"r-{n}") for n in range(20, 60)]
        await world.stop(old.app)
        last = [await asking.send(Deposit(f"account {n % 7}", 1), request_id=f"r-{n}") for n in range(60, 80)]
        outcomes = await asyncio.gather(*(ticket.ended(60) for ticket in (*first, *then, *last)))
        assert {each.outcome for each in outcomes} == {ReplyOutcome.SUCCESS}
        assert len(old.ran) + len(new.ran) == 80
        with pytest.raises(SubscriptionConflict, match="'bank'"):
            await world.start(Ledger().app)
        await world.until_handled("ledger")
        await world.balanced("ledger", done=80)
        await asking.stop()
