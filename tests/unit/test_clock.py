"""Alarms: put off without a timer, rung once, at the last time that was set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postline.clock import Alarm, VirtualClock


class CountingClock(VirtualClock):
    """Counts the timers that are asked for."""

    timers = 0

    def call_later(self, delay_seconds, callback):
        self.timers += 1
        return super().call_later(delay_seconds, callback)


def rung(clock: VirtualClock) -> tuple[Alarm, list[float]]:
    times: list[float] = []
    return Alarm(clock, lambda: times.append(clock.monotonic())), times


def test_an_alarm_that_is_put_off_rings_at_its_last_time_only():
    clock = CountingClock()
    alarm, times = rung(clock)
    for moment in range(100):
        clock.move_to(moment / 10)
        alarm.set(clock.monotonic() + 5)
    clock.move_to(60)
    assert times == [9.9 + 5]
    assert clock.timers <= 4


def test_an_alarm_that_is_set_earlier_rings_earlier():
    clock = VirtualClock()
    alarm, times = rung(clock)
    alarm.set(5)
    alarm.set(2)
    clock.move_to(60)
    assert times == [2]


def test_an_alarm_that_is_cleared_does_not_ring_and_can_be_set_again():
    clock = VirtualClock()
    alarm, times = rung(clock)
    alarm.set(2)
    alarm.clear()
    clock.move_to(3)
    alarm.set(4)
    clock.move_to(60)
    assert times == [4]


def test_an_alarm_that_is_stopped_leaves_no_timer_behind():
    clock = VirtualClock()
    alarm, _ = rung(clock)
    alarm.set(2)
    alarm.stop()
    assert clock.next_due() is None


@given(st.floats(0, 1e6), st.floats(0, 1e4))
def test_an_alarm_rings_once_at_its_time_though_sums_of_seconds_are_not_exact(begin: float, seconds: float) -> None:
    clock = VirtualClock()
    alarm, times = rung(clock)
    clock.move_to(begin)
    alarm.set(begin + seconds)
    clock.move_to(begin + seconds + 1e-3)
    assert [pytest.approx(begin + seconds, abs=1e-5)] == times
