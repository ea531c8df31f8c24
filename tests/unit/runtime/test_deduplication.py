"""Duplicates from outside: by own id without being asked, by field, by digest; within window and count."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from postline import App, Dedup, Retry
from postline.log.port import FLAG_OWN_ID, Append
from postline.message import Envelope
from postline.runtime.control import ControlOp
from tests.unit.runtime.shop import Cancelled, Note, Order, Receipt, build, notes, orders, running, spread, subscribe

NEVER = Retry(immediate=0, delays=())


def collecting() -> tuple[Any, list[Order]]:
    handled: list[Order] = []

    async def handle(order: Order) -> None:
        handled.append(order)

    return handle, handled


async def test_a_message_published_twice_with_its_own_id_is_handled_once_by_every_subscription():
    first, seen_first = collecting()
    second, seen_second = collecting()
    app = App("shop", owns=[orders])
    subscribe(app, first, name="first")
    subscribe(app, second, name="second", batch=None)
    async with running(app) as t:
        for _ in range(3):
            await t.publish(Order("1", "c"), id="order-1")
        await t.settle()
        await t.publish(Order("1", "c"), id="order-1")
        await t.publish(Order("2", "c"), id="order-2")
        await t.settle()
        assert [o.id for o in seen_first] == [o.id for o in seen_second] == ["1", "2"]
        assert t.audit()["first"] == {"done": 2, "duplicate": 3}


async def test_a_repeated_keyless_message_goes_to_the_same_partition_and_is_found_there():
    handled: list[str] = []

    async def handle(note: Note) -> None:
        handled.append(note.text)

    async with running(build(handle, Note, notes)) as t:
        for _ in range(5):
            await t.apps[0].publish_many([Note("a"), Note("b")], id_of=lambda note: note.text)
        await t.settle()
    assert sorted(handled) == ["a", "b"]


async def test_the_same_id_of_another_source_is_another_message():
    handle, handled = collecting()
    value = b'{"id":"1","customer":"c"}'
    async with running(build(handle)) as t:
        for source in ("north", "south", "north"):
            envelope = Envelope(id="1", source=source, type="shop.Order")
            await t.log.append([Append("shop.orders", 0, b"c", value, envelope, FLAG_OWN_ID)])
        await t.settle()
        assert t.audit()["sub"] == {"done": 2, "duplicate": 1}
    assert len(handled) == 2


async def test_duplicates_are_found_after_a_crash_and_by_the_next_owner():
    handle, handled = collecting()
    app = build(handle)
    async with running(app) as t:
        await t.publish(Order("1", "c"), id="one")
        await t.settle()
        await t.crash(app)
        await t.start(app)
        await t.publish(Order("1", "c"), id="one")
        await t.settle()
    assert len(handled) == 1


async def test_a_duplicate_of_a_held_record_is_dropped_and_of_a_dead_letter_too():
    fail = [True]
    handled: list[str] = []

    async def handle(order: Order) -> None:
        if fail[0]:
            raise ValueError
        handled.append(order.id)

    async with running(build(handle, retry=Retry(immediate=0, delays=(10,)))) as t:
        await t.publish(Order("1", "c"), id="one")
        await t.settle()
        await t.publish(Order("1", "c"), id="one")
        await t.settle()
        assert t.audit()["sub"] == {"held": 1, "duplicate": 1}
        await t.advance(minutes=1)
        await t.publish(Order("1", "c"), id="one")
        await t.settle()
        assert t.audit()["sub"] == {"dead-lettered": 1, "duplicate": 2}
        fail[0] = False
        await t.redrive("sub")
        await t.settle()
        assert handled == ["1"], "the same offset again is a redrive, no duplicate"


async def test_a_replay_handles_everything_again_but_not_the_duplicates():
    handle, handled = collecting()
    async with running(build(handle)) as t:
        for _ in range(2):
            await t.publish_many(spread(3, 3), id_of=lambda order: order.id)
        await t.settle()
        assert len(handled) == 9
        await t.control("sub", ControlOp(op="reset", offset=0))
        await t.settle()
        assert len(handled) == 18
        assert t.audit()["sub"] == {"done": 9, "duplicate": 9}


async def test_a_field_or_a_digest_tells_duplicates_where_asked_for():
    by_field, seen_by_field = collecting()
    by_digest, seen_by_digest = collecting()
    ignoring, seen_ignoring = collecting()
    app = App("shop", owns=[orders])
    subscribe(app, by_field, name="field", dedup=Dedup(field="id"))
    subscribe(app, by_digest, name="digest", dedup=Dedup(digest=True))
    subscribe(app, ignoring, name="ignoring", dedup=Dedup(digest=True, ignore=("total",)))
    async with running(app) as t:
        await t.publish_many([Order("1", "c", 1), Order("1", "c", 1), Order("1", "c", 2), Order("2", "c", 1)])
        await t.settle()
        assert [(o.id, o.total) for o in seen_by_field] == [("1", 1), ("2", 1)]
        assert [(o.id, o.total) for o in seen_by_digest] == [("1", 1), ("1", 2), ("2", 1)]
        assert [(o.id, o.total) for o in seen_ignoring] == [("1", 1), ("2", 1)]


async def test_by_id_drops_duplicates_of_messages_whose_publisher_did_not_ask_for_it():
    handle, handled = collecting()
    value = b'{"id":"1","customer":"c"}'
    async with running(build(handle, dedup=Dedup(by_id=True))) as t:
        for own in ("x", "x", "", ""):
            await t.log.append([Append("shop.orders", 0, b"c", value, Envelope(id=own, type="shop.Order"))])
        await t.settle()
        assert t.audit()["sub"] == {"done": 3, "duplicate": 1}
    assert len(handled) == 3


async def test_a_mark_is_forgotten_only_when_both_window_and_count_have_passed():
    handle, handled = collecting()
    dedup = Dedup(field="id", window=timedelta(hours=1), count=10)
    async with running(build(handle, dedup=dedup, retry=NEVER)) as t:

        async def others(number: int) -> None:
            await t.publish_many([Order(f"x{next(numbers)}", "c") for _ in range(number)])
            await t.settle()

        numbers = iter(range(10_000))
        await t.publish(Order("1", "c"))
        await others(50)
        await t.publish(Order("1", "c"))
        await t.settle()
        assert t.audit()["sub"]["duplicate"] == 1, "the count has passed, the window has not"
        await t.advance(minutes=61)
        await t.publish(Order("1", "c"))
        await t.settle()
        assert t.audit()["sub"]["duplicate"] == 2, "the window has passed, nobody has swept"
        await t.advance(minutes=61)
        await others(2)
        await t.advance(minutes=2)
        await others(2)
        await t.publish(Order("1", "c"))
        await t.settle()
        assert t.audit()["sub"]["duplicate"] == 2, "both have passed"
    assert [o.id for o in handled].count("1") == 2


async def test_a_mark_outlives_its_window_while_fewer_records_than_the_count_have_come():
    handle, handled = collecting()
    dedup = Dedup(field="id", window=timedelta(hours=1), count=100)
    async with running(build(handle, dedup=dedup, retry=NEVER)) as t:
        await t.publish(Order("1", "c"))
        for day in range(3):
            await t.advance(days=1)
            await t.publish(Order(f"x{day}", "c"))
            await t.settle()
        await t.publish(Order("1", "c"))
        await t.settle()
    assert [o.id for o in handled].count("1") == 1


async def test_what_a_filter_turns_down_leaves_no_mark():
    handle, _ = collecting()
    wanted = [False]
    async with running(build(handle, where=lambda order: wanted[0])) as t:
        await t.publish(Order("1", "c"), id="one")
        await t.settle()
        wanted[0] = True
        await t.publish(Order("1", "c"), id="one")
        await t.settle()
        assert t.audit()["sub"] == {"filtered": 1, "done": 1}


async def test_a_filter_that_raises_is_a_failure_of_the_handler():
    handle, handled = collecting()
    broken = [True]

    def where(order: Order) -> bool:
        if broken[0] and order.total == 1:
            raise KeyError("filter")
        return True

    async with running(build(handle, where=where, retry=Retry(immediate=0, delays=(5,)))) as t:
        await t.publish_many(spread(1, 3))
        await t.settle()
        assert t.audit()["sub"] == {"done": 1, "held": 2}
        broken[0] = False
        await t.advance(seconds=6)
        assert [o.total for o in handled] == [0, 1, 2]
        broken[0] = True
        await t.publish(Order("again", "c", 1))
        await t.advance(minutes=1)
        assert t.dead_letters("sub")[0].error_type == "KeyError"


async def test_a_held_record_that_its_filter_turns_down_later_is_filtered():
    handle, handled = collecting()
    state = ["raise"]

    def where(order: Order) -> bool:
        if state[0] == "raise":
            raise ValueError
        return False

    async with running(build(handle, where=where, retry=Retry(immediate=0, delays=(5,)))) as t:
        await t.publish(Order("1", "c"))
        await t.settle()
        state[0] = "refuse"
        await t.advance(seconds=6)
        assert t.audit()["sub"] == {"filtered": 1}
    assert handled == []


@pytest.mark.parametrize("batch", [None, 10])
async def test_duplicates_that_come_while_the_first_is_being_handled_are_dropped(batch: int | None):
    release = asyncio.Event()
    handled = 0

    async def handle(order: Any) -> Receipt:
        nonlocal handled
        handled += 1
        await release.wait()
        return Receipt("1", "c")

    async with running(build(handle, batch=batch), patience_seconds=0.25) as t:
        await t.publish(Order("1", "c"), id="one")
        with pytest.raises(AssertionError):
            await t.settle()
        await t.publish(Order("1", "c"), id="one")
        with pytest.raises(AssertionError):
            await t.settle()
        release.set()
        await t.settle()
        assert handled == 1
        assert t.audit()["sub"] == {"done": 1, "duplicate": 1}


@pytest.mark.parametrize(
    "value",
    [b'{"id":"1","customer":"c","more":1e999}', b'{"id":"1","customer":"c","more":"\xff"}'],
    ids=["a number beyond all numbers", "no text"],
)
async def test_a_digest_of_what_only_the_handler_can_read_is_that_of_its_bytes(value: bytes):
    handle, handled = collecting()
    async with running(build(handle, dedup=Dedup(digest=True))) as t:
        for id in ("a", "b"):
            envelope = Envelope(id=id, source="outside", type="shop.Order")
            await t.log.append([Append("shop.orders", 0, b"c", value, envelope)])
        await t.publish(Order("2", "c"))
        await t.settle()
        assert sorted(order.id for order in handled) == ["1", "2"]
        assert t.audit()["sub"] == {"done": 2, "duplicate": 1}


class Shy:
    """A value that can't be printed."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        raise ValueError("not telling")


async def test_a_field_that_can_not_be_printed_is_told_by_the_record_s_bytes(monkeypatch: pytest.MonkeyPatch):
    handle, handled = collecting()
    monkeypatch.setattr(Order, "shy", property(lambda order: Shy(order.id)), raising=False)
    async with running(build(handle, dedup=Dedup(field="shy"))) as t:
        for id in ("1", "1", "2"):
            await t.publish(Order(id, "c"))
        await t.settle()
        assert [order.id for order in handled] == ["1", "2"]
        assert t.audit()["sub"] == {"done": 2, "duplicate": 1}


async def test_an_own_id_is_one_message_of_its_service_whatever_its_type():
    handled: list[Any] = []

    async def handle(message: Any) -> None:
        handled.append(message)

    app = build(handle)
    app.subscriptions["sub"].on(Cancelled)(handle)
    async with running(app) as t:
        await t.publish(Order("1", "c"), id="1")
        await t.publish(Cancelled("1", "c"), id="1")
        await t.publish(Cancelled("1", "c"), id="cancelled-1")
        await t.settle()
        assert handled == [Order("1", "c"), Cancelled("1", "c")]
        assert t.audit()["sub"] == {"done": 2, "duplicate": 1}
