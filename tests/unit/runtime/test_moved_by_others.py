"""A position that another program moved while nobody owned the partition: taken up by a reset, said, and counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec
import pytest

from postline import App, Context, Retry
from postline.log.port import Assignment, CommitUnit, GroupSpec, Membership, PartitionOwner
from postline.testing import TestApp
from tests.unit.runtime.shop import Cancelled, Order, build, running, spread

NEVER = Retry(immediate=0, delays=())


class Moving:
    """An owner that is told, at its first assignment, that those it had begun were moved to `target`."""

    def __init__(self, owner: PartitionOwner, target: int) -> None:
        self._owner = owner
        self._target: int | None = target
        self.lost = owner.lost
        self.revoked = owner.revoked

    async def assigned(self, assignments: Sequence[Assignment]) -> None:
        """Say it once."""
        target, self._target = self._target, None
        moved = [msgspec.structs.replace(each, reset_to=target if each.position else None) for each in assignments]
        await self._owner.assigned(moved)


def move(t: TestApp, target: int, *, refusing: bool = False) -> list[CommitUnit]:
    """Let whoever joins next find its positions moved; gives the commits from then on."""
    commits: list[CommitUnit] = []
    join = t.log.join

    async def joining(spec: GroupSpec, owner: PartitionOwner) -> Membership:
        membership = await join(spec, Moving(owner, target))
        commit = membership.commit

        async def noting(unit: CommitUnit) -> Sequence[Assignment]:
            commits.append(list(unit))
            return [part.assignment for part in unit] if refusing else await commit(unit)

        membership.commit = noting  # type: ignore[method-assign, assignment]
        return membership

    t.log.join = joining  # type: ignore[method-assign]
    return commits


def counting(handled: list[str], *, failing: str = "") -> App:
    """An app that counts each customer's orders in state; one order can't be handled."""

    async def handle(order: Order, ctx: Context) -> None:
        if order.id == failing:
            raise ValueError("this one can't be handled")
        handled.append(order.id)
        ctx.state.put((ctx.state.get() or 0) + 1)

    return build(handle, state=int, retry=NEVER)


@pytest.mark.parametrize("target", [0, 7, 12, 99])
async def test_it_goes_on_where_it_was_moved_to_with_state_kept_and_counts_that_balance(
    target: int, caplog: pytest.LogCaptureFixture
):
    handled: list[str] = []
    first = counting(handled)
    async with running(first) as t:
        await t.publish_many(spread(1, 12))
        await t.settle()
        await t.stop(first)
        move(t, target)
        await t.start(counting(handled))
        await t.settle()
        again = [f"0-{number}" for number in range(min(target, 12), 12)]
        assert handled == [f"0-{number}" for number in range(12)] + again
        assert t.state("sub", "c0") == 12 + len(again)
        assert t.audit()["sub"] == ({"done": len(again)} if again else {})
        await t.publish(Order("new", "c0"))
        await t.settle()
        assert handled[-1] == "new"
    (said,) = [each for each in caplog.records if "another program moved" in each.message]
    assert said.levelno == logging.ERROR
    assert f"subscription sub: another program moved shop.orders partition 2 from 12 to {target}" in said.message


async def test_the_reset_is_the_first_commit_so_that_no_death_forgets_the_move():
    first = counting([])
    async with running(first) as t:
        await t.publish_many(spread(1, 3))
        await t.settle()
        await t.stop(first)
        commits = move(t, 1)
        second = counting([])
        # A type that is new to the subscription would be a commit of its own.
        second.subscriptions["sub"].on(Cancelled)(_ignore)
        await t.start(second)
        await t.settle()
        place = next(part.assignment.partition for unit in commits for part in unit if part.position)
        of_the_moved = [part for unit in commits for part in unit if part.assignment.partition == place]
        assert [part.position for part in of_the_moved[:1]] == [1]
        assert t.audit()["sub"] == {"done": 2}


async def test_what_was_held_and_dead_from_there_on_is_read_again_and_held_below_counts_as_discarded():
    handled: list[str] = []
    first = counting(handled, failing="0-1")
    async with running(first) as t:
        await t.publish_many(spread(1, 6))
        await t.settle()
        assert t.audit()["sub"] == {"done": 1, "dead-lettered": 1, "held": 4}
        await t.stop(first)
        move(t, 3)
        second = counting(handled)
        await t.start(second)
        await t.settle()
        (letter,) = t.dead_letters("sub")
        assert letter.offset == 1
        await t.redrive("sub")
        await t.settle()
        assert handled == ["0-0", "0-1", "0-3", "0-4", "0-5"]


async def test_a_partition_that_is_lost_meanwhile_is_not_taken_up():
    first = counting([])
    async with running(first, settled=False) as t:
        await t.publish_many(spread(1, 3))
        await t.settle()
        await t.stop(first)
        move(t, 0)
        refused = move(t, 0, refusing=True)
        handled: list[str] = []
        second = counting(handled)
        await t.start(second)
        while not second.consumers[0]._met_group:
            await _turn()
        assert refused
        assert 2 not in second.consumers[0].owned
        assert not handled
        await second.abort()
        t._running.remove(second)


async def _turn() -> None:
    """One turn of the loop."""
    gone_round = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(gone_round.set_result, None)
    await gone_round


async def _ignore(message: Cancelled, ctx: Context) -> None:
    """Whatever."""
