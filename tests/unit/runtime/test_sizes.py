"""Limits of size: what counts, so that no record fails only when everything around it commits."""

from __future__ import annotations

import pytest
from msgspec import Struct

from postline import App, Context, Retry, Schemas, Topic
from postline.errors import MessageTooLarge
from postline.log.port import Append
from postline.message import Envelope
from postline.testing import TestApp

LIMIT = 1_000
NOTES = Topic("shop.notes", owner="shop", key="id", partitions=1, schemas=Schemas(message_bytes_max=LIMIT))


@NOTES.event("shop.Note")
class Note(Struct, frozen=True):
    id: str
    text: str = ""


ORDERS = Topic("shop.orders", owner="shop", partitions=1)


@ORDERS.event("shop.Order")
class Order(Struct, frozen=True):
    id: str


def note_of(size: int) -> Note:
    return Note("a", "x" * (size - len(b'{"id":"a","text":""}')))


async def test_the_value_counts_up_to_the_limit_and_what_an_envelope_commonly_has_does_not():
    async with TestApp(App("shop", owns=[NOTES])) as t:
        await t.publish(note_of(LIMIT))
        await t.publish(note_of(LIMIT), id="i" * 1_000, headers={"tenant": "n" * 1_000})
        with pytest.raises(MessageTooLarge, match="1001 bytes is over the limit of 1000"):
            await t.publish(note_of(LIMIT + 1))


@pytest.mark.parametrize("odd", [{"headers": {"x": "€" * 2_000}}, {"id": "i" * 5_000}])
async def test_a_huge_envelope_counts_beside_the_value(odd: dict):
    async with TestApp(App("shop", owns=[NOTES])) as t:
        with pytest.raises(MessageTooLarge, match="its key and envelope have"):
            await t.publish(Note("a"), **odd)
        with pytest.raises(MessageTooLarge, match="its key and envelope have"):
            await t.publish(Note("k" * 900), headers={"x": "y" * 4_000})


async def test_an_output_that_inherits_a_huge_id_fails_its_own_record_alone():
    app = App("shop", owns=[NOTES, ORDERS])

    @app.subscribe("notes", ORDERS, start="earliest", retry=Retry(immediate=0, delays=())).on(Order)
    async def note(order: Order, ctx: Context) -> Note:
        return Note(order.id)

    async with TestApp(app) as t:
        for number, id in enumerate(("1", "i" * 50_000, "3")):
            envelope = Envelope(id=id, source="outside", type="shop.Order")
            await app.log.append([Append("shop.orders", 0, None, b'{"id":"%d"}' % number, envelope)])
        await t.settle()
        assert t.audit()["notes"] == {"done": 2, "dead-lettered": 1}
        assert "MessageTooLarge" in t.dead_letters("notes")[0].error
