"""The audit balances in the middle of everything, and lag ends at nothing, with real apps on every engine."""

from __future__ import annotations

from postline import Context, DeadLetter, Discard, Retry
from tests.conformance.apps import Billing, Gate, OrderPlaced, World, eventually, orders, some_turns
from tests.conformance.harness import Engine


class Trouble:
    """Every kind of end, by the order's number: mishaps that mend, dead letters, discards."""

    def __init__(self) -> None:
        self.mended = False
        self.failed: set[OrderPlaced] = set()

    async def __call__(self, order: OrderPlaced, ctx: Context) -> None:
        """Fail as the number says."""
        await some_turns(order, ctx)
        kind = order.total % 20
        if kind == 7:
            raise Discard("a test")
        if kind == 11 and not self.mended:
            raise DeadLetter("a test")
        if kind in {3, 17} and order not in self.failed:
            self.failed.add(order)
            raise ConnectionError("once")


async def test_the_audit_balances_at_every_moment_while_records_end_in_every_way(engine: Engine) -> None:
    async with World(engine) as world:
        trouble = Trouble()
        retry = Retry(immediate=0, delays=(0.01,))
        await world.start(Billing(before=trouble, retry=retry, after="hold").app)
        published = orders(240)
        async with world.audited() as audits:
            for begin in range(0, 240, 40):
                await world.publish(published[begin : begin + 40])

            async def stands_still() -> bool:
                view = await world.view()
                return view.lag_records == 0 and view.retrying == 0 and view.dead_letters > 0

            await eventually(stands_still, "everything is settled, or held behind a dead letter")
            trouble.mended = True
            await world.redrive_all()
            await world.until_handled()
        assert len(audits) > 1
        discarded = [order for order in published if order.total % 20 == 7]
        await world.billed_once_and_in_order([order for order in published if order not in discarded])
        await world.balanced(done=240 - len(discarded), discarded=len(discarded))


async def test_the_audit_counts_only_what_is_committed_and_lag_shows_the_rest(engine: Engine) -> None:
    async with World(engine) as world:
        gate = Gate()
        await world.start(Billing(before=gate).app)
        gate.shut()
        await world.publish(orders(48))
        await eventually(lambda: gate.waiting == 12, "each customer's first stands at the gate")
        await world.balanced()
        view = await world.view()
        assert view.lag_records >= 48
        gate.open()
        await world.until_handled()
        await world.balanced(done=48)


async def test_lag_grows_while_nobody_works_and_ends_at_nothing(engine: Engine) -> None:
    async with World(engine) as world:
        first = Billing()
        await world.start(first.app)
        await world.until_handled()
        await world.stop(first.app)
        await world.publish(orders(24))
        engine.clock.ahead_ms += 60_000
        view = await world.view()
        assert view.lag_records >= 24  # offsets that hold nothing count, too
        assert view.lag_seconds >= 59
        assert view.status == "no member"
        assert view.members == []
        await world.start(Billing().app)
        await world.until_handled()
        view = await world.view()
        assert (view.lag_records, view.lag_seconds, view.status) == (0, 0.0, "ok")
        assert len(view.members) == 1
        await world.balanced(done=24)
