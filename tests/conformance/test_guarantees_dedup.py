"""Duplicates are dropped, and what is repeated after an end is not taken for one, with real apps on every engine."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import Struct

from postline import App, Context, Dedup, Topic
from tests.conformance.apps import NEVER, World, eventually
from tests.conformance.harness import Engine

PAYMENTS = Topic("shop.payments", owner="shop", key="account", partitions=4)
BOOKED = Topic("ledger.booked", owner="ledger", key="account", partitions=4)


@PAYMENTS.event("shop.Paid")
class Paid(Struct, frozen=True):
    """A payment; `reference` is the sender's number, `sent` differs when it is sent again."""

    account: str
    reference: str
    cents: int
    sent: str = ""


@BOOKED.event("ledger.Booked")
class Booked(Struct, frozen=True):
    """One for each payment that was no duplicate."""

    account: str
    reference: str
    balance: int


class Ledger:
    """Books payments; with `stands`, its handlers stand until the process ends."""

    def __init__(self, dedup: Dedup | None, *, stands: int = 0) -> None:
        self.app = App("ledger", owns=[BOOKED])
        self.standing = 0
        subscription = self.app.subscribe(
            "ledger", PAYMENTS, start="earliest", state=int, dedup=dedup, retry=NEVER, concurrency=8
        )
        passing = stands

        @subscription.on(Paid)
        async def book(paid: Paid, ctx: Context) -> Booked:
            nonlocal passing
            if stands:
                passing -= 1
                if passing < 0:
                    self.standing += 1
                    await asyncio.Event().wait()
            balance = (ctx.state.get() or 0) + paid.cents
            ctx.state.put(balance)
            return Booked(paid.account, paid.reference, balance)


def payments(count: int, *, sent: str = "") -> list[Paid]:
    """Payments of ten accounts in turn."""
    return [Paid(f"a{n % 10}", f"r{n}", n + 1, sent) for n in range(count)]


async def publish(world: World, paid: list[Paid], *, own_ids: bool = False) -> None:
    """Publish as the shop, with the reference as own id or without."""
    await world.publisher.publish_many(paid, id_of=(lambda each: each.reference) if own_ids else None)


async def check_booked_once(world: World, paid: list[Paid]) -> None:
    """Each of these is booked once, and balances are their sums."""
    booked = [each.message for each in await world.read(BOOKED)]
    assert sorted(each.reference for each in booked) == sorted(each.reference for each in paid)
    assert sum((await world.totals("ledger")).values()) == sum(each.cents for each in paid)


@pytest.mark.parametrize(
    ("dedup", "own_ids"),
    [
        (None, True),
        (Dedup(by_id=True), True),
        (Dedup(field="reference"), False),
        (Dedup(digest=True, ignore=("sent",)), False),
    ],
    ids=["own id", "any id", "field", "digest"],
)
async def test_duplicates_are_dropped_also_by_the_next_owner(
    engine: Engine, dedup: Dedup | None, own_ids: bool
) -> None:
    async with World(engine, PAYMENTS) as world:
        first = Ledger(dedup)
        await world.start(first.app)
        paid = payments(40)
        await publish(world, paid[:20], own_ids=own_ids)
        await publish(world, payments(20, sent="again"), own_ids=own_ids)
        await world.until_handled("ledger")
        await world.balanced("ledger", done=20, duplicate=20)
        await world.stop(first.app)
        await world.start(Ledger(dedup).app)
        await publish(world, payments(40, sent="yet again"), own_ids=own_ids)
        await world.until_handled("ledger")
        await world.balanced("ledger", done=40, duplicate=40)
        await check_booked_once(world, paid)


async def test_without_an_own_id_and_without_dedup_the_same_again_is_another_message(engine: Engine) -> None:
    async with World(engine, PAYMENTS) as world:
        await world.start(Ledger(None).app)
        await publish(world, payments(10))
        await publish(world, payments(10))
        await world.until_handled("ledger")
        await world.balanced("ledger", done=20)


@pytest.mark.parametrize(
    "dedup", [None, Dedup(field="reference"), Dedup(digest=True)], ids=["own id", "field", "digest"]
)
async def test_what_an_aborted_process_had_in_hand_runs_again_and_is_no_duplicate_of_itself(
    engine: Engine, dedup: Dedup | None
) -> None:
    async with World(engine, PAYMENTS) as world:
        paid = payments(60)
        await publish(world, paid, own_ids=True)
        for passes in (9, 1):
            ledger = Ledger(dedup, stands=passes)
            await world.start(ledger.app)
            await eventually(lambda: ledger.standing == 8, "all its handlers stand")  # noqa: B023 - awaited here
            await world.abort(ledger.app)
        await world.start(Ledger(dedup).app)
        await publish(world, paid, own_ids=True)
        await world.until_handled("ledger")
        await world.balanced("ledger", done=60, duplicate=60)
        await check_booked_once(world, paid)
