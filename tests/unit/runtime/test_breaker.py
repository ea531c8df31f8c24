"""Breakers: while a backend is away its records wait, use up no attempts, and nothing is given up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Struct

from postline import App, Breaker, CommandTopic, DeadLetter, Refused, Retry, SettingsError, Subscription, Topic
from postline.testing import TestApp

ONE_BY_ONE = Retry(immediate=0, delays=(1, 1, 1))
BREAKER = Breaker(failures=3, probe_seconds=2, probe_seconds_max=8)


class Paid(Struct, frozen=True):
    payment: str


class Sent(Struct, frozen=True):
    payment: str


class Bank:
    """The backend: there or not, and what it was asked."""

    def __init__(self) -> None:
        self.away = True
        self.asked: list[str] = []
        self.done: list[str] = []

    async def book(self, message: Any) -> None:
        self.asked.append(message.payment)
        if self.away:
            raise ConnectionError("nobody is there")
        self.done.append(message.payment)

    def book_plainly(self, message: Any) -> None:
        self.asked.append(message.payment)
        if self.away:
            raise ConnectionError("nobody is there")
        self.done.append(message.payment)

    async def book_all(self, messages: list[Any]) -> None:
        self.asked += [each.payment for each in messages]
        if self.away:
            raise ConnectionError("nobody is there")
        self.done += [each.payment for each in messages]


def declared(**policy: Any) -> tuple[App, Subscription, list[str]]:
    """An app whose subscription handles Sent at once, and Paid as the test says."""
    topic = Topic("payments", owner="shop", key="payment", partitions=1)
    topic.event("shop.Paid")(Paid)
    topic.event("shop.Sent")(Sent)
    app = App("shop", owns=[topic])
    subscription = app.subscribe("booking", topic, start="earliest", **({"retry": ONE_BY_ONE} | policy))
    sent: list[str] = []
    if policy.get("batch") is None:

        @subscription.on(Sent)
        async def note(message: Sent) -> None:
            sent.append(message.payment)

    return app, subscription, sent


WAYS: list[tuple[str, dict[str, Any]]] = [("book", {}), ("book_plainly", {}), ("book_all", {"batch": 50})]


@pytest.mark.parametrize(("handler", "policy"), WAYS, ids=[way for way, _ in WAYS])
async def test_records_of_a_backend_that_is_away_wait_and_are_handled_in_order_once_it_is_back(
    handler: str, policy: dict[str, Any]
) -> None:
    bank = Bank()
    app, subscription, _ = declared(**policy)
    subscription.on(Paid, breaker=BREAKER)(getattr(bank, handler))
    async with TestApp(app) as t:
        await app.publish_many([Paid(f"{key}") for _ in range(3) for key in range(20)])
        await t.advance(minutes=10)
        assert len(bank.asked) < 200, "one look each eight seconds, with one record"
        assert t.dead_letters("booking") == []
        bank.away = False
        await t.advance(seconds=20)
        await t.settle()
        assert sorted(bank.done) == sorted(f"{key}" for _ in range(3) for key in range(20))
        assert t.dead_letters("booking") == []


async def test_the_time_between_looks_doubles_up_to_its_most() -> None:
    bank = Bank()
    app, subscription, _ = declared()
    subscription.on(Paid, breaker=BREAKER)(bank.book)
    async with TestApp(app) as t:
        await app.publish_many([Paid(f"{key}") for key in range(10)])
        await t.settle()
        assert len(bank.asked) == 3
        looks = []
        for _ in range(30):
            before = len(bank.asked)
            await t.advance(seconds=1)
            looks.append(len(bank.asked) - before)
        assert [second for second, number in enumerate(looks, 1) if number] == [2, 6, 14, 22, 30]
        assert max(looks) == 1


async def test_other_handlers_go_on_while_one_waits_for_its_backend() -> None:
    bank = Bank()
    app, subscription, sent = declared()
    subscription.on(Paid, breaker=BREAKER)(bank.book)
    async with TestApp(app) as t:
        await app.publish_many([Paid(f"{key}") for key in range(5)])
        await t.settle()
        await app.publish_many([Sent("0"), Sent("7"), Sent("8")])
        await t.settle()
        assert sent == ["7", "8"], "key 0 keeps its order"
        bank.away = False
        await t.advance(seconds=5)
        await t.settle()
        assert sent == ["7", "8", "0"]


async def test_the_failure_that_opens_it_is_no_attempt() -> None:
    bank = Bank()
    app, subscription, _ = declared(retry=Retry(immediate=2, delays=()))
    subscription.on(Paid, breaker=BREAKER)(bank.book)
    async with TestApp(app) as t:
        await app.publish(Paid("a"))
        await t.advance(minutes=1)
        assert t.dead_letters("booking") == []
        bank.away = False
        await t.advance(seconds=10)
        await t.settle()
        assert bank.done == ["a"]


async def test_a_poison_record_does_not_stand_for_a_dead_backend_while_others_get_through() -> None:
    done = []

    async def book(message: Paid) -> None:
        if message.payment == "poison":
            raise ConnectionError("not with this one")
        done.append(message.payment)

    app, subscription, _ = declared()
    subscription.on(Paid, breaker=BREAKER)(book)
    async with TestApp(app) as t:
        await app.publish(Paid("poison"))
        await t.advance(seconds=30)
        assert t.dead_letters("booking") == []
        for number in range(3):
            await app.publish(Paid(f"{number}"))
            await t.advance(seconds=10)
        await t.settle()
        assert done == ["0", "1", "2"]
        assert len(t.dead_letters("booking")) == 1


@pytest.mark.parametrize(
    ("error", "retry"),
    [
        (lambda: DeadLetter("no"), ONE_BY_ONE),
        (lambda: ValueError("no"), ONE_BY_ONE),
        (lambda: ConnectionResetError("no"), Retry(immediate=0, delays=(1, 1, 1), never=(ConnectionResetError,))),
    ],
    ids=["verdict", "other-error", "never"],
)
async def test_what_says_nothing_of_the_backend_does_not_open_it(error: Callable[[], Exception], retry: Retry) -> None:
    async def book(message: Paid) -> None:
        raise error()

    app, subscription, _ = declared(retry=retry)
    subscription.on(Paid, breaker=Breaker(failures=3, errors=(ConnectionError, DeadLetter)))(book)
    async with TestApp(app) as t:
        await app.publish_many([Paid(f"{key}") for key in range(10)])
        await t.advance(seconds=30)
        assert len(t.dead_letters("booking")) == 10


async def test_handlers_that_are_given_one_breaker_stand_and_fall_together() -> None:
    bank = Bank()
    topic = CommandTopic("bank", owner="bank", key="payment")
    topic.command("bank.Pay", refusals=(Sent,))(Paid)

    class Refund(Struct, frozen=True):
        payment: str

    topic.command("bank.Refund")(Refund)
    app, client = App("bank", owns=[topic]), App("shop", publishes_to=[topic])
    served = app.serve(topic, retry=ONE_BY_ONE)
    breaker = Breaker(failures=3, probe_seconds=60)
    served.on(Paid, breaker=breaker)(bank.book)

    @served.on(Refund, breaker=breaker)
    async def refund(message: Refund) -> None:
        bank.asked.append("refund")
        raise Refused(Sent(message.payment))

    async with TestApp(app, client) as t:
        for key in range(3):
            await client.send(Paid(f"{key}"))
        await t.settle()
        await client.send(Refund("a"))
        await t.settle()
        assert "refund" not in bank.asked


async def test_a_refusal_is_an_answer() -> None:
    topic = CommandTopic("bank", owner="bank", key="payment")
    topic.command("bank.Pay", refusals=(Sent,))(Paid)
    app, client = App("bank", owns=[topic]), App("shop", publishes_to=[topic])
    bank = Bank()

    async def book(message: Paid) -> None:
        if not bank.away:
            raise Refused(Sent(message.payment))
        await bank.book(message)

    app.serve(topic, retry=ONE_BY_ONE).on(Paid, breaker=BREAKER)(book)
    async with TestApp(app, client) as t:
        tickets = [await client.send(Paid(f"{key}")) for key in range(5)]
        await t.advance(seconds=30)
        bank.away = False
        await t.advance(seconds=10)
        await t.settle()
        assert {(await ticket.status()).state for ticket in tickets} == {"refused"}


async def test_tasks_wait_for_their_backend() -> None:
    app, bank = App("shop"), Bank()

    @app.task(breaker=BREAKER, retry=ONE_BY_ONE)
    async def book(payment: str) -> None:
        await bank.book(Paid(payment))

    async with TestApp(app) as t:
        tickets = [await book.send(f"{number}") for number in range(8)]
        await t.advance(minutes=5)
        bank.away = False
        await t.advance(seconds=20)
        await t.settle()
        assert [(await ticket.status()).state for ticket in tickets] == ["succeeded"] * 8


async def test_limits_hold_beside_a_breaker() -> None:
    bank = Bank()
    app, subscription, sent = declared()
    subscription.on(Paid, breaker=BREAKER, concurrency=2)(bank.book)
    async with TestApp(app) as t:
        await app.publish_many([Paid(f"{key}") for key in range(10)])
        await t.advance(minutes=1)
        await app.publish(Sent("x"))
        await t.settle()
        assert sent == ["x"]
        bank.away = False
        await t.advance(seconds=20)
        await t.settle()
        assert sorted(bank.done) == [f"{key}" for key in range(10)]


def test_a_breaker_that_makes_no_sense_is_refused() -> None:
    for said in ({"failures": 0}, {"probe_seconds": 0}, {"probe_seconds": 5, "probe_seconds_max": 1}, {"errors": ()}):
        with pytest.raises(SettingsError, match="Breaker can't be used"):
            Breaker(**said)


async def test_a_ladder_that_gives_up_before_the_breaker_opens_is_refused() -> None:
    app, subscription, _ = declared(retry=Retry(immediate=0, delays=()))
    subscription.on(Paid, breaker=BREAKER)(Bank().book)
    with pytest.raises(SettingsError, match="before its breaker opens after 3 failures"):
        async with TestApp(app):
            pass
