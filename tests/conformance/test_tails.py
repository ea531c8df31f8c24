"""Tails: one partition read on and on, as the port promises it."""

from __future__ import annotations

import asyncio
import random

import pytest

from postline.errors import LogUnavailable, UnknownTopic
from postline.log.port import Capability, Log, Record, Tail
from tests.conformance.harness import Engine, appended, message, topic, turns, values

LONG = 600.0


async def given(tail: Tail, number: int, *, limit: int = 1_000, max_bytes: int = 1 << 20) -> list[Record]:
    """So many records of the tail, however many reads that takes."""
    found: list[Record] = []
    async with asyncio.timeout(20):
        while len(found) < number:
            found += await tail.read(limit=limit, max_bytes=max_bytes, wait_seconds=LONG)
    return found


async def test_a_tail_gives_what_is_there_and_then_what_comes(log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, b"0", b"1", b"2")
    tail = log.tail("shop.orders", 0, 1)
    assert values(await given(tail, 2)) == [b"1", b"2"]
    last = (await log.read("shop.orders", 0, 2))[-1][0]
    waiting = asyncio.ensure_future(given(tail, 1))
    await turns()
    await appended(log, b"3")
    (record,) = await waiting
    assert record[0] > last
    assert (record[4], log.envelope(record).source) == (b"3", "shop")
    await tail.close()


async def test_a_tail_gives_what_other_processes_append(engine: Engine, log: Log) -> None:
    other = await engine.open()
    await log.create_topic(topic())
    tail = log.tail("shop.orders", 0, 0)
    waiting = asyncio.ensure_future(given(tail, 1))
    await turns()
    await appended(other, b"theirs")
    assert values(await waiting) == [b"theirs"]
    await tail.close()


async def test_a_tail_has_nothing_to_give_after_its_time(log: Log) -> None:
    await log.create_topic(topic(partitions=2))
    await log.append([message(b"elsewhere", partition=1)])
    tail = log.tail("shop.orders", 0, 0)
    async with asyncio.timeout(20):
        assert await tail.read(limit=10, max_bytes=1 << 20, wait_seconds=0.01) == []
    await tail.close()


async def test_a_tail_gives_no_more_than_is_asked_for_and_never_none_of_what_there_is(log: Log) -> None:
    await log.create_topic(topic())
    sent = [bytes([number]) * 1_000 for number in range(10)]
    await appended(log, *sent)
    tail = log.tail("shop.orders", 0, 0)
    async with asyncio.timeout(20):
        assert values(await tail.read(limit=3, max_bytes=1 << 20, wait_seconds=LONG)) == sent[:3]
        assert values(await tail.read(limit=100, max_bytes=10, wait_seconds=LONG)) == sent[3:4]
        few = await tail.read(limit=100, max_bytes=2_500, wait_seconds=LONG)
    assert 1 <= len(few) <= 2
    assert values(few + await given(tail, 6 - len(few))) == sent[4:]
    await tail.close()


async def test_a_tail_gives_no_more_than_is_asked_for_of_what_comes_while_it_waits(log: Log) -> None:
    await log.create_topic(topic())
    tail = log.tail("shop.orders", 0, 0)
    async with asyncio.timeout(20):
        assert await tail.read(limit=10, max_bytes=1 << 20, wait_seconds=0.01) == []
        sent = [bytes([number]) * 1_000 for number in range(10)]
        waiting = asyncio.ensure_future(tail.read(limit=2, max_bytes=1 << 20, wait_seconds=LONG))
        await turns()
        await appended(log, *sent)
        few = await waiting
        assert values(few) == sent[: len(few)]
        assert len(few) <= 2
        more = await tail.read(limit=100, max_bytes=2_500, wait_seconds=LONG)
    assert 1 <= len(more) <= 2
    assert values(few + more + await given(tail, 10 - len(few) - len(more))) == sent
    await tail.close()


async def test_a_cancelled_read_of_a_tail_has_given_nothing(log: Log) -> None:
    await log.create_topic(topic())
    tail = log.tail("shop.orders", 0, 0)
    for number in range(5):
        cancelled = asyncio.ensure_future(given(tail, 100))
        await turns()
        cancelled.cancel()
        appending = asyncio.ensure_future(appended(log, b"%d" % number))
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await appending
        assert values(await given(tail, 1)) == [b"%d" % number]
    await tail.close()


async def test_a_tail_begins_behind_what_retention_took(engine: Engine, log: Log) -> None:
    if Capability.EXACT_RETENTION not in log.capabilities:
        pytest.skip("retention is not exact to the record")
    await log.create_topic(topic(retention_ms=10_000))
    await appended(log, b"old")
    engine.clock.ahead_ms += 20_000
    await appended(log, b"new")
    await engine.maintain(log)
    tail = log.tail("shop.orders", 0, 0)
    assert values(await given(tail, 1)) == [b"new"]
    await tail.close()


async def test_a_tail_of_an_unknown_topic_is_refused(log: Log) -> None:
    with pytest.raises(UnknownTopic, match=r"nobody\.knows"):
        async with asyncio.timeout(20):
            await log.tail("nobody.knows", 0, 0).read(limit=1, max_bytes=1, wait_seconds=LONG)


async def test_whoever_waits_at_a_tail_hears_that_the_log_closes(engine: Engine) -> None:
    log = await engine.open()
    await log.create_topic(topic())
    tail = log.tail("shop.orders", 0, 0)
    waiting = asyncio.ensure_future(given(tail, 1))
    await turns()
    await log.close()
    with pytest.raises(LogUnavailable):
        await waiting
    await tail.close()


@pytest.mark.parametrize("seed", range(2))
async def test_a_tail_misses_and_repeats_nothing_whoever_appends(engine: Engine, log: Log, seed: int) -> None:
    dice = random.Random(seed)
    others = [log, await engine.open()]
    await log.create_topic(topic(partitions=2))
    tail = log.tail("shop.orders", 0, 0)
    found: list[Record] = []

    async def append_some() -> None:
        for _ in range(40):
            number = dice.choice([1, 1, 2, 5, 60])
            sent = [message(b"x" * dice.choice([1, 9_000]), partition=dice.randrange(2)) for _ in range(number)]
            await dice.choice(others).append(sent)

    appending = asyncio.gather(append_some(), append_some())
    while not appending.done():
        found += await tail.read(limit=dice.choice([1, 10, 1_000]), max_bytes=20_000, wait_seconds=0.01)
        await asyncio.sleep(dice.choice([0, 0, 0.002]))
    await appending
    stored: list[Record] = []
    while more := await log.read("shop.orders", 0, stored[-1][0] + 1 if stored else 0):
        stored += more
    found += await given(tail, len(stored) - len(found))
    assert [(record[0], *record[2:6]) for record in found] == [(record[0], *record[2:6]) for record in stored]
    await tail.close()
