"""Commands with priorities on every engine: what commands promise holds over all siblings, and for repetitions too."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from msgspec import Struct

from postline import (
    App,
    BackPressure,
    Bound,
    Cancelled,
    CommandTopic,
    Context,
    HandlerFault,
    Refused,
    ReplyOutcome,
    RequestTimeout,
    UsageError,
    field,
)
from postline.contracts.cloudevents import REQUEST_ID
from postline.errors import SubscriptionConflict
from tests.conformance.apps import NEVER, Gate, World, all_records, eventually
from tests.conformance.harness import Engine

LEDGER = CommandTopic("ledger", owner="ledger", key="customer", partitions=2, priorities={"high": 0, "normal": 0})
NAMES = ("ledger", "ledger.high")


class Paid(Struct, frozen=True):
    """The reply to a payment: which priority it was handled with."""

    topic: str
    number: int


class TooMuch(Struct, frozen=True):
    """The refusal of a large one."""

    number: int


@LEDGER.command("ledger.Pay", reply=Paid, refusals=(TooMuch,))
class Pay(Struct, frozen=True):
    """A numbered payment; fails where it is told to."""

    customer: str
    number: int
    fails: bool = False


@LEDGER.command("ledger.Ask", reply=Paid)
class Ask(Struct, frozen=True):
    """Is answered later."""

    customer: str


@LEDGER.command("ledger.PayLater")
class PayLater(Struct, frozen=True):
    """Has the handler send a payment of high priority."""

    customer: str
    number: int


class Ledger:
    """The service that handles the commands, one after the other."""

    def __init__(self, gate: Gate | None = None, name: str = "ledger", takes_over: str = "") -> None:
        self.app = App(name, owns=[LEDGER]) if name == "ledger" else App(name, publishes_to=[LEDGER])
        self.ran: list[tuple[str, int]] = []
        self.tokens: list[str] = []
        served = self.app.serve(LEDGER, takes_over=takes_over, retry=NEVER, concurrency=1)

        @served.on(Pay)
        async def pay(command: Pay, ctx: Context) -> Paid:
            if gate is not None:
                await gate.pass_through()
            self.ran.append((ctx.topic, command.number))
            if command.fails:
                raise RuntimeError("told to fail")
            if command.number > 1_000:
                raise Refused(TooMuch(command.number))
            return Paid(ctx.topic, command.number)

        @served.on(Ask)
        async def ask(command: Ask, ctx: Context) -> None:
            await ctx.progress("asked")
            self.tokens.append(ctx.reply_later())

        @served.on(PayLater)
        async def pay_later(command: PayLater, ctx: Context) -> None:
            ctx.send(Pay(command.customer, command.number), priority="high")


async def client(world: World, topic: CommandTopic = LEDGER) -> App:
    """A process of a service that sends."""
    asking = App("shop", publishes_to=[topic])
    await asking.start(world._environment(world.log), consume=False)
    return asking


async def handled(world: World, **dead: int) -> None:
    """Everything of both priorities is settled or held."""
    for name in NAMES:
        await world.until_handled(name, dead=dead.get(name.rpartition(".")[2], 0))


@pytest.fixture
def world(engine: Engine) -> World:
    """A log on which the ledger is told and asked."""
    return World(engine)


async def test_a_higher_command_overtakes_a_flood_and_each_outcome_is_its_own(world: World) -> None:
    async with world:
        gate = Gate()
        ledger = Ledger(gate)
        gate.shut()
        await world.start(ledger.app)
        asking = await client(world)
        flood = await asking.send_many([Pay(f"c{n}", n) for n in range(50)])
        await gate.until_somebody_waits()
        urgent = [await asking.send(Pay("c0", 100 + n), priority="high") for n in range(3)]
        consumers = ledger.app.consumers
        await eventually(
            lambda: sum(each.window.pending() for one in consumers for each in one.owned.values()) == 53, "fetched"
        )
        gate.open()
        outcomes = await asyncio.gather(*(each.outcome(60) for each in (*urgent, *flood)))
        assert [each.topic for each in outcomes] == ["ledger.commands.high"] * 3 + ["ledger.commands"] * 50
        # The attempt that ran goes first.
        assert [number for _, number in ledger.ran[1:4]] == [100, 101, 102]
        with pytest.raises(Refused):
            await asking.request(Pay("c0", 2_000), priority="high")
        with pytest.raises(HandlerFault, match="told to fail"):
            await asking.request(Pay("c0", 1, fails=True), priority="high")
        with pytest.raises(RequestTimeout, match="expired"):
            await (await asking.send(Pay("c0", 1), timeout=0, priority="high")).outcome(60)
        await world.balanced("ledger", done=50)
        await world.balanced("ledger.high", done=4, dead_lettered=1, expired=1)
        await asking.stop()


async def test_a_repetition_with_another_priority_gets_the_first_outcome_and_does_nothing_twice(world: World) -> None:
    async with world:
        ledger = Ledger()
        asking, other = await client(world), await client(world)
        # Before anything is handled: it is not the outcome that tells.
        await asking.send(Pay("anna", 1), request_id="r-1", priority="high")
        await other.send(Pay("anna", 1), request_id="r-1")
        ticket = await asking.send(Pay("anna", 2))
        await other.send(Pay("anna", 2), request_id=ticket.request_id, priority="high")
        await asking.send(Pay("anna", 3), request_id="r-3")
        await asking.send(Pay("anna", 3), request_id="r-3", priority="high")
        await world.start(ledger.app)
        assert await other.ticket("r-1").outcome(60) == Paid("ledger.commands.high", 1)
        assert await asking.ticket(ticket.request_id).outcome(60) == Paid("ledger.commands", 2)
        assert await asking.ticket("r-3").outcome(60) == Paid("ledger.commands", 3)
        await handled(world)
        for priority in ("high", "normal", None):
            assert await other.request(Pay("anna", 3), request_id="r-3", priority=priority) == Paid(
                "ledger.commands", 3
            )
        assert sorted(number for _, number in ledger.ran) == [1, 2, 3]
        await world.balanced("ledger.high", done=1, duplicate=1)
        await world.balanced("ledger", done=2, duplicate=2)
        for each in (asking, other):
            await each.stop()


async def test_of_two_processes_that_send_one_request_at_once_both_go_by_the_first(world: World) -> None:
    async with world:
        ledger = Ledger()
        asking, other = await client(world), await client(world)
        sent = [
            each.send(Pay("anna", n), request_id=f"r-{n}", priority=priority)
            for n in range(20)
            for each, priority in ((asking, "high"), (other, "normal"))
        ]
        tickets = await asyncio.gather(*sent)
        await world.start(ledger.app)
        await asyncio.gather(*(each.outcome(60) for each in tickets))
        await handled(world)
        assert sorted(number for _, number in ledger.ran) == list(range(20))
        for each in (asking, other):
            await each.stop()


async def test_whoever_dies_each_request_of_each_priority_ends_once(world: World) -> None:
    async with world:
        gate = Gate()
        ledgers = [Ledger(gate)]
        gate.shut(passes=5)
        await world.start(ledgers[0].app)
        asking = await client(world)
        tickets = [
            await asking.send(Pay(f"c{n % 5}", n), request_id=f"r-{n}", priority=("high", "normal")[n % 2])
            for n in range(24)
        ]
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
        assert Counter(each.headers[REQUEST_ID] for each in replies) == Counter(f"r-{n}" for n in range(24))
        await handled(world)
        for name in NAMES:
            await world.balanced(name, done=12)
        await asking.stop()


async def test_a_command_is_cancelled_whichever_priority_it_has(world: World) -> None:
    async with world:
        ledger = Ledger()
        await world.start(ledger.app)
        asking = await client(world)
        await asking.request(Pay("anna", 1))
        await world.stop(ledger.app)
        tickets = [await asking.send(Pay("anna", 2), priority=each) for each in ("high", "normal")]
        for ticket in tickets:
            await ticket.cancel()
        again = Ledger()
        await world.start(again.app)
        for ticket in tickets:
            with pytest.raises(Refused) as refused:
                await ticket.outcome(60)
            assert refused.value.refusal == Cancelled()
        assert again.ran == []
        await asking.stop()


async def test_a_later_reply_finds_a_command_of_high_priority_after_a_restart(world: World) -> None:
    async with world:
        ledger = Ledger()
        await world.start(ledger.app)
        asking = await client(world)
        ticket = await asking.send(Ask("anna"), priority="high")
        await eventually(lambda: ledger.tokens, "the handler has promised a reply")
        await handled(world)
        assert (await ticket.status()).note == "asked"
        await world.stop(ledger.app)
        again = Ledger()
        await world.start(again.app)
        await again.app.reply(ledger.tokens[0], Paid("later", 7))
        assert await ticket.outcome(60) == Paid("later", 7)
        await asking.stop()


async def test_a_fault_of_high_priority_is_redriven_by_its_siblings_name(world: World) -> None:
    async with world:
        ledger = Ledger()
        await world.start(ledger.app)
        asking = await client(world)
        ticket = await asking.send(Pay("anna", 1, fails=True), priority="high")
        assert (await ticket.ended(60)).outcome is ReplyOutcome.FAULT
        await handled(world, high=1)
        await world.redrive_all("ledger.high")
        await eventually(lambda: len(ledger.ran) == 2, "the command was tried again")
        await handled(world, high=1)
        assert len(await all_records(world.log, LEDGER.replies.name)) == 1
        await asking.stop()


async def test_a_handler_sends_with_a_priority(world: World) -> None:
    async with world:
        ledger = Ledger()
        await world.start(ledger.app)
        asking = await client(world)
        await asking.request(PayLater("anna", 3))
        await eventually(lambda: ("ledger.commands.high", 3) in ledger.ran, "the payment is made")
        await asking.stop()


async def test_a_successor_takes_over_every_priority(world: World) -> None:
    async with world:
        old = Ledger()
        await world.start(old.app)
        asking = await client(world)

        async def send(first: int, last: int) -> list[Any]:
            return [
                await asking.send(Pay(f"c{n % 7}", n), priority=("high", "normal")[n % 2]) for n in range(first, last)
            ]

        with pytest.raises(SubscriptionConflict, match="'ledger'"):
            await world.start(Ledger(name="bank").app)
        tickets = await send(0, 10)
        new = Ledger(name="bank", takes_over="ledger")
        await world.start(new.app)
        tickets += await send(10, 30)
        await world.stop(old.app)
        tickets += await send(30, 40)
        outcomes = await asyncio.gather(*(ticket.ended(60) for ticket in tickets))
        assert {each.outcome for each in outcomes} == {ReplyOutcome.SUCCESS}
        assert sorted(number for _, number in (*old.ran, *new.ran)) == list(range(40))
        with pytest.raises(SubscriptionConflict, match="'bank'"):
            await world.start(Ledger().app)
        await asking.stop()


async def test_services_share_every_priority_by_rules_that_exclude_each_other(world: World) -> None:
    async with world:
        ran: dict[str, list[int]] = {"small": [], "large": []}
        rules = {"small": field("number") < 10, "large": field("number") >= 10}

        def share(name: str) -> App:
            app = App(name, publishes_to=[LEDGER])
            served = app.serve(LEDGER, name=f"ledger.{name}")

            @served.on(Pay, where=rules[name])
            async def pay(command: Pay, ctx: Context) -> Paid:
                ran[name].append(command.number)
                return Paid(ctx.topic, command.number)

            return app

        for name in ran:
            await world.start(share(name))
        asking = await client(world)
        for number in (1, 20):
            for priority, topic in (("high", "ledger.commands.high"), ("normal", "ledger.commands")):
                assert await asking.request(Pay("anna", number), priority=priority) == Paid(topic, number)
        assert ran == {"small": [1, 1], "large": [20, 20]}
        await asking.stop()


async def test_each_priority_is_bounded_by_itself(engine: Engine) -> None:
    bounded = CommandTopic(
        "till",
        owner="till",
        key="customer",
        partitions=1,
        priorities={"high": 0, "normal": 0},
        bound=Bound(records=2, wait_seconds=0.2),
    )

    class Sell(Struct, frozen=True):
        customer: str

    bounded.command("till.Sell")(Sell)
    async with World(engine) as world:
        gate = Gate()
        till = App("till", owns=[bounded])

        @till.serve(bounded, concurrency=1).on(Sell)
        async def sell(command: Sell) -> None:
            await gate.pass_through()

        gate.shut()
        await world.start(till)
        asking = await client(world, bounded)
        await eventually(lambda: all(each.owned for each in till.consumers), "both priorities are served")
        flood = await asyncio.gather(*(asking.send(Sell("anna")) for _ in range(8)), return_exceptions=True)
        assert [type(each) for each in flood if isinstance(each, Exception)] == [BackPressure] * 6
        ticket = await asking.send(Sell("anna"), priority="high")
        gate.open()
        await ticket.outcome(60)
        await asking.stop()


async def test_a_priority_that_the_topic_has_not_is_refused_with_nothing_stored(world: World) -> None:
    async with world:
        await world.start(Ledger().app)
        asking = await client(world)
        with pytest.raises(UsageError, match="no priority 'urgent'"):
            await asking.send(Pay("anna", 1), request_id="r-1", priority="urgent")
        assert await all_records(world.log, LEDGER.tickets.name) == []
        await asking.stop()
