"""The history: what a subscription did over hours and days is told from samples in commits that happened anyway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postline import App, UsageError
from postline.errors import UnknownSubscription
from postline.log.port import Log
from postline.monitor import Monitor
from postline.runtime.entries import HISTORY
from postline.runtime.history import RINGS, History, read_sample
from postline.runtime.progress import Progress, Standing
from postline.runtime.unit import PendingUnit
from postline.testing import TestApp
from tests.unit.monitor.test_monitor import OrderPlaced, service

MINUTE, HOUR, DAY = 60, 3_600, 86_400


@asynccontextmanager
async def started(app: App | None = None) -> AsyncIterator[tuple[TestApp, Monitor, App]]:
    app = app or service()
    async with TestApp(app) as t:
        yield t, Monitor(t.log, t.clock), app


async def publish(t: TestApp, number: int) -> None:
    await t.publish_many([OrderPlaced(f"c{index}", index + 1) for index in range(number)])


async def samples(log: Log, name: str = "billing") -> list[tuple[bytes, bytes]]:
    return await log.peek_state(name, 0, HISTORY, limit=10_000)


async def test_a_steady_rate_is_told_for_the_last_minutes_and_for_hours() -> None:
    async with started() as (t, monitor, _):
        for _ in range(90):
            await publish(t, 6)
            await t.advance(seconds=MINUTE)
        found = await monitor.history("billing", span_ms=HOUR * 1000, points=6)
        assert [each.lag_records for each in found.points] == [0] * 6
        for point in found.points:
            assert point.handled_per_second == pytest.approx(0.1, rel=0.15)
            assert point.added_per_second == pytest.approx(0.1, rel=0.15)
            assert point.outcomes == {"done": pytest.approx(60, abs=6)}
        assert [each.minutes for each in found.rates] == [1, 5, 15]
        assert found.rates[2].handled_per_second == pytest.approx(0.1, rel=0.15)


async def test_lag_that_grew_while_nobody_worked_is_in_the_history_although_nothing_was_committed() -> None:
    async with started() as (t, monitor, app):
        await publish(t, 10)
        await t.settle()
        await t.advance(seconds=10 * MINUTE)
        await t.stop(app)
        for _ in range(6):
            await publish(t, 5)
            await t.advance(seconds=10 * MINUTE)
        found = await monitor.history("billing", span_ms=HOUR * 1000, points=6)
        assert [each.lag_records for each in found.points] == [5, 10, 15, 20, 25, 30]
        assert {each.handled_per_second for each in found.points} == {0.0}
        await t.advance(seconds=5)
        await t.start(app)
        await t.settle()
        await t.advance(seconds=10 * MINUTE - 5)
        found = await monitor.history("billing", span_ms=70 * MINUTE * 1000, points=7)
        assert [each.lag_records for each in found.points] == [5, 10, 15, 20, 25, 30, 0]
        assert (found.points[-1].handled_per_second or 0) > 0


async def test_a_subscription_at_rest_writes_nothing() -> None:
    async with started() as (t, _, _app):
        await publish(t, 3)
        await t.settle()
        written = await samples(t.log)
        await t.advance(seconds=3 * HOUR)
        assert await samples(t.log) == written


async def test_two_weeks_of_history_take_a_bounded_number_of_samples() -> None:
    async with started() as (t, monitor, _):
        for _ in range(16 * 24):
            await publish(t, 1)
            await t.advance(seconds=HOUR)
        kept = await samples(t.log)
        assert len(kept) <= sum(ring.slots for ring in RINGS)
        found = await monitor.history("billing", span_ms=14 * DAY * 1000, points=14)
        for point in found.points[1:]:
            assert point.handled_per_second == pytest.approx(24 / DAY, rel=0.15)


async def test_history_survives_restarts() -> None:
    async with started() as (t, monitor, app):
        await publish(t, 60)
        await t.settle()
        await t.advance(seconds=5 * MINUTE)
        await t.stop(app)
        await t.advance(seconds=30 * MINUTE)
        await t.start(app)
        await publish(t, 60)
        await t.settle()
        found = await monitor.history("billing", span_ms=HOUR * 1000, points=4)
        handled = [(each.handled_per_second or 0) * 900 for each in found.points]
        assert sum(handled[2:]) == pytest.approx(60, abs=1)


async def test_times_before_the_first_sample_are_not_known() -> None:
    async with started() as (t, monitor, _):
        await publish(t, 1)
        await t.settle()
        found = await monitor.history("billing", span_ms=HOUR * 1000, points=4)
        assert [each.lag_records for each in found.points] == [None, None, None, 0]
        assert {each.handled_per_second for each in found.points} == {None}


async def test_what_is_not_kept_is_refused() -> None:
    async with started() as (_, monitor, _app):
        for wrong in ({"span_ms": 15 * DAY * 1000}, {"span_ms": 0}, {"span_ms": 1000, "points": 0}):
            asked: dict[str, Any] = wrong
            with pytest.raises(UsageError, match="14 days"):
                await monitor.history("billing", **asked)
        with pytest.raises(UnknownSubscription):
            await monitor.history("nobody", span_ms=1000)


@given(st.lists(st.integers(1, 3 * 3_600_000), min_size=1, max_size=60))
def test_every_commit_a_minute_or_more_after_a_sample_leaves_one_and_nothing_else_does(apart: list[int]) -> None:
    history, now_ms, passed, last = History(0), 1_700_000_000_000, 0, -1
    for milliseconds in apart:
        now_ms, before = now_ms + milliseconds, passed
        passed += 10
        unit = PendingUnit()
        history.note(unit, now_ms, passed, Progress(), Standing(dead_letters=2))
        minute = now_ms // RINGS[0].step_ms
        puts = [data for (namespace, _), data in unit.changes.items() if namespace == HISTORY and data is not None]
        assert bool(puts) == (minute != last)
        last = minute
        for sample in map(read_sample, puts):
            assert sample is not None
            assert (sample.at_ms, sample.before, sample.passed, sample.dead_letters) == (now_ms, before, passed, 2)
