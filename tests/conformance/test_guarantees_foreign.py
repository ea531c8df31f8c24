"""Records that other programs wrote, readable or not, with real apps on every engine."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from postline import App, Context, ForeignTopic, Topic
from postline.contracts import Partitioner
from postline.log.port import Append
from postline.message import Envelope
from postline.monitor import RecordId
from tests.conformance.apps import NEVER, World, all_records
from tests.conformance.harness import Engine

METERS = Topic("shop.meters", owner="shop", key="meter", partitions=4)
TOTALS = Topic("grid.totals", owner="grid", key="meter", partitions=4)
VIEW = ForeignTopic("shop.meters")


@METERS.event("shop.Metered")
class Metered(Struct, frozen=True):
    """As the owner declares it."""

    meter: str
    watts: int


@VIEW.reads("shop.Metered")
class MeteredView(Struct, frozen=True):
    """As a consumer sees it that can read numbers written as text, too."""

    meter: str
    watts: int | str


@TOTALS.event("grid.Total")
class Total(Struct, frozen=True):
    """The effect of a record."""

    meter: str
    watts: int
    total: int


def strict() -> App:
    """A consumer that reads by the owner's contract."""
    return grid(METERS, Metered)


def lenient() -> App:
    """The same subscription in a version that reads more."""
    return grid(VIEW, MeteredView)


def grid(topic: Topic | ForeignTopic, kind: type) -> App:
    app = App("grid", owns=[TOTALS])

    @app.subscribe("grid", topic, start="earliest", state=int, retry=NEVER).on(kind)
    async def add(metered: Metered | MeteredView, ctx: Context) -> Total:
        total = (ctx.state.get() or 0) + int(metered.watts)
        ctx.state.put(total)
        return Total(metered.meter, int(metered.watts), total)

    return app


def foreign(meter: str, value: bytes, envelope: Envelope | None = None) -> Append:
    """A record as a program without Postline writes it: bytes and a key, placed as all producers do."""
    key = meter.encode()
    return Append(METERS.name, Partitioner(4).partition_of(key), key, value, envelope or Envelope())


def reading(meter: str, watts: object) -> bytes:
    """A record's bytes."""
    return msgspec.json.encode({"meter": meter, "watts": watts, "firmware": "7.1"})


async def check_totals(world: World, watts: dict[str, list[int]]) -> None:
    """Each meter's records had their effect once, in this order."""
    found: dict[str, list[int]] = {}
    for each in await world.read(TOTALS):
        found.setdefault(each.message.meter, []).append(each.message.watts)
    assert found == watts
    assert await world.totals("grid") == {meter: sum(each) for meter, each in watts.items()}


async def test_records_without_our_headers_are_handled_like_our_own(engine: Engine) -> None:
    async with World(engine, METERS) as world:
        await world.start(strict())
        for number in range(10):
            await world.log.append([foreign(f"m{meter}", reading(f"m{meter}", number)) for meter in range(10)])
            await world.publish([Metered(f"m{meter}", 100 + number) for meter in range(10)])
        await world.until_handled("grid")
        expected = [watts for number in range(10) for watts in (number, 100 + number)]
        await check_totals(world, {f"m{meter}": expected for meter in range(10)})
        await world.balanced("grid", done=200)


async def test_a_view_of_one_type_takes_records_without_a_type(engine: Engine) -> None:
    async with World(engine, METERS) as world:
        await world.start(lenient())
        await world.log.append([foreign("m1", reading("m1", 5)), foreign("m1", reading("m1", "6"))])
        await world.until_handled("grid")
        await check_totals(world, {"m1": [5, 6]})


async def test_a_foreign_record_of_another_type_is_filtered_and_one_without_value_too(engine: Engine) -> None:
    async with World(engine, METERS) as world:
        await world.start(strict())
        gone = foreign("m1", b"")
        gone.value = None
        other = foreign("m1", b"anything", Envelope(type="vendor.Heartbeat"))
        await world.log.append([other, gone, foreign("m1", reading("m1", 3))])
        await world.until_handled("grid")
        await check_totals(world, {"m1": [3]})
        await world.balanced("grid", done=1, filtered=2)


async def copies(world: World) -> Sequence[tuple[bytes | None, str]]:
    """The bytes on the dead-letters topic, with the error's name."""
    found = []
    for _, record in await all_records(world.log, "grid.dead-letters"):
        found.append((record[4], world.log.envelope(record).headers["postline-error-type"]))
    return found


async def test_undecodable_records_become_dead_letters_with_their_bytes_and_hold_their_key(engine: Engine) -> None:
    async with World(engine, METERS) as world:
        await world.start(strict())
        broken = b"\x00\xffnot json \x80"
        await world.log.append(
            [
                foreign("m1", reading("m1", 1)),
                foreign("m1", broken),
                foreign("m1", reading("m1", 2)),
                foreign("m2", reading("m2", 3)),
            ]
        )
        await world.until_handled("grid", held=1, dead=1)
        (letter,) = await world.letters("grid")
        assert (letter.key, letter.blocked, letter.holds) == ("m1", 1, True)
        assert [value for value, _ in await copies(world)] == [broken]
        await check_totals(world, {"m1": [1], "m2": [3]})
        await world.balanced("grid", done=2, dead_lettered=1, held=1)
        discard = await world.operations.discard("grid", [RecordId.parse(letter.id)], "nobody can read it")
        await world.obeyed(discard)
        await world.until_handled("grid")
        await check_totals(world, {"m1": [1, 2], "m2": [3]})
        await world.balanced("grid", done=3, discarded=1)


async def test_an_undecodable_record_is_redriven_by_a_version_that_can_read_it(engine: Engine) -> None:
    async with World(engine, METERS) as world:
        first = strict()
        await world.start(first)
        await world.log.append([foreign("m1", reading("m1", watts)) for watts in (1, "20", 3)])
        await world.until_handled("grid", held=1, dead=1)
        await world.redrive_all("grid")
        await world.until_handled("grid", held=1, dead=1)
        assert [value for value, _ in await copies(world)] == [reading("m1", "20")] * 2
        await world.stop(first)
        await world.start(lenient())
        await world.redrive_all("grid")
        await world.until_handled("grid")
        await check_totals(world, {"m1": [1, 20, 3]})
        await world.balanced("grid", done=3)
