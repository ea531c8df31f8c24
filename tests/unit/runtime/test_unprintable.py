"""Errors and headers that can't be stored as they are: the record has its outcome all the same."""

from __future__ import annotations

import pytest

from postline import Context, Retry, UsageError
from tests.unit.runtime.shop import Order, Receipt, build, running


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("error", [ValueError("half a pair: \ud800"), Unprintable()], ids=["surrogate", "unprintable"])
async def test_an_error_that_can_not_be_stored_as_text_still_ends_in_a_retry_and_a_dead_letter(error):
    async def handle(order: Order) -> None:
        raise error

    async with running(build(handle, retry=Retry(immediate=0, delays=(1,), jitter=0))) as t:
        await t.publish(Order("1", "ann"))
        await t.settle()
        await t.advance(seconds=2)
        (letter,) = t.dead_letters("sub")
        assert type(error).__name__ in letter.error


async def test_a_header_that_is_no_text_fails_the_attempt_and_not_the_subscription():
    seen: list[UsageError] = []

    async def handle(order: Order, ctx: Context) -> None:
        try:
            ctx.publish(Receipt(order.id, order.customer), headers={"note": "\ud800"})
        except UsageError as error:
            seen.append(error)

    async with running(build(handle)) as t:
        await t.publish(Order("1", "ann"))
        await t.settle()
        assert "Unicode" in str(seen[0])
