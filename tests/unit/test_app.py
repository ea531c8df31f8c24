"""The app: what it refuses at start, what it takes from the log and the environment, and its life."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import Struct

from postline import App, ContractError, Dedup, ForeignTopic, PostlineError, Retry, SettingsError, Topic, UsageError
from postline.app import open_log
from postline.clock import SystemClock
from postline.errors import SubscriptionConflict, TopicMismatch, UnknownTopic
from postline.log.port import Append
from postline.message import Envelope
from postline.settings import LogUrl, Settings, SubscriptionSettings, TopicSettings
from postline.testing import TestApp


def topic_of(cls: type, name: str = "shop.orders", **options: Any) -> Topic:
    topic = Topic(name, **{"owner": "shop", "key": "customer", **options})
    topic.event("shop.Order")(cls)
    return topic


class Order(Struct, frozen=True):
    """What all tests publish."""

    id: str
    customer: str


orders = topic_of(Order)


def collecting(app: App, topic: Any = orders, start: Any = "earliest", name: str = "sub", **options: Any) -> list[str]:
    handled: list[str] = []

    @app.subscribe(name, topic, start=start, **options).on(Order)
    async def handle(order: Order) -> None:
        handled.append(order.id)

    return handled


# -- refused at start ---------------------------------------------------------------------------


async def test_all_contradictions_are_reported_together():
    def plain(order: Order) -> None: ...

    other = topic_of(type("Other", (Struct,), {"__annotations__": {"customer": str}}), "ledger.entries", owner="ledger")
    notes = Topic("shop.notes", owner="shop")
    notes.event("shop.Note")(Order)
    app = App("shop", owns=[orders, other, notes, topic_of(Order)])
    app.subscribe("empty", orders, start="earliest")
    app.subscribe("hold", orders, start="earliest", order="none", after="hold", state=int).on(Order)(plain)
    app.subscribe("naive", orders, start=datetime(2026, 1, 1)).on(Order)(plain)  # noqa: DTZ001 - what is refused
    app.subscribe("thread", orders, start="earliest", timeout=5, concurrency=0).on(Order)(plain)
    app.subscribe("short", orders, start="earliest", dedup=Dedup(by_id=True, window=timedelta(seconds=1))).on(Order)(
        plain
    )
    app.subscribe("batch", orders, start="earliest", batch=0, middleware=[plain]).on(Order)(plain)  # type: ignore[list-item]
    with pytest.raises(SettingsError) as refused:
        async with TestApp(app):
            pass
    text = str(refused.value)
    for problem in (
        "Two contracts are declared for topic 'shop.orders'",
        "declared on two topics",
        "owns topic 'ledger.entries', whose contract names 'ledger' as owner",
        "Subscription 'empty': it has no handler",
        "Subscription 'hold': order=\"none\" keeps no order",
        "Subscription 'hold': state= needs the order of its key",
        "Subscription 'naive' can't start at",
        "Subscription 'thread': a thread can't be stopped",
        "Subscription 'thread': concurrency and batch must be 1 or more",
        "Subscription 'short': the dedup window (0:00:01) is shorter than the retry ladder",
        "Subscription 'batch': concurrency and batch must be 1 or more",
        "Subscription 'batch': middleware wraps single messages",
    ):
        assert problem in text


async def test_nothing_of_an_app_that_was_refused_stays_behind():
    app = App("shop", owns=[orders])
    app.subscribe("empty", orders, start="earliest")
    t = TestApp()
    async with t:
        with pytest.raises(SettingsError):
            await t.start(app)
        assert await t.log.subscriptions() == []
        collecting(app, name="works")
        del app.subscriptions["empty"]
        await t.start(app)


async def test_two_subscriptions_of_one_name_are_refused():
    app = App("shop", owns=[orders])
    collecting(app)
    with pytest.raises(UsageError, match="two subscriptions named 'sub'"):
        collecting(app)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"partitions": 9}, "partitions are 8, the contract says 9"),
        ({"key": "id"}, "the key is 'customer', the contract says 'id'"),
        ({"key": None}, "the key is 'customer', the contract says 'none'"),
    ],
)
async def test_a_changed_partition_count_or_key_is_refused_and_the_log_stays_as_it_is(
    changed: dict[str, Any], text: str
):
    async with TestApp(App("shop", owns=[orders])) as t:
        before = await t.log.topics()
        with pytest.raises(TopicMismatch, match=text):
            await t.start(App("shop", owns=[topic_of(Order, **changed)]))
        assert await t.log.topics() == before


async def test_another_owner_of_a_topic_is_refused():
    async with TestApp(App("shop", owns=[orders])) as t:
        with pytest.raises(TopicMismatch, match="its owner is 'shop', the contract says 'ledger'"):
            await t.start(App("ledger", owns=[topic_of(Order, owner="ledger")]))


async def test_a_subscriber_takes_the_partition_count_that_the_log_has():
    reader = App("reader")
    handled = collecting(reader, topic_of(Order, partitions=3))
    async with TestApp(App("shop", owns=[orders])) as t:
        await t.start(reader)
        await t.publish(Order("1", "c"))
        await t.settle()
    assert handled == ["1"]


async def test_the_owner_may_change_retention():
    async with TestApp(App("shop", owns=[orders])) as t:
        await t.start(App("shop", owns=[topic_of(Order, retention=timedelta(hours=1))]))
        assert {spec.name: spec.retention_ms for spec in await t.log.topics()}["shop.orders"] == 3_600_000


async def test_two_services_with_one_subscription_name_are_refused():
    first, second = App("billing"), App("packing")
    collecting(first)
    collecting(second)
    async with TestApp(first) as t:
        with pytest.raises(SubscriptionConflict, match="sub"):
            await t.start(second)


async def test_one_subscription_name_on_two_topics_is_refused():
    first, second = App("billing"), App("billing")
    collecting(first)
    collecting(second, topic_of(Order, "shop.returns"))
    async with TestApp(first) as t:
        with pytest.raises(SubscriptionConflict):
            await t.start(second)


async def test_an_unknown_topic_is_refused_with_its_name():
    view = ForeignTopic("elsewhere.things")
    view.reads("shop.Order")(Order)
    app = App("reader")
    collecting(app, view)
    with pytest.raises(UnknownTopic, match=r"App 'reader' needs topic 'elsewhere\.things'"):
        async with TestApp(app):
            pass


async def test_where_nothing_missing_is_created_a_subscriber_needs_the_owner_first():
    app = App("reader")
    collecting(app, topic_of(Order, "shop.later"))
    t = TestApp()
    async with t:
        strict = t.environment()
        object.__setattr__(strict, "creates_missing", False)
        with pytest.raises(UnknownTopic, match=r"shop\.later"):
            await app.start(strict)


# -- publishing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [lambda a: a.publish(Order("1", "c")), lambda a: a.wait_failed()])
async def test_an_app_that_does_not_run_says_so(call: Callable[[App], Any]):
    with pytest.raises(UsageError, match="App 'shop' is not running"):
        await call(App("shop", owns=[orders]))
    with pytest.raises(UsageError):
        _ = App("shop").log


async def test_an_app_is_started_once():
    app = App("shop", owns=[orders])
    async with TestApp(app) as t:
        with pytest.raises(UsageError, match="runs already"):
            await app.start(t.environment())
        await app.publish(Order("1", "c"))


async def test_types_of_no_topic_and_of_foreign_topics_can_not_be_published():
    view = ForeignTopic("shop.orders")

    @view.reads("shop.Order")
    class OrderView(Struct):
        customer: str

    class Unknown(Struct):
        customer: str

    app = App("reader")
    app.subscribe("sub", view, start="earliest").on(OrderView)(lambda order: None)
    async with TestApp(app, topics=[orders]):
        with pytest.raises(UsageError, match="is a view of foreign topic"):
            await app.publish(OrderView("c"))
        with pytest.raises(UsageError, match="No topic of this app declares"):
            await app.publish(Unknown("c"))


async def test_publish_many_gives_places_in_order_over_several_commits():
    app = App("shop", owns=[orders])
    async with TestApp(app) as t:
        published = await app.publish_many((Order(str(n), f"c{n % 5}") for n in range(2_500)), id_of=lambda o: o.id)
        assert [p.id for p in published] == [str(n) for n in range(2_500)]
        by_place = {(p.partition, p.offset): p.id for p in published}
        assert len(by_place) == 2_500
        for record in await t.log.read("shop.orders", published[0].partition, 0, limit=5_000, max_bytes=1 << 30):
            assert t.log.envelope(record).id == by_place[published[0].partition, record[0]]
        assert await app.publish_many([]) == []


async def test_partition_by_places_messages_apart_from_their_key():
    shared = Topic("shop.returns", owner="shop", key="id", partition_by="customer")
    shared.event("shop.Return")(Order)
    app = App("shop", owns=[shared])
    async with TestApp(app):
        places = {(await app.publish(Order(str(n), "one"))).partition for n in range(20)}
    assert len(places) == 1


# -- subscriptions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "expected"),
    [("earliest", ["old", "new"]), ("latest", ["new"]), (datetime.fromtimestamp(1_700_000_060, UTC), ["new"])],
)
async def test_a_new_subscription_starts_where_it_says(start: Any, expected: list[str]):
    app = App("reader")
    handled = collecting(app, start=start)
    async with TestApp(App("shop", owns=[orders])) as t:
        await t.publish(Order("old", "c"))
        await t.advance(minutes=2)
        if start != "latest":
            await t.publish(Order("new", "c"))
        await t.start(app)
        await t.settle()
        if start == "latest":
            await t.publish(Order("new", "c"))
        await t.settle()
        t.audit()
    assert handled == expected


async def test_start_counts_only_when_the_subscription_is_new():
    app = App("reader")
    handled = collecting(app, start="latest")
    async with TestApp(app, topics=[orders]) as t:
        await t.stop(app)
        await t.publish(Order("1", "c"))
        await t.start(app)
        await t.settle()
    assert handled == ["1"]


async def test_an_alias_renames_a_subscription_which_goes_on_where_it_was():
    old, new = App("reader"), App("reader")
    handled_before = collecting(old, name="old")
    handled_after = collecting(new, name="new", aliases=("older", "old"))
    async with TestApp(old, topics=[orders]) as t:
        await t.publish(Order("1", "c"))
        await t.settle()
        await t.stop(old)
        await t.start(new)
        await t.publish(Order("2", "c"))
        await t.settle()
        assert [info.name for info in await t.log.subscriptions()] == ["new"]
    assert (handled_before, handled_after) == (["1"], ["2"])


async def test_a_renamed_subscription_keeps_what_it_holds_and_its_dead_letters_can_be_redriven():
    broken = [True]

    def build(name: str, **options: Any) -> App:
        app = App("reader")

        @app.subscribe(name, orders, start="earliest", retry=Retry(immediate=0, delays=()), **options).on(Order)
        async def handle(order: Order) -> None:
            if broken[0]:
                raise ValueError

        return app

    old, new = build("old"), build("new", aliases=("old",))
    async with TestApp(old, topics=[orders]) as t:
        await t.publish(Order("1", "c"))
        await t.publish(Order("2", "c"))
        await t.settle()
        await t.stop(old)
        t.apps.append(new)
        await t.start(new)
        await t.settle()
        assert t.audit() == {"new": {"dead-lettered": 1, "held": 1}}
        broken[0] = False
        await t.redrive("new")
        await t.settle()
        assert t.audit() == {"new": {"done": 2}}


async def test_subscriptions_that_no_code_serves_any_more_are_named(caplog: pytest.LogCaptureFixture):
    old, new = App("reader"), App("reader")
    collecting(old, name="forgotten")
    collecting(new, name="served")
    async with TestApp(old, topics=[orders]) as t:
        await t.stop(old)
        with caplog.at_level(logging.WARNING):
            await t.start(new)
    assert "subscription forgotten of service reader is not served by this version" in caplog.text


async def test_subscriptions_of_one_topic_are_independent():
    app = App("shop", owns=[orders])
    first, second = collecting(app, name="first"), collecting(app, name="second", start="latest")
    async with TestApp(app) as t:
        await t.publish(Order("1", "c"))
        await t.settle()
        await t.log.append([Append("shop.orders", 0, b"c", b"broken", Envelope(type="shop.Order"))])
        await t.settle()
        assert t.audit() == {name: {"done": 1, "dead-lettered": 1} for name in ("first", "second")}
    assert first == second == ["1"]


# -- environment --------------------------------------------------------------------------------


async def test_a_namespace_stands_before_the_names_of_topics_and_subscriptions():
    app = App("shop", owns=[orders])
    handled = collecting(app)
    async with TestApp(app, settings=Settings(url=LogUrl("sqlite"), namespace="test")) as t:
        await t.publish(Order("1", "c"))
        await t.settle()
        names = {spec.name for spec in await t.log.topics()}
        assert names == {"test.shop.orders", "test.sub.control", "test.sub.dead-letters", "test.postline.schemas"}
        assert [info.name for info in await t.log.subscriptions()] == ["test.sub"]
        assert t.published(Order) == [Order("1", "c")]
    assert handled == ["1"]


async def test_sizes_of_the_environment_win_over_those_of_the_code():
    settings = Settings(
        url=LogUrl("sqlite"),
        topics={"shop.orders": TopicSettings(partitions=3, retention_ms=60_000)},
        subscriptions={"sub": SubscriptionSettings(concurrency=2)},
    )
    app = App("shop", owns=[orders])
    collecting(app)
    async with TestApp(app, settings=settings) as t:
        specs = {spec.name: spec for spec in await t.log.topics()}
        assert (specs["shop.orders"].partitions, specs["shop.orders"].retention_ms) == (3, 60_000)
        assert specs["sub.control"].partitions == 3
        assert app.consumers[0].plan.concurrency == 2


def test_an_option_that_would_break_a_promise_is_refused_before_anything_is_opened():
    with pytest.raises(SettingsError, match="acks is refused"):
        open_log(Settings(url=LogUrl("kafka", servers=("localhost:9092",), options={"acks": "0"})), SystemClock())


# -- life ---------------------------------------------------------------------------------------


async def test_a_lifespan_ends_although_stopping_found_an_error_and_a_start_that_fails_ends_it_too():
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        events.append("open")
        yield
        events.append("closed")

    good, bad = App("billing", lifespan=lifespan), App("packing", lifespan=lifespan)
    collecting(good)
    collecting(bad)
    async with TestApp(good) as t:
        with pytest.raises(SubscriptionConflict):
            await t.start(bad)
        assert events == ["open", "open", "closed"]
    assert events == ["open", "open", "closed", "closed"]


async def test_wait_failed_gives_the_error_of_a_subscription_that_can_not_go_on():
    app = App("shop", owns=[orders])
    collecting(app)
    async with TestApp(app):
        failed = app.consumers[0].failed
        assert failed is not None
        failed.set_result(ContractError("broken"))
        assert isinstance(await app.wait_failed(), ContractError)


async def test_stopping_and_aborting_twice_is_harmless():
    app = App("shop", owns=[orders])
    collecting(app)
    async with TestApp(app) as t:
        await t.stop(app)
        await app.stop()
        await app.abort()


async def test_a_lifespan_that_fails_is_named_as_the_reason_and_kept_as_the_cause():
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        raise ConnectionError("no database")
        yield

    async with TestApp(topics=[orders]) as t:
        with pytest.raises(PostlineError, match="failed with ConnectionError: no database") as caught:
            await t.start(App("billing", lifespan=lifespan))
        assert isinstance(caught.value.__cause__, ConnectionError)
