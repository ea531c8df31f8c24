"""Routed, split, gathered and tapped exactly once, whoever comes, goes or dies, with real apps on every engine."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import timedelta

import pytest
from msgspec import Struct

from postline import App, Retry, Topic, field
from postline.routing import After, Count, TapTopic, Whole
from tests.conformance.apps import World, eventually
from tests.conformance.harness import Engine, turns

BASKETS = Topic("shop.baskets", owner="shop", key="customer", partitions=4)
LINES = Topic("desk.lines", owner="desk", key="sku", partitions=4)
REVIEWS = Topic("desk.reviews", owner="desk", key="customer", partitions=4)
TOTALS = Topic("desk.totals", owner="desk", key="basket", partitions=4)
COPIES = TapTopic("desk.copies", owner="desk", partitions=4)

SUBSCRIPTIONS = ("sorting", "cutting", "adding", "adding.parts", "per-customer", "per-customer.parts", "watching")


@BASKETS.event("shop.Basket")
class Basket(Struct, frozen=True):
    """What is published; each has its number."""

    customer: str
    number: int
    prices: list[int]


@LINES.event("desk.Line")
class Line(Struct, frozen=True):
    """One part of a basket."""

    basket: str
    sku: str
    price: int


@REVIEWS.event("desk.Review")
class Review(Struct, frozen=True):
    """What a rule sends on."""

    customer: str
    number: int


@REVIEWS.event("desk.Passed")
class Passed(Struct, frozen=True):
    """What satisfies no rule."""

    customer: str
    number: int


@TOTALS.event("desk.Total")
class Total(Struct, frozen=True):
    """The parts of a basket, gathered."""

    basket: str
    total: int
    skus: list[str]


@TOTALS.event("desk.Round")
class Round(Struct, frozen=True):
    """Every three baskets of a customer."""

    basket: str
    numbers: list[int]


@TOTALS.event("desk.Timed")
class Timed(Struct, frozen=True):
    """What came of a customer within a time."""

    basket: str
    numbers: list[int]


class Doors:
    """Where functions of routes can be made to stand."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self.waiting = 0

    async def __call__(self) -> None:
        """Pass, or stand."""
        await turns(2)
        self.waiting += 1
        try:
            await self._open.wait()
        finally:
            self.waiting -= 1

    def shut(self) -> None:
        """Let nobody pass."""
        self._open.clear()

    def open(self) -> None:
        """Let all pass."""
        self._open.set()


def desk(doors: Doors) -> App:
    """One process of a service that does all that routing can."""
    app = App("desk", owns=[LINES, REVIEWS, TOTALS, COPIES])
    retry = Retry(immediate=0, delays=())

    async def cut(basket: Basket) -> list[Line]:
        await doors()
        name = f"b{basket.number}"
        return [Line(name, f"{name}.{place}", price) for place, price in enumerate(basket.prices)]

    async def add(lines: list[Line]) -> Total:
        await doors()
        return Total(lines[0].basket, sum(each.price for each in lines), [each.sku for each in lines])

    def gather(baskets: list[Basket]) -> Round:
        return Round(baskets[0].customer, [each.number for each in baskets])

    router = app.route("sorting", BASKETS, start="earliest", retry=retry)
    router.when(field("number") < 10, to=Review).otherwise(to=Passed)
    app.split("cutting", BASKETS, start="earliest", into=cut, retry=retry)
    app.aggregate("adding", LINES, start="earliest", complete=Whole(), into=add, retry=retry)
    app.aggregate("per-customer", BASKETS, start="earliest", key="customer", complete=Count(3), into=gather)
    app.aggregate(
        *("timed", BASKETS),
        start="earliest",
        key="customer",
        complete=[Count(100), After(timedelta(milliseconds=200))],
        into=lambda baskets: Timed(baskets[0].customer, [each.number for each in baskets]),
    )
    app.tap("watching", BASKETS, start="earliest", to=COPIES)
    return app


def baskets(count: int, first: int = 0) -> list[Basket]:
    """So many baskets of six customers, numbered from the first on."""
    return [Basket(f"c{n % 6}", n, list(range(n, n + 1 + n % 4))) for n in range(first, first + count)]


async def judged(world: World, published: list[Basket]) -> None:
    """Everything was done exactly once, and every audit balances."""
    for name in SUBSCRIPTIONS:  # each feeds on those before it
        await world.until_handled(name)
    lines = sum(len(each.prices) for each in published)
    counts = (len(published), len(published), lines, lines, len(published), len(published), len(published))
    for name, count in zip(SUBSCRIPTIONS, counts, strict=True):
        await world.balanced(name, done=count)
    sent = Counter((type(each.message), each.message.number) for each in await world.read(REVIEWS))
    assert sent == Counter((Review if each.number < 10 else Passed, each.number) for each in published)
    wanted = Counter(each.number for each in published)

    async def timed() -> Counter[int]:
        results = [each.message for each in await world.read(TOTALS)]
        return Counter(number for each in results if isinstance(each, Timed) for number in each.numbers)

    async def all_timed() -> bool:
        return (await timed()).total() >= len(published)

    await eventually(all_timed, "the time has come for every customer")
    assert await timed() == wanted
    results = [each.message for each in await world.read(TOTALS)]
    totals = sorted((each.basket, each.total, each.skus) for each in results if isinstance(each, Total))
    assert totals == sorted(
        (f"b{each.number}", sum(each.prices), [f"b{each.number}.{place}" for place in range(len(each.prices))])
        for each in published
    )
    rounds = [each for each in results if isinstance(each, Round)]
    assert Counter(number for each in rounds for number in each.numbers) == wanted
    assert {len(each.numbers) for each in rounds} == {3}
    copied = Counter((each.message.partition, each.message.offset) for each in await world.read(COPIES))
    assert copied == Counter((each.partition, each.offset) for each in await world.read(BASKETS))


@pytest.mark.parametrize("how", ["stop", "abort", "kill"])
async def test_nothing_is_routed_or_gathered_twice_or_lost_as_members_come_and_go(engine: Engine, how: str) -> None:
    async with World(engine, BASKETS) as world:
        doors, chance = Doors(), random.Random(5)
        members = [desk(doors), desk(doors)]
        for app in members:
            await world.start(app)
        published: list[Basket] = []
        for _ in range(3):
            doors.shut()
            batch = baskets(24, len(published))
            published += batch
            await world.publish(batch)
            await eventually(lambda: doors.waiting, "a function stands at the doors")
            victim = members.pop(chance.randrange(len(members)))
            if how == "stop":
                stopping = asyncio.create_task(world.stop(victim))
                await turns(chance.randrange(10))
                doors.open()
                await stopping
            else:
                await (world.abort if how == "abort" else world.kill)(victim)
                doors.open()
            members.append(desk(doors))
            await world.start(members[-1])
        await judged(world, published)


async def test_an_aggregate_that_waits_goes_on_in_the_next_process(engine: Engine) -> None:
    async with World(engine, BASKETS) as world:
        published: list[Basket] = []
        for number in range(4):
            app = desk(Doors())
            await world.start(app)
            batch = baskets(9, len(published))
            published += batch
            await world.publish(batch)
            for name in SUBSCRIPTIONS:
                await world.until_handled(name)
            if number < 3:
                await world.stop(app)
        await judged(world, published)
