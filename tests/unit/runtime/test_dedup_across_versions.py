"""Duplicates that a version without a handler for their type takes in: the next version handles one of them."""

from __future__ import annotations

import pytest

from postline import App, Dedup
from postline.log.port import FLAG_OWN_ID, Append
from postline.message import Envelope
from postline.testing import TestApp
from tests.unit.runtime.shop import Cancelled, Order, orders


def _version(number: int, handled: list[tuple[int, str]], dedup: Dedup | None) -> App:
    """Version 1 knows orders alone, version 2 cancellations too."""
    app = App("shop", owns=[orders])
    billing = app.subscribe("billing", orders, start="earliest", dedup=dedup)

    async def note(message: Order | Cancelled) -> None:
        handled.append((number, message.id))

    billing.on(Order)(note)
    if number > 1:
        billing.on(Cancelled)(note)
    return app


@pytest.mark.parametrize(
    ("dedup", "ids", "flags"),
    [
        (None, ["one", "one"], FLAG_OWN_ID),
        (Dedup(by_id=True), ["one", "one"], 0),
        (Dedup(digest=True), ["one", "two"], 0),
    ],
    ids=["published with an own id", "by id", "by digest"],
)
@pytest.mark.parametrize("copy_comes_to", ["version 1", "version 2"])
async def test_a_copy_of_a_record_that_waits_for_its_handler_is_dropped(
    dedup: Dedup | None, ids: list[str], flags: int, copy_comes_to: str
) -> None:
    handled: list[tuple[int, str]] = []
    old, new = _version(1, handled, dedup), _version(2, handled, dedup)
    async with TestApp(new) as t:

        async def cancel(own: str) -> None:
            envelope = Envelope(id=own, source="outside", type="shop.Cancelled")
            await t.log.append([Append("shop.orders", 0, b"c", b'{"id":"cancelled","customer":"c"}', envelope, flags)])
            await t.settle()

        await t.settle()  # its types are known from now on
        await t.stop(new)
        await t.start(old)
        await cancel(ids[0])
        await t.log.append(
            [Append("shop.orders", 0, b"c", b'{"id":"1","customer":"c"}', Envelope(id="x", type="shop.Order"))]
        )
        if copy_comes_to == "version 1":
            await cancel(ids[1])
        await t.settle()
        assert handled == []
        await t.stop(old)
        await t.start(new)
        if copy_comes_to == "version 2":
            await cancel(ids[1])
        await t.settle()
        assert handled == [(2, "cancelled"), (2, "1")]
        assert t.audit()["billing"] == {"done": 2, "duplicate": 1}


async def test_a_type_that_no_version_handles_leaves_no_mark() -> None:
    handled: list[tuple[int, str]] = []
    async with TestApp(_version(1, handled, None)) as t:
        for _ in range(2):
            await t.publish(Cancelled("cancelled", "c"), id="one")
        await t.settle()
        assert t.audit()["billing"] == {"filtered": 2}
