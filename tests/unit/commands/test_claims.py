"""One command has one service: claims that overlap are refused at start, rules that keep apart share the topic."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import Struct

from postline import App, CommandTopic, HandlerFault, Rule, UsageError, field
from postline.commands import Serving
from postline.contracts.cloudevents import CLIENT_ID, REQUEST_ID
from postline.errors import SubscriptionConflict
from postline.log.port import FLAG_OWN_ID, Append
from postline.message import Envelope
from postline.testing import TestApp

LOANS = CommandTopic("loans", owner="bank", key="account")


class Decided(Struct, frozen=True):
    by: str


@LOANS.command("loans.Apply", reply=Decided)
class Apply(Struct, frozen=True):
    account: str
    amount: int


def service(name: str, rule: Rule | None, *, share: str = "", takes_over: str = "") -> App:
    """A service that decides on the applications that the rule gives it."""
    app = App(name, publishes_to=[LOANS])
    served: Serving = app.serve(LOANS, name=share, takes_over=takes_over)

    @served.on(Apply, where=rule)
    async def decide(command: Apply) -> Decided:
        return Decided(name)

    return app


SMALL, LARGE = field("amount") < 1_000, field("amount") >= 1_000


async def test_services_share_a_topic_by_rules_that_exclude_each_other() -> None:
    machine, people = service("machine", SMALL, share="loans.small"), service("people", LARGE, share="loans.large")
    client = App("client", publishes_to=[LOANS])
    async with TestApp(machine, people, client) as t:
        assert await client.request(Apply("anna", 10)) == Decided("machine")
        assert await client.request(Apply("anna", 5_000)) == Decided("people")
        await t.settle()
        assert t.audit() == {name: {"done": 1, "filtered": 1} for name in ("loans.small", "loans.large")}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (service("machine", SMALL, share="loans.small"), service("people", field("amount") > 900, share="loans.large")),
        (service("machine", SMALL, share="loans.small"), service("people", None, share="loans.large")),
        (service("machine", None), service("people", LARGE, share="loans.large")),
        (service("machine", SMALL, share="loans.small"), service("people", None)),
    ],
)
async def test_a_command_that_another_service_may_have_is_refused_at_start(first: App, second: App) -> None:
    async with TestApp(first) as t:
        with pytest.raises(SubscriptionConflict, match=r"service 'machine' does, by subscription 'loans"):
            await t.start(second)
        assert not second.consumers
        await t.settle()


async def test_a_command_is_cancelled_whoever_of_those_that_share_has_it() -> None:
    machine, people = service("machine", SMALL, share="loans.small"), service("people", LARGE, share="loans.large")
    client = App("client", publishes_to=[LOANS])
    async with TestApp(machine, people, client) as t:
        await t.stop(people)
        ticket = await client.send(Apply("anna", 5_000))
        await ticket.cancel()
        await t.start(people)
        await t.settle()
        assert (await ticket.status()).state == "cancelled"


async def test_of_two_that_start_for_the_first_time_at_once_one_is_refused() -> None:
    first, second = service("machine", None), service("people", LARGE, share="loans.large")
    async with TestApp(topics=LOANS.topics) as t:
        started = await asyncio.gather(t.start(first), t.start(second), return_exceptions=True)
        assert [type(each) for each in started if each is not None] == [SubscriptionConflict]
        await t.settle()


async def test_a_refused_version_leaves_the_claim_of_the_one_that_runs() -> None:
    first, other = service("machine", SMALL, share="loans.small"), service("people", LARGE, share="loans.large")
    newer = service("machine", field("amount") < 5_000, share="loans.small")
    third = service("third", SMALL, share="loans.third")
    async with TestApp(first, other) as t:
        await t.advance(minutes=2)
        with pytest.raises(SubscriptionConflict, match="people"):
            await t.start(newer)
        with pytest.raises(SubscriptionConflict, match="machine"):
            await t.start(third)
        await t.settle()


async def test_a_claim_ends_with_its_subscription() -> None:
    first, second = service("machine", SMALL, share="loans.small"), service("people", None)
    async with TestApp(first) as t:
        await t.stop(first)
        await t.log.remove_subscription("loans.small")
        with pytest.raises(SubscriptionConflict):
            await t.start(second)  # it may just be about to be made
        await t.advance(minutes=2)
        await t.start(second)
        await t.settle()


async def test_a_refused_claim_does_not_keep_its_owner_from_starting_again() -> None:
    first, second = service("machine", SMALL, share="loans.small"), service("people", SMALL, share="loans.large")
    async with TestApp(first) as t:
        with pytest.raises(SubscriptionConflict):
            await t.start(second)
        await t.stop(first)
        await t.start(first)
        await t.settle()


def test_rules_of_shares_are_data() -> None:
    app = App("bank", owns=[LOANS])
    with pytest.raises(UsageError, match="nothing can be proven"):
        app.serve(LOANS, name="loans.small").on(Apply, where=lambda command: command.amount < 10)
    with pytest.raises(UsageError, match="Name this share"):
        app.serve(LOANS).on(Apply, where=SMALL)


@pytest.mark.parametrize("value", [b'{"account": "anna", "amount": ', b'{"account": "anna", "amount": "much"}', b""])
async def test_a_command_that_no_share_can_read_is_answered_by_exactly_one(value: bytes) -> None:
    machine, people = service("machine", SMALL, share="loans.small"), service("people", LARGE, share="loans.large")
    client = App("client", publishes_to=[LOANS])
    async with TestApp(people, machine, client) as t:
        ticket = client.ticket("r-1", of=LOANS)
        told = Envelope(id="r-1", source="client", type="loans.Apply", headers={CLIENT_ID: "client", REQUEST_ID: "r-1"})
        await t.log.append([Append("loans.commands", 0, b"anna", value, told, FLAG_OWN_ID)])
        await t.settle()
        with pytest.raises(HandlerFault, match="DecodeError"):
            await ticket.outcome()
        assert len(t.log_records("loans.replies")) == 1
        assert t.audit() == {"loans.large": {"dead-lettered": 1}, "loans.small": {"filtered": 1}}


async def test_the_one_share_of_a_command_answers_for_it_if_others_have_left() -> None:
    machine, people = service("machine", SMALL, share="loans.small"), service("people", LARGE, share="loans.large")
    async with TestApp(people, machine) as t:
        await t.stop(people)
        await t.log.remove_subscription("loans.large")
        told = Envelope(id="r-1", source="client", type="loans.Apply", headers={CLIENT_ID: "client", REQUEST_ID: "r-1"})
        await t.log.append([Append("loans.commands", 0, b"anna", b"{", told, FLAG_OWN_ID)])
        await t.settle()
        assert t.audit() == {"loans.small": {"dead-lettered": 1}}
