"""Mistakes that a handler's author makes, and what is said about them."""

from __future__ import annotations

import pytest

from postline import App, Context, Dedup, Retry, UsageError
from tests.unit.runtime.shop import Order, build, orders, running


async def buried_error(handler, **options) -> str:
    async with running(build(handler, retry=Retry(immediate=0, delays=()), **options)) as t:
        await t.publish(Order("1", "ann", 3))
        await t.settle()
        (letter,) = t.dead_letters("sub")
        return letter.error


async def test_a_handler_that_returns_what_is_no_message_is_told_what_to_return():
    async def handle(order: Order) -> str:
        return "thanks"

    error = await buried_error(handle)
    assert "returned 'thanks'" in error
    assert "or None" in error


async def test_a_key_given_before_the_value_is_told_the_order():
    async def handle(batch: list[Order], ctx: Context) -> None:
        ctx.state.put("ann", 1)  # type: ignore[arg-type]

    assert "value first" in await buried_error(handle, batch=10, state=str)


def test_a_subscription_without_a_start_is_told_what_to_choose():
    with pytest.raises(UsageError, match="where it starts"):
        App("shop").subscribe("sub", orders)


async def test_a_field_tells_duplicates_of_one_key_and_not_of_another():
    handled: list[str] = []

    async def handle(order: Order) -> None:
        handled.append(order.id)

    async with running(build(handle, dedup=Dedup(field="total"), order="partition")) as t:
        customers = [f"c{number}" for number in range(20)]
        await t.publish_many([Order(customer, customer, 1) for customer in customers])
        await t.publish(Order("again", "c3", 1))
        await t.settle()
        assert sorted(handled) == sorted(customers)
