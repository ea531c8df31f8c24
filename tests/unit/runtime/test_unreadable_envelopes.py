"""Records whose stored envelope can't be read: each is a dead letter at most, and the others go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from postline import Context, Dedup, Retry
from postline.log.port import FLAG_OWN_ID, UNREADABLE_TYPE, Append
from postline.log.sqlite.log import SqliteLog
from postline.message import Envelope
from postline.testing import TestApp
from tests.unit.runtime.shop import Order, Receipt, build, running


async def append_garbage(t: TestApp, flags: int = 0) -> None:
    """Order 1 with an envelope that is none, and order 2 of another customer."""
    made = Envelope(id="x", source="shop", type="shop.Order")
    values = [b'{"id":"1","customer":"c"}', b'{"id":"2","customer":"d"}']
    appends = [
        Append("shop.orders", 0, b"cd"[n : n + 1], value, made if n else Envelope(type="shop.Order"), flags)
        for n, value in enumerate(values)
    ]
    assert isinstance(t.log, SqliteLog)
    storage = t.log.storage
    rows = storage.rows(appends)
    rows.values[6] = b"\xc1 garbage"
    await storage.writer.append(rows)


@pytest.mark.parametrize("way", ["own id", "dedup by id", "batches", "publishing", "failing", "threads"])
async def test_a_record_whose_envelope_is_garbage_is_a_dead_letter_and_the_next_one_is_handled(way: str) -> None:
    handled: list[str] = []

    async def handle(order: Order, ctx: Context) -> None:
        if way == "publishing":
            ctx.publish(Receipt(order.id, order.customer))
        elif way == "failing" and order.id == "1":
            raise ValueError("no")
        handled.append(order.id)

    async def handle_all(orders: list[Order]) -> None:
        handled.extend(order.id for order in orders)

    def handle_plainly(order: Order) -> None:
        handled.append(order.id)

    functions: dict[str, Callable[..., Any]] = {"batches": handle_all, "threads": handle_plainly}
    function = functions.get(way, handle)
    options: dict[str, Any] = {
        "dedup by id": {"dedup": Dedup(by_id=True)},
        "batches": {"batch": 10},
        "failing": {"retry": Retry(immediate=0, delays=())},
    }.get(way, {})  # type: ignore[assignment]
    async with running(build(function, **options)) as t:
        await append_garbage(t, 0 if way in ("publishing", "failing", "dedup by id") else FLAG_OWN_ID)
        await t.settle()
        (letter,) = t.dead_letters("sub")
        assert letter.value == b'{"id":"1","customer":"c"}'
        assert letter.error_type == ("ValueError" if way == "failing" else "DecodeError")
        assert handled == ["2"]


async def test_an_event_that_is_no_event_is_a_dead_letter_that_says_why_and_the_next_one_is_handled() -> None:
    handled: list[str] = []

    async def handle(order: Order) -> None:
        handled.append(order.id)

    async with running(build(handle)) as t:
        broken = Append("shop.orders", 0, b"c", b'{"specversion": "1.0"}', Envelope(type=UNREADABLE_TYPE))
        good = Envelope(id="x", source="shop", type="shop.Order")
        await t.log.append([broken, Append("shop.orders", 0, b"d", b'{"id":"2","customer":"d"}', good)])
        await t.settle()
        (letter,) = t.dead_letters("sub")
        assert "envelope can't be read" in letter.error
        assert handled == ["2"]
