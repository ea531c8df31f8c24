"""Living among others on Kafka: programs without Postline write what we handle, read what we publish, and operate."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from postline import App, Context, Dedup, ForeignTopic, Topic
from postline.contracts import Partitioner
from postline.contracts.cloudevents import OWN_ID, SCHEMA_ID, to_headers
from postline.errors import TopicMismatch
from postline.log.port import SCHEMA_ID_SHIFT, Append
from postline.message import Envelope
from postline.monitor import RecordId
from tests.brokers.cluster import Cluster
from tests.brokers.ready import silent
from tests.conformance.apps import (
    INVOICES,
    NEVER,
    ORDERS,
    Billing,
    World,
    all_records,
    eventually,
    orders,
    started_once,
)
from tests.conformance.engines import KafkaEngine
from tests.integration.foreign_clients import Java, Kcat, Seen, line

T = TypeVar("T")

METERS = Topic("shop.meters", owner="shop", key="meter", partitions=4)
VIEW = ForeignTopic("shop.meters")
TOTALS = Topic("grid.totals", owner="grid", key="meter", partitions=4)


@METERS.event("shop.Metered")
class Metered(Struct, frozen=True):
    meter: str
    watts: int


@METERS.event("shop.Moved")
class Moved(Struct, frozen=True):
    meter: str
    place: str


@VIEW.reads("shop.Metered")
class MeteredView(Struct, frozen=True):
    watts: int


@TOTALS.event("grid.Total")
class Total(Struct, frozen=True):
    meter: str
    total: int


class Grid:
    """An app that reads the topic twice: by its owner's contract, and as somebody who knows one type of it."""

    def __init__(self) -> None:
        self.app = App("grid", owns=[TOTALS])
        #: By subscription, what was handled: message, key, and the envelope's own headers.
        self.typed: list[tuple[object, bytes | None]] = []
        self.viewed: list[tuple[int, bytes | None, str]] = []
        typed = self.app.subscribe("typed", METERS, start="earliest", state=int, retry=NEVER)
        view = self.app.subscribe("view", VIEW, start="earliest", retry=NEVER)

        @typed.on(Metered)
        async def metered(message: Metered, ctx: Context) -> Total | None:
            self.typed.append((message, ctx.key))
            if ctx.key is None:
                return None
            total = (ctx.state.get() or 0) + message.watts
            ctx.state.put(total)
            return Total(message.meter, total)

        @typed.on(Moved)
        async def moved(message: Moved, ctx: Context) -> None:
            self.typed.append((message, ctx.key))

        @view.on(MeteredView)
        async def viewed(message: MeteredView, ctx: Context) -> None:
            self.viewed.append((message.watts, ctx.key, ctx.envelope.headers.get("site", "")))


@pytest.fixture
async def engine(kafka_one: Cluster, tmp_path: Path) -> AsyncIterator[KafkaEngine]:
    made = KafkaEngine(kafka_one, "consumer", tmp_path)
    yield made
    await made.close()


@pytest.fixture
def java(kafka_one: Cluster) -> Java:
    return Java(kafka_one)


@pytest.fixture
def kcat(kafka_one: Cluster) -> Kcat:
    return Kcat(kafka_one)


async def outside(work: Callable[..., T], *arguments: object, **named: object) -> T:
    """Let a foreign program work while the apps of this loop go on."""
    return await asyncio.to_thread(work, *arguments, **named)


def metered(meter: str, watts: int) -> str:
    return f'{{"meter": "{meter}", "watts": {watts}, "firmware": "7.1"}}'


async def test_what_javas_producer_writes_is_handled_with_and_without_keys_and_headers(
    engine: KafkaEngine, java: Java
) -> None:
    async with World(engine, METERS) as world:
        grid = Grid()
        await world.start(grid.app)
        lines = [
            line(metered("m1", 1), "m1"),
            line(metered("m1", 2), "m1", ce_type="shop.Metered", site="Zürich"),
            line('{"meter": "m1", "place": "attic"}', "m1", ce_type="shop.Moved"),
            line(metered("nobody", 3), ce_type="shop.Metered"),
            line("anything at all", "m1", ce_type="vendor.Heartbeat"),
            line(None, "m1"),
        ]
        await outside(java.produce, METERS.name, lines)
        await world.until_handled("view")
        # By the owner's contract a topic of several types has none for a record that names none.
        await world.until_handled("typed")
        assert {watts: (key, site) for watts, key, site in grid.viewed} == {
            1: (b"m1", ""),
            2: (b"m1", "Zürich"),
            3: (None, ""),
        }
        assert [message for message, key in grid.typed if key] == [Metered("m1", 2), Moved("m1", "attic")]
        assert [message for message, key in grid.typed if not key] == [Metered("nobody", 3)]
        assert [each.message for each in await world.read(TOTALS) if each.message.meter == "m1"] == [Total("m1", 2)]
        await world.balanced("view", done=3, filtered=3)
        await world.balanced("typed", done=3, filtered=3)


async def test_what_kcat_writes_is_handled_whatever_it_is_compressed_by(engine: KafkaEngine, kcat: Kcat) -> None:
    async with World(engine, METERS) as world:
        grid = Grid()
        await world.start(grid.app)
        watts = iter(range(1000))
        for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
            records = [(f"m{number % 7}", metered(f"m{number % 7}", next(watts))) for number in range(50)]
            await outside(kcat.produce, METERS.name, records, "-z", codec, ce_type="shop.Metered", site=codec)
        await world.until_handled("view")
        await world.until_handled("typed")
        assert sorted(each[0] for each in grid.viewed) == list(range(250))
        by_meter: dict[bytes | None, list[int]] = {}
        for each, key, site in grid.viewed:
            assert site == ("none", "gzip", "snappy", "lz4", "zstd")[each // 50]
            by_meter.setdefault(key, []).append(each)
        assert all(found == sorted(found) for found in by_meter.values())
        assert sum((await world.totals("typed")).values()) == sum(range(250))


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd"])
async def test_batches_that_java_compresses_are_read(codec: str, engine: KafkaEngine, java: Java) -> None:
    async with World(engine, METERS) as world:
        grid = Grid()
        await world.start(grid.app)
        lines = [line(metered(f"m{number % 5}", number), f"m{number % 5}") for number in range(500)]
        await outside(java.produce, METERS.name, lines, "--compression-codec", codec)
        await world.until_handled("view")
        assert sorted(each[0] for each in grid.viewed) == list(range(500))


async def published_in_every_way(world: World) -> list[Seen]:
    """Publish alone, many at once, from a handler, and a tombstone; gives what others ought to see."""
    billing = Billing()
    await world.start(billing.app)
    await world.publisher.publish(orders(1)[0], headers={"trace": "naïve: a, b"})
    await world.publish(orders(20, first=1))
    await world.until_handled()
    gone = Envelope(id="gone", source="shop", type="shop.OrderPlaced", time_ms=1_700_000_000_001)
    await world.log.append([Append(ORDERS.name, 2, b"c-gone", None, gone)])
    return [seen for topic in (ORDERS, INVOICES) for seen in await as_we_see_it(world, topic)]


async def as_we_see_it(world: World, topic: Topic) -> list[Seen]:
    """A topic's records as our own engine reads them."""
    return [
        Seen(
            partition,
            None if record[2] is None else record[2].decode(),
            None if record[4] is None else record[4].decode(),
            ({SCHEMA_ID: str(number)} if (number := record[5] >> SCHEMA_ID_SHIFT) else {})
            | to_headers(world.log.envelope(record)),
        )
        for partition, record in await all_records(world.log, topic.name)
    ]


def by_place(found: Sequence[Seen]) -> list[Seen]:
    """In the order of partitions, each in its own order."""
    return sorted(found, key=lambda seen: seen.partition)


async def test_what_we_publish_is_read_by_kcat_with_key_value_and_headers(engine: KafkaEngine, kcat: Kcat) -> None:
    async with World(engine) as world:
        ours = await published_in_every_way(world)
        assert len(ours) == 21 + 1 + 21
        assert all(seen.headers["ce_specversion"] == "1.0" and seen.headers["ce_id"] for seen in ours)
        theirs = [*await outside(kcat.consume, ORDERS.name), *await outside(kcat.consume, INVOICES.name)]
        assert by_place(theirs) == by_place(ours)


async def test_what_we_publish_is_read_by_javas_consumer_with_key_value_and_headers(
    engine: KafkaEngine, java: Java
) -> None:
    async with World(engine) as world:
        await published_in_every_way(world)
        for topic, count in ((ORDERS, 22), (INVOICES, 21)):
            theirs = await outside(java.consume, topic.name, count)
            assert by_place(theirs) == by_place(await as_we_see_it(world, topic))


async def test_javas_producer_puts_keys_where_we_put_them(engine: KafkaEngine, java: Java) -> None:
    chance = random.Random(17)
    letters = "aZ09-_./:@ äß漢字Ω🙂é"
    keys = ["", " ", "0", "-1", "a", "🙂", "x" * 5_000, "ключ", "é", "é"]
    keys += [str(chance.randrange(-(10**18), 10**18)) for _ in range(100)]
    keys += [str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(100)]
    keys += ["".join(chance.choice(letters) for _ in range(chance.randrange(1, 40))) for _ in range(150)]
    topic = Topic("shop.places", owner="shop", partitions=7)
    async with World(engine, topic) as world:
        await outside(java.produce, topic.name, [line("x", key) for key in keys])
        found = {record[2]: partition for partition, record in await all_records(world.log, topic.name)}
        partition_of = Partitioner(7).partition_of
        assert found == {key.encode(): partition_of(key.encode()) for key in keys}


async def test_what_a_foreign_producer_aborts_is_never_handled_and_nothing_acknowledged_is_missing(
    engine: KafkaEngine, kafka_one: Cluster, kcat: Kcat
) -> None:
    async with World(engine, METERS) as world:
        grid = Grid()
        await world.start(grid.app)
        foreign = Producer({**kafka_one.client, "transactional.id": f"foreign-{uuid.uuid4()}"}, logger=silent)
        foreign.init_transactions(20)
        for number in range(6):
            foreign.begin_transaction()
            for meter in range(20):
                foreign.produce(METERS.name, metered(f"m{meter}", number), f"m{meter}")
            assert foreign.flush(20) == 0
            (foreign.abort_transaction if number % 2 else foreign.commit_transaction)(20)
            await world.publish([Metered(f"m{meter}", 100 + number) for meter in range(20)])
        await world.until_handled("view")
        await world.until_handled("typed")
        wanted = sorted([0, 2, 4, *range(100, 106)] * 20)
        assert sorted(watts for watts, _, _ in grid.viewed) == wanted
        await world.balanced("view", done=len(wanted))
        # The default of consumers elsewhere; it shows what was aborted, too.
        careless = await outside(kcat.consume, METERS.name, "-X", "isolation.level=read_uncommitted")
        found = sorted(msgspec.json.decode(seen.value or "")["watts"] for seen in careless)
        assert found == sorted([*wanted, *((1, 3, 5) * 20)])


async def test_headers_that_are_no_text_stop_nobody_and_are_shown(engine: KafkaEngine, kafka_one: Cluster) -> None:
    odd = b"\xff\xfe"
    own: tuple[str, str | bytes | None] = (OWN_ID, b"1")
    async with World(engine, METERS) as world:
        grid, ids = Grid(), []
        strict = grid.app.subscribe("strict", METERS, start="earliest", retry=NEVER, dedup=Dedup(by_id=True))

        @strict.on(Metered)
        async def relay(message: Metered, ctx: Context) -> Total:
            ids.append(ctx.idempotency_key)
            if message.watts == 2:
                raise ValueError("no")
            return Total("strict", message.watts)

        await world.start(grid.app)
        foreign = Producer(kafka_one.client, logger=silent)
        others: list[list[tuple[str, str | bytes | None]]] = [
            [own],
            [("x", odd), ("x", None)],
            [("ce_correlationid", odd)],
        ]
        for watts, more in enumerate(others):
            headers = [("ce_type", b"shop.Metered"), ("ce_id", odd + b"%d" % watts), ("ce_source", odd), *more]
            foreign.produce(METERS.name, metered("m1", watts).encode(), b"m1", headers=headers)
        foreign.produce(
            METERS.name, metered("m1", 0).encode(), b"m1", headers=[("ce_type", odd), ("ce_id", odd + b"0")]
        )
        assert foreign.flush(20) == 0
        await world.until_handled("strict", dead=1)
        await world.balanced("strict", done=2, filtered=1, dead_lettered=1)
        assert len(set(ids)) == 3
        (letter,) = await world.letters("strict")
        detail = await world.monitor.dead_letter("strict", RecordId.parse(letter.id))
        assert b"udcff" in msgspec.json.encode(detail)
        assert {each.message.total for each in await world.read(TOTALS) if each.message.meter == "strict"} == {0, 1}


async def test_a_header_whose_name_is_no_text_makes_a_dead_letter_and_stops_nobody(
    engine: KafkaEngine, kcat: Kcat
) -> None:
    async with World(engine, METERS) as world:
        grid = Grid()
        await world.start(grid.app)
        odd = ("-H", os.fsdecode(b"\xff\xfe=1"), "-H", "ce_type=shop.Metered")
        await outside(kcat.produce, METERS.name, [("m1", metered("m1", 1))], *odd)
        await outside(kcat.produce, METERS.name, [("m2", metered("m2", 2))])
        await world.until_handled("view", dead=1)
        (letter,) = await world.letters("view")
        assert "the name of a header is no UTF-8" in letter.error
        assert [watts for watts, _, _ in grid.viewed] == [2]


async def test_tombstones_go_both_ways(engine: KafkaEngine, java: Java, kcat: Kcat) -> None:
    async with World(engine, METERS) as world:
        grid = Grid()
        await world.start(grid.app)
        await outside(java.produce, METERS.name, [line(None, "m1"), line(None, "m2", ce_type="vendor.Gone")])
        await outside(kcat.produce, METERS.name, [("m3", "")])
        await world.until_handled("view")
        await world.balanced("view", filtered=3)
        records = await all_records(world.log, METERS.name)
        assert {(record[2], record[4]) for _, record in records} == {(b"m1", None), (b"m2", None), (b"m3", None)}
        assert {seen.key for seen in await outside(kcat.consume, METERS.name) if seen.value is None} == {
            "m1",
            "m2",
            "m3",
        }


async def test_the_consumer_groups_tool_shows_our_lag_and_none_when_all_is_handled(
    engine: KafkaEngine, java: Java
) -> None:
    async with World(engine) as world:
        billing = Billing()
        await world.start(billing.app)
        await world.publish(orders(24))
        await world.until_handled()
        await world.stop(billing.app)
        await world.publish(orders(30, first=24))
        positions = {info.partition: info.position for info in await world.log.partitions("billing")}
        ends = [bounds.end for bounds in await world.log.bounds(ORDERS.name)]
        told = await outside(java.lags, "billing", ORDERS.name)
        assert told == {number: (positions[number], end, end - positions[number]) for number, end in enumerate(ends)}
        # Each transaction that touched a partition also left its own mark there.
        assert 30 <= sum(lag.lag or 0 for lag in told.values()) <= 30 + 2 * len(ends)
        await world.start(Billing().app)
        await world.until_handled()

        async def without_lag() -> bool:
            found = await outside(java.lags, "billing", ORDERS.name)
            return all(lag.lag == 0 for lag in found.values())

        await eventually(without_lag, "the tool shows no lag")
        await world.balanced(done=54)


async def reset_by_the_tool(java: Java, *where: str) -> None:
    said = await outside(
        java.groups, "--group", "billing", "--topic", ORDERS.name, "--reset-offsets", *where, "--execute"
    )
    assert "Error" not in said, said


async def test_an_offset_reset_by_the_consumer_groups_tool_is_noticed_counted_and_obeyed(
    engine: KafkaEngine, java: Java, caplog: pytest.LogCaptureFixture
) -> None:
    async with World(engine) as world:
        await started_once(world)
        await reset_by_the_tool(java, "--to-earliest")
        caplog.clear()
        second = Billing()
        await world.start(second.app)
        await world.until_handled()
        await eventually(lambda: len(second.ran) == 24, "all are handled again")
        said = [each for each in caplog.records if "another program moved" in each.message]
        touched = {each.partition for each in await world.read(ORDERS)}
        for partition in touched:
            words = f"subscription billing: another program moved {ORDERS.name} partition {partition} from "
            assert any(words in each.message and each.levelno == logging.ERROR for each in said), caplog.text
        await world.balanced(done=24)
        # State is kept, since the tool knows of none: what was counted once is counted twice.
        assert sum((await world.totals()).values()) == 2 * sum(order.total for order in orders(24))
        await world.stop(second.app)
        caplog.clear()
        third = Billing()
        await world.start(third.app)
        await world.publish(orders(12, first=24))
        await world.until_handled()
        assert len(third.ran) == 12
        assert "another program moved" not in caplog.text
        await world.balanced(done=36)


async def test_an_offset_moved_beyond_the_end_and_forwards_skips_what_lies_between(
    engine: KafkaEngine, java: Java
) -> None:
    async with World(engine) as world:
        first = Billing()
        await world.start(first.app)
        await world.publish(orders(12))
        await world.until_handled()
        await world.stop(first.app)
        await world.publish(orders(12, first=12))
        await reset_by_the_tool(java, "--to-latest")
        second = Billing()
        await world.start(second.app)
        await world.publish(orders(12, first=24))
        await world.until_handled()
        assert {order.number for order in second.ran} == {2}
        await world.balanced(done=12)


async def test_offsets_that_were_deleted_are_found_again_in_the_changelog_and_said_so(
    engine: KafkaEngine, java: Java, caplog: pytest.LogCaptureFixture
) -> None:
    async with World(engine) as world:
        await started_once(world)
        await outside(java.groups, "--group", "billing", "--delete")
        caplog.clear()
        second = Billing()
        await world.start(second.app)
        await world.publish(orders(12, first=24))
        await world.until_handled()
        # The last owner left its checkpoint when it stopped: nothing is handled again.
        await world.billed_once_and_in_order(orders(36))
        assert len(second.ran) == 12
        lost = [each for each in caplog.records if "is gone (expired or deleted)" in each.message]
        assert {each.levelno for each in lost} == {logging.ERROR}
        assert len(lost) == 4
        await world.balanced(done=36)


async def test_a_topic_that_is_made_again_under_its_name_is_refused_until_its_subscription_is_removed(
    engine: KafkaEngine, kafka_one: Cluster
) -> None:
    async with World(engine) as world:
        await started_once(world)
    admin = AdminClient({**kafka_one.client})
    admin.delete_topics([ORDERS.name])[ORDERS.name].result(20)

    await eventually(lambda: ORDERS.name not in admin.list_topics(timeout=20).topics, "the topic is gone")
    async with World(engine) as world:
        await world.publish(published := orders(40))
        second = Billing()
        with pytest.raises(TopicMismatch, match=r"deleted and made again.*postline subscriptions remove billing"):
            await world.start(second.app)
        await world.operations.remove("billing")
        third = Billing()
        await world.start(third.app)
        await world.until_handled()
        assert len(third.ran) == len(published)
        await world.balanced(done=len(published))
