"""Offsets that hold nothing: what compaction and retention took, with real apps on every engine."""

from __future__ import annotations

from datetime import timedelta

from msgspec import Struct

from postline import App, Compaction, Context, Topic
from postline.log.port import Capability
from tests.conformance.apps import NEVER, World, all_records
from tests.conformance.harness import Engine

PRICES = Topic(
    "shop.prices", owner="shop", key="article", partitions=3, compaction=Compaction(tombstone_retention=timedelta(0))
)
CLICKS = Topic("shop.clicks", owner="shop", key="article", partitions=3, retention=timedelta(seconds=10))


@PRICES.event("shop.Priced")
class Priced(Struct, frozen=True):
    """An article's price; only the newest counts."""

    article: str
    cents: int


@CLICKS.event("shop.Clicked")
class Clicked(Struct, frozen=True):
    """Something that is soon of no use."""

    article: str
    number: int


class Reader:
    """Notes what it is given, and keeps each key's last."""

    def __init__(self, topic: Topic, kind: type) -> None:
        self.app = App("reader")
        self.seen: list[Priced | Clicked] = []
        subscription = self.app.subscribe("reader", topic, start="earliest", state=int, retry=NEVER)

        @subscription.on(kind)
        async def read(message: Priced | Clicked, ctx: Context) -> None:
            self.seen.append(message)
            ctx.state.put((ctx.state.get() or 0) + 1)


def prices(articles: int, versions: int, *, first: int = 0) -> list[Priced]:
    """Versions of each article's price, in turn."""
    return [Priced(f"a{n}", version) for version in range(first, first + versions) for n in range(articles)]


async def compact(world: World, engine: Engine) -> None:
    """Compact everything that there is."""
    engine.clock.ahead_ms += 60_000
    await engine.maintain(world.log)


async def test_gaps_of_compaction_are_passed_and_counted(engine: Engine) -> None:
    async with World(engine, PRICES) as world:
        await world.publish(prices(9, 8))
        await compact(world, engine)
        kept = await all_records(world.log, PRICES.name)
        assert len(kept) < 72
        reader = Reader(PRICES, Priced)
        await world.start(reader.app)
        await world.until_handled("reader")
        assert len(reader.seen) == len(kept)
        assert {each for each in reader.seen if isinstance(each, Priced)} >= set(prices(9, 1, first=7))
        audit = await world.balanced("reader", done=len(kept))
        assert audit.gaps == audit.handled - len(kept)
        assert audit.gaps > 0


async def test_gaps_that_open_ahead_of_a_stopped_reader_are_passed_when_it_goes_on(engine: Engine) -> None:
    async with World(engine, PRICES) as world:
        first = Reader(PRICES, Priced)
        await world.start(first.app)
        await world.publish(prices(9, 2))
        await world.until_handled("reader")
        await world.stop(first.app)
        await world.publish(prices(9, 6, first=2))
        await compact(world, engine)
        second = Reader(PRICES, Priced)
        await world.start(second.app)
        await world.publish(prices(9, 1, first=8))
        await world.until_handled("reader")
        audit = await world.monitor.audit("reader")
        assert audit.balanced
        assert audit.outcomes["done"] == len(first.seen) + len(second.seen)
        assert audit.gaps >= 9
        newest = {(each.article, each.cents) for each in second.seen if isinstance(each, Priced)}
        assert newest >= {(f"a{n}", 8) for n in range(9)}


async def test_a_dead_letter_and_what_waits_behind_it_survive_compaction(engine: Engine) -> None:
    async with World(engine, PRICES) as world:
        mended = False
        handled: list[int] = []

        def reader() -> App:
            app = App("reader")

            @app.subscribe("reader", PRICES, start="earliest", retry=NEVER, after="hold").on(Priced)
            async def read(priced: Priced) -> None:
                if not mended:
                    raise ValueError("not now")
                handled.append(priced.cents)

            return app

        first = reader()
        await world.start(first)
        await world.publish(prices(1, 5))
        await world.until_handled("reader", held=4, dead=1)
        await compact(world, engine)
        await world.stop(first)
        mended = True
        await world.start(reader())
        await world.redrive_all("reader")
        await world.until_handled("reader")
        assert handled == [0, 1, 2, 3, 4]
        await world.balanced("reader", done=5)


async def test_what_retention_takes_before_it_is_read_counts_as_lost(engine: Engine) -> None:
    async with World(engine, CLICKS) as world:
        first = Reader(CLICKS, Clicked)
        await world.start(first.app)
        await world.publish([Clicked(f"a{n % 9}", n) for n in range(18)])
        await world.until_handled("reader")
        await world.stop(first.app)
        await world.publish([Clicked(f"a{n % 9}", n) for n in range(18, 45)])
        engine.clock.ahead_ms += 60_000
        last = [Clicked(f"a{n % 9}", n) for n in range(45, 63)]
        await world.publish(last)
        await engine.maintain(world.log)
        kept = await all_records(world.log, CLICKS.name)
        bounds = await world.log.bounds(CLICKS.name)
        stored = await world.log.partitions("reader")
        overtaken = sum(max(0, bounds[each.partition].start - each.position) for each in stored)
        assert overtaken > 0
        assert (await world.view("reader")).overtaken == overtaken
        second = Reader(CLICKS, Clicked)
        await world.start(second.app)
        await world.until_handled("reader")
        assert set(second.seen) >= set(last)
        audit = await world.balanced("reader", done=18 + len(second.seen), lost_to_retention=overtaken)
        assert len(second.seen) == sum(record[0] >= stored[number].position for number, record in kept)
        if Capability.EXACT_RETENTION in world.log.capabilities:
            assert (overtaken, audit.gaps) == (27, 0)


async def test_retention_of_everything_leaves_no_lag(engine: Engine) -> None:
    async with World(engine, CLICKS) as world:
        first = Reader(CLICKS, Clicked)
        await world.start(first.app)
        await world.until_handled("reader")
        await world.stop(first.app)
        await world.publish([Clicked(f"a{n % 9}", n) for n in range(27)])
        engine.clock.ahead_ms += 60_000
        await engine.maintain(world.log)
        second = Reader(CLICKS, Clicked)
        await world.start(second.app)
        await world.publish([Clicked("a1", 100)])
        await world.until_handled("reader")
        assert second.seen == [Clicked("a1", 100)]
        assert (await world.monitor.audit("reader")).balanced
