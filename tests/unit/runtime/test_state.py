"""Keyed state: seen by the key's next records at once, dropped with a failed attempt, nobody else's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from msgspec import Struct

from postline import Context, Retry
from tests.unit.runtime.shop import Note, Order, Receipt, build, notes, running, spread

NEVER = Retry(immediate=0, delays=())


class Totals(Struct):
    """What a handler may keep."""

    orders: int = 0
    last: str = ""


@dataclass
class Plain:
    """The same as a dataclass."""

    orders: int = 0


async def count(order: Order, ctx: Context) -> None:
    totals = ctx.state.get() or Totals()
    assert totals.orders == order.total
    ctx.state.put(Totals(totals.orders + 1, order.id))


@pytest.mark.parametrize("plain", [False, True])
async def test_later_records_of_the_key_see_what_earlier_ones_put(plain: bool):
    def count_plainly(order: Order, ctx: Context) -> None:
        totals = ctx.state.get() or Totals()
        assert totals.orders == order.total
        ctx.state.put(Totals(totals.orders + 1, order.id))

    async with running(build(count_plainly if plain else count, state=Totals, retry=NEVER)) as t:
        await t.apps[0].publish_many(spread(5, 40))
        await t.settle()
        assert t.audit()["sub"] == {"done": 200}
        assert t.state("sub", "c3") == Totals(40, "3-39")


async def test_state_survives_crashes_and_moves_with_its_partition():
    first, second = (build(count, state=Totals, retry=NEVER) for _ in range(2))
    async with running(first) as t:
        await t.publish_many(spread(12, 5))
        await t.settle()
        await t.start(second)
        await t.publish_many([Order(f"{c}-5", f"c{c}", 5) for c in range(12)])
        await t.settle()
        await t.crash(first)
        await t.publish_many([Order(f"{c}-6", f"c{c}", 6) for c in range(12)])
        await t.settle()
        assert t.audit()["sub"] == {"done": 84}


async def test_a_failed_attempts_puts_are_dropped():
    seen: list[Any] = []

    async def handle(order: Order, ctx: Context) -> None:
        seen.append(ctx.state.get())
        ctx.state.put(order.total)
        assert ctx.state.get() == order.total
        if order.total == 1:
            raise ValueError

    async with running(build(handle, state=int, retry=Retry(immediate=1, delays=()), after="continue")) as t:
        await t.publish_many(spread(1, 3))
        await t.settle()
        assert seen == [None, 0, 0, 0]
        assert t.state("sub", "c0") == 2


async def test_a_deleted_value_is_gone():
    async def handle(order: Order, ctx: Context) -> None:
        if order.total == 1:
            ctx.state.delete()
            assert ctx.state.get() is None
        else:
            ctx.state.put(order.total)

    async with running(build(handle, state=int)) as t:
        await t.publish_many(spread(2, 2))
        await t.settle()
        assert t.state("sub", "c0") is None


async def fails_with(handler: Any, text: str, options: dict[str, Any], message: Any = None, **more: Any) -> None:
    async with running(build(handler, **more, **options, retry=NEVER)) as t:
        await t.publish(message or Order("1", "c"))
        await t.settle()
        assert text in t.dead_letters("sub")[0].error


async def test_the_state_of_another_key_is_refused():
    async def handle(order: Order, ctx: Context) -> None:
        ctx.state.get("other")

    await fails_with(handle, "state of key 'other' asked for while handling 'c'", {"state": int})


async def test_state_that_was_not_declared_is_refused():
    async def handle(order: Order, ctx: Context) -> None:
        ctx.state.put(1)

    await fails_with(handle, "keeps no state", {})


async def test_a_record_without_a_key_has_no_state():
    async def handle(note: Note, ctx: Context) -> None:
        ctx.state.get()

    await fails_with(handle, "a record without a key has no state", {}, Note("x"), kind=Note, topic=notes)


@pytest.mark.parametrize("wrong", ["text", Plain(1)])
async def test_a_value_of_another_type_is_refused_when_it_is_put(wrong: Any):
    async def handle(order: Order, ctx: Context) -> None:
        ctx.publish(Receipt("1", "c"))
        ctx.state.put(wrong)

    await fails_with(handle, "EncodeError", {"state": int})


async def test_a_value_over_the_limit_is_refused_when_it_is_put():
    async def handle(order: Order, ctx: Context) -> None:
        ctx.state.put("x" * 2_000_000)

    await fails_with(handle, "MessageTooLarge", {"state": str})


async def test_the_state_of_many_keys_is_kept_although_memory_for_it_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("postline.runtime.partition._STATES_CACHED_MAX", 5)
    async with running(build(count, state=Totals, retry=NEVER)) as t:
        for n in range(6):
            await t.apps[0].publish_many([Order(f"{c}-{n}", f"c{c}", n) for c in range(100)])
            if n % 2:
                await t.settle()
        await t.settle()
        assert t.audit()["sub"] == {"done": 600}
        cached = [len(owned.states) for owned in t.apps[0].consumers[0].owned.values()]
        assert max(cached) <= 100
