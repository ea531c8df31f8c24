"""A reset that is fetched together with records: what was fetched at the old place is not taken in at the new one."""

from __future__ import annotations

import pytest

from postline import Context
from postline.runtime.control import ControlOp
from tests.unit.runtime.shop import Order, build, running, spread


@pytest.mark.parametrize("op", [ControlOp(op="reset", offset=0), ControlOp(op="reset", time_ms=0)])
async def test_a_reset_fetched_together_with_new_records_loses_none_of_the_old_ones(op):
    handled: list[str] = []

    async def handle(order: Order, ctx: Context) -> None:
        handled.append(order.id)

    app = build(handle)
    async with running(app) as t:
        await t.publish_many(spread(3, 5))
        await t.settle()
        await t.crash(app)
        await t.control("sub", op)
        await t.publish_many(spread(3, 10))
        await t.start(app)
        await t.settle()
        before = 15
        assert len(handled) - before in (45, 15 + 30 + 30), handled
        assert sorted(handled[-45:]) == sorted([o.id for o in spread(3, 5)] + [o.id for o in spread(3, 10)])
