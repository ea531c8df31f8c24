"""Replays: a shadow reads a stretch again, once each and in order, and nobody else notices; on every engine."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from datetime import timedelta
from typing import Any

import pytest
from msgspec import Struct

from postline import App, CommandTopic, Context, Topic, UsageError
from postline.app import Environment, Replayed, Replaying, Span, replay
from postline.log.port import Record
from postline.runtime.plan import REPLAY_INFIX
from postline.runtime.replaying import Stretch
from postline.settings import LogUrl, Settings
from tests.conformance.apps import Billing, OrderPlaced, World, all_records, eventually, orders
from tests.conformance.harness import Engine

SHADOW = f"billing{REPLAY_INFIX}1"
CUSTOMERS = 6


KEPT = Topic("shop.kept", owner="shop", key="customer", partitions=2, retention=timedelta(seconds=30))


@KEPT.event("shop.Kept")
class Kept(Struct, frozen=True):
    customer: str
    number: int


def kept(first: int, last: int) -> list[Kept]:
    """Events that are not kept for long."""
    return [Kept(f"c{number % 7}", number) for number in range(first, last)]


def kept_reader(seen: Seen) -> App:
    """Reads them."""
    app = App("reader")

    @app.subscribe("reader", KEPT, start="earliest").on(Kept)
    async def read(event: Kept, ctx: Context) -> None:
        await seen(event, ctx)

    return app


class Seen:
    """What the replaying process was given."""

    def __init__(self, *failing: int) -> None:
        self.numbers = defaultdict[str, list[int]](list)
        self.failing = set(failing)

    async def __call__(self, order: Any, ctx: Context) -> None:
        """Note it."""
        if order.number in self.failing:
            raise ValueError(f"no {order.number}")
        self.numbers[order.customer].append(order.number)

    def once_and_in_order(self, published: list[OrderPlaced]) -> bool:
        """Whether it was all of these."""
        wanted = defaultdict[str, list[int]](list)
        for order in published:
            wanted[order.customer].append(order.number)
        return self.numbers == wanted


def environment(world: World) -> Environment:
    """Another process's view of the world's log."""
    return Environment(world.log, Settings(url=LogUrl("test")), world.engine.clock, random.Random(5))


async def replayed(world: World, seen: Seen, since_ms: int | None = None, **stretch: Any) -> Replayed:
    """Replay billing through handlers that note what they see."""
    stretch.setdefault("name", SHADOW)
    async with Replaying(Billing(before=seen).app, environment(world), Stretch(**stretch), since_ms) as replaying:
        return await replaying.wait()


async def what_lives(world: World) -> tuple[Any, ...]:
    """Positions, outcomes and state of the live subscription, and what every topic holds."""
    partitions = [(each.position, each.progress) for each in await world.log.partitions("billing")]
    ends = {spec.name: await world.log.bounds(spec.name) for spec in await world.log.topics()}
    return partitions, {name: found for name, found in ends.items() if REPLAY_INFIX not in name}, await world.totals()


async def handled(world: World, published: list[OrderPlaced], *, dead: int = 0, **app: Any) -> None:
    """Have the live subscription handle these, and end."""
    live = Billing(**app).app
    await world.start(live)
    await world.publish(published)
    await world.until_handled(dead=dead)
    if len(await world.log.members("billing")) and world._handles[live] is not world.log:
        await world.stop(live)


async def test_a_shadow_handles_all_again_once_and_in_order_and_nothing_else_changes(engine: Engine) -> None:
    async with World(engine) as world:
        published, seen = orders(60, customers=CUSTOMERS), Seen()
        await handled(world, published)
        before = await what_lives(world)
        found = await replayed(world, seen)
        assert await what_lives(world) == before
        assert seen.once_and_in_order(published)
        assert (found.status, found.passed, found.outcomes["done"]) == ("done", found.total, 60)
        assert sum(found.dropped.values()) == 60, "an invoice of each was not published"
        assert await world.totals(SHADOW) == await world.totals(), "state was made again, from nothing"


async def test_a_replay_that_is_stopped_goes_on_where_it_ended_and_ends_where_it_began_to(engine: Engine) -> None:
    async with World(engine) as world:
        published, first, second = orders(80, customers=CUSTOMERS), Seen(), Seen()
        await handled(world, published)
        app = Billing(before=first).app
        async with Replaying(app, environment(world), Stretch(name=SHADOW, rate=20), None) as replaying:
            while (await replaying.now()).passed < 10:
                await world.engine.clock.sleep(0.005)
        assert 0 < sum(map(len, first.numbers.values())) < 80
        await world.publish(orders(90, customers=CUSTOMERS)[80:])  # too late to be a part of it
        found = await replayed(world, second)
        for customer, numbers in second.numbers.items():
            first.numbers[customer] += numbers
        assert first.once_and_in_order(published)
        assert found.outcomes["done"] == 80


async def test_only_some_keys_are_read_and_the_others_count_as_gaps(engine: Engine) -> None:
    async with World(engine) as world:
        published, seen = orders(30, customers=3), Seen()
        await handled(world, published)
        wanted = [order for order in published if order.customer == published[0].customer]
        found = await replayed(world, seen, keys={published[0].customer.encode()})
        assert seen.once_and_in_order(wanted)
        assert found.outcomes["done"] == len(wanted)
        assert found.outcomes["gaps"] >= 30 - len(wanted)


async def test_a_stretch_begins_and_ends_at_times(engine: Engine) -> None:
    async with World(engine) as world:
        parts = [orders(count, customers=CUSTOMERS)[count - 10 :] for count in (10, 20, 30)]
        live, times = Billing().app, []
        await world.start(live)
        for part in parts:
            await world.publish(part)
            await world.engine.clock.sleep(0.02)
            stored = [record[1] for _, record in await all_records(world.log, "shop.orders")]
            times.append(max(stored) + 1)
        await world.until_handled()
        seen = Seen()
        found = await replayed(world, seen, since_ms=times[0], until_ms=times[1])
        assert seen.once_and_in_order(parts[1])
        assert found.outcomes["done"] == 10


async def test_what_fails_again_is_a_dead_letter_of_the_shadow_alone(engine: Engine) -> None:
    async with World(engine) as world:
        await handled(world, orders(20, customers=CUSTOMERS))
        found = await replayed(world, Seen(2))
        assert found.outcomes["dead-lettered"] == CUSTOMERS
        assert len(await world.letters(SHADOW)) == CUSTOMERS
        assert await world.letters() == []


async def test_what_is_published_again_is_stored_if_it_is_asked_for(engine: Engine) -> None:
    async with World(engine) as world:
        await handled(world, orders(10, customers=CUSTOMERS))
        before = await what_lives(world)
        found = await replayed(world, Seen(), publishes=True)
        assert not any(found.dropped.values())
        assert await what_lives(world) != before


async def test_a_shadow_that_is_being_replayed_is_refused_to_another(engine: Engine) -> None:
    async with World(engine) as world:
        await handled(world, orders(10, customers=CUSTOMERS))
        async with Replaying(Billing(before=Seen()).app, environment(world), Stretch(name=SHADOW, rate=1), None):
            await eventually(lambda: world.log.members(SHADOW), "the group knows of the first")
            with pytest.raises(UsageError, match="is being replayed by another process"):
                await replayed(world, Seen())


async def test_contradictions_and_unknown_names_are_refused(engine: Engine) -> None:
    async with World(engine) as world:
        await handled(world, orders(10, customers=CUSTOMERS))
        with pytest.raises(UsageError, match="would end before it begins"):
            await replayed(world, Seen(), since_ms=50, until_ms=50)
        with pytest.raises(UsageError, match="has no subscription 'nobody'"):
            await replayed(world, Seen(), name=f"nobody{REPLAY_INFIX}1")


async def test_a_time_of_which_records_are_gone_is_refused(engine: Engine) -> None:
    async with World(engine, KEPT) as world:
        live = kept_reader(Seen())
        await world.start(live)
        await world.publish(kept(0, 40))
        await world.until_handled("reader")
        engine.clock.ahead_ms += 60_000
        await world.publish(kept(40, 60))
        await engine.maintain(world.log)
        await world.until_handled("reader")
        shadow, seen = f"reader{REPLAY_INFIX}1", Seen()
        with pytest.raises(UsageError, match="may not keep all records of that time any more"):
            async with Replaying(kept_reader(seen), environment(world), Stretch(name=shadow), 1):
                pass
        async with Replaying(kept_reader(seen), environment(world), Stretch(name=shadow), None) as replaying:
            found = await replaying.wait()
        assert 20 <= found.outcomes["done"] < 60
        assert found.outcomes["done"] == sum(map(len, seen.numbers.values()))


async def test_a_function_is_given_a_stretch_and_nothing_is_stored(engine: Engine) -> None:
    async with World(engine) as world:
        published, seen = orders(20, customers=CUSTOMERS), defaultdict[str, list[int]](list)
        await handled(world, published)
        before = await what_lives(world), sorted(spec.name for spec in await world.log.topics())

        async def take(order: OrderPlaced, record: Record) -> None:
            assert record[2] == order.customer.encode()
            seen[order.customer].append(order.number)

        given = await replay(Billing().app, environment(world), "billing", take, Span(keys={b"customer-1", b"c1"}))
        assert given == sum(map(len, seen.values()))
        assert await replay(Billing().app, environment(world), "billing", take) == 20
        assert (await what_lives(world), sorted(spec.name for spec in await world.log.topics())) == before


# -- commands --------------------------------------------------------------------------------------------


LEDGER = CommandTopic("ledger", owner="bank", key="account", partitions=2)


class Booked(Struct, frozen=True):
    number: int


@LEDGER.command("ledger.Book", reply=Booked)
class Book(Struct, frozen=True):
    account: str
    number: int


def bank(seen: Counter[int]) -> App:
    """A service that counts what it was asked."""
    app = App("bank", owns=[LEDGER])

    @app.serve(LEDGER).on(Book)
    async def book(command: Book) -> Booked:
        seen[command.number] += 1
        return Booked(command.number)

    return app


async def test_commands_that_are_replayed_answer_nobody(engine: Engine) -> None:
    async with World(engine) as world:
        asked, again = Counter[int](), Counter[int]()
        client, live = App("client", publishes_to=[LEDGER]), bank(asked)
        await world.start(live)
        await client.start(environment(world), consume=False)
        tickets = [await client.send(Book(f"a{n % 3}", n)) for n in range(12)]
        assert [(await ticket.outcome(30)).number for ticket in tickets] == list(range(12))
        name = next(info.name for info in await world.log.subscriptions() if info.topic == "ledger.commands")
        before = {spec.name: await world.log.bounds(spec.name) for spec in await world.log.topics()}
        async with Replaying(
            bank(again), environment(world), Stretch(name=f"{name}{REPLAY_INFIX}1"), None
        ) as replaying:
            found = await replaying.wait()
        after = {spec.name: await world.log.bounds(spec.name) for spec in await world.log.topics()}
        assert again == asked == Counter(range(12))
        assert sum(found.dropped.values()) >= 12
        assert {name: after[name] for name in before} == before
        await client.stop()
