"""Guarantees survive a migration: what is held, remembered, promised and counted goes on in the other log exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from postline import App, Context, Retry, Topic
from postline.errors import LogMoved, TopicMismatch, UsageError
from tests.conformance.apps import ORDERS, Billing, OrderPlaced, World, all_records, eventually, orders
from tests.conformance.engines import SqliteEngine
from tests.conformance.harness import Engine
from tests.conformance.migrations import migration, movable, moved
from tests.conformance.test_guarantees_commands import Deposit, Deposited, Ledger, client

REMINDERS = Topic("reminding.reminders", owner="reminding", key="customer", partitions=4)
#: Longer than any test: what is put off for so long happens in the target only, whose clock is put forward.
LATER_SECONDS = 900


@REMINDERS.event("reminding.Reminder")
class Reminder(Struct, frozen=True):
    """What leaves later."""

    customer: str
    number: int
    token: str = ""


class Reminding:
    """Reminds of each order after a long while, and tells the token at once; tries what fails again as late."""

    def __init__(self, fails: Any = lambda order: False) -> None:
        self.app = App("reminding", owns=[REMINDERS], schedules=True)
        retry = Retry(immediate=0, delays=(LATER_SECONDS,))
        subscription = self.app.subscribe("reminding", ORDERS, start="earliest", retry=retry)

        @subscription.on(OrderPlaced)
        async def placed(order: OrderPlaced, ctx: Context) -> Reminder:
            if fails(order):
                raise RuntimeError("told to fail")
            token = ctx.publish(Reminder(order.customer, order.number), delay=LATER_SECONDS)
            return Reminder(order.customer, order.number, token)


async def reminders(world: World) -> tuple[dict[tuple[str, int], str], list[tuple[str, int]]]:
    """Tokens of reminders by order, and those that have left."""
    found = [each.message for each in await world.read(REMINDERS)]
    tokens = {(each.customer, each.number): each.token for each in found if each.token}
    return tokens, [(each.customer, each.number) for each in found if not each.token]


def poisoned(order: OrderPlaced) -> bool:
    return order.customer == "c3" and order.number == 1


async def failing(order: OrderPlaced, ctx: Context) -> None:
    del ctx
    if poisoned(order):
        raise RuntimeError("told to fail")


async def test_dead_letters_blocked_keys_state_and_audit_go_on(engine: Engine, target: Engine) -> None:
    published = orders(60)
    async with World(engine) as world:
        movable(world.log)
        first = Billing(before=failing)
        await world.start(first.app)
        await world.publish(published)
        await world.until_handled(held=3, dead=1)
        await world.stop(first.app)
        before = await world.balanced(done=56, dead_lettered=1, held=3)
        await moved(world.log, target)
    async with World(target) as world:
        assert (await world.balanced(done=56, dead_lettered=1, held=3)).partitions == before.partitions
        more = orders(24, first=60)
        await world.start(Billing().app)
        await world.publish(more)
        await world.redrive_all()
        await world.until_handled()
        await world.balanced(done=84)
        await world.billed_once_and_in_order(published + more)


async def test_duplicates_are_known_and_repeated_requests_are_answered(engine: Engine, target: Engine) -> None:
    async with World(engine) as world:
        movable(world.log)
        first, ledger = Billing(), Ledger()
        await world.start(first.app)
        await world.start(ledger.app)
        await world.publisher.publish_many(orders(12), id_of=lambda each: each.customer)
        asking = client()
        await asking.start(world._environment(world.log), consume=False)
        assert await asking.request(Deposit("anna", 5), request_id="r-1") == Deposited(5)
        await asking.stop()
        await world.until_handled()
        await world.stop(first.app)
        await world.stop(ledger.app)
        await moved(world.log, target)
    async with World(target) as world:
        first, ledger = Billing(), Ledger()
        await world.start(first.app)
        await world.start(ledger.app)
        await world.publisher.publish_many(orders(12), id_of=lambda each: each.customer)
        asking = client()
        await asking.start(world._environment(world.log), consume=False)
        assert await asking.request(Deposit("anna", 5), request_id="r-1") == Deposited(5)
        assert await asking.request(Deposit("anna", 2), request_id="r-2") == Deposited(7)
        await asking.stop()
        assert [command.amount for command in ledger.ran] == [2]
        await world.until_handled()
        assert first.ran == []
        await world.balanced(done=12, duplicate=12)


async def test_what_waits_for_its_time_happens_in_the_target_and_tokens_cancel_there(
    engine: Engine, target: Engine
) -> None:
    async with World(engine) as world:
        movable(world.log)
        first = Reminding(poisoned)
        await world.start(first.app)
        await world.publish(orders(36))
        await world.until_handled("reminding", held=2)
        await world.stop(first.app)
        tokens, left = await reminders(world)
        assert (len(tokens), left) == (34, [])
        await moved(world.log, target)
    async with World(target) as world:
        second, chosen = Reminding(poisoned), ("c1", 0)
        await world.start(second.app)
        await world.obeyed(await world.operations.cancel(tokens[chosen]))
        await world.stop(second.app)
        assert (await reminders(world))[1] == []
    target.clock.ahead_ms += 2 * LATER_SECONDS * 1000
    async with World(target) as world:
        await world.start(Reminding().app)

        async def all_left() -> bool:
            found = await reminders(world)
            return len(found[0]) == 36 and len(found[1]) >= 33

        await eventually(all_left, "what waited has left, and what was held was handled")
        again, left = await reminders(world)
        assert sorted(left) == sorted(set(tokens) - {chosen})
        assert {each: again[each] for each in tokens} == tokens
        await world.balanced("reminding", done=36)


async def test_live_members_refuse_the_cut_over_and_nothing_is_handed_over(engine: Engine, target: Engine) -> None:
    async with World(engine) as world:
        movable(world.log)
        first = Billing()
        await world.start(first.app)
        await world.publish(orders(24))
        await world.until_handled()
        moving = await migration(world.log, target)
        assert not (await moving.copy()).moved
        with pytest.raises(UsageError, match="at work"):
            await moving.cut_over()
        await world.publish(orders(24, first=24))
        await world.until_handled()
        await world.balanced(done=48)
        await world.stop(first.app)
        assert (await moving.cut_over()).moved
    async with World(target) as world:
        await world.balanced(done=48)
        await world.billed_once_and_in_order(orders(48))


async def test_a_moved_log_refuses_publishers_and_members_and_says_where_it_went(
    engine: Engine, target: Engine
) -> None:
    async with World(engine) as world:
        source = movable(world.log)
        await world.publish(orders(24))
        moving = await migration(world.log, target)
        report = await moving.cut_over()
        records = await all_records(world.log, ORDERS.name)
        with pytest.raises(LogMoved):
            await world.publish(orders(1))
        with pytest.raises(LogMoved):
            await world.publish(orders(24))
        with pytest.raises(LogMoved, match="has moved to"):
            await Billing().app.start(world._environment(world.log))
        assert await all_records(world.log, ORDERS.name) == records
        assert (await moving.cut_over()).moved  # done again it changes nothing
        with pytest.raises(UsageError, match="everything already"):
            await moving.abandon(force=False)
        await moving.abandon(force=True)
        assert await source.transfer().mark() is None
        await world.publish(orders(1))
        assert report.moved


async def test_a_target_that_has_records_of_its_own_is_refused(engine: Engine, target: Engine) -> None:
    async with World(engine) as world:
        movable(world.log)
        await world.publish(orders(24))
        async with World(target) as other:
            await other.publish(orders(1))
            with pytest.raises(TopicMismatch, match=r"already.*shop.orders|shop.orders.*already"):
                await moved(world.log, target)
            assert len(await all_records(other.log, ORDERS.name)) == 1
        await world.publish(orders(1))


async def test_abandoning_half_way_empties_the_target_and_the_source_goes_on(engine: Engine, target: Engine) -> None:
    async with World(engine) as world:
        movable(world.log)
        await world.publish(orders(24))
        moving = await migration(world.log, target)
        await moving.copy()
        with pytest.raises(LogMoved, match="is being filled"):
            await Billing().app.start(world._environment(await target.open()))
        await moving.abandon(force=False)
        assert ORDERS.name not in {spec.name for spec in await (await target.open()).topics()}
        await world.publish(orders(24, first=24))
        assert (await (await migration(world.log, target)).cut_over()).moved
    async with World(target) as world:
        billing = Billing()
        await world.start(billing.app)
        await world.until_handled()
        await world.billed_once_and_in_order(orders(48))


async def test_digests_of_a_round_trip_are_equal(engine: Engine, target: Engine, tmp_path: Path) -> None:
    third = SqliteEngine(tmp_path / "third.db")
    try:
        async with World(engine) as world:
            movable(world.log)
            first = Billing(before=failing)
            await world.start(first.app)
            await world.publish(orders(60))
            await world.until_handled(held=3, dead=1)
            await world.stop(first.app)
            there = await moved(world.log, target)
        async with World(target) as world:
            # The publisher's own start registers nothing new, so that nothing is added between.
            back = await moved(world.log, third)
        assert {each.name: (each.records, each.digests) for each in there.topics} == {
            each.name: (each.records, each.digests) for each in back.topics
        }
        assert [(each.name, each.entries, each.digests) for each in there.subscriptions] == [
            (each.name, each.entries, each.digests) for each in back.subscriptions
        ]
    finally:
        await third.close()
