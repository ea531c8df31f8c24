"""Records go in and come out: offsets, timestamps, bounds, bytes and times."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from postline.clock import VirtualClock
from postline.errors import EncodeError, LogUnavailable, UnknownTopic, UsageError
from postline.log.port import Append, Bounds, Capability, TopicSpec
from postline.log.sqlite.log import SqliteLog
from postline.message import Envelope
from tests.unit.sqlite.build import QUIET, opened, record


@pytest.fixture(params=["memory", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Where the log lies: both go through the same code."""
    return None if request.param == "memory" else tmp_path / "log.db"


async def test_what_was_appended_is_read_back_in_order(place: Path | None) -> None:
    async with opened(place) as log:
        sent = [record(n, partition=n % 2, key=b"k%d" % n, value=None if n == 4 else b"v%d" % n) for n in range(7)]
        assert await log.append(sent) == [0, 0, 1, 1, 2, 2, 3]
        rows = await log.read("orders", 0, 0)
        assert [(row[0], row[2], row[3], row[4], row[5]) for row in rows] == [
            (0, b"k0", "shop.OrderPlaced", b"v0", 0),
            (1, b"k2", "shop.OrderPlaced", b"v2", 0),
            (2, b"k4", "shop.OrderPlaced", None, 0),
            (3, b"k6", "shop.OrderPlaced", b"v6", 0),
        ]
        assert [log.envelope(row) for row in rows] == [each.envelope for each in sent[0::2]]


async def test_a_file_gives_its_records_and_goes_on_with_its_offsets_after_reopening(tmp_path: Path) -> None:
    for expected in ([0, 1], [2, 3]):
        async with opened(tmp_path / "log.db") as log:
            assert await log.append([record(1), record(2)]) == expected
    async with opened(tmp_path / "log.db") as log:
        assert [row[0] for row in await log.read("orders", 0, 0)] == [0, 1, 2, 3]


async def test_two_handles_on_one_file_never_give_an_offset_twice(tmp_path: Path) -> None:
    async with opened(tmp_path / "log.db") as one, opened(tmp_path / "log.db") as other:
        given = [(await log.append([record(0)]))[0] for log in (one, one, other, one, other, other, one)]
        assert given == list(range(7))


async def test_a_large_call_is_stored_whole_and_in_order(place: Path | None) -> None:
    async with opened(place) as log:
        assert await log.append([record(n) for n in range(1_234)]) == list(range(1_234))
        rows = await log.read("orders", 0, 0, limit=2_000)
        assert [log.envelope(row).time_ms for row in rows] == list(range(1_234))


async def test_reading_stops_at_the_limit_and_at_the_bytes_but_gives_one_record_at_least() -> None:
    async with opened() as log:
        await log.append([record(n, value=None if n % 5 == 0 else b"x" * 100) for n in range(200)])
        assert len(await log.read("orders", 0, 0, limit=7)) == 7
        assert len(await log.read("orders", 0, 1, max_bytes=1_000)) == 12
        assert len(await log.read("orders", 0, 1, max_bytes=10)) == 1
        assert len(await log.read("orders", 0, 0, limit=1_000, max_bytes=100 * 160)) == 200
        assert len(await log.read("orders", 0, 1, limit=1_000, max_bytes=100 * 100)) == 125
        assert await log.read("orders", 0, 200) == []


async def test_timestamps_never_go_back_within_a_partition(place: Path | None) -> None:
    clock = VirtualClock()
    async with opened(place, clock=clock) as log:
        await log.append([record(1)])
        clock.jump_wall(-3_600)
        await log.append([record(2), record(3, partition=1)])
        clock.jump_wall(7_200)
        await log.append([record(4), record(5, partition=1)])
        stamps = [row[1] for row in await log.read("orders", 0, 0)]
        other = [row[1] for row in await log.read("orders", 1, 0)]
        assert stamps == [1_700_000_000_000, 1_700_000_000_000, 1_700_003_600_000]
        assert other == [1_699_996_400_000, 1_700_003_600_000]


async def test_a_time_is_found_by_its_first_record() -> None:
    clock = VirtualClock(start_ms=0)
    async with opened(clock=clock) as log:
        for _ in range(300):
            clock.move_to(clock.monotonic() + 1)
            await log.append([record(1), record(2)])
        assert [await log.offset_at("orders", 0, ms) for ms in (0, 1_000, 1_001, 150_000, 300_000, 300_001)] == [
            0,
            0,
            2,
            298,
            598,
            600,
        ]
        assert await log.offset_at("orders", 1, 0) == 0


async def test_bounds_and_single_offsets() -> None:
    async with opened() as log:
        await log.append([record(n) for n in range(5)])
        assert await log.bounds("orders") == [Bounds(0, 5), Bounds(0, 0)]
        assert [row[0] for row in await log.read_offsets("orders", 0, [4, 99, 1, 4])] == [1, 4]


async def test_an_unknown_topic_or_partition_is_refused_and_nothing_stored() -> None:
    async with opened() as log:
        with pytest.raises(UnknownTopic):
            await log.append([record(1), Append("nowhere", 0, None, b"", Envelope())])
        with pytest.raises(UsageError):
            await log.append([record(1), record(2, partition=2)])
        with pytest.raises(UnknownTopic):
            await log.read("nowhere", 0, 0)
        assert await log.read("orders", 0, 0) == []


async def test_a_record_that_can_not_be_stored_does_not_concern_others_in_its_commit(place: Path | None) -> None:
    async with opened(place) as log:
        bad = Append("orders", 0, None, b"", Envelope(type="\ud800"))
        results = await asyncio.gather(
            log.append([record(1)]), log.append([record(2), bad]), log.append([record(3)]), return_exceptions=True
        )
        assert (results[0], results[2]) == ([0], [1])
        assert isinstance(results[1], EncodeError)


async def test_a_topic_that_exists_is_given_back_as_it_is() -> None:
    async with opened() as log:
        other = TopicSpec(name="orders", partitions=9, owner="else", retention_ms=5)
        assert await log.create_topic(other) == TopicSpec(name="orders", partitions=2, owner="shop")


async def test_topics_made_one_after_another_do_not_share_records() -> None:
    async with opened() as log:
        await log.create_topic(TopicSpec(name="bills", partitions=3, owner="shop"))
        await log.append(
            [Append("bills", p, None, b"b%d" % p, Envelope()) for p in range(3)] + [record(1, partition=1)]
        )
        assert [[row[4] for row in await log.read("bills", p, 0)] for p in range(3)] == [[b"b0"], [b"b1"], [b"b2"]]
        assert [row[4] for row in await log.read("orders", 1, 0)] == [b"{}"]


async def test_a_log_that_is_not_open_says_so(tmp_path: Path) -> None:
    log = SqliteLog(str(tmp_path / "log.db"), clock=VirtualClock(), settings=QUIET)
    with pytest.raises(LogUnavailable):
        await log.topics()
    await log.start()
    await log.start()
    await log.close()
    await log.close()
    with pytest.raises(LogUnavailable):
        await log.append([record(1)])


def test_a_log_in_memory_promises_less_than_a_file(tmp_path: Path) -> None:
    in_memory = {Capability.EXACT_RETENTION, Capability.CREATES_TOPICS, Capability.SIZES}
    assert SqliteLog(None, clock=VirtualClock()).capabilities == in_memory
    on_a_file = in_memory | {Capability.MANY_PROCESSES, Capability.DURABLE}
    assert SqliteLog(str(tmp_path / "x"), clock=VirtualClock()).capabilities == on_a_file
