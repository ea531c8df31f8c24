"""Who owns what as members come, go, die and hang, as the port promises it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from postline.clock import SystemClock
from postline.log.port import Assignment, Log, Membership, PartitionCommit
from tests.conformance.harness import (
    Engine,
    Owner,
    appended,
    fetch_all,
    fetched_values,
    joined,
    message,
    settled,
    spec,
    topic,
    turns,
    until,
    values,
)


async def test_partitions_are_shared_evenly_and_each_has_one_owner(engine: Engine, log: Log) -> None:
    await log.create_topic(topic(partitions=6))
    _, first = await joined(log, 6)
    second, third = Owner(), Owner()
    await (await engine.open()).join(spec(), second)
    await until(lambda: len(first.owned) == len(second.owned) == 3)
    await (await engine.open()).join(spec(), third)
    await until(lambda: [len(owner.owned) for owner in (first, second, third)] == [2, 2, 2])
    assert sorted([*first.owned, *second.owned, *third.owned]) == list(range(6))
    assert not any(kind == "lost" for owner in (first, second, third) for kind, _ in owner.events)


async def test_a_member_that_comes_too_many_owns_nothing_and_waits(engine: Engine, log: Log) -> None:
    await log.create_topic(topic())
    membership, first = await joined(log)
    spare = Owner()
    await (await engine.open()).join(spec(), spare)
    await turns()
    assert len(first.owned) + len(spare.owned) == 1
    await membership.leave()
    await until(lambda: spare.owned)


async def test_a_revoked_partition_may_still_commit_and_the_next_owner_sees_it(engine: Engine, log: Log) -> None:
    await log.create_topic(topic(partitions=2))
    await log.append([message(partition=index) for index in (0, 1)])
    first = Owner()
    membership = await log.join(spec(), first)
    await until(lambda: len(first.owned) == 2)
    refused: list[Assignment] = []

    async def settle(assignments: Sequence[Assignment]) -> None:
        await turns(30)
        for assignment in assignments:
            refused.extend(await membership.commit([settled(assignment, 1, b"settled")]))

    first.on_revoked = settle
    second = Owner()
    await (await engine.open()).join(spec(), second)
    await until(lambda: second.owned)
    (taken,) = second.owned.values()
    assert refused == []
    assert (taken.position, taken.progress) == (1, b"settled")
    assert taken.partition not in first.owned


async def test_joining_returns_before_the_first_assignment(log: Log) -> None:
    await log.create_topic(topic())
    owner = Owner()
    await log.join(spec(), owner)
    assert owner.events == []
    await until(lambda: owner.owned)


async def test_nothing_is_fetched_before_assigned_returns(log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, b"0")
    owner = Owner()
    go_on = asyncio.Event()

    async def wait(assignments: Sequence[Assignment]) -> None:
        del assignments
        await go_on.wait()

    owner.on_assigned = wait
    membership = await log.join(spec(), owner)
    await until(lambda: owner.events)
    assert await membership.fetch(10, 1000, 0.05) == []
    go_on.set()
    assert fetched_values(await fetch_all(membership, 1)) == [b"0"]


async def test_what_assigned_seeks_and_pauses_counts_for_the_first_fetch(log: Log) -> None:
    await log.create_topic(topic(partitions=2))
    for partition in (0, 1):
        await appended(log, b"0", b"1", b"2", partition=partition)
    owner = Owner()
    memberships: asyncio.Future[Membership] = asyncio.get_running_loop().create_future()

    async def place(assignments: Sequence[Assignment]) -> None:
        membership = await memberships
        for assignment in assignments:
            membership.seek(assignment, 2) if assignment.partition else membership.pause(assignment)

    owner.on_assigned = place
    membership = await log.join(spec(), owner)
    memberships.set_result(membership)
    await until(lambda: len(owner.owned) == 2)
    found = await fetch_all(membership, 1) + await membership.fetch(10, 1000, 0.05)
    assert [(f.assignment.partition, values(f.records)) for f in found if f.records] == [(1, [b"2"])]


async def test_nothing_is_fetched_of_a_partition_that_is_being_revoked(engine: Engine, log: Log) -> None:
    await log.create_topic(topic(partitions=2))
    membership, first = await joined(log, 2)
    revoking: list[Assignment] = []
    fetched: list[int] = []

    async def watch(assignments: Sequence[Assignment]) -> None:
        revoking.extend(assignments)
        await log.append([message(partition=index) for index in (0, 1)])
        for _ in range(5):
            fetched.extend(f.assignment.partition for f in await membership.fetch(10, 1000, 0.02) if f.records)

    first.on_revoked = watch
    second = Owner()
    other = await (await engine.open()).join(spec(), second)
    await until(lambda: second.owned)
    (taken,) = second.owned
    assert [assignment.partition for assignment in revoking] == [taken]
    assert taken not in fetched
    # What stays is fetched meanwhile, or, where an engine can't, right after.
    if not fetched:
        fetched = [f.assignment.partition for f in await fetch_all(membership, 1) if f.records]
    assert fetched == [1 - taken]
    assert len(fetched_values(await fetch_all(other, 1))) == 1


async def test_an_assignment_ends_a_waiting_fetch(engine: Engine, log: Log) -> None:
    await log.create_topic(topic())
    membership, _ = await joined(log)
    spare = Owner()
    waiting_member = await (await engine.open()).join(spec(), spare)
    waiting = asyncio.ensure_future(waiting_member.fetch(10, 1000, 600))
    await turns(30)
    await membership.leave()
    assert await asyncio.wait_for(waiting, 20) == []


async def test_leaving_settles_first_and_is_idempotent(log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, b"0")
    membership, owner = await joined(log)

    async def settle(assignments: Sequence[Assignment]) -> None:
        assert await membership.commit([settled(assignments[0], 1)]) == []

    owner.on_revoked = settle
    await membership.leave()
    await membership.leave()
    assert owner.owned == {}
    assert await log.members("billing") == []
    (info,) = await log.partitions("billing")
    assert (info.position, info.owner) == (1, "")


async def test_epochs_only_grow(log: Log) -> None:
    await log.create_topic(topic())
    epochs = []
    for _ in range(3):
        membership, owner = await joined(log)
        epochs.append(owner.owned[0].epoch)
        await membership.leave()
    assert epochs == sorted(set(epochs))


async def test_a_commit_after_leaving_is_refused(log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, b"0")
    membership, owner = await joined(log)
    assignment = owner.owned[0]
    await membership.leave()
    _, successor = await joined(log)
    refused = await membership.commit([settled(assignment, 1)])
    assert refused == [assignment]
    (info,) = await log.partitions("billing")
    assert (info.position, info.epoch) == (0, successor.owned[0].epoch)


async def test_a_killed_members_partitions_are_taken_over(engine: Engine, log: Log) -> None:
    await log.create_topic(topic(partitions=2))
    await log.append([message(b"0", partition=index) for index in (0, 1)])
    victim = await engine.open()
    first = Owner()
    membership = await victim.join(spec(), first)
    await until(lambda: len(first.owned) == 2)
    unit = [PartitionCommit(a, 1, b"done", puts=[("user", b"k", b"v")]) for a in first.owned.values()]
    assert await membership.commit(unit) == []
    before = dict(first.owned)
    await engine.kill(victim)
    successor, second = await joined(log, 2)
    assert all(second.owned[index].epoch > before[index].epoch for index in (0, 1))
    assert [(a.position, a.progress) for a in second.owned.values()] == [(1, b"done")] * 2
    assert await successor.get_state(second.owned[1], "user", [b"k"]) == {b"k": b"v"}
    await until_members(log, 1)


async def until_members(log: Log, count: int) -> None:
    """Wait until the group has so many members."""
    async with asyncio.timeout(20):
        while len(await log.members("billing")) != count:
            await SystemClock().sleep(0.005)


async def test_a_hung_members_partitions_are_taken_over_and_its_late_commit_is_refused(
    engine: Engine, log: Log
) -> None:
    await log.create_topic(topic())
    await appended(log, b"0")
    hung = await engine.open()
    first = Owner()
    membership = await hung.join(spec(), first)
    await until(lambda: first.owned)
    old = first.owned[0]
    await engine.hang(hung)
    successor, second = await joined(log)
    assert second.owned[0].epoch > old.epoch
    assert await membership.commit([PartitionCommit(old, 1, b"late", appends=[message(b"late")])]) == [old]
    assert values(await log.read("shop.orders", 0, 0)) == [b"0"]
    await engine.go_on(hung)
    await until(lambda: ("lost", [0]) in first.events)
    assert await successor.commit([settled(second.owned[0], 1)]) == [] or not second.owned


async def test_a_member_that_lost_its_lease_comes_back(engine: Engine, log: Log) -> None:
    await log.create_topic(topic(partitions=2))
    hung = await engine.open()
    first = Owner()
    await hung.join(spec(), first)
    await until(lambda: len(first.owned) == 2)
    await engine.hang(hung)
    _, second = await joined(log, 2)
    await engine.go_on(hung)
    await until(lambda: len(first.owned) == len(second.owned) == 1)
