"""Delayed messages: when they leave, how they are cancelled, what they survive."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from postline import App, Context, MessageTooLarge, Retry, Topic, UsageError
from postline.runtime.delays import DelayToken
from postline.runtime.entries import TIMER_NOTES, TIMERS
from postline.testing import TestApp, TestContext
from postline.testing.ledger import entries, instantly

ORDERS = Topic("shop.orders", owner="shop", key="customer", partitions=4)


@ORDERS.event("shop.OrderPlaced")
class OrderPlaced(msgspec.Struct, frozen=True):
    """What a handler answers with something later."""

    customer: str
    number: int = 0


@ORDERS.event("shop.Reminder")
class Reminder(msgspec.Struct, frozen=True):
    """What leaves later."""

    customer: str
    number: int = 0
    text: str = ""


class Shop:
    """A service that reminds a customer of each order later."""

    def __init__(self, *delays: Any, fails: int = 0, schedules: bool = False, **said: Any) -> None:
        self.app = App("shop", owns=[ORDERS], schedules=schedules)
        self.tokens: list[str] = []
        self.reminded: list[tuple[str, int]] = []
        self.at_ms: list[int] = []
        options: dict[str, Any] = {"retry": Retry(immediate=5, delays=()), **said}
        work = self.app.subscribe("work", ORDERS, start="earliest", **options)

        @work.on(OrderPlaced)
        async def placed(order: OrderPlaced, ctx: Context) -> None:
            self.tokens += [ctx.publish(Reminder(order.customer, order.number), **delay) for delay in delays]
            if ctx.attempt <= fails:
                raise ValueError("not yet")

        @work.on(Reminder)
        async def remind(reminder: Reminder, ctx: Context) -> None:
            self.reminded.append((reminder.customer, reminder.number))
            self.at_ms.append(ctx.record[1])
            if reminder.text:
                ctx.cancel(reminder.text)


def waiting(t: TestApp, subscription: str = "work") -> int:
    """How many timers the subscription has in state; AssertionError if it has notes without timers."""
    infos = instantly(t.log.partitions(subscription))
    timers = sum(len(list(entries(t.log, subscription, info.partition, TIMERS))) for info in infos)
    notes = [
        key for info in infos for key, _ in entries(t.log, subscription, info.partition, TIMER_NOTES) if key[:1] == b"p"
    ]
    assert len(notes) <= timers
    return timers


async def test_a_delayed_message_leaves_at_its_time_and_not_before() -> None:
    shop = Shop({"delay": 60}, {"delay": timedelta(hours=1)})
    async with TestApp(shop.app) as t:
        asked_ms = t.clock.now_ms()
        await t.publish(OrderPlaced("ann"))
        await t.advance(seconds=59.9)
        assert (shop.reminded, waiting(t)) == ([], 2)
        await t.advance(seconds=0.2)
        assert (shop.reminded, waiting(t)) == ([("ann", 0)], 1)
        await t.advance(hours=1)
        assert [each - asked_ms for each in shop.at_ms] == [60_000, 3_600_000]
        assert waiting(t) == 0
        (_, first), (_, second) = t.envelopes(Reminder)
        assert (first.time_ms, first.id == second.id) == (asked_ms, False)


async def test_a_message_leaves_at_the_time_that_was_asked_for_in_any_zone() -> None:
    at = datetime(2024, 3, 1, 9, tzinfo=ZoneInfo("Asia/Tokyo"))
    shop = Shop({"at": at})
    async with TestApp(shop.app, start_ms=int(datetime(2024, 2, 29, tzinfo=UTC).timestamp() * 1000)) as t:
        await t.publish(OrderPlaced("ann"))
        await t.advance(days=2)
        assert shop.at_ms == [int(at.timestamp() * 1000)]


async def test_what_is_due_already_leaves_at_once() -> None:
    shop = Shop({"delay": 0}, {"at": datetime(1999, 1, 1, tzinfo=UTC)})
    async with TestApp(shop.app) as t:
        await t.publish(OrderPlaced("ann"))
        await t.settle()
        assert (len(shop.reminded), waiting(t)) == (2, 0)


async def test_an_attempt_that_fails_delays_nothing() -> None:
    shop = Shop({"delay": 60}, fails=3)
    async with TestApp(shop.app) as t:
        await t.publish(OrderPlaced("ann"))
        await t.settle()
        assert (len(shop.tokens), waiting(t)) == (4, 1)
        await t.advance(minutes=2)
        assert shop.reminded == [("ann", 0)]


async def test_messages_of_one_attempt_have_ids_of_their_own_delayed_or_not() -> None:
    shop = Shop({}, {"delay": 60}, {}, {"delay": 60})
    async with TestApp(shop.app) as t:
        await t.publish(OrderPlaced("ann"))
        await t.advance(minutes=2)
        assert len({envelope.id for _, envelope in t.envelopes(Reminder)}) == 4


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("batch", [None, 10])
async def test_every_kind_of_handler_can_delay(batch: int | None, plain: bool) -> None:
    app = App("shop", owns=[ORDERS])
    work = app.subscribe("work", ORDERS, start="earliest", batch=batch)

    def delays(message: Any, ctx: Context) -> None:
        for order in message if batch else (message,):
            ctx.publish(Reminder(order.customer), delay=60)

    async def delays_too(message: Any, ctx: Context) -> None:
        delays(message, ctx)

    work.on(OrderPlaced)(delays if plain else delays_too)
    async with TestApp(app) as t:
        await t.publish_many([OrderPlaced("ann"), OrderPlaced("bob")])
        await t.advance(minutes=2)
        assert sorted(each.customer for each in t.published(Reminder)) == ["ann", "bob"]


async def test_what_waits_survives_a_crash_of_its_owner_and_leaves_once() -> None:
    shop = Shop({"delay": 60})
    async with TestApp(shop.app) as t:
        await t.publish_many([OrderPlaced("ann", n) for n in range(20)])
        await t.settle()
        await t.crash(shop.app)
        await t.start(again := Shop().app)
        await t.advance(minutes=2)
        assert [each.number for each in t.published(Reminder)] == list(range(20))
        await t.stop(again)


async def test_what_came_due_while_nobody_was_there_leaves_with_the_next_owner() -> None:
    shop = Shop({"delay": 60})
    async with TestApp(shop.app) as t:
        await t.publish(OrderPlaced("ann"))
        await t.settle()
        await t.stop(shop.app)
        t.clock.move_to(t.clock.monotonic() + 3600)
        await t.start((second := Shop()).app)
        await t.settle()
        assert second.reminded == [("ann", 0)]


async def test_timers_fire_under_an_operators_pause() -> None:
    from postline.runtime.control import ControlOp

    shop = Shop({"delay": 60})
    async with TestApp(shop.app) as t:
        await t.publish(OrderPlaced("ann"))
        await t.settle()
        await t.control("work", ControlOp(op="pause"))
        await t.advance(minutes=2)
        assert (len(t.published(Reminder)), shop.reminded) == (1, [])
        await t.control("work", ControlOp(op="resume"))
        await t.settle()
        assert shop.reminded == [("ann", 0)]


async def test_publishing_at_once_gives_nothing_that_a_handler_could_return_by_accident() -> None:
    app = App("shop", owns=[ORDERS])
    app.subscribe("work", ORDERS, start="earliest").on(OrderPlaced)(
        lambda order, ctx: ctx.publish(Reminder(order.customer))
    )
    async with TestApp(app) as t:
        await t.publish(OrderPlaced("ann"))
        await t.settle()
        assert (t.published(Reminder), t.dead_letters("work")) == ([Reminder("ann")], [])


def test_a_handler_that_delays_can_be_called_by_hand() -> None:
    ctx = TestContext()
    token = ctx.publish(Reminder("ann"), delay=60)
    ctx.cancel(token)
    assert ctx.published == [Reminder("ann")]
    with pytest.raises(UsageError, match="no token"):
        ctx.cancel("nonsense")


async def test_the_apps_own_cancel_is_refused_in_a_handler() -> None:
    app, refused = App("shop", owns=[ORDERS], schedules=True), []

    @app.subscribe("work", ORDERS, start="earliest").on(OrderPlaced)
    async def placed(order: OrderPlaced) -> None:
        with pytest.raises(UsageError, match=r"app\.cancel was called in a handler") as error:
            await app.cancel(order.customer)
        refused.append(error.value.remedy)

    async with TestApp(app) as t:
        await t.publish(OrderPlaced("ann"))
        await t.settle()
    assert "ctx.cancel" in refused[0]


# -- cancelling --------------------------------------------------------------------------------


async def test_a_cancelled_message_never_leaves() -> None:
    shop = Shop({"delay": 60}, {"delay": 90})
    async with TestApp(shop.app) as t:
        await t.publish(OrderPlaced("ann"))
        await t.settle()
        assert await shop.app.cancel(shop.tokens[0]) is True
        assert await shop.app.cancel(shop.tokens[0]) is True
        await t.advance(minutes=5)
        assert len(shop.reminded) == 1
        assert await shop.app.cancel(shop.tokens[0]) is True
        assert await shop.app.cancel(shop.tokens[1]) is False
        assert waiting(t) == 0


async def test_a_handler_cancels_with_its_settlement() -> None:
    shop = Shop({"delay": 60})
    async with TestApp(shop.app) as t:
        await t.publish(OrderPlaced("ann"))
        await t.settle()
        await t.publish(Reminder("bob", text=shop.tokens[0]))
        await t.advance(minutes=5)
        assert shop.reminded == [("bob", 0)]


async def test_cancelling_before_the_delay_was_taken_up_counts() -> None:
    shop = Shop(schedules=True)
    async with TestApp(shop.app) as t:
        await t.stop(shop.app)
        await shop.app.start(t.environment(), consume=False)
        published = await shop.app.publish(Reminder("ann"), delay=60)
        assert await shop.app.cancel(published.token) is None
        await shop.app.stop()
        await t.start((second := Shop(schedules=True)).app)
        await t.advance(minutes=5)
        assert second.reminded == []
        assert waiting(t, "shop.schedules") == 0


async def test_cancelling_while_nobody_is_there_comes_before_what_is_overdue_by_then() -> None:
    shop = Shop({"delay": 60}, schedules=True)
    async with TestApp(shop.app) as t:
        await t.publish(OrderPlaced("ann"))
        await t.settle()
        await t.stop(shop.app)
        await shop.app.start(t.environment(), consume=False)
        assert await shop.app.cancel(shop.tokens[0]) is None
        await shop.app.stop()
        t.clock.move_to(t.clock.monotonic() + 3600)
        await t.start(Shop(schedules=True).app)
        await t.settle()
        assert t.published(Reminder) == []
        assert waiting(t) == 0


async def test_a_timer_that_fires_while_its_cancellation_asks_the_log_is_not_said_to_be_cancelled() -> None:
    shop = Shop({"delay": 60})
    async with TestApp(shop.app) as t:
        await t.publish(OrderPlaced("ann"))
        await t.settle()
        token = DelayToken.read(shop.tokens[0])
        owned = shop.app.consumers[0].owned[token.partition]
        asked, read = asyncio.Event(), owned.read_entry

        async def slow(namespace: str, key: bytes) -> bytes | None:
            found = await read(namespace, key)
            if namespace == TIMERS:
                asked.set()
                while not shop.reminded:
                    await asyncio.sleep(0)
            return found

        owned.read_entry = slow  # type: ignore[method-assign]
        cancelling = asyncio.create_task(owned.timers.revoke(token))
        await asked.wait()
        await t.advance(minutes=2)
        assert await cancelling is False
        assert shop.reminded == [("ann", 0)]


async def test_a_token_that_is_none_is_refused_with_its_remedy() -> None:
    shop = Shop(schedules=True)
    async with TestApp(shop.app):
        for text in ("", "x", "é", "AAAA", str(DelayToken("work", -1, 1, 0, "x"))):
            with pytest.raises(UsageError, match="no token of a delayed message"):
                await shop.app.cancel(text)
        with pytest.raises(UsageError, match="has no partition 77"):
            await shop.app.cancel(str(DelayToken("work", 77, 1, 0, "x")))


async def test_a_control_record_with_a_bad_token_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    from postline.runtime.control import ControlOp

    shop = Shop({"delay": 60})
    async with TestApp(shop.app) as t:
        await t.control("work", ControlOp(op="unschedule", token="nonsense"))
        await t.publish(OrderPlaced("ann"))
        await t.advance(minutes=2)
        assert shop.reminded == [("ann", 0)]
    assert "no token of a delayed message" in caplog.text


# -- at the edge -------------------------------------------------------------------------------


async def test_a_message_delayed_at_the_edge_leaves_at_its_time() -> None:
    shop = Shop(schedules=True)
    async with TestApp(shop.app) as t:
        asked_ms = t.clock.now_ms()
        published = await shop.app.publish(Reminder("ann"), delay=60, headers={"tint": "blue"})
        await t.advance(seconds=59)
        assert (published.topic, shop.reminded) == ("shop.schedules", [])
        await t.advance(seconds=2)
        assert [each - asked_ms for each in shop.at_ms] == [60_000]
        ((_, envelope),) = t.envelopes(Reminder)
        assert (envelope.id, envelope.headers, envelope.time_ms) == (published.id, {"tint": "blue"}, asked_ms)


async def test_one_of_an_own_id_is_delayed_once_and_cancelled_by_either_token() -> None:
    shop = Shop(schedules=True)
    async with TestApp(shop.app) as t:
        await shop.app.publish(Reminder("ann"), id="remind-1", delay=60)
        await t.advance(seconds=10)
        again = await shop.app.publish(Reminder("ann"), id="remind-1", delay=60)
        await t.settle()
        assert waiting(t, "shop.schedules") == 1
        assert await shop.app.cancel(again.token) is True
        await t.advance(minutes=5)
        assert shop.reminded == []
        for _ in range(2):
            await shop.app.publish(Reminder("bob"), id="remind-2", delay=60)
            await t.advance(minutes=2)
        await shop.app.publish(Reminder("bob"), id="remind-2")
        await t.settle()
        assert shop.reminded == [("bob", 0)]
        assert waiting(t, "shop.schedules") == 0


async def test_messages_of_one_key_and_time_leave_in_the_order_in_which_they_were_delayed() -> None:
    shop = Shop({"delay": 60}, schedules=True)
    async with TestApp(shop.app) as t:
        at = datetime(2024, 1, 1, tzinfo=UTC)
        for n in range(50):
            await shop.app.publish(Reminder("ann", n), at=at)
        await t.advance(days=60)
        assert shop.reminded == [("ann", n) for n in range(50)]


async def test_a_delay_without_schedules_is_refused_with_its_remedy() -> None:
    async with TestApp(Shop().app) as t:
        with pytest.raises(UsageError, match="schedules=True"):
            await t.publish(Reminder("ann"), delay=60)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"delay": -1}, "no time to wait"),
        ({"delay": float("nan")}, "no time to wait"),
        ({"delay": float("inf")}, "no time to wait"),
        ({"delay": timedelta.max}, "after the year 9999"),
        (
            {"at": datetime(2030, 1, 1)},  # noqa: DTZ001 - which is refused
            "says no time zone",
        ),
        ({"at": datetime(2030, 1, 1, tzinfo=UTC), "delay": 1}, "delay= and at="),
    ],
)
async def test_what_is_no_time_is_refused(asked: dict[str, Any], complaint: str) -> None:
    async with TestApp(Shop(schedules=True).app) as t:
        with pytest.raises(UsageError, match=complaint):
            await t.publish(Reminder("ann"), **asked)


async def test_what_is_too_large_to_wait_is_refused_when_it_is_published() -> None:
    refused: list[MessageTooLarge] = []
    app = App("shop", owns=[ORDERS], schedules=True)
    work = app.subscribe("work", ORDERS, start="earliest")

    @work.on(OrderPlaced)
    async def placed(order: OrderPlaced, ctx: Context) -> None:
        try:
            ctx.publish(Reminder(order.customer, text="x" * ((1 << 20) - 100)), delay=60)
        except MessageTooLarge as error:
            refused.append(error)

    async with TestApp(app) as t:
        await t.publish(OrderPlaced("ann"))
        await t.settle()
        assert len(refused) == 1
        with pytest.raises(MessageTooLarge):
            await app.publish(Reminder("ann", text="x" * 900_000), delay=60)


# -- many, and clocks that jump ----------------------------------------------------------------


async def test_thousands_in_one_partition_leave_in_the_order_of_their_time() -> None:
    app = App("shop", owns=[ORDERS])
    work = app.subscribe("work", ORDERS, start="earliest")
    count = 5_000

    @work.on(OrderPlaced)
    async def placed(order: OrderPlaced, ctx: Context) -> None:
        for n in range(order.number, order.number + 1_000):
            ctx.publish(Reminder("ann", n * 7 % count), delay=60 + n * 7 % count)

    @work.on(Reminder)
    async def remind(reminder: Reminder) -> None:
        pass

    async with TestApp(app, attempts_max=1_000_000) as t:
        for first in range(0, count, 1_000):
            await t.publish(OrderPlaced("ann", first))
        await t.settle()
        (owned,) = [each for each in app.consumers[0].owned.values() if each.timers.upcoming.entries]
        assert len(owned.timers.upcoming.entries) <= 2_000
        t.clock.move_to(t.clock.monotonic() + 2 * count)
        await t.settle()
        assert [each.number for each in t.published(Reminder)] == list(range(count))
        assert waiting(t) == 0


async def test_a_clock_that_is_set_forward_has_what_is_due_leave_within_a_minute() -> None:
    shop = Shop({"at": datetime(2024, 1, 1, tzinfo=UTC)})
    async with TestApp(shop.app) as t:
        await t.publish(OrderPlaced("ann"))
        await t.settle()
        t.clock.jump_wall(365 * 86_400)
        await t.advance(seconds=60)
        assert shop.reminded == [("ann", 0)]


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_clock_that_is_set_back_does_not_prolong_a_delay(restarts: bool) -> None:
    shop = Shop({"delay": 600})
    async with TestApp(shop.app) as t:
        await t.publish(OrderPlaced("ann"))
        await t.settle()
        t.clock.jump_wall(-365 * 86_400)
        if restarts:
            await t.crash(shop.app)
            await t.start(Shop().app)
        await t.advance(seconds=700)
        assert len(t.published(Reminder)) == 1
        await t.advance(days=1)
        t.clock.jump_wall(366 * 86_400)
        await t.advance(days=1)
        assert len(t.published(Reminder)) == 1


# -- where it goes -----------------------------------------------------------------------------


async def test_what_goes_to_a_topic_that_is_gone_waits_on_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    from postline.log.port import Append
    from postline.message import Envelope
    from postline.runtime.delays import Due, Waiting, pack_append

    shop = Shop({"delay": 60})
    async with TestApp(shop.app) as t:
        await t.publish(OrderPlaced("ann"))
        await t.settle()
        owned = next(iter(shop.app.consumers[0].owned.values()))
        lost = Append("shop.gone", 0, None, b"{}", Envelope(id="lost", source="shop", type="shop.Gone"))
        owned.timers.put_off(Waiting(Due(t.clock.now_ms() + 1000, 1000), 0, "lost", pack_append(lost, 1)))
        owned.timers.set(t.clock.now_ms() + 1000, "odd", "unheard-of", b"")
        await shop.app.consumers[0]._committer.commit()
        await t.advance(minutes=2)
        assert shop.reminded == [("ann", 0)]
        assert waiting(t) == 2
    assert "topic 'shop.gone', which is gone" in caplog.text
    assert "of kind 'unheard-of'" in caplog.text


async def test_a_record_goes_where_its_key_belongs_when_its_topic_has_more_partitions_by_then() -> None:
    from postline.contracts import Partitioner
    from postline.log.needs import TopicSpec
    from postline.log.port import Append
    from postline.message import Envelope
    from postline.runtime.destinations import Destinations

    async with TestApp() as t:
        await t.log.create_topic(TopicSpec(name="wide", partitions=64, owner="shop"))
        destinations = Destinations(t.log)
        await destinations.look("wide")
        for n in range(20):
            key = f"k{n}".encode()
            append = Append("wide", Partitioner(4).partition_of(key), key, b"", Envelope(id="x"))
            assert destinations.place(append, 4)
            assert append.partition == Partitioner(64).partition_of(key)
