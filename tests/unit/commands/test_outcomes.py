"""What becomes of a command: four outcomes, each told once to whoever asked."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from postline import (
    App,
    Context,
    HandlerFault,
    Refused,
    ReplyOutcome,
    RequestTimeout,
    Retry,
    UsageError,
)
from postline.contracts.cloudevents import CLIENT_ID, OUTCOME, REQUEST_ID
from postline.runtime.control import ControlOp
from postline.testing import TestApp
from tests.unit.commands.ledger import Ledger


def ledger_app(ledger: Ledger) -> TestApp:
    return TestApp(ledger.service, ledger.client)


async def test_a_request_gives_the_reply_of_its_handler() -> None:
    ledger = Ledger()
    async with ledger_app(ledger) as t:
        assert await ledger.client.request(ledger.Transfer("anna", "bob", 30)) == ledger.Transferred(70)
        assert await ledger.client.request(ledger.BalanceOf("anna")) == ledger.Balance(70)
        assert t.audit()["ledger"] == {"done": 2}


async def test_a_refusal_is_raised_and_drops_what_was_published() -> None:
    ledger = Ledger()
    async with ledger_app(ledger) as t:
        with pytest.raises(Refused) as refused:
            await ledger.client.request(ledger.Transfer("anna", "bob", 300))
        assert refused.value.refusal == ledger.InsufficientFunds(200)
        assert ledger.attempts == 1
        assert t.published(ledger.BalanceChanged) == []
        assert t.dead_letters(ledger.served) == []
        assert t.audit()["ledger"] == {"done": 1}


async def test_a_fault_comes_after_the_last_attempt_with_a_dead_letter() -> None:
    ledger = Ledger()
    ledger.failing = [RuntimeError("the disk is on fire")] * 2
    async with ledger_app(ledger) as t:
        with pytest.raises(HandlerFault, match="RuntimeError: the disk is on fire"):
            await ledger.client.request(ledger.Transfer("anna", "bob", 30))
        assert ledger.attempts == 2
        assert len(t.dead_letters(ledger.served)) == 1


async def test_a_redrive_adds_to_the_ticket_and_sends_no_second_reply() -> None:
    ledger = Ledger()
    ledger.failing = [RuntimeError("once")] * 2
    async with ledger_app(ledger) as t:
        ticket = await ledger.client.send(ledger.Transfer("anna", "bob", 30))
        assert (await ticket.ended()).outcome is ReplyOutcome.FAULT
        await t.redrive(ledger.served)
        await t.settle()
        assert (await ticket.status()).state == "succeeded"
        replies = [each for each in t.log_records(ledger.topic.replies) if each[1].headers[REQUEST_ID]]
        assert [envelope.headers[OUTCOME] for _, envelope in replies] == ["fault"]


async def test_a_redrive_is_tried_after_the_expiry_and_a_later_reply_of_it_goes_to_the_ticket_alone() -> None:
    ledger = Ledger()
    failing, tokens = [RuntimeError("once")] * 2, []

    @ledger.served.on(ledger.Peek)
    async def peek(query: object, ctx: Context) -> None:
        if failing:
            raise failing.pop()
        tokens.append(ctx.reply_later())

    async with ledger_app(ledger) as t:
        ticket = await ledger.client.send(ledger.Peek("anna"), timeout=30)
        assert (await ticket.ended()).outcome is ReplyOutcome.FAULT
        await t.advance(minutes=5)
        await t.redrive(ledger.served)
        await t.settle()
        await ledger.service.reply(tokens[0], ledger.Balance(3))
        await t.settle()
        assert (await ticket.status()).state == "succeeded"
        assert len(t.log_records(ledger.topic.replies)) == 1


async def test_a_refusal_that_can_not_be_written_is_a_failed_attempt() -> None:
    ledger = Ledger()

    @ledger.served.on(ledger.Peek)
    async def peek(query: object, ctx: Context) -> object:
        raise Refused(ledger.TooPoor("x" * 2_000_000))

    async with ledger_app(ledger):
        with pytest.raises(HandlerFault, match="MessageTooLarge"):
            await ledger.client.request(ledger.Peek("anna"))


async def test_a_command_that_a_reset_passes_over_ends_in_a_fault() -> None:
    ledger = Ledger(retry=Retry(immediate=0, delays=(3600,)))
    ledger.failing = [RuntimeError("for now")]
    async with ledger_app(ledger) as t:
        ticket = await ledger.client.send(ledger.Transfer("anna", "bob", 30))
        await t.advance(seconds=1)
        await t.control(ledger.served, ControlOp(op="reset", time_ms=t.clock.now_ms() + 1_000))
        await t.settle()
        with pytest.raises(HandlerFault, match="moved the service's position past it"):
            await ticket.outcome()


async def test_a_request_can_be_repeated_for_as_long_as_its_ticket_is_kept() -> None:
    ledger = Ledger(kept=timedelta(days=30))
    async with ledger_app(ledger) as t:
        first = await ledger.client.request(ledger.Transfer("anna", "bob", 30), request_id="r-1")
        await t.advance(days=8)
        for number in range(10_200):
            await ledger.client.send(ledger.Transfer(f"account {number % 3}", "bob", 0))
        await t.settle()
        before = ledger.attempts
        assert await ledger.client.request(ledger.Transfer("anna", "bob", 30), request_id="r-1") == first
        await t.settle()
        assert ledger.attempts == before


@pytest.mark.parametrize(("kept", "later"), [(1, 2), (7, 9)])
async def test_a_repetition_whose_outcome_is_not_kept_any_more_is_not_run_and_told_so(kept: int, later: int) -> None:
    ledger = Ledger(kept=timedelta(days=kept))
    async with ledger_app(ledger) as t:
        await ledger.client.request(ledger.Transfer("anna", "bob", 30), request_id="r-1")
        await t.advance(days=later)
        again = await ledger.client.send(ledger.Transfer("anna", "bob", 30), request_id="r-1")
        with pytest.raises(HandlerFault, match="OutcomeGone: the request was handled before"):
            await again.outcome()
        await t.settle()
        with pytest.raises(HandlerFault, match="OutcomeGone"):  # by whoever reads tickets alone, too
            await ledger.client.ticket("r-1").outcome()
        assert ledger.attempts == 1


async def test_a_repetition_of_a_request_that_is_still_open_or_ended_late_gets_its_outcome() -> None:
    ledger = Ledger(
        kept=timedelta(days=1), retry=Retry(immediate=0, delays=(timedelta(days=2).total_seconds(),), jitter=0)
    )
    ledger.failing = [RuntimeError("not today")]
    async with ledger_app(ledger) as t:
        await ledger.client.send(ledger.Transfer("anna", "bob", 30), request_id="r-1")
        await t.advance(hours=36)
        again = await ledger.client.send(ledger.Transfer("anna", "bob", 30), request_id="r-1")
        await t.settle()
        assert (await again.status()).state == "open"
        await t.advance(hours=13)
        assert await again.outcome() == ledger.Transferred(70)
        late = await ledger.client.send(ledger.Transfer("anna", "bob", 30), request_id="r-1")
        assert await late.outcome() == ledger.Transferred(70)
        await t.settle()
        assert (await late.status()).state == "succeeded"


async def test_every_record_that_a_command_causes_names_client_and_request() -> None:
    ledger = Ledger()
    async with ledger_app(ledger) as t:
        await ledger.client.request(ledger.Transfer("anna", "bob", 30), request_id="r-1")
        ((_, event),) = t.envelopes(ledger.BalanceChanged)
        told = [event.headers]
        for topic in ledger.topic.topics:
            told += [envelope.headers for _, envelope in t.log_records(topic)]
        assert len(told) == 5  # the note of what the request was first sent as, too
        assert {(each[CLIENT_ID], each[REQUEST_ID]) for each in told} == {("shop", "r-1")}


async def test_repeating_a_request_gives_the_first_outcome_and_does_nothing_twice() -> None:
    ledger = Ledger()
    async with ledger_app(ledger):
        first = await ledger.client.request(ledger.Transfer("anna", "bob", 30), request_id="r-1")
        assert await ledger.client.request(ledger.Transfer("anna", "bob", 30), request_id="r-1") == first
        assert ledger.attempts == 1


async def test_a_client_that_died_finds_its_outcome_after_a_restart() -> None:
    ledger = Ledger()
    async with ledger_app(ledger) as t:
        await ledger.client.send(ledger.Transfer("anna", "bob", 30), request_id="r-1")
        await t.crash(ledger.client)
        await t.settle()
        await t.start(ledger.client)
        assert await ledger.client.ticket("r-1").outcome() == ledger.Transferred(70)


async def test_a_server_that_died_answers_once_after_its_restart() -> None:
    ledger = Ledger()
    async with ledger_app(ledger) as t:
        await t.crash(ledger.service)
        ticket = await ledger.client.send(ledger.Transfer("anna", "bob", 30))
        assert (await ticket.status()).state == "open"
        await t.start(ledger.service)
        assert await ticket.outcome() == ledger.Transferred(70)
        assert len(t.log_records(ledger.topic.replies)) == 1


async def test_an_expired_command_is_not_run_and_answered_with_a_timeout() -> None:
    ledger = Ledger()
    async with ledger_app(ledger) as t:
        await t.stop(ledger.service)
        ticket = await ledger.client.send(ledger.Transfer("anna", "bob", 30), timeout=5)
        await t.advance(seconds=6)
        await t.start(ledger.service)
        with pytest.raises(RequestTimeout, match="expired"):
            await ticket.outcome()
        assert ledger.attempts == 0
        assert t.audit()["ledger"] == {"expired": 1}


async def test_a_request_times_out_and_its_ticket_stays_open() -> None:
    ledger = Ledger()
    async with ledger_app(ledger) as t:
        await t.stop(ledger.service)
        asking = asyncio.ensure_future(ledger.client.request(ledger.Transfer("anna", "bob", 30), timeout=5))
        await t.settle()
        await t.advance(seconds=5)
        with pytest.raises(RequestTimeout) as error:
            await asking
        assert (await ledger.client.ticket(error.value.request_id).status()).state == "open"


async def test_a_cancelled_command_is_refused_if_it_has_not_begun() -> None:
    ledger = Ledger()
    async with ledger_app(ledger) as t:
        await t.stop(ledger.service)
        ticket = await ledger.client.send(ledger.Transfer("anna", "bob", 30))
        await ticket.cancel()
        await t.start(ledger.service)
        await t.settle()
        assert (await ticket.status()).state == "cancelled"
        assert ledger.attempts == 0


async def test_cancelling_too_late_changes_nothing() -> None:
    ledger = Ledger()
    async with ledger_app(ledger) as t:
        ticket = await ledger.client.send(ledger.Transfer("anna", "bob", 30))
        await t.settle()
        await ticket.cancel()
        await t.settle()
        assert await ticket.outcome() == ledger.Transferred(70)


async def test_a_query_that_publishes_fails() -> None:
    ledger = Ledger()

    @ledger.served.on(ledger.Peek)
    async def peek(query: object, ctx: Context) -> object:
        ctx.publish(ledger.BalanceChanged("anna", 1))
        return ledger.Balance(1)

    async with ledger_app(ledger):
        with pytest.raises(HandlerFault, match="A query changes nothing"):
            await ledger.client.request(ledger.Peek("anna"))


async def test_a_command_that_nobody_handles_is_a_fault() -> None:
    ledger = Ledger()
    async with ledger_app(ledger):
        with pytest.raises(HandlerFault, match="handles no"):
            await ledger.client.request(ledger.Peek("anna"))


async def test_a_reply_can_come_later_from_anywhere_also_after_a_restart() -> None:
    ledger = Ledger()
    tokens = []

    @ledger.served.on(ledger.Peek)
    async def peek(query: object, ctx: Context) -> None:
        tokens.append(ctx.reply_later())

    async with ledger_app(ledger) as t:
        ticket = await ledger.client.send(ledger.Peek("anna"))
        await t.settle()
        assert (await ticket.status()).state == "open"
        await t.crash(ledger.service)
        await t.start(ledger.service)
        await ledger.service.reply(tokens[0], ledger.Balance(7))
        await ledger.service.reply(tokens[0], ledger.Balance(8))
        assert await ticket.outcome() == ledger.Balance(7)
        await t.settle()
        assert len(t.log_records(ledger.topic.replies)) == 1


async def test_a_promised_reply_that_does_not_come_in_time_is_a_timeout_and_later_ones_count_no_more() -> None:
    ledger = Ledger()
    tokens = []

    @ledger.served.on(ledger.Peek)
    async def peek(query: object, ctx: Context) -> None:
        tokens.append(ctx.reply_later())

    async with ledger_app(ledger) as t:
        ticket = await ledger.client.send(ledger.Peek("anna"), timeout=60)
        in_time = await ledger.client.send(ledger.Peek("bob"), timeout=60)
        await t.settle()
        await t.crash(ledger.service)
        await t.start(ledger.service)
        await ledger.service.reply(tokens[1], ledger.Balance(5))
        await t.advance(seconds=61)
        with pytest.raises(RequestTimeout, match="promised did not come"):
            await ticket.outcome()
        assert await in_time.outcome() == ledger.Balance(5)
        await ledger.service.reply(tokens[0], ledger.Balance(7))
        await t.settle()
        assert len(t.log_records(ledger.topic.replies)) == 2


async def test_a_delayed_command_leaves_later_and_its_timeout_counts_from_then() -> None:
    ledger = Ledger()
    client = App("later", publishes_to=[ledger.topic], schedules=True)
    async with TestApp(ledger.service, client) as t:
        ticket = await client.send(ledger.Transfer("anna", "bob", 30), delay=3600, timeout=10)
        cancelled = await client.send(ledger.Transfer("anna", "bob", 30), delay=3600)
        await cancelled.cancel()
        await t.advance(minutes=59)
        assert ledger.attempts == 0
        await t.advance(minutes=2)
        assert await ticket.outcome() == ledger.Transferred(70)
        assert (await cancelled.status()).state == "cancelled"


async def test_a_handler_sends_a_delayed_command() -> None:
    ledger = Ledger()
    dunning = App("dunning", publishes_to=[ledger.topic, ledger.balances])
    watching = dunning.subscribe("dunning", ledger.balances, start="earliest")

    @watching.on(ledger.BalanceChanged, where=lambda changed: changed.amount == 70)
    async def charge(changed: object, ctx: Context) -> None:
        ctx.send(ledger.Transfer("anna", "bank", 5), delay=60)

    async with TestApp(ledger.service, ledger.client, dunning) as t:
        await ledger.client.request(ledger.Transfer("anna", "bob", 30))
        await t.settle()
        assert ledger.attempts == 1
        await t.advance(seconds=61)
        assert ledger.attempts == 2


async def test_progress_is_seen_before_the_outcome() -> None:
    ledger = Ledger()
    goes_on = asyncio.Event()

    @ledger.served.on(ledger.Peek)
    async def peek(query: object, ctx: Context) -> object:
        await ctx.progress("half way")
        await goes_on.wait()
        return ledger.Balance(1)

    async with ledger_app(ledger) as t:
        ticket = await ledger.client.send(ledger.Peek("anna"))
        while not (status := await ticket.status()).note:
            await asyncio.sleep(0)
        assert (status.state, status.note) == ("open", "half way")
        goes_on.set()
        await t.settle()
        assert (await ticket.status()).state == "succeeded"


async def test_commands_are_sent_and_events_published() -> None:
    ledger = Ledger()
    async with ledger_app(ledger):
        with pytest.raises(UsageError, match="is a command"):
            await ledger.client.publish(ledger.Transfer("anna", "bob", 30))
        with pytest.raises(UsageError, match="no command"):
            await ledger.client.send(ledger.BalanceChanged("anna", 1))
