"""A reset that is fetched together with records: what was fetched at the old place is not taken in at the new one."""

from __future__ import annotations

import asyncio

import pytest

from postline import Context
from postline.runtime.control import ControlOp
from tests.unit.runtime.shop import Order, build, running, spread


@pytest.mark.parametrize("op", [ControlOp(op="reset", offset=0), ControlOp(op="reset", time_ms=0)])
async def test_a_reset_fetched_together_with_new_records_loses_none_of_the_old_ones(op):
    handled: list[str] = []

    async def handle(order: Order, ctx: Context) -> None:
        handled.append(order.id)

    async with running(build(handle)) as t:
        await t.publish_many(spread(3, 5))
        await t.settle()
        # In one commit, so that one fetch finds both, the control record first: it was served longer ago.
        await asyncio.gather(t.control("sub", op), t.publish_many(spread(3, 10)))
        await t.settle()
        again = sorted(order.id for order in [*spread(3, 5), *spread(3, 10)])
        assert sorted(handled[-len(again) :]) == again
