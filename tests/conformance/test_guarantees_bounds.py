"""Bounds, with real apps on every engine: publishers wait, are refused, and go on; services in a circle never stop."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from msgspec import Struct

from postline import App, BackPressure, Bound, Context, Topic
from tests.conformance.apps import World, eventually
from tests.conformance.harness import Engine

RECORDS = 20


def bounded(name: str, **limits: Any) -> Topic:
    """A topic of the shop's that its one subscription, of the same name, must keep up with."""
    return Topic(name, owner="shop", key="key", partitions=2, bound=Bound(subscriptions=(name,), **limits))


class Passing:
    """A service that handles only what it is let."""

    def __init__(self, topic: Topic, kind: type) -> None:
        self.app = App("handling")
        self.passes = asyncio.Semaphore(0)
        subscription = self.app.subscribe(topic.name, topic, start="earliest")

        @subscription.on(kind)
        async def handle(message: Any) -> None:
            await self.passes.acquire()

    def let(self, count: int) -> None:
        """Let so many be handled."""
        for _ in range(count):
            self.passes.release()


async def publish_singly(world: World, messages: list[Any]) -> None:
    """Publish one after another: on Kafka a batch is a transaction, whose marks take offsets and count as lag."""
    for message in messages:
        await world.publisher.publish(message)


def declared(topic: Topic) -> type:
    """The topic's one type."""

    @topic.event("shop.Placed")
    class Placed(Struct, frozen=True):
        key: str
        number: int

    return Placed


async def test_over_the_bound_a_publish_waits_and_is_refused_with_nothing_stored(engine: Engine) -> None:
    topic = bounded("orders", records=RECORDS, wait_seconds=0.5)
    placed = declared(topic)
    service = Passing(topic, placed)
    async with World(engine, topic) as world:
        await world.start(service.app)
        await publish_singly(world, [placed(f"k{n}", n) for n in range(RECORDS)])
        before = engine.clock.monotonic()
        with pytest.raises(BackPressure, match="'orders' is behind by") as caught:
            # Of these one may be let in: another may have been on its way when it was looked.
            await publish_singly(world, [placed("k1", RECORDS), placed("k1", RECORDS + 1)])
        assert engine.clock.monotonic() - before >= 0.5
        assert caught.value.retry_after_seconds > 0
        stored = len(await world.read(topic))
        assert RECORDS <= stored <= RECORDS + 1
        service.let(1000)
        await world.until_handled("orders")
        await world.balanced("orders", done=stored)


async def test_publishers_go_on_when_the_subscription_has_caught_up(engine: Engine) -> None:
    topic = bounded("orders", records=RECORDS, wait_seconds=30.0)
    placed = declared(topic)
    service = Passing(topic, placed)
    async with World(engine, topic) as world:
        await world.start(service.app)
        publishing = asyncio.create_task(publish_singly(world, [placed(f"k{n}", n) for n in range(5 * RECORDS)]))
        for _ in range(5):

            async def full() -> bool:
                view = await world.view("orders")
                return view.lag_records >= RECORDS * 9 // 10

            await eventually(full, "the topic is full")
            # One may have been on its way when it was looked.
            assert (await world.view("orders")).lag_records <= RECORDS + 1
            service.let(RECORDS)
        await publishing
        service.let(1000)
        await world.until_handled("orders")
        await world.balanced("orders", done=5 * RECORDS)


async def test_the_age_of_what_waits_bounds_too(engine: Engine) -> None:
    topic = bounded("orders", age=timedelta(seconds=0.2), wait_seconds=0.0)
    placed = declared(topic)
    service = Passing(topic, placed)
    async with World(engine, topic) as world:
        await world.start(service.app)
        await world.publish([placed("k1", 1)])

        async def is_refused() -> bool:
            try:
                await world.publish([placed("k1", 2)])
            except BackPressure:
                return True
            return False

        await eventually(is_refused, "what waits is too old")
        service.let(1_000_000)

        async def is_accepted() -> bool:
            return not await is_refused()

        await eventually(is_accepted, "what was too old is handled")
        await world.until_handled("orders")


async def test_a_subscription_stops_fetching_while_its_outputs_topic_is_over_its_bound(engine: Engine) -> None:
    source = Topic("source", owner="shop", key="key", partitions=2)
    target = bounded("target", records=RECORDS)
    placed = declared(source)

    @target.event("shop.Copied")
    class Copied(Struct, frozen=True):
        key: str
        number: int

    service = Passing(target, Copied)
    copying = App("copying", publishes_to=[target])
    subscription = copying.subscribe("copying", source, start="earliest", in_flight_records_max=10)

    @subscription.on(placed)
    async def copy(message: Any, ctx: Context) -> None:
        ctx.publish(Copied(message.key, message.number))

    async with World(engine, source, target) as world:
        await world.start(service.app)
        await world.start(copying)
        count = 4_000
        publishing = asyncio.create_task(world.publish([placed(f"k{n % 40}", n) for n in range(count)]))

        def stopped() -> bool:
            restraint = copying.consumers[0].restraint
            return restraint is not None and restraint.stopped

        await eventually(stopped, "copying stops")
        await publishing
        view = await world.view("copying")
        assert view.lag_records > 0, "all was copied although nobody took it"

        async def told() -> bool:
            view = await world.view("copying")
            causes = [(each.kind, each.name) for each in view.causes]
            return view.status == "waits for a bound" and causes == [("bound", "target")]

        await eventually(told, "whoever looks is told what it waits for")
        service.let(count)
        await world.until_handled("copying")
        await world.until_handled("target")
        await world.balanced("target", done=count)
        await world.balanced("copying", done=count)

        async def over() -> bool:
            return not (await world.view("copying")).causes

        await eventually(over, "it waits for nothing any more")


async def test_two_services_that_feed_each_other_over_their_bounds_both_go_on(engine: Engine) -> None:
    ping_topic, pong_topic = bounded("pings", records=RECORDS), bounded("pongs", records=RECORDS)

    @ping_topic.event("shop.Ping")
    class Ping(Struct, frozen=True):
        key: str
        hops: int

    @pong_topic.event("shop.Pong")
    class Pong(Struct, frozen=True):
        key: str
        hops: int

    ours, theirs = App("ours", publishes_to=[pong_topic]), App("theirs", publishes_to=[ping_topic])

    @ours.subscribe("pings", ping_topic, start="earliest", in_flight_records_max=10).on(Ping)
    async def on_ping(ping: Ping, ctx: Context) -> list[Pong]:
        return [Pong(f"{ping.key}{n}", ping.hops - 1) for n in range(2 if ping.hops else 0)]

    @theirs.subscribe("pongs", pong_topic, start="earliest", in_flight_records_max=10).on(Pong)
    async def on_pong(pong: Pong, ctx: Context) -> list[Ping]:
        return [Ping(f"{pong.key}{n}", pong.hops - 1) for n in range(2 if pong.hops else 0)]

    async with World(engine, ping_topic, pong_topic) as world:
        # Both topics are full, and every message makes two of the other's: nobody is ever let off.
        await world.publish([Ping(f"a{n}", 5) for n in range(RECORDS)])
        await world.publish([Pong(f"b{n}", 5) for n in range(RECORDS)])
        await world.start(ours)
        await world.start(theirs)
        of_each = RECORDS * (2**6 - 1)  # 1 + 2 + … + 32 of each, by turns on the two topics

        async def done() -> list[int]:
            return [(await world.monitor.audit(name)).outcomes["done"] for name in ("pings", "pongs")]

        async def all_done() -> bool:
            return await done() == [of_each, of_each]

        await eventually(all_done, f"both have handled {of_each}")
        await world.until_handled("pings")
        await world.until_handled("pongs")
