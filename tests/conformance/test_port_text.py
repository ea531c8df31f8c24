"""What the port's text decides about waking, overlapping calls, failing and letting go, checked on every engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from postline.errors import LogUnavailable, UsageError
from postline.log.port import REVOKE_SECONDS, Assignment, Log, PartitionCommit
from tests.conformance.apps import all_records
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


async def test_a_wake_is_remembered_by_the_next_fetch_and_by_one_only(log: Log) -> None:
    await log.create_topic(topic())
    membership, _ = await joined(log)
    await membership.fetch(1, 1000, 0)
    membership.wake()
    assert await asyncio.wait_for(membership.fetch(10, 1000, 600), 20) == []
    waiting = asyncio.ensure_future(membership.fetch(10, 1000, 600))
    await turns(30)
    assert not waiting.done()
    await appended(log, b"0")
    assert fetched_values(await asyncio.wait_for(waiting, 20)) == [b"0"]


async def test_overlapping_appends_keep_each_calls_own_order(log: Log) -> None:
    await log.create_topic(topic())
    calls = [[b"%d-%d" % (call, number) for number in range(5)] for call in range(40)]
    offsets = await asyncio.gather(*(appended(log, *call) for call in calls))
    stored = {record[0]: record[4] for _, record in await all_records(log, "shop.orders")}
    assert len(stored) == 200
    for call, given in zip(calls, offsets, strict=True):
        assert given == sorted(given)
        assert [stored[offset] for offset in given] == call


async def test_appends_awaited_one_after_another_are_in_that_order(log: Log) -> None:
    await log.create_topic(topic())
    for number in range(20):
        await appended(log, b"%d" % number)
    assert values(await log.read("shop.orders", 0, 0)) == [b"%d" % number for number in range(20)]


async def test_an_append_that_overlaps_a_commit_loses_nothing_of_either(log: Log) -> None:
    await log.create_topic(topic())
    await log.create_topic(topic("out"))
    await appended(log, b"0")
    membership, owner = await joined(log)
    unit = [PartitionCommit(owner.owned[0], 1, b"p", appends=[message(b"effect", topic="out")])]
    await asyncio.gather(appended(log, b"other", topic="out"), membership.commit(unit))
    # A page ends before what is not yet told as committed: it is asked for until there is nothing left.
    assert {record[4] for _, record in await all_records(log, "out")} == {b"effect", b"other"}


async def test_a_refused_commits_partition_is_told_as_lost_once(engine: Engine, log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, b"0")
    hung = await engine.open()
    first = Owner()
    membership = await hung.join(spec(), first)
    await until(lambda: first.owned)
    old = first.owned[0]
    await engine.hang(hung)
    await joined(log)
    assert await membership.commit([settled(old, 1)]) == [old]
    await engine.go_on(hung)
    await until(lambda: ("lost", [0]) in first.events)
    assert await membership.commit([settled(old, 1)]) == [old]
    await turns(50)
    assert first.events.count(("lost", [0])) == 1


async def test_a_revoked_that_overruns_is_cancelled_and_lost_follows(engine: Engine, log: Log) -> None:
    await log.create_topic(topic())
    membership, first = await joined(log)
    ended: list[str] = []

    async def hang(assignments: Sequence[Assignment]) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    first.on_revoked = hang
    started = asyncio.get_running_loop().time()
    await membership.leave()
    assert ended == ["cancelled"]
    assert first.events[-2:] == [("revoked", [0]), ("lost", [0])]
    # It had all of its time; how much more it took is the machine's business.
    assert asyncio.get_running_loop().time() - started > REVOKE_SECONDS * 0.9
    _, second = await joined(log)
    assert second.owned


async def test_partitions_that_could_not_be_taken_up_come_again_under_new_epochs(log: Log) -> None:
    await log.create_topic(topic(partitions=2))
    owner = Owner()
    tried: list[Assignment] = []

    async def fail_once(assignments: Sequence[Assignment]) -> None:
        tried.extend(assignments)
        if len(tried) == len(assignments):
            raise LogUnavailable("The log can't answer now.", remedy="Ask again.")

    owner.on_assigned = fail_once
    membership = await log.join(spec(), owner)
    await until(lambda: len(owner.owned) == 2)
    first = {each.partition: each.epoch for each in tried[: len(tried) - 2]}
    assert ("lost", sorted(first)) in owner.events
    assert all(owner.owned[partition].epoch > epoch for partition, epoch in first.items())
    await appended(log, b"0", partition=1)
    assert fetched_values(await fetch_all(membership, 1)) == [b"0"]


async def test_an_error_out_of_assigned_comes_out_of_fetch(log: Log) -> None:
    await log.create_topic(topic())
    owner = Owner()

    async def fail(assignments: Sequence[Assignment]) -> None:
        raise UsageError("It can't be taken up.", remedy="Mend it.")

    owner.on_assigned = fail
    membership = await log.join(spec(), owner)
    with pytest.raises(UsageError, match="taken up"):
        await asyncio.wait_for(fetch_all(membership, 1), 20)


async def test_a_gap_at_the_end_is_passed_without_records(engine: Engine, log: Log) -> None:
    await log.create_topic(topic(compacted=True, tombstone_ms=0))
    membership, _ = await joined(log)
    await membership.leave()
    await log.append([message(b"0"), message(None)])
    for _ in range(2):  # a tombstone's time begins when it is compacted
        engine.clock.ahead_ms += 60_000
        await engine.maintain(log)
    assert await log.read("shop.orders", 0, 0) == []
    membership, _ = await joined(log)
    async with asyncio.timeout(20):
        while not (found := await membership.fetch(10, 1000, 0.5)):
            pass
    assert [fetched.records for fetched in found] == [[]] * len(found)
    assert found[-1].next_offset >= 2


async def test_every_read_of_a_log_that_is_closed_is_refused_as_retryable(log: Log) -> None:
    await log.create_topic(topic())
    membership, owner = await joined(log)
    assignment = owner.owned[0]
    await log.close()
    reads: list[Callable[[], Awaitable[object]]] = [
        log.topics,
        lambda: log.bounds("shop.orders"),
        lambda: log.read("shop.orders", 0, 0),
        lambda: log.read_offsets("shop.orders", 0, [0]),
        lambda: log.offset_at("shop.orders", 0, 0),
        lambda: log.wait_for_appends("shop.orders", 0),
        log.subscriptions,
        lambda: log.partitions("billing"),
        lambda: log.members("billing"),
        lambda: log.peek_state("billing", 0, "held"),
        lambda: membership.fetch(1, 1000, 0),
        lambda: membership.get_state(assignment, "user", [b"k"]),
        lambda: membership.scan_state(assignment, "user"),
    ]
    for read in reads:
        with pytest.raises(LogUnavailable) as caught:
            await read()
        assert caught.value.retryable


async def test_an_append_that_fails_as_unavailable_may_be_repeated_and_is_there(engine: Engine, log: Log) -> None:
    other = await engine.open()
    await log.create_topic(topic())
    sent = message(b"0")
    sent.flags = 1
    appending = asyncio.ensure_future(log.append([sent]))
    await log.close()
    await asyncio.gather(appending, return_exceptions=True)
    await other.append([sent])
    stored = await other.read("shop.orders", 0, 0)
    assert 1 <= len(stored) <= 2
    assert {other.envelope(record).id for record in stored} == {sent.envelope.id}
