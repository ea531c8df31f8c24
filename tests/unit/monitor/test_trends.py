"""The rules over a window of looks: each alone, at its edges, and that they always say one thing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postline.monitor.trends import SPAN_SECONDS_MIN, WINDOW_SECONDS, Look, Trend, judge, reconstructed


def looks(*seen: tuple[float, int, int | None]) -> list[Look]:
    return [Look(*each) for each in seen]


OK = {
    "nobody looked": looks(),
    "at the end": looks((0, 10, 10)),
    "at the end after standing still": looks((0, 10, 20), (60, 10, 20), (90, 20, 20)),
    "ahead of an end that fell": looks((0, 10, 10), (60, 10, 4)),
    "one look with lag": looks((0, 5, 10)),
    "lag for less than the span": looks((0, 5, 10), (19, 5, 30)),
    "lag that shrinks": looks((0, 0, 100), (30, 50, 140), (60, 100, 180)),
    "lag that grew and shrank": looks((0, 0, 10), (30, 10, 50), (60, 40, 60)),
    "lag that stays as it is": looks((0, 0, 10), (30, 10, 20), (60, 20, 30)),
    "lag now, none within the window": looks((0, 0, 10), (20, 20, 20), (40, 30, 40), (60, 40, 60)),
    "still, but for less long than it moved": looks((0, 0, 50), (60, 60, 100), (100, 60, 90)),
    "records that have just come to one that was at the end": looks((0, 10, 10), (170, 10, 10), (180, 10, 500)),
    "still while nobody knows the end, at the end since": looks((0, 10, None), (90, 10, 10), (109, 10, 11)),
}
GROWING = {
    "lag grows look by look": looks((0, 0, 10), (30, 10, 30), (60, 20, 60)),
    "lag grows once and stays": looks((0, 0, 10), (30, 10, 30), (60, 20, 40)),
    "just the span": looks((0, 0, 10), (SPAN_SECONDS_MIN, 10, 30)),
    "known ends alone count": looks((0, 0, None), (30, 10, 20), (60, 20, 40)),
}
STALLED = {
    "still in the whole window": looks((0, 10, 50), (60, 10, 50)),
    "still while lag grows": looks((0, 10, 50), (60, 10, 90), (120, 10, 200)),
    "still for longer than it moved": looks((0, 0, 50), (30, 30, 90), (120, 30, 90)),
    "still since something came to one that was at the end": looks((0, 10, 10), (20, 10, 10), (60, 10, 11)),
    "still, the end known only now": looks((0, 10, None), (60, 10, 11)),
    "just the span": looks((0, 10, 11), (SPAN_SECONDS_MIN, 10, 11)),
}
REWOUND = {
    "back, and not there again": looks((0, 100, 100), (30, 0, 100)),
    "back at once": looks((0, 100, 100), (1, 0, 100)),
    "back, and half of the way": looks((0, 100, 120), (30, 0, 120), (60, 60, 120)),
    "back and standing still": looks((0, 100, 120), (30, 0, 120), (180, 0, 120)),
}


@pytest.mark.parametrize("window", OK.values(), ids=OK)
def test_all_is_well(window: list[Look]) -> None:
    assert judge(window) is Trend.OK


@pytest.mark.parametrize("window", GROWING.values(), ids=GROWING)
def test_lag_that_never_shrank_and_has_grown_is_growing(window: list[Look]) -> None:
    assert judge(window) is Trend.GROWING


@pytest.mark.parametrize("window", STALLED.values(), ids=STALLED)
def test_lag_without_any_progress_is_stalled(window: list[Look]) -> None:
    assert judge(window) is Trend.STALLED


@pytest.mark.parametrize("window", REWOUND.values(), ids=REWOUND)
def test_a_position_that_fell_back_is_told_until_it_is_there_again(window: list[Look]) -> None:
    assert judge(window) is Trend.REWOUND
    there = max(look.passed for look in window)
    assert judge([*window, Look(window[-1].at_seconds + 1, there, there + 1)]) is not Trend.REWOUND


steps = st.lists(st.tuples(st.floats(0.1, 60), st.integers(-5, 50), st.integers(0, 60)), min_size=1, max_size=14)


@given(steps)
def test_no_window_without_lag_at_its_end_is_bad_and_none_that_shrinks_to_less_grows(
    made: list[tuple[float, int, int]],
) -> None:
    window, at, passed, end = [], 0.0, 100, 100
    for seconds, moved, added in made:
        at, end = at + seconds, end + added
        passed = min(max(0, passed + moved), end)
        window.append(Look(at, passed, end))
    found = judge(window)
    if window[-1].lag == 0:
        assert found is Trend.OK
    if found is Trend.GROWING:
        assert (window[-1].lag or 0) > (window[0].lag or 0)
    if found is Trend.STALLED:
        assert window[-1].passed == window[-2].passed
    if window[-1].at_seconds - window[0].at_seconds < SPAN_SECONDS_MIN:
        assert found in (Trend.OK, Trend.REWOUND)


# What owners keep stands for looks that nobody took.


def test_without_samples_there_is_only_the_look_of_now() -> None:
    now = Look(1000, 5, 10)
    assert reconstructed([], 30, 990, now) == [now]
    assert reconstructed([(1001, 5)], 30, 990, now) == [now]  # of a clock ahead of ours


def test_one_that_stood_still_since_its_last_commit_is_stalled_at_the_first_look() -> None:
    now = Look(1000, 50, 60)
    window = reconstructed([(880, 30), (900, 50)], 30, 950, now)
    assert window[-1] == now
    assert [look.at_seconds for look in window] == [880, 900, 950, 1000]
    assert [look.lag for look in window] == [None, None, 0, 10]
    assert judge(window) is Trend.OK  # 50 s without progress, after 70 s of nothing to do
    assert judge(reconstructed([(880, 30), (900, 50)], 30, 900, now)) is Trend.STALLED


def test_commits_soon_after_a_sample_may_have_moved_it_until_then_only() -> None:
    window = reconstructed([(820, 0), (850, 40)], 30, 840, Look(1000, 50, 60))
    assert (880, 50) in [(look.at_seconds, look.passed) for look in window]
    assert judge(window) is Trend.STALLED


def test_records_that_come_faster_than_they_are_settled_grow_at_the_first_look() -> None:
    samples = [(940.0, 1_000), (970.0, 1_300)]
    window = reconstructed(samples, 30, 930, Look(1000, 1_600, 4_000))
    assert judge(window) is Trend.GROWING


def test_nothing_before_the_window_is_told_but_how_it_began() -> None:
    window = reconstructed([(10, 1), (20, 2)], 30, None, Look(1000, 2, 3))
    assert [(look.at_seconds, look.passed) for look in window] == [(1000 - WINDOW_SECONDS, 2), (1000, 2)]
