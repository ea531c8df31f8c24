"""When schedules run: intervals, cron expressions, and the days on which clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postline.errors import UsageError
from postline.schedules import Cron, Every, Rule

BERLIN = ZoneInfo("Europe/Berlin")


def ms(text: str) -> int:
    """Wall-clock milliseconds of a time with its offset."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def following(rule: Rule, start: str, count: int) -> list[str]:
    """The next planned times, as the wall shows them."""
    times, last = [], ms(start)
    for _ in range(count):
        found = rule.after(last)
        assert found is not None
        last = found
        times.append(datetime.fromtimestamp(last / 1000, UTC).astimezone(rule.zone or UTC).isoformat())
    return times


def test_an_interval_is_counted_from_1970() -> None:
    rule = Every(timedelta(hours=1))
    assert following(rule, "2026-01-01T10:20:00+00:00", 2) == ["2026-01-01T11:00:00+00:00", "2026-01-01T12:00:00+00:00"]
    assert rule.after(ms("2026-01-01T11:00:00+00:00")) == ms("2026-01-01T12:00:00+00:00")
    assert rule.latest(ms("2026-01-01T11:00:00+00:00")) == ms("2026-01-01T11:00:00+00:00")


@pytest.mark.parametrize(
    "interval", [0, -1, 0.5, float("nan"), float("inf"), timedelta(microseconds=1500000, hours=-1)]
)
def test_an_interval_that_is_none_is_refused(interval: timedelta | float) -> None:
    with pytest.raises(UsageError, match="can't run every"):
        Every(interval)


def test_a_day_is_planned_by_the_clock_on_the_wall() -> None:
    rule = Cron("0 3 * * *", "Europe/Berlin")
    assert following(rule, "2026-06-01T00:00:00+02:00", 1) == ["2026-06-01T03:00:00+02:00"]
    assert following(rule, "2026-12-01T00:00:00+01:00", 1) == ["2026-12-01T03:00:00+01:00"]


def test_an_hour_that_is_skipped_runs_as_soon_as_it_is_over() -> None:
    # On 29 March 2026 clocks went from 2:00 to 3:00.
    rule = Cron("30 2 * * *", BERLIN)
    assert following(rule, "2026-03-28T00:00:00+01:00", 3) == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def test_an_hour_that_comes_twice_runs_the_first_time() -> None:
    # On 25 October 2026 clocks went from 3:00 back to 2:00.
    rule = Cron("30 2 * * *", BERLIN)
    assert following(rule, "2026-10-24T12:00:00+02:00", 2) == ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]


def test_what_runs_several_times_an_hour_runs_by_the_time_that_passes() -> None:
    rule = Cron("*/30 * * * *", BERLIN)
    assert following(rule, "2026-10-25T01:30:00+02:00", 5) == [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T02:30:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ]
    assert following(rule, "2026-03-29T01:00:00+01:00", 3) == [
        "2026-03-29T01:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-29T03:30:00+02:00",
    ]


@given(
    st.sampled_from(["30 2 * * *", "*/20 * * * *", "0 0 1 * *", "0 9 * * MON", "5 */3 * * *"]),
    st.integers(0, 366 * 1440),
)
def test_the_latest_planned_time_is_the_one_before_the_next(expression: str, minute: int) -> None:
    rule = Cron(expression, BERLIN)
    now_ms = ms("2026-01-01T00:00:00+00:00") + minute * 60_000
    latest = rule.latest(now_ms)
    assert latest is not None
    assert latest <= now_ms
    after = rule.after(latest)
    assert after is not None
    assert after > now_ms


@pytest.mark.parametrize("expression", ["", "* * * *", "61 * * * *", "nonsense", "0 0 * * FOO", "0 0 30 2 *"])
def test_an_expression_that_is_none_is_refused_with_its_remedy(expression: str) -> None:
    with pytest.raises(UsageError, match="is no cron expression"):
        Cron(expression, "UTC")


@pytest.mark.parametrize("zone", ["Europe/Nowhere", "", "../etc/passwd", "\x00"])
def test_a_zone_that_is_none_is_refused_with_its_remedy(zone: str) -> None:
    with pytest.raises(UsageError, match="no time zone"):
        Cron("0 3 * * *", zone)
