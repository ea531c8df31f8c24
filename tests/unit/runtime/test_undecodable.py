"""Records that can't be read, tombstones, foreign records, and types that nobody knows."""

from __future__ import annotations

import logging

import pytest
from msgspec import Struct

from postline import App, Context, ForeignTopic, Retry, Topic
from postline.log.port import Append
from postline.message import Envelope
from postline.testing import TestApp
from tests.unit.runtime.shop import Cancelled, Order, build, orders, running, subscribe

ORDER = "shop.Order"


async def append(t: TestApp, value: bytes | None, type_name: str = ORDER, key: bytes | None = b"c"):
    """A record as another program may write it."""
    return await t.log.append([Append("shop.orders", 0, key, value, Envelope(type=type_name))])


async def test_an_undecodable_record_goes_to_the_dead_letters_with_its_bytes_at_the_first_attempt():
    handled: list[str] = []

    async def handle(order: Order) -> None:
        handled.append(order.id)

    async with running(build(handle, retry=Retry(immediate=5, delays=(1,)))) as t:
        await append(t, b"\xff\x00not json")
        await append(t, b'{"id":"2","customer":"d"}', key=b"d")
        await t.settle()
        (letter,) = t.dead_letters("sub")
        assert letter.value == b"\xff\x00not json"
        assert (letter.attempts, letter.error_type) == (1, "DecodeError")
        assert handled == ["2"]


@pytest.mark.parametrize("plain", [False, True])
async def test_a_tombstone_is_filtered(plain: bool):
    async def handle(order: Order) -> None:
        raise AssertionError

    def handle_plainly(order: Order) -> None:
        raise AssertionError

    async with running(build(handle_plainly if plain else handle)) as t:
        await append(t, None)
        await append(t, None, type_name="")
        await t.settle()
        assert t.audit()["sub"] == {"filtered": 2}


async def test_a_tombstone_is_filtered_in_batches_too():
    async def handle(batch: list[Order]) -> None:
        """Whatever."""

    async with running(build(handle, batch=10)) as t:
        await append(t, None)
        await append(t, b'{"id":"2","customer":"d"}')
        await t.settle()
        assert t.audit()["sub"] == {"filtered": 1, "done": 1}


async def test_types_that_no_version_handles_are_filtered_and_named_once(caplog: pytest.LogCaptureFixture):
    async def handle(order: Order) -> None:
        """Whatever."""

    with caplog.at_level(logging.WARNING):
        async with running(build(handle)) as t:
            await t.publish_many([Cancelled("1", "c"), Cancelled("2", "c"), Order("3", "c")])
            await t.settle()
            assert t.audit()["sub"] == {"filtered": 2, "done": 1}
    named = [r.getMessage() for r in caplog.records if "filters records of type" in r.getMessage()]
    assert len(named) == 1
    assert "'shop.Cancelled'" in named[0]


async def test_records_without_headers_are_read_as_the_only_type_of_their_topic():
    foreign = Topic("logs", owner="elsewhere", key="customer", partitions=1)
    view = ForeignTopic("logs")

    @foreign.event("logs.Line")
    class Line(Struct):
        customer: str

    @view.reads("logs.Line")
    class LineView(Struct):
        customer: str

    seen: list[tuple[str, str]] = []
    app = App("reader")

    async def handle(line: LineView, ctx: Context) -> None:
        seen.append((line.customer, ctx.message_id))

    app.subscribe("sub", view, start="earliest").on(LineView)(handle)
    async with running(app, topics=[foreign]) as t:
        await t.log.append([Append("logs", 0, b"c", b'{"customer":"c","more":1}', Envelope())])
        await t.settle()
    assert seen == [("c", "logs/0/0")]


async def test_records_without_headers_are_filtered_where_the_topic_has_several_types():
    async def handle(order: Order) -> None:
        raise AssertionError

    async with running(build(handle)) as t:
        await append(t, b'{"id":"2","customer":"d"}', type_name="")
        await t.settle()
        assert t.audit()["sub"] == {"filtered": 1}


async def test_an_older_version_holds_records_of_a_type_that_a_newer_one_handles():
    old_seen: list[str] = []
    new_seen: list[str] = []

    async def old(order: Order) -> None:
        old_seen.append(order.id)

    async def new(order: Order) -> None:
        new_seen.append(order.id)

    async def cancel(cancelled: Cancelled) -> None:
        new_seen.append(cancelled.id)

    older, newer = build(old), App("shop", owns=[orders])
    subscribe(newer, new).on(Cancelled)(cancel)
    async with running(older) as t:
        await t.publish(Cancelled("0", "c"))
        await t.settle()
        assert t.audit()["sub"] == {"filtered": 1}, "no version handles it yet"
        await t.start(newer)
        await t.settle()
        for c in range(16):
            await t.publish_many([Order(f"{c}a", f"c{c}"), Cancelled(f"{c}b", f"c{c}"), Order(f"{c}c", f"c{c}")])
        await t.settle()
        assert {len(app.consumers[0].owned) for app in (older, newer)} == {4}
        held = t.audit()["sub"]["held"]
        assert held > 0
        assert held % 2 == 0, "the key's later records wait behind the one that can't be handled"
        await t.stop(older)
        await t.settle()
        assert t.audit()["sub"] == {"done": 48, "filtered": 1}
        for c in range(16):
            assert [i for i in [*old_seen, *new_seen] if i[:-1] == str(c)] == [f"{c}a", f"{c}b", f"{c}c"]
