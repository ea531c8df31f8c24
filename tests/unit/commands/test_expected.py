"""What is expected of a request: one outcome for any number of waiting tasks."""

from __future__ import annotations

import asyncio

import pytest

from postline.clock import VirtualClock
from postline.commands.expected import Expected


async def test_all_who_wait_get_the_first_outcome():
    expected, clock = Expected[str](), VirtualClock()
    waits = [asyncio.ensure_future(expected.wait(clock, None)) for _ in range(3)]
    await asyncio.sleep(0)
    expected.resolve("first")
    expected.resolve("second")
    assert await asyncio.gather(*waits) == ["first"] * 3
    assert await expected.wait(clock, 1) == "first"


async def test_one_who_is_cancelled_leaves_the_others_waiting():
    expected, clock = Expected[str](), VirtualClock()
    first, second = (asyncio.ensure_future(expected.wait(clock, None)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    expected.resolve("done")
    assert await second == "done"
    assert first.cancelled()


async def test_there_is_none_after_the_time_and_still_one_later():
    expected, clock = Expected[str](), VirtualClock()
    wait = asyncio.ensure_future(expected.wait(clock, 5))
    await asyncio.sleep(0)
    clock.move_to(5)
    assert await wait is None
    expected.resolve("late")
    assert await expected.wait(clock, 5) == "late"


async def test_what_failed_is_raised_to_all_who_ask():
    expected, clock = Expected[str](), VirtualClock()
    expected.fail(LookupError("gone"))
    for _ in range(2):
        with pytest.raises(LookupError):
            await expected.wait(clock, None)
