"""Groups within one process, in memory and on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from postline.clock import VirtualClock
from postline.errors import LogUnavailable, SubscriptionConflict, UsageError
from postline.log.port import Append, Assignment, GroupSpec, PartitionCommit, StartAt
from postline.log.sqlite.log import SqliteLog
from postline.log.sqlite.membership import SqliteMembership
from postline.message import Envelope
from tests.unit.sqlite.build import opened

TURNS = 50


class Owner:
    """Notes what it owns; a test may put something into its way."""

    def __init__(self) -> None:
        self.owned: dict[int, Assignment] = {}
        self.lost_ones: list[Assignment] = []
        self.at_assigned: Callable[[], Awaitable[object]] | None = None
        self.at_revoked: Callable[[], Awaitable[object]] | None = None

    async def assigned(self, assignments: Sequence[Assignment]) -> None:
        """Note them."""
        if self.at_assigned is not None:
            await self.at_assigned()
        self.owned.update({each.partition: each for each in assignments})

    async def revoked(self, assignments: Sequence[Assignment]) -> None:
        """Let go."""
        if self.at_revoked is not None:
            await self.at_revoked()
        for each in assignments:
            self.owned.pop(each.partition, None)

    def lost(self, assignments: Sequence[Assignment]) -> None:
        """Let go."""
        self.lost_ones += assignments
        for each in assignments:
            self.owned.pop(each.partition, None)


@pytest.fixture
def clock() -> VirtualClock:
    """Time that only the tests move."""
    return VirtualClock()


@pytest.fixture
async def log(clock: VirtualClock) -> AsyncIterator[SqliteLog]:
    """In memory, with the two-partition topic "orders"."""
    async with opened(clock=clock) as made:
        yield made


async def join(log: SqliteLog, owner: Owner, **changes: object) -> SqliteMembership:
    """Join the group "billing"."""
    given = {"subscription": "billing", "topic": "orders", "service": "shop", "start": StartAt("earliest"), **changes}
    membership = await log.join(GroupSpec(**given), owner)  # type: ignore[arg-type]
    assert isinstance(membership, SqliteMembership)
    return membership


async def turns() -> None:
    """Let everything go on that can without time passing."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def append(log: SqliteLog, *values: bytes, partition: int = 0) -> None:
    """Store these."""
    envelope = Envelope(id="1", source="test", type="t")
    await log.append([Append("orders", partition, None, value, envelope) for value in values])


async def test_members_of_one_log_share_its_partitions_without_time_passing(
    log: SqliteLog, clock: VirtualClock
) -> None:
    first, second = Owner(), Owner()
    await join(log, first)
    await turns()
    assert sorted(first.owned) == [0, 1]
    await join(log, second)
    await turns()
    assert sorted([*first.owned, *second.owned]) == [0, 1]
    assert len(first.owned) == len(second.owned) == 1
    assert clock.next_due() is None


async def test_what_an_abandoned_member_owned_is_taken_over_at_once_and_its_commits_are_refused(
    log: SqliteLog,
) -> None:
    first, second = Owner(), Owner()
    crashed = await join(log, first)
    await turns()
    await join(log, second)
    await turns()
    (old,) = first.owned.values()
    await crashed.abandon()
    await turns()
    assert sorted(second.owned) == [0, 1]
    assert second.owned[old.partition].epoch > old.epoch
    assert await crashed.commit([PartitionCommit(old, 1, b"late")]) == [old]
    assert [info.position for info in await log.partitions("billing")] == [0, 0]
    assert len(await log.members("billing")) == 1


async def test_a_refused_commit_tells_the_owner_what_it_has_lost_and_the_member_comes_back(log: SqliteLog) -> None:
    owner = Owner()
    membership = await join(log, owner)
    await turns()
    mine = dict(owner.owned)
    await log.storage.writer.submit(
        lambda connection: connection.execute(
            "UPDATE assignments SET owner = '', epoch = epoch + 5 WHERE partition = 1"
        ).close()
    )
    unit = [PartitionCommit(mine[partition], 1, b"p") for partition in (0, 1)]
    assert await membership.commit(unit) == [mine[1]]
    assert owner.lost_ones == [mine[1]]
    await turns()
    assert owner.owned[1].epoch > mine[1].epoch
    assert owner.owned[0] == mine[0]
    assert owner.lost_ones == [mine[1]]


async def test_a_member_that_was_removed_loses_everything_and_joins_again(log: SqliteLog) -> None:
    owner = Owner()
    membership = await join(log, owner)
    await turns()
    before = dict(owner.owned)
    await log.storage.writer.submit(lambda connection: connection.execute("DELETE FROM members").close())
    membership.group_changed()
    await turns()
    assert len(await log.members("billing")) == 1
    # Nobody else took them, so that it has them still, under the same fence.
    assert owner.owned == before
    await log.storage.writer.submit(
        lambda connection: connection.execute("UPDATE assignments SET owner = '', epoch = epoch + 1").close()
    )
    membership.group_changed()
    await turns()
    assert sorted(owner.lost_ones, key=lambda each: each.partition) == list(before.values())
    assert all(owner.owned[partition].epoch > before[partition].epoch for partition in (0, 1))


async def test_an_owner_that_does_not_settle_in_time_loses_the_partition(log: SqliteLog, clock: VirtualClock) -> None:
    slow, second = Owner(), Owner()
    membership = await join(log, slow)
    await turns()
    slow.at_revoked = asyncio.Event().wait
    await join(log, second)
    await turns()
    assert second.owned == {}
    clock.move_to(2.5)
    await turns()
    assert len(second.owned) == 1
    assert [each.partition for each in slow.lost_ones] == list(second.owned)
    assert await membership.commit([PartitionCommit(slow.lost_ones[0], 1, b"")]) == slow.lost_ones
    slow.at_revoked = None


async def test_an_error_in_the_owner_comes_out_of_fetch(log: SqliteLog) -> None:
    async def fail() -> None:
        raise ValueError("restoring failed")

    owner = Owner()
    owner.at_assigned = fail
    membership = await join(log, owner)
    waiting = asyncio.ensure_future(membership.fetch(10, 1000, 600))
    with pytest.raises(ValueError, match="restoring failed"):
        await waiting
    await membership.leave()
    assert await log.members("billing") == []


async def test_an_error_while_settling_comes_out_of_leave_and_the_partitions_are_free(log: SqliteLog) -> None:
    async def fail() -> None:
        raise ValueError("settling failed")

    owner, second = Owner(), Owner()
    membership = await join(log, owner)
    await turns()
    owner.at_revoked = fail
    with pytest.raises(ValueError, match="settling failed"):
        await membership.leave()
    await join(log, second)
    await turns()
    assert sorted(second.owned) == [0, 1]
    await membership.leave()


async def test_leaving_while_partitions_arrive_takes_them_back(log: SqliteLog) -> None:
    owner, second = Owner(), Owner()
    owner.at_assigned = asyncio.Event().wait
    membership = await join(log, owner)
    await turns()
    await membership.leave()
    assert [each.partition for each in owner.lost_ones] == [0, 1]
    await join(log, second)
    await turns()
    assert sorted(second.owned) == [0, 1]


async def test_a_cancelled_join_leaves_no_member_behind(log: SqliteLog) -> None:
    for steps in range(4):
        joining = asyncio.ensure_future(join(log, Owner()))
        for _ in range(steps):
            await asyncio.sleep(0)
        joining.cancel()
        await asyncio.wait({joining})
        if not joining.cancelled():
            await joining.result().leave()
        await turns()
        assert log.storage.reader.connection.execute("SELECT count(*) FROM members").get == 0
    owner = Owner()
    await join(log, owner)
    await turns()
    assert sorted(owner.owned) == [0, 1]


async def test_an_alias_of_another_service_is_refused_and_stays(log: SqliteLog) -> None:
    await join(log, Owner(), subscription="theirs", service="other")
    with pytest.raises(SubscriptionConflict, match="'other'"):
        await join(log, Owner(), aliases=("theirs",))
    assert [info.name for info in await log.subscriptions()] == ["theirs"]


async def test_a_subscription_whose_members_are_all_dead_can_be_removed_with_them(log: SqliteLog) -> None:
    crashed = await join(log, Owner())
    await turns()
    with pytest.raises(UsageError, match="live members"):
        await log.remove_subscription("billing")
    await crashed.abandon()
    await log.remove_subscription("billing")
    assert log.storage.reader.connection.execute("SELECT count(*) FROM members").get == 0
    assert await log.subscriptions() == []


async def test_a_wake_before_the_fetch_counts_once(log: SqliteLog, clock: VirtualClock) -> None:
    membership = await join(log, Owner())
    await turns()
    membership.wake()
    assert await membership.fetch(10, 1000, 600) == []
    waiting = asyncio.ensure_future(membership.fetch(10, 1000, 600))
    await turns()
    assert not waiting.done()
    clock.move_to(600)
    assert await waiting == []


async def test_a_waiting_fetch_sleeps_through_what_does_not_concern_it(log: SqliteLog) -> None:
    owner = Owner()
    membership = await join(log, owner)
    await turns()
    membership.pause(owner.owned[0])
    waiting = asyncio.ensure_future(membership.fetch(10, 1000, 600))
    await append(log, b"paused")
    membership.records_appended(None)
    await turns()
    assert not waiting.done()
    await append(log, b"flows", partition=1)
    assert [fetched.records[0][4] for fetched in await waiting] == [b"flows"]


async def test_stale_assignments_move_nothing(log: SqliteLog) -> None:
    owner = Owner()
    membership = await join(log, owner)
    await turns()
    mine = owner.owned[0]
    stale = Assignment("billing", "orders", 0, mine.epoch - 1, 0, b"")
    membership.seek(stale, 5)
    membership.pause(stale)
    membership.follow(stale, "orders", 0)
    await append(log, b"0")
    (fetched,) = await membership.fetch(10, 1000, 600)
    assert (fetched.assignment, fetched.next_offset) == (mine, 1)


async def test_a_group_that_can_not_be_written_is_tried_again(
    log: SqliteLog, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = Owner()
    submit = log.storage.writer.submit
    refusals = [LogUnavailable("Locked."), LogUnavailable("Locked.")]

    def refuse(work: object, **options: bool) -> object:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(refusals.pop())
        if not refusals:
            monkeypatch.undo()
        return future

    membership = await join(log, owner)
    monkeypatch.setattr(log.storage.writer, "submit", refuse)
    await turns()
    assert owner.owned == {}
    clock.move_to(0.5)
    await turns()
    assert log.storage.writer.submit == submit
    clock.move_to(1.0)
    await turns()
    assert sorted(owner.owned) == [0, 1]
    await membership.leave()


async def test_closing_the_log_leaves_the_groups(clock: VirtualClock) -> None:
    owner = Owner()
    async with opened(clock=clock) as log:
        membership = await join(log, owner)
        await turns()
        assert sorted(owner.owned) == [0, 1]
    assert owner.owned == {}
    await membership.leave()
