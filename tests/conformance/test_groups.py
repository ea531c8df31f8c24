"""Joining, fetching, assigning and taking over, as the port promises them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from postline.clock import SystemClock
from postline.errors import SubscriptionConflict, UnknownSubscription, UnknownTopic, UsageError
from postline.log.port import Assignment, Log, Membership, PartitionCommit
from tests.conformance.harness import (
    Engine,
    Owner,
    appended,
    fetch_all,
    fetched_values,
    message,
    spec,
    topic,
    turns,
    until,
    values,
)


async def joined(log: Log, partitions: int = 1, **changes: object) -> tuple[Membership, Owner]:
    """Join and wait until that many partitions are owned."""
    owner = Owner()
    membership = await log.join(spec(**changes), owner)  # type: ignore[arg-type]
    await until(lambda: len(owner.owned) == partitions)
    return membership, owner


def settled(assignment: Assignment, position: int, progress: bytes = b"p") -> PartitionCommit:
    """A commit of a position alone."""
    return PartitionCommit(assignment, position, progress)


# Subscriptions.


async def test_joining_creates_the_subscription_and_assigns_its_partitions(engine: Engine, log: Log) -> None:
    await log.create_topic(topic(partitions=3))
    before = engine.clock.now_ms()
    _, owner = await joined(log, 3, instance="host-1", formats={"held": 2})
    assert sorted(owner.owned) == [0, 1, 2]
    assignment = owner.owned[1]
    assert (assignment.subscription, assignment.topic, assignment.partition) == ("billing", "shop.orders", 1)
    assert (assignment.position, assignment.progress) == (0, b"")
    (info,) = await log.subscriptions()
    assert (info.name, info.topic, info.service) == ("billing", "shop.orders", "billing")
    assert before - 1000 <= info.created_ms <= engine.clock.now_ms() + 1000
    (member,) = await log.members("billing")
    assert (member.instance, member.formats) == ("host-1", {"held": 2})
    partitions = await log.partitions("billing")
    assert [info.partition for info in partitions] == [0, 1, 2]
    assert {info.owner for info in partitions} == {member.member}
    assert [info.epoch for info in partitions] == [owner.owned[index].epoch for index in range(3)]


async def test_joining_an_unknown_topic_is_refused(log: Log) -> None:
    with pytest.raises(UnknownTopic):
        await log.join(spec(), Owner())
    assert await log.subscriptions() == []


async def test_a_subscriptions_name_belongs_to_one_service_and_topic(log: Log) -> None:
    await log.create_topic(topic())
    await log.create_topic(topic("shop.other"))
    await joined(log)
    with pytest.raises(SubscriptionConflict):
        await log.join(spec(service="intruder"), Owner())
    with pytest.raises(SubscriptionConflict):
        await log.join(spec(topic="shop.other"), Owner())


async def test_unknown_subscriptions_are_refused_by_name(log: Log) -> None:
    for call in (
        log.partitions("nobody"),
        log.members("nobody"),
        log.remove_subscription("nobody"),
        log.peek_state("nobody", 0, "held"),
    ):
        with pytest.raises(UnknownSubscription, match="nobody"):
            await call


@pytest.mark.parametrize(("start", "expected"), [("earliest", 0), ("latest", 3)])
async def test_a_new_subscription_begins_where_it_asked_to(log: Log, start: str, expected: int) -> None:
    await log.create_topic(topic())
    await appended(log, b"0", b"1", b"2")
    membership, owner = await joined(log, start=start)
    assert owner.owned[0].position == expected
    await appended(log, b"3")
    assert fetched_values(await fetch_all(membership, 4 - expected)) == [b"%d" % n for n in range(expected, 4)]


async def test_a_new_subscription_begins_at_a_time(engine: Engine, log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, b"0", b"1")
    engine.clock.ahead_ms += 60_000
    await appended(log, b"2")
    owner = Owner()
    await log.join(spec(start="time", time_ms=engine.clock.now_ms() - 30_000), owner)
    await until(lambda: owner.owned)
    assert owner.owned[0].position == 2


async def test_latest_is_fixed_when_the_subscription_is_made(log: Log) -> None:
    await log.create_topic(topic())
    membership, _ = await joined(log, start="latest")
    await membership.leave()
    await appended(log, b"0")
    again, owner = await joined(log, start="latest")
    assert owner.owned[0].position == 0
    assert fetched_values(await fetch_all(again, 1)) == [b"0"]


async def test_an_alias_is_renamed_with_its_position_and_state(log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, b"0", b"1")
    membership, owner = await joined(log, subscription="old")
    unit = PartitionCommit(owner.owned[0], 1, b"p", puts=[("held", bytes(8), b"h")])
    assert await membership.commit([unit]) == []
    await membership.leave()
    _, renamed = await joined(log, subscription="new", aliases=("older", "old"))
    assert (renamed.owned[0].position, renamed.owned[0].progress) == (1, b"p")
    assert [info.name for info in await log.subscriptions()] == ["new"]
    assert await log.peek_state("new", 0, "held") == [(bytes(8), b"h")]


async def test_an_alias_is_left_alone_where_the_new_name_exists(log: Log) -> None:
    await log.create_topic(topic())
    for name in ("old", "new"):
        membership, _ = await joined(log, subscription=name)
        await membership.leave()
    await joined(log, subscription="new", aliases=("old",))
    assert [info.name for info in await log.subscriptions()] == ["new", "old"]


async def test_a_removed_subscription_is_forgotten_and_begins_anew(log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, b"0")
    membership, owner = await joined(log)
    await membership.commit([PartitionCommit(owner.owned[0], 1, b"p", puts=[("user", b"k", b"v")])])
    with pytest.raises(UsageError):
        await log.remove_subscription("billing")
    await membership.leave()
    await log.remove_subscription("billing")
    assert await log.subscriptions() == []
    _, owner = await joined(log)
    assert (owner.owned[0].position, owner.owned[0].progress) == (0, b"")
    assert await log.peek_state("billing", 0, "user") == []


async def test_subscriptions_are_independent(log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, b"0", b"1")
    first, owner = await joined(log, subscription="first")
    await first.commit([settled(owner.owned[0], 2)])
    second, other = await joined(log, subscription="second")
    assert other.owned[0].position == 0
    assert fetched_values(await fetch_all(second, 2)) == [b"0", b"1"]


# Fetching.


async def test_fetching_goes_on_where_it_ended_and_waits_for_more(log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, *(b"%d" % number for number in range(10)))
    membership, owner = await joined(log)
    (first,) = await membership.fetch(4, 1 << 20, 20)
    assert (values(first.records), first.next_offset, first.log_start) == ([b"0", b"1", b"2", b"3"], 4, 0)
    assert (first.assignment, first.topic) == (owner.owned[0], "shop.orders")
    assert len(fetched_values(await fetch_all(membership, 6))) == 6
    waiting = asyncio.ensure_future(membership.fetch(4, 1 << 20, 600))
    await turns()
    await appended(log, b"later")
    assert fetched_values(await asyncio.wait_for(waiting, 20)) == [b"later"]


async def test_a_waiting_fetch_hears_of_another_processs_append(engine: Engine, log: Log) -> None:
    other = await engine.open()
    await log.create_topic(topic())
    membership, _ = await joined(log)
    waiting = asyncio.ensure_future(membership.fetch(4, 1 << 20, 600))
    await turns()
    await appended(other, b"theirs")
    assert fetched_values(await asyncio.wait_for(waiting, 20)) == [b"theirs"]


async def test_fetching_gives_nothing_after_its_time(log: Log) -> None:
    await log.create_topic(topic())
    membership, _ = await joined(log)
    async with asyncio.timeout(20):
        assert await membership.fetch(10, 1000, 0) == []
        assert await membership.fetch(10, 1000, 0.01) == []


async def test_a_wake_ends_a_waiting_fetch(log: Log) -> None:
    await log.create_topic(topic())
    membership, _ = await joined(log)
    while await membership.fetch(1, 1000, 0):
        pass
    waiting = asyncio.ensure_future(membership.fetch(10, 1000, 600))
    await turns(30)
    membership.wake()
    assert await asyncio.wait_for(waiting, 20) == []


async def test_fetching_stops_at_the_bytes_yet_gives_at_least_one_record(log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, b"x" * 5000, b"y" * 5000, b"z" * 5000)
    membership, _ = await joined(log)
    sizes = [len((await fetch_one(membership, max_bytes))[0].records) for max_bytes in (1, 11_000)]
    assert sizes == [1, 2]


async def fetch_one(membership: Membership, max_bytes: int) -> list:
    """One fetch that gives something."""
    while not (found := await membership.fetch(100, max_bytes, 20)):
        pass
    return found


async def test_a_busy_partition_starves_no_other(log: Log) -> None:
    await log.create_topic(topic(partitions=3))
    await log.append([message(b"busy", partition=0) for _ in range(3000)])
    await log.append([message(b"quiet", partition=index) for index in (1, 2)])
    membership, _ = await joined(log, 3)
    seen: set[int] = set()
    for _ in range(4):
        seen |= {fetched.assignment.partition for fetched in await membership.fetch(30, 1 << 20, 20)}
    assert seen == {0, 1, 2}


async def test_every_record_of_every_partition_is_fetched_once_and_in_order(log: Log) -> None:
    await log.create_topic(topic(partitions=4))
    await log.append([message(b"%d" % number, partition=number % 4) for number in range(400)])
    membership, _ = await joined(log, 4)
    found = await fetch_all(membership, 400, max_records=23)
    for partition in range(4):
        offsets = [record[0] for f in found if f.assignment.partition == partition for record in f.records]
        assert offsets == list(range(100))


async def test_a_paused_partition_gives_nothing_until_it_is_resumed(log: Log) -> None:
    await log.create_topic(topic(partitions=2))
    membership, owner = await joined(log, 2)
    membership.pause(owner.owned[0])
    await log.append([message(b"paused", partition=0), message(b"flows", partition=1)])
    assert fetched_values(await fetch_all(membership, 1)) == [b"flows"]
    assert await membership.fetch(10, 1000, 0.05) == []
    membership.resume(owner.owned[0])
    assert fetched_values(await fetch_all(membership, 1)) == [b"paused"]


async def test_a_resume_lets_a_waiting_fetch_go_on(log: Log) -> None:
    await log.create_topic(topic())
    membership, owner = await joined(log)
    membership.pause(owner.owned[0])
    await appended(log, b"paused")
    waiting = asyncio.ensure_future(fetch_all(membership, 1))
    await turns(30)
    membership.resume(owner.owned[0])
    assert fetched_values(await asyncio.wait_for(waiting, 20)) == [b"paused"]


async def test_a_seek_moves_either_way(log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, *(b"%d" % number for number in range(6)))
    membership, owner = await joined(log)
    await fetch_all(membership, 6)
    membership.seek(owner.owned[0], 2)
    assert fetched_values(await fetch_all(membership, 4)) == [b"2", b"3", b"4", b"5"]
    membership.seek(owner.owned[0], 1)
    membership.seek(owner.owned[0], 5)
    assert fetched_values(await fetch_all(membership, 1)) == [b"5"]


async def test_a_sibling_is_followed_though_the_partition_is_paused(log: Log) -> None:
    await log.create_topic(topic(partitions=2))
    await log.create_topic(topic("billing.control", partitions=2))
    await appended(log, b"c0", b"c1", b"c2", topic="billing.control", partition=1)
    await appended(log, b"foreign", topic="billing.control", partition=0)
    await appended(log, b"order", partition=1)
    membership, owner = await joined(log, 2)
    membership.pause(owner.owned[1])
    membership.follow(owner.owned[1], "billing.control", 1)
    found = await fetch_all(membership, 2)
    assert {fetched.topic for fetched in found if fetched.records} == {"billing.control"}
    assert fetched_values(found, "billing.control") == [b"c1", b"c2"]
    assert all(fetched.assignment == owner.owned[1] for fetched in found if fetched.records)
    membership.resume(owner.owned[1])
    assert fetched_values(await fetch_all(membership, 1)) == [b"order"]


async def test_a_siblings_append_ends_a_waiting_fetch(log: Log) -> None:
    await log.create_topic(topic())
    await log.create_topic(topic("billing.control"))
    membership, owner = await joined(log)
    membership.follow(owner.owned[0], "billing.control", 0)
    waiting = asyncio.ensure_future(fetch_all(membership, 1))
    await turns(30)
    await appended(log, b"redrive", topic="billing.control")
    assert fetched_values(await asyncio.wait_for(waiting, 20), "billing.control") == [b"redrive"]


async def test_a_cancelled_fetch_skips_nothing(log: Log) -> None:
    await log.create_topic(topic())
    membership, _ = await joined(log)
    found: list[bytes | None] = []
    for number in range(60):
        fetching = asyncio.ensure_future(membership.fetch(1, 1000, 5))
        await turns(number % 7)
        await appended(log, b"%d" % number)
        await turns(number % 5)
        fetching.cancel()
        outcome = (await asyncio.gather(fetching, return_exceptions=True))[0]
        if isinstance(outcome, list):
            found += fetched_values(outcome)
    found += fetched_values(await fetch_all(membership, 60 - len(found)))
    assert found == [b"%d" % number for number in range(60)]


async def test_gaps_are_passed_and_the_next_offset_tells_so(engine: Engine, log: Log) -> None:
    await log.create_topic(topic(compacted=True))
    await log.append([message(b"%d" % number, key=b"same") for number in range(5)] + [message(b"x", key=b"x")])
    engine.clock.ahead_ms += 1000
    await engine.maintain(log)
    membership, _ = await joined(log)
    found = await fetch_all(membership, 2)
    assert [record[0] for fetched in found for record in fetched.records] == [4, 5]
    assert found[-1].next_offset == 6


async def test_a_position_that_retention_overtook_is_told_so(engine: Engine, log: Log) -> None:
    await log.create_topic(topic(retention_ms=10_000))
    membership, _ = await joined(log)
    await membership.leave()
    await appended(log, b"0", b"1", b"2")
    engine.clock.ahead_ms += 60_000
    await appended(log, b"3")
    await engine.maintain(log)
    membership, owner = await joined(log)
    assert owner.owned[0].position == 0
    found = await fetch_all(membership, 1)
    assert fetched_values(found) == [b"3"]
    assert (found[-1].next_offset, found[-1].log_start) == (4, 3)


# Coming and going.


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
            fetched.extend(f.assignment.partition for f in await membership.fetch(10, 1000, 0.02))

    first.on_revoked = watch
    second = Owner()
    other = await (await engine.open()).join(spec(), second)
    await until(lambda: second.owned)
    assert [assignment.partition for assignment in revoking] == list(second.owned)
    assert set(fetched) == {0, 1} - set(second.owned)
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
