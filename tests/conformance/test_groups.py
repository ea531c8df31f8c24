"""Joining, fetching, assigning and taking over, as the port promises them."""

from __future__ import annotations

import asyncio

import pytest

from postline.errors import SubscriptionConflict, UnknownSubscription, UnknownTopic, UsageError
from postline.log.port import Log, Membership, PartitionCommit
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
    (bounds,) = await log.bounds("shop.orders")
    assert expected <= owner.owned[0].position <= (bounds.end if expected else 0)
    await appended(log, b"3")
    assert fetched_values(await fetch_all(membership, 4 - expected)) == [b"%d" % n for n in range(expected, 4)]


async def test_a_new_subscription_begins_at_a_time(engine: Engine, log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, b"0", b"1")
    engine.clock.ahead_ms += 60_000
    (offset,) = await appended(log, b"2")
    owner = Owner()
    await log.join(spec(start="time", time_ms=engine.clock.now_ms() - 30_000), owner)
    await until(lambda: owner.owned)
    assert owner.owned[0].position == offset


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
    waiting = asyncio.ensure_future(fetch_all(membership, 1))
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
    for _ in range(100):  # there is always more of it than one fetch takes
        await log.append([message(b"busy", partition=0) for _ in range(30)])
        seen |= {fetched.assignment.partition for fetched in await membership.fetch(30, 1 << 20, 20) if fetched.records}
        if seen == {0, 1, 2}:
            break
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
    assert fetched_values(await membership.fetch(10, 1000, 0.05)) == []  # the end of a transaction may still be passed
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
    assert found[-1].next_offset >= 6


async def test_a_position_that_retention_overtook_is_told_so(engine: Engine, log: Log) -> None:
    await log.create_topic(topic(retention_ms=10_000))
    membership, _ = await joined(log)
    await membership.leave()
    await appended(log, b"0", b"1", b"2")
    engine.clock.ahead_ms += 60_000
    (offset,) = await appended(log, b"3")
    await engine.maintain(log)
    membership, owner = await joined(log)
    assert owner.owned[0].position == 0
    found = await fetch_all(membership, 1)
    assert fetched_values(found) == [b"3"]
    assert found[-1].next_offset == offset + 1
    assert max(fetched.log_start for fetched in found) == offset
