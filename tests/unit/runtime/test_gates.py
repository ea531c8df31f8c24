"""The gates of bounded topics on the virtual clock: who passes, who waits, who is refused, and when it opens again."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
from datetime import timedelta
from typing import Any

import pytest
from msgspec import Struct

from postline import App, BackPressure, Bound, ContractError, SettingsError, Topic
from postline.errors import LogUnavailable, MissingCapability
from postline.log.port import Capability
from postline.runtime.gates import LOOK_SECONDS
from postline.runtime.restraint import Restraint
from postline.settings import LogUrl, Settings, TopicSettings
from postline.testing import TestApp


class Shop:
    """A topic with a bound, and a subscription that handles only what it is let."""

    def __init__(self, bound: Bound | None) -> None:
        self.topic = topic = Topic("shop.orders", owner="shop", key="customer", partitions=2, bound=bound)

        @topic.event("shop.OrderPlaced")
        class OrderPlaced(Struct, frozen=True):
            customer: str
            number: int

        self.order = OrderPlaced
        self.app = App("shop", owns=[topic])
        self.billing = App("billing")
        self.passes = asyncio.Semaphore(0)
        self.handled: list[int] = []
        subscription = self.billing.subscribe("billing", topic, start="earliest", concurrency=1, timeout=86_400)

        @subscription.on(OrderPlaced)
        async def bill(order: OrderPlaced) -> None:
            await self.passes.acquire()
            self.handled.append(order.number)

    def orders(self, count: int, first: int = 0) -> list[Any]:
        """So many orders."""
        return [self.order(f"c{n % 5}", n) for n in range(first, first + count)]

    def let_pass(self, count: int) -> None:
        """Let so many be handled."""
        for _ in range(count):
            self.passes.release()


async def publish_all(t: TestApp, messages: list[Any]) -> None:
    for message in messages:
        await t.publish(message)


def bound(**options: Any) -> Bound:
    return Bound(subscriptions=("billing",), **options)


async def refused(t: TestApp, message: Any) -> BackPressure:
    with pytest.raises(BackPressure) as caught:
        await t.publish(message)
    return caught.value


async def test_over_the_bound_a_publish_waits_its_time_and_is_refused_with_nothing_stored():
    shop = Shop(bound(records=10, wait_seconds=5.0))
    async with TestApp(shop.app, shop.billing) as t:
        await publish_all(t, shop.orders(10))
        before = t.clock.monotonic()
        error = await refused(t, shop.order("c1", 99))
        assert t.clock.monotonic() - before >= 5.0
        assert len(t.published(shop.order)) == 10
        assert (error.topic, error.subscription, error.retryable) == ("shop.orders", "billing", True)
        assert "'billing' is behind by 10 of at most 10 records" in str(error)
        assert error.retry_after_seconds == 5.0, "nothing drains, so nothing can be foretold"
        shop.let_pass(10_000)
        await t.settle()
        assert t.audit()["billing"] == {"done": 10}


async def test_who_waits_is_let_in_when_there_is_room_in_the_order_of_coming():
    shop = Shop(bound(records=10, wait_seconds=60.0))
    async with TestApp(shop.app, shop.billing) as t:
        await publish_all(t, shop.orders(10))
        waiting = [asyncio.ensure_future(shop.app.publish(order)) for order in shop.orders(6, first=10)]
        await t.advance(seconds=1)
        assert not any(each.done() for each in waiting)
        shop.let_pass(3)  # 7 are left: room for 3, and no more go past the bound at once
        await t.advance(seconds=1)
        assert [each.done() for each in waiting] == [True] * 3 + [False] * 3
        shop.let_pass(10_000)
        await t.advance(seconds=2)
        await asyncio.gather(*waiting)
        await t.settle()
        stored = t.published(shop.order)
        assert sorted(order.number for order in stored) == list(range(16))


async def test_the_gate_opens_below_nine_tenths_and_not_at_the_bound():
    shop = Shop(bound(records=100, wait_seconds=60.0))
    async with TestApp(shop.app, shop.billing) as t:
        await publish_all(t, shop.orders(100))
        waiting = asyncio.ensure_future(shop.app.publish(shop.order("c1", 100)))
        await t.advance(seconds=1)
        shop.let_pass(9)
        await t.advance(seconds=1)
        assert not waiting.done(), "91 of 100 are left"
        shop.let_pass(1)
        await t.advance(seconds=1)
        assert waiting.done()
        shop.let_pass(10_000)
        await t.settle()


async def test_the_retry_after_follows_how_fast_it_drains():
    shop = Shop(bound(records=100, wait_seconds=4.0))
    async with TestApp(shop.app, shop.billing) as t:
        await publish_all(t, shop.orders(100))
        waiting = asyncio.ensure_future(shop.app.publish(shop.order("c1", 100)))
        for _ in range(4):
            shop.let_pass(2)  # two in a second: the ten until it opens take five
            await t.advance(seconds=1)
        with pytest.raises(BackPressure) as caught:
            await waiting
        assert 0.5 <= caught.value.retry_after_seconds <= 2.5
        shop.let_pass(10_000)
        await t.settle()


async def test_no_wait_is_a_refusal_at_once():
    shop = Shop(bound(records=3, wait_seconds=0.0))
    async with TestApp(shop.app, shop.billing) as t:
        await publish_all(t, shop.orders(3))
        before = t.clock.monotonic()
        for _ in range(3):
            await refused(t, shop.order("c1", 9))
        assert t.clock.monotonic() - before < LOOK_SECONDS
        shop.let_pass(10_000)
        await t.settle()


async def test_publish_many_says_how_many_it_had_stored():
    shop = Shop(bound(records=50, wait_seconds=1.0))
    async with TestApp(shop.app, shop.billing) as t:
        publishing = asyncio.ensure_future(shop.app.publish_many(shop.orders(80)))
        await t.advance(seconds=2)
        with pytest.raises(BackPressure) as caught:
            await publishing
        assert caught.value.published == len(t.published(shop.order)) == 50
        shop.let_pass(10_000)
        await t.settle()


async def test_a_topic_without_a_bound_has_no_gate():
    shop = Shop(None)
    async with TestApp(shop.app, shop.billing) as t:
        assert shop.app._running is not None
        assert not shop.app._running.gates.bounded
        await t.publish_many(shop.orders(20))
        assert shop.billing.consumers[0].restraint is None
        shop.let_pass(10_000)
        await t.settle()


async def test_held_keys_and_dead_letters_do_not_count():
    topic = Topic("shop.orders", owner="shop", key="customer", partitions=1, bound=bound(records=4, wait_seconds=0.0))

    @topic.event("shop.OrderPlaced")
    class OrderPlaced(Struct, frozen=True):
        customer: str

    app = App("shop", owns=[topic])
    subscription = app.subscribe("billing", topic, start="earliest", after="hold")

    @subscription.on(OrderPlaced)
    async def bill(order: OrderPlaced) -> None:
        if order.customer == "bad":
            raise ValueError("no")

    async with TestApp(app) as t:
        for _ in range(20):
            await t.publish(OrderPlaced("bad"))
            await t.settle()
        await t.advance(hours=2)
        await publish_all(t, [OrderPlaced("good")] * 4)
        await t.settle()
        assert t.audit()["billing"] == {"dead-lettered": 1, "held": 19, "done": 4}


async def test_the_age_of_the_oldest_record_bounds_too():
    shop = Shop(bound(age=timedelta(seconds=30), wait_seconds=0.0))
    async with TestApp(shop.app, shop.billing) as t:
        await publish_all(t, shop.orders(5))
        await t.advance(seconds=29)
        await t.publish(shop.order("c0", 5))
        await t.advance(seconds=3)
        error = await refused(t, shop.order("c0", 6))
        assert "32.0 of at most 30 s" in str(error)
        shop.let_pass(10_000)
        await t.settle()
        await t.advance(seconds=1)
        await t.publish(shop.order("c0", 7))
        await t.settle()


async def test_a_subscription_that_does_not_exist_bounds_nothing_and_is_named_once(caplog):
    shop = Shop(Bound(records=2, subscriptions=("nobody",), wait_seconds=0.0))
    with caplog.at_level(logging.WARNING, "postline"):
        async with TestApp(shop.app, shop.billing) as t:
            for number in range(6):
                await t.publish(shop.order("c1", number))
                await t.advance(seconds=2)
            shop.let_pass(10_000)
            await t.settle()
    assert len([each for each in caplog.messages if "nobody waits for it" in each]) == 1


async def test_several_publishers_together_stay_within_the_bound():
    shop = Shop(bound(records=100, wait_seconds=1.0))
    async with TestApp(shop.app, shop.billing) as t:
        publishing = [asyncio.ensure_future(shop.app.publish(order)) for order in shop.orders(300)]
        await t.advance(seconds=2)
        results = await asyncio.gather(*publishing, return_exceptions=True)
        assert sum(isinstance(each, BackPressure) for each in results) == 200
        assert len(t.published(shop.order)) == 100
        shop.let_pass(10_000)
        await t.settle()


async def test_during_a_look_what_was_added_before_it_still_counts(monkeypatch):
    shop = Shop(bound(records=20, wait_seconds=0.0))
    async with TestApp(shop.app, shop.billing) as t:
        assert shop.app._running is not None
        gate = shop.app._running.gates.of("shop.orders")
        assert gate is not None
        await publish_all(t, shop.orders(20))
        looking, go_on, partitions = asyncio.Event(), asyncio.Event(), t.log.partitions

        async def slow(subscription: str) -> Any:
            looking.set()
            await go_on.wait()
            return await partitions(subscription)

        with monkeypatch.context() as patched:
            patched.setattr(t.log, "partitions", slow)
            look = asyncio.ensure_future(gate.look())
            await looking.wait()
            asking = asyncio.ensure_future(gate.room(1))
            go_on.set()
            await look
            with pytest.raises(BackPressure):
                await t._settling.until_done(asking)
        shop.let_pass(10_000)
        await t.settle()


async def test_what_passes_during_a_look_and_may_be_counted_twice_shuts_nothing(monkeypatch):
    shop = Shop(bound(records=20, wait_seconds=5.0))
    async with TestApp(shop.app, shop.billing) as t:
        assert shop.app._running is not None
        gate = shop.app._running.gates.of("shop.orders")
        assert gate is not None
        await publish_all(t, shop.orders(19))
        looking = asyncio.Event()
        partitions = t.log.partitions

        async def slow(subscription: str) -> Any:
            looking.set()
            await t.clock.sleep(0.01)
            return await partitions(subscription)

        with monkeypatch.context() as patched:
            patched.setattr(t.log, "partitions", slow)
            t.clock.move_to(t.clock.monotonic() + 2)
            waiting = asyncio.ensure_future(gate.room(1))
            await looking.wait()
            gate.count(1)  # as if it had been stored before the ends were read
            await t.advance(seconds=1)
            assert waiting.done()
            await waiting
        shop.let_pass(10_000)
        await t.settle()


async def test_a_cancelled_publish_gives_its_place_to_the_next():
    shop = Shop(bound(records=5, wait_seconds=60.0))
    async with TestApp(shop.app, shop.billing) as t:
        await publish_all(t, shop.orders(5))
        first, second = [asyncio.ensure_future(shop.app.publish(order)) for order in shop.orders(2, first=5)]
        await t.advance(seconds=1)
        first.cancel()
        shop.let_pass(10_000)
        await t.advance(seconds=1)
        await second
        assert first.cancelled()
        await t.settle()
        assert sorted(shop.handled) == [0, 1, 2, 3, 4, 6]


async def test_an_app_that_stops_tells_who_waits_that_nothing_was_stored():
    shop = Shop(bound(records=5, wait_seconds=60.0))
    async with TestApp(shop.app, shop.billing) as t:
        await publish_all(t, shop.orders(5))
        waiting = asyncio.ensure_future(shop.app.publish(shop.order("c1", 5)))
        await t.advance(seconds=1)
        await t.stop(shop.app)
        with pytest.raises(LogUnavailable, match="nothing was stored"):
            await waiting
        shop.let_pass(10_000)
        await t.settle()


async def test_what_is_larger_than_the_bound_passes_once_half_of_it_is_free():
    shop = Shop(bound(records=10, wait_seconds=60.0))
    async with TestApp(shop.app, shop.billing) as t:
        assert shop.app._running is not None
        gates = shop.app._running.gates
        await publish_all(t, shop.orders(8))
        waiting = asyncio.ensure_future(gates.room("shop.orders", 40))
        await t.advance(seconds=1)
        assert not waiting.done()
        shop.let_pass(3)
        await t.advance(seconds=1)
        await waiting
        shop.let_pass(10_000)
        await t.settle()


async def test_while_the_log_cannot_be_asked_the_gate_goes_by_what_it_knew(monkeypatch, caplog):
    shop = Shop(bound(records=10, wait_seconds=0.0))
    async with TestApp(shop.app, shop.billing) as t:
        await publish_all(t, shop.orders(4))

        async def unavailable(subscription: str) -> Any:
            raise LogUnavailable(f"no answer about {subscription}")

        with monkeypatch.context() as patched:
            patched.setattr(t.log, "partitions", unavailable)
            t.clock.move_to(t.clock.monotonic() + 2)
            await shop.app.publish(shop.order("c1", 4))
        assert any("can't see how far" in each for each in caplog.messages)
        shop.let_pass(10_000)
        await t.settle()


async def test_a_bound_in_bytes_is_refused_at_start_where_the_engine_cannot_tell():
    shop = Shop(bound(bytes=1_000_000))
    t = TestApp(shop.app)
    t.log.capabilities -= {Capability.SIZES}
    with pytest.raises(MissingCapability, match="bound in bytes"):
        async with t:
            pass


async def test_the_bytes_that_wait_bound_too_and_each_record_is_weighed_once(monkeypatch):
    shop = Shop(bound(bytes=10_000, wait_seconds=0.0))
    async with TestApp(shop.app, shop.billing) as t:
        weighed: list[int] = []
        size_between = t.log.size_between

        async def counting(topic: str, partition: int, start: int, end: int) -> int:
            weighed.append(end - start)
            return await size_between(topic, partition, start, end)

        monkeypatch.setattr(t.log, "size_between", counting)

        async def flood() -> None:
            for order in shop.orders(400):
                await t.publish(order)
                await t.advance(seconds=1)

        with pytest.raises(BackPressure, match="of at most 10,000 bytes"):
            await flood()
        stored = len(t.published(shop.order))
        spans = [(await t.log.bounds("shop.orders"))[each] for each in range(2)]
        sizes = [await size_between("shop.orders", at, span.start, span.end) for at, span in enumerate(spans)]
        assert 10_000 <= sum(sizes) < 10_500
        assert sum(weighed) == stored
        shop.let_pass(stored // 2)
        await t.advance(seconds=1)
        await t.publish(shop.order("c1", 0))
        shop.let_pass(10_000)
        await t.settle()


async def test_the_environment_sizes_a_bound_and_the_namespace_reaches_its_subscriptions():
    shop = Shop(bound(records=1_000, wait_seconds=0.0))
    sizes = TopicSettings(bound_records=3)
    settings = Settings(url=LogUrl("sqlite"), namespace="staging", topics={"shop.orders": sizes})
    async with TestApp(shop.app, shop.billing, settings=settings) as t:
        await publish_all(t, shop.orders(3))
        error = await refused(t, shop.order("c1", 3))
        assert (error.topic, error.subscription) == ("staging.shop.orders", "staging.billing")
        shop.let_pass(10_000)
        await t.settle()


async def test_the_environment_sizes_no_bound_that_no_contract_declares():
    shop = Shop(None)
    settings = Settings(url=LogUrl("sqlite"), topics={"shop.orders": TopicSettings(bound_records=3)})
    with pytest.raises(SettingsError, match="the contract declares none"):
        async with TestApp(shop.app, settings=settings):
            pass


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Bound(subscriptions=("billing",)), "no limit"),
        (Bound(records=0, subscriptions=("billing",)), "above zero"),
        (Bound(age=timedelta(0), subscriptions=("billing",)), "above zero"),
        (Bound(records=5), "must name the subscriptions"),
        (Bound(records=5, subscriptions="billing"), "as a tuple"),  # type: ignore[arg-type]
        (Bound(records=5, subscriptions=("",)), "must name the subscriptions"),
        (Bound(records=5, subscriptions=("billing",), wait_seconds=-1), "0 or more"),
        (Bound(records=5, subscriptions=("billing",), wait_seconds=float("nan")), "0 or more"),
    ],
)
def test_a_bound_that_contradicts_itself_is_refused(wrong: Bound, said: str):
    with pytest.raises(ContractError, match=said):
        Topic("shop.orders", owner="shop", bound=wrong)


def test_the_error_travels_whole():
    error = BackPressure("full", remedy="wait", topic="t", subscription="s", retry_after_seconds=2.5, published=7)
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert vars(other) == vars(error)
        assert str(other) == "full wait"


def circle(messages: int) -> tuple[App, App, list[Any]]:
    """Two services that feed each other, each topic bounded by the other's subscription, and what fills both topics."""
    pings = Topic("pings", owner="ours", key="key", bound=Bound(records=10, subscriptions=("pings",)))
    pongs = Topic("pongs", owner="theirs", key="key", bound=Bound(records=10, subscriptions=("pongs",)))

    @pings.event("Ping")
    class Ping(Struct, frozen=True):
        key: str
        hops: int

    @pongs.event("Pong")
    class Pong(Struct, frozen=True):
        key: str
        hops: int

    ours = App("ours", owns=[pings], publishes_to=[pongs])
    theirs = App("theirs", owns=[pongs], publishes_to=[pings])

    @ours.subscribe("pings", pings, start="earliest", in_flight_records_max=5).on(Ping)
    async def on_ping(ping: Ping) -> list[Pong]:
        return [Pong(f"{ping.key}{n}", ping.hops - 1) for n in range(2 if ping.hops else 0)]

    @theirs.subscribe("pongs", pongs, start="earliest", in_flight_records_max=5).on(Pong)
    async def on_pong(pong: Pong) -> list[Ping]:
        return [Ping(f"{pong.key}{n}", pong.hops - 1) for n in range(2 if pong.hops else 0)]

    return ours, theirs, [kind(f"{n}", 5) for n in range(messages) for kind in (Ping, Pong)]


async def run_circle() -> int:
    """How many were handled when nothing moved any more."""
    ours, theirs, messages = circle(10)
    async with TestApp(ours, theirs, patience_seconds=0.5) as t:
        pings = [each for each in messages if type(each).__name__ == "Ping"]
        pongs = [each for each in messages if type(each).__name__ != "Ping"]
        # At once, before what these begin has filled the topics: at the edge publishing waits then.
        await asyncio.gather(ours.publish_many(pings), theirs.publish_many(pongs))
        await t.settle()
        return sum(counts["done"] for counts in t.audit().values())


async def test_services_in_a_circle_go_on_though_both_topics_are_over_their_bounds():
    assert await run_circle() == 20 * (2**6 - 1)


async def test_without_the_rule_that_the_worst_off_goes_on_they_would_stand_still_for_good(monkeypatch):
    monkeypatch.setattr(Restraint, "_used_by_itself", lambda self, own: 0.0)
    with pytest.raises(AssertionError, match=r"stands still for the bound of topic"):
        await run_circle()


async def test_in_a_chain_a_slow_last_service_slows_all_before_it():
    names = ("first", "second", "third")
    topics = [
        Topic(name, owner="shop", key="key", partitions=1, bound=Bound(records=40, subscriptions=(name,)))
        for name in names
    ]
    kinds = []
    for topic in topics:

        @topic.event(f"{topic.name}.Step")
        class Step(Struct, frozen=True):
            key: str

        kinds.append(Step)
    shop = App("shop", owns=topics)

    def pass_on(topic: Topic, kind: type, following: type) -> None:
        @shop.subscribe(topic.name, topic, start="earliest", in_flight_records_max=5).on(kind)
        async def handle(step: Any) -> Any:
            return following(step.key)

    for topic, kind, following in zip(topics, kinds, kinds[1:], strict=False):
        pass_on(topic, kind, following)

    passes = asyncio.Semaphore(0)

    @shop.subscribe("third", topics[-1], start="earliest", timeout=86_400).on(kinds[-1])
    async def last(step: Any) -> None:
        await passes.acquire()

    async with TestApp(shop) as t:
        publishing = [asyncio.ensure_future(shop.publish(kinds[0](f"k{n}"))) for n in range(1_000)]
        await t.advance(seconds=20)
        refused = await asyncio.gather(*publishing, return_exceptions=True)
        lags = [(await t.log.bounds(name))[0].end - (await t.log.partitions(name))[0].position for name in names]
        assert sum(isinstance(each, BackPressure) for each in refused) >= 500
        assert all(lag <= 400 for lag in lags), lags
        for _ in range(1_000):
            passes.release()
        await t.settle()
        assert {name: counts["done"] for name, counts in t.audit().items()} == dict.fromkeys(
            names, sum(not isinstance(each, BackPressure) for each in refused)
        )
