"""Versions of a contract at once on one topic, with real apps on every engine: nobody misreads anybody."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Struct

from postline import App, Context, ForeignTopic, Topic
from postline.contracts import Partitioner, Schemas
from postline.contracts.frame import framed
from postline.contracts.marks import was
from postline.log.port import SCHEMA_ID_SHIFT, Append
from postline.message import Envelope
from postline.registry import IncompatibleSchema
from tests.conformance.apps import NEVER, World
from tests.conformance.harness import Engine

BOOKED = Topic("billing.booked", owner="billing", key="customer", partitions=4)


class OrderV1(Struct, frozen=True):
    """What version 1 published."""

    customer: str
    amount: int


class OrderV2(Struct, frozen=True):
    """A rename and an addition, which resolution bridges."""

    customer: str
    total: Annotated[int, was("amount")] = 0
    note: str = "none"


class OrderV3(Struct, frozen=True):
    """What no version before can be read as without an upcast."""

    customer: str
    cents: int


@BOOKED.event("billing.Booked")
class Booked(Struct, frozen=True):
    """The effect of an order."""

    customer: str
    total: int
    note: str = ""


def orders_of(kind: type, evolution: Any = "BACKWARD_TRANSITIVE") -> Topic:
    """The topic as one version of the shop declares it."""
    topic = Topic("shop.placed", owner="shop", key="customer", partitions=4, schemas=Schemas(evolution=evolution))
    topic.event("shop.Placed")(kind)
    return topic


def shop(topic: Topic) -> App:
    return App("shop", owns=[topic])


def billing(topic: Topic, kind: Any) -> App:
    app = App("billing", owns=[BOOKED])

    @app.subscribe("billing", topic, start="earliest", retry=NEVER).on(kind)
    async def book(order: Any, ctx: Context) -> Booked:
        del ctx
        if isinstance(order, OrderV3):
            return Booked(order.customer, order.cents // 100)
        return Booked(order.customer, order.total, order.note)

    return app


def foreign(customer: str, value: bytes, *, schema_id: int = 0) -> Append:
    key = customer.encode()
    envelope = Envelope(id=f"f-{customer}", source="legacy", type="shop.Placed", content_type="application/json")
    place = Partitioner(4).partition_of(key)
    return Append("shop.placed", place, key, value, envelope, schema_id << SCHEMA_ID_SHIFT)


async def booked(world: World) -> list[tuple[str, int, str]]:
    return sorted((each.message.customer, each.message.total, each.message.note) for each in await world.read(BOOKED))


async def publish(world: World, topic: Topic, *messages: Any) -> None:
    """One version of the shop starts, publishes and ends."""
    app = shop(topic)
    await world.start(app)
    await app.publish_many(messages)
    await world.stop(app)


async def schema_ids(world: World) -> set[int]:
    """The ids that records of the topic name."""
    found: set[int] = set()
    for partition, bounds in enumerate(await world.log.bounds("shop.placed")):
        found |= {each[5] >> SCHEMA_ID_SHIFT for each in await world.log.read("shop.placed", partition, bounds.start)}
    return found


async def test_records_of_an_older_version_are_read_into_the_new_one(engine: Engine) -> None:
    v1, v2 = orders_of(OrderV1), orders_of(OrderV2)
    async with World(engine) as world:
        await publish(world, v1, *(OrderV1(f"c{n}", n) for n in range(8)))
        await publish(world, v2, *(OrderV2(f"d{n}", n, "new") for n in range(8)))
        assert len(await schema_ids(world)) == 2
        await world.start(billing(v2, OrderV2))
        await world.until_handled()
        old = [(f"c{n}", n, "none") for n in range(8)]
        assert await booked(world) == old + [(f"d{n}", n, "new") for n in range(8)]
        await world.balanced(done=16)


async def test_two_versions_of_a_service_share_a_topic_of_two_versions(engine: Engine) -> None:
    v1, v2 = orders_of(OrderV1), orders_of(OrderV2)
    async with World(engine) as world:
        first, second = shop(v1), shop(v2)
        await world.start(first)
        await world.start(second)
        await world.start(billing(v2, OrderV2))
        for n in range(10):
            await first.publish_many([OrderV1(f"c{key}", n) for key in range(6)])
            await second.publish_many([OrderV2(f"c{key}", 100 + n) for key in range(6)])
        await world.until_handled()
        wanted = [(f"c{key}", total, "none") for key in range(6) for n in range(10) for total in (n, 100 + n)]
        assert await booked(world) == sorted(wanted)


async def test_an_upcast_reads_what_resolution_cannot(engine: Engine) -> None:
    v1, v3 = orders_of(OrderV1), orders_of(OrderV3)

    @v3.upcast(OrderV1, OrderV3)
    def in_cents(order: OrderV1) -> OrderV3:
        return OrderV3(order.customer, order.amount * 100)

    async with World(engine) as world:
        await publish(world, v1, OrderV1("c1", 7))
        await publish(world, v3, OrderV3("c2", 900))
        await world.start(billing(v3, OrderV3))
        await world.until_handled()
        assert await booked(world) == [("c1", 7, ""), ("c2", 9, "")]


async def test_a_version_that_breaks_the_rule_is_refused_before_it_publishes(engine: Engine) -> None:
    async with World(engine) as world:
        await publish(world, orders_of(OrderV1), OrderV1("c1", 7))
        app = shop(orders_of(OrderV3))
        with pytest.raises(IncompatibleSchema, match=r"shop\.Placed breaks records of version 1") as told:
            await world.start(app)
        assert "cents" in told.value.message
        assert told.value.remedy
        assert len(await schema_ids(world)) == 1


async def test_a_record_that_names_a_schema_nobody_knows_is_a_dead_letter(
    engine: Engine,
) -> None:
    v2 = orders_of(OrderV2)
    async with World(engine) as world:
        await publish(world, v2, OrderV2("c1", 1))
        await world.start(billing(v2, OrderV2))
        await world.log.append([foreign("c2", b'{"customer":"c2","total":2}', schema_id=2_000_000_000)])
        await world.until_handled(dead=1)
        (letter,) = await world.letters()
        assert "Schema id 2000000000 is not in the registry" in letter.error
        assert await booked(world) == [("c1", 1, "none")]


async def test_values_in_the_frame_of_other_serializers_are_read_by_their_schema(engine: Engine) -> None:
    v1, v2 = orders_of(OrderV1), orders_of(OrderV2)
    async with World(engine) as world:
        await publish(world, v1, OrderV1("c1", 1))
        (old,) = await schema_ids(world)
        await publish(world, v2, OrderV2("c2", 2))
        (new,) = await schema_ids(world) - {old}
        await world.log.append([foreign("c3", framed(old, msgspec.json.encode(OrderV1("c3", 3))))])
        await world.log.append([foreign("c4", framed(new, msgspec.json.encode(OrderV2("c4", 4, "framed"))))])
        await world.log.append([foreign("c5", b"\0\0\0")])
        await world.start(billing(v2, OrderV2))
        await world.until_handled(dead=1)
        (letter,) = await world.letters()
        assert "frame" in letter.error
        assert await booked(world) == [("c1", 1, "none"), ("c2", 2, "none"), ("c3", 3, "none"), ("c4", 4, "framed")]


# -- views of others' topics --------------------------------------------------------------------------


def viewing(kind: type, seen: list[Any], *, old: type | None = None) -> App:
    """A service with a view of its own of the shop's topic; an upcast from `old` takes its `amount` for cents."""
    view = ForeignTopic("shop.placed")
    view.reads("shop.Placed")(kind)
    if old is not None:
        view.upcast(old, kind)(lambda order: kind(order.customer, order.amount))
    app = App("stats")

    @app.subscribe("stats", view, start="earliest", retry=NEVER).on(kind)
    async def note(order: Any) -> None:
        seen.append(order)

    return app


async def test_a_view_that_cannot_read_what_its_owner_writes_does_not_start(engine: Engine) -> None:
    seen: list[Any] = []
    async with World(engine) as world:
        await publish(world, orders_of(OrderV1), OrderV1("c1", 7))
        with pytest.raises(IncompatibleSchema) as told:
            await world.start(viewing(OrderV3, seen))
        for said in ("shop.Placed on shop.placed, version 1, breaks subscription stats", "cents: ", "Give cents a"):
            assert said in told.value.message
        assert told.value.remedy
        await world.start(viewing(OrderV3, seen, old=OrderV1))
        await world.until_handled("stats")
        assert seen == [OrderV3("c1", 7)]


async def test_versions_before_the_newest_that_a_view_cannot_read_are_warned_of(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []
    async with World(engine) as world:
        await publish(world, orders_of(OrderV1, "NONE"), OrderV1("c1", 7))
        await publish(world, orders_of(OrderV3, "NONE"), OrderV3("c2", 900))
        await world.start(viewing(OrderV3, seen))
        warned = [each.getMessage() for each in caplog.records if "can't read version" in each.getMessage()]
        assert len(warned) == 1
        assert "stats can't read version 1 of shop.Placed on shop.placed" in warned[0]
        await world.until_handled("stats", dead=1)
        assert seen == [OrderV3("c2", 900)]
        (letter,) = await world.letters("stats")
        assert "cents: the reader wants it, the writer does not write it. Give cents a default" in letter.error
        assert ".." not in letter.error


async def test_a_view_of_what_nobody_registered_yet_starts(engine: Engine) -> None:
    seen: list[Any] = []
    async with World(engine) as world:
        owner = App("shop", owns=[Topic("shop.placed", owner="shop", key="customer", partitions=4)])
        await world.start(owner)
        await world.stop(owner)
        await world.start(viewing(OrderV3, seen))


#: `message Placed { sint32 amount = 1; fixed64 at = 2; string customer = 3; }`, as `contracts import` writes it.
PLACED_PROTO = (
    '{"root":{"is":"reference","name":"Placed"},"definitions":{"Placed":{"is":"record","name":"Placed","fields":['
    '{"name":"amount","type":{"is":"scalar","kind":"integer","bits":32,"wire":"sint32"},"required":false,"default":0,'
    '"number":1},{"name":"at","type":{"is":"scalar","kind":"integer","limits":{"ge":0,"le":18446744073709551615},'
    '"bits":64,"wire":"fixed64"},"required":false,"default":0,"number":2},{"name":"customer","type":{"is":"scalar",'
    '"kind":"text"},"required":false,"default":"","number":3}]}}}'
)


async def test_what_an_imported_file_says_is_what_lies_in_the_log_and_what_is_read_of_it(engine: Engine) -> None:
    class Placed(Struct, frozen=True):
        amount: int = 0
        at: int = 0
        customer: str = ""

    class View(Struct, frozen=True):
        customer: str = ""
        amount: int = 0

    pytest.importorskip("google.protobuf")
    schemas = Schemas(format="protobuf")
    own = Topic("shop.placed", owner="shop", key="customer", partitions=4, schemas=schemas)
    own.event("shop.Placed", schema=PLACED_PROTO)(Placed)
    view = ForeignTopic("shop.placed", format="protobuf")
    view.reads("shop.Placed", schema=PLACED_PROTO)(View)
    app = App("billing", owns=[BOOKED])

    @app.subscribe("billing", view, start="earliest", retry=NEVER).on(View)
    async def book(order: View) -> Booked:
        return Booked(order.customer, order.amount)

    # As Protobuf's compiler has it: -5 in zigzag, 7 in eight bytes.
    wire = b"\x08\x09\x11\x07\0\0\0\0\0\0\0\x1a\x03ann"
    async with World(engine) as world:
        await publish(world, own, Placed(-5, 7, "ann"))
        bounds = await world.log.bounds("shop.placed")
        pages = [await world.log.read("shop.placed", n, each.start) for n, each in enumerate(bounds)]
        assert [record[4] for page in pages for record in page] == [wire]
        bare = Envelope(id="f-1", source="legacy", type="shop.Placed", content_type="application/protobuf")
        place = Partitioner(4).partition_of(b"bob")
        await world.log.append([Append("shop.placed", place, b"bob", wire.replace(b"ann", b"bob"), bare)])
        await world.start(app)
        await world.until_handled()
        assert await booked(world) == [("ann", -5, ""), ("bob", -5, "")]
