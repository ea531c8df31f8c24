"""The commit unit, as the port promises it: atomic, durable, fenced for each partition."""

from __future__ import annotations

import asyncio

import pytest

from postline.errors import PostlineError
from postline.log.port import Bounds, Log, PartitionCommit
from tests.conformance.harness import Engine, Owner, appended, joined, message, spec, topic, turns, until, values


def offset_key(offset: int) -> bytes:
    """A key of a pinning namespace."""
    return offset.to_bytes(8, "big")


async def test_a_commit_stores_position_progress_state_and_appends_together(log: Log) -> None:
    await log.create_topic(topic())
    await log.create_topic(topic("shop.invoices", partitions=2))
    await appended(log, b"0", b"1")
    membership, owner = await joined(log)
    outputs = [message(b"i0", topic="shop.invoices", partition=1), message(b"i1", topic="shop.invoices", partition=1)]
    unit = PartitionCommit(
        owner.owned[0],
        2,
        b"\x00progress\xff",
        puts=[("user", b"b", b"2"), ("user", b"a", b""), ("held", bytes(8), b"h")],
        appends=outputs,
    )
    assert await membership.commit([unit]) == []
    (info,) = await log.partitions("billing")
    assert (info.position, info.progress) == (2, b"\x00progress\xff")
    records = await log.read("shop.invoices", 1, 0)
    assert values(records) == [b"i0", b"i1"]
    assert [log.envelope(record) for record in records] == [item.envelope for item in outputs]
    assert await log.peek_state("billing", 0, "user") == [(b"a", b""), (b"b", b"2")]
    assert await membership.get_state(owner.owned[0], "user", [b"a", b"zz", b"b"]) == {b"a": b"", b"b": b"2"}
    assert await membership.scan_state(owner.owned[0], "held") == [(bytes(8), b"h")]


async def test_an_empty_unit_commits_nothing(log: Log) -> None:
    await log.create_topic(topic())
    membership, _ = await joined(log)
    assert await membership.commit([]) == []


async def test_positions_may_go_back(log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, b"0", b"1")
    membership, owner = await joined(log)
    for position in (2, 1):
        assert await membership.commit([PartitionCommit(owner.owned[0], position, b"p")]) == []
    (info,) = await log.partitions("billing")
    assert info.position == 1


async def test_the_last_put_counts_and_clears_come_first(log: Log) -> None:
    await log.create_topic(topic())
    membership, owner = await joined(log)
    a = owner.owned[0]
    puts = [("user", b"twice", b"1"), ("user", b"gone", b"x"), ("user", b"twice", b"2"), ("kept", b"k", b"v")]
    await membership.commit([PartitionCommit(a, 0, b"", puts=puts)])
    assert await log.peek_state("billing", 0, "user") == [(b"gone", b"x"), (b"twice", b"2")]
    await membership.commit([PartitionCommit(a, 0, b"", clears=["user", "unknown"], puts=[("user", b"new", b"3")])])
    assert await log.peek_state("billing", 0, "user") == [(b"new", b"3")]
    assert await log.peek_state("billing", 0, "kept") == [(b"k", b"v")]
    await membership.commit([PartitionCommit(a, 0, b"", deletes=[("user", b"new"), ("user", b"never there")])])
    assert await log.peek_state("billing", 0, "user") == []


async def test_state_belongs_to_its_subscription_and_partition(log: Log) -> None:
    await log.create_topic(topic(partitions=2))
    first, owner = await joined(log, 2, subscription="first")
    second, other = await joined(log, 2, subscription="second")
    await first.commit([PartitionCommit(owner.owned[0], 0, b"", puts=[("user", b"k", b"mine")])])
    assert await first.get_state(owner.owned[1], "user", [b"k"]) == {}
    assert await second.get_state(other.owned[0], "user", [b"k"]) == {}
    await second.commit([PartitionCommit(other.owned[0], 0, b"", clears=["user"])])
    assert await first.get_state(owner.owned[0], "user", [b"k"]) == {b"k": b"mine"}


async def test_state_is_scanned_in_key_order_and_in_pages(log: Log) -> None:
    await log.create_topic(topic())
    membership, owner = await joined(log)
    a = owner.owned[0]
    entries = [(offset_key(number), b"%d" % number) for number in range(2500)]
    await membership.commit(
        [PartitionCommit(a, 0, b"", puts=[("held", key, value) for key, value in reversed(entries)])]
    )
    assert await membership.scan_state(a, "held", limit=3) == entries[:3]
    assert await membership.scan_state(a, "held", after=offset_key(2), limit=2) == entries[3:5]
    assert await membership.scan_state(a, "held") == entries[:1000]
    assert await log.peek_state("billing", 0, "held", after=offset_key(2497)) == entries[2498:]
    keys = [key for key, _ in entries]
    assert await membership.get_state(a, "held", keys) == dict(entries)
    assert await membership.get_state(a, "held", []) == {}


async def test_keys_are_compared_as_bytes(log: Log) -> None:
    await log.create_topic(topic())
    membership, owner = await joined(log)
    keys = [b"", b"\x00", b"\x00\x00", b"A", b"a", b"a\x00", b"\x7f", b"\x80", b"\xff", b"\xff\xff"]
    await membership.commit([PartitionCommit(owner.owned[0], 0, b"", puts=[("user", key, key) for key in keys])])
    found = [key for key, _ in await membership.scan_state(owner.owned[0], "user")]
    assert found[-9:] == keys[1:]
    assert set(found) <= set(keys)


async def test_several_partitions_commit_in_one_step(log: Log) -> None:
    await log.create_topic(topic(partitions=3))
    for partition in range(3):
        await appended(log, b"0", partition=partition)
    membership, owner = await joined(log, 3)
    assert await membership.commit([PartitionCommit(owner.owned[index], 1, b"%d" % index) for index in range(3)]) == []
    assert [(info.position, info.progress) for info in await log.partitions("billing")] == [
        (1, b"0"),
        (1, b"1"),
        (1, b"2"),
    ]


async def test_only_refused_partitions_are_left_out_with_their_appends(engine: Engine, log: Log) -> None:
    await log.create_topic(topic(partitions=2))
    await log.create_topic(topic("out"))
    for partition in (0, 1):
        await appended(log, b"0", partition=partition)
    membership, owner = await joined(log, 2)
    before = dict(owner.owned)
    second = Owner()
    await (await engine.open()).join(spec(), second)
    await until(lambda: len(owner.owned) == len(second.owned) == 1)
    (moved,), (kept,) = second.owned, owner.owned
    unit = [
        PartitionCommit(
            before[index],
            1,
            b"mine",
            puts=[("user", b"k", b"%d" % index)],
            clears=["other"],
            appends=[message(b"from %d" % index, topic="out")],
        )
        for index in (moved, kept)
    ]
    assert await membership.commit(unit) == [before[moved]]
    infos = await log.partitions("billing")
    assert (infos[kept].position, infos[kept].progress) == (1, b"mine")
    assert (infos[moved].position, infos[moved].progress) == (0, b"")
    assert await log.peek_state("billing", moved, "user") == []
    assert await log.peek_state("billing", kept, "user") == [(b"k", b"%d" % kept)]
    assert values(await log.read("out", 0, 0)) == [b"from %d" % kept]


async def test_a_commit_that_fails_stores_nothing(log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, b"0")
    membership, owner = await joined(log)
    bad = PartitionCommit(
        owner.owned[0], 1, b"p", puts=[("user", b"k", b"v")], appends=[message(b"good"), message(topic="nobody.knows")]
    )
    with pytest.raises(PostlineError):
        await membership.commit([bad])
    (info,) = await log.partitions("billing")
    assert (info.position, info.progress) == (0, b"")
    assert await log.peek_state("billing", 0, "user") == []
    assert await log.bounds("shop.orders") == [Bounds(0, 1)]
    assert await membership.commit([PartitionCommit(owner.owned[0], 1, b"p")]) == []


async def test_a_cancelled_commit_is_stored_wholly_or_not_at_all_and_never_after_a_later_one(log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, b"0", b"1")
    membership, owner = await joined(log)
    a = owner.owned[0]
    for yields in range(6):
        marker = b"%d" % yields
        committing = asyncio.ensure_future(
            membership.commit([PartitionCommit(a, 1, marker, puts=[("user", marker, b"v")])])
        )
        await turns(yields)
        committing.cancel()
        await asyncio.gather(committing, return_exceptions=True)
        assert await membership.commit([PartitionCommit(a, 2, b"later")]) == []
        (info,) = await log.partitions("billing")
        assert (info.position, info.progress) == (2, b"later")


async def test_a_commits_appends_wake_those_who_wait_for_them(engine: Engine, log: Log) -> None:
    other = await engine.open()
    await log.create_topic(topic())
    await log.create_topic(topic("out"))
    membership, owner = await joined(log)
    waiting = [asyncio.ensure_future(handle.wait_for_appends("out", 600)) for handle in (log, other)]
    await turns(30)
    await membership.commit([PartitionCommit(owner.owned[0], 0, b"", appends=[message(topic="out")])])
    await asyncio.wait_for(asyncio.gather(*waiting), 20)


@pytest.mark.parametrize("namespace", ["held", "dead"])
async def test_pinned_records_outlive_retention_until_their_entry_goes(
    engine: Engine, log: Log, namespace: str
) -> None:
    await log.create_topic(topic(retention_ms=10_000))
    await appended(log, b"0", b"1", b"2", b"3")
    membership, owner = await joined(log)
    a = owner.owned[0]
    await membership.commit(
        [PartitionCommit(a, 4, b"", puts=[(namespace, offset_key(1), b"x"), ("user", offset_key(2), b"")])]
    )
    engine.clock.ahead_ms += 60_000
    await engine.maintain(log)
    assert values(await log.read_offsets("shop.orders", 0, [0, 1, 2, 3])) == [b"1"]
    assert (await log.bounds("shop.orders"))[0].end >= 4
    await membership.commit([PartitionCommit(a, 4, b"", deletes=[(namespace, offset_key(1))])])
    await engine.maintain(log)
    assert await log.read_offsets("shop.orders", 0, [1]) == []


async def test_pinned_records_outlive_compaction(engine: Engine, log: Log) -> None:
    await log.create_topic(topic(compacted=True, tombstone_ms=0))
    await log.append([message(b"0"), message(b"1"), message(b"2")])
    membership, owner = await joined(log)
    await membership.commit([PartitionCommit(owner.owned[0], 3, b"", puts=[("held", offset_key(1), b"")])])
    engine.clock.ahead_ms += 1000
    await engine.maintain(log)
    assert values(await log.read_offsets("shop.orders", 0, [0, 1, 2])) == [b"1", b"2"]


async def test_pins_of_a_removed_subscription_hold_nothing(engine: Engine, log: Log) -> None:
    await log.create_topic(topic(retention_ms=10_000))
    await appended(log, b"0")
    membership, owner = await joined(log)
    await membership.commit([PartitionCommit(owner.owned[0], 1, b"", puts=[("held", offset_key(0), b"")])])
    await membership.leave()
    await log.remove_subscription("billing")
    engine.clock.ahead_ms += 60_000
    await engine.maintain(log)
    assert await log.read_offsets("shop.orders", 0, [0]) == []


async def test_a_successor_reads_the_state_that_was_committed(engine: Engine, log: Log) -> None:
    await log.create_topic(topic())
    membership, owner = await joined(log)
    await membership.commit([PartitionCommit(owner.owned[0], 0, b"p", puts=[("user", b"k", b"v")])])
    await membership.leave()
    successor, second = await joined(await engine.open())
    assert await successor.get_state(second.owned[0], "user", [b"k"]) == {b"k": b"v"}
    assert second.owned[0].progress == b"p"
