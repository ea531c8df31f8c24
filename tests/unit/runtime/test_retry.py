"""The retry decision as a pure function of policy, attempt and error."""

from __future__ import annotations

import math
import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postline import DeadLetter, DecodeError, Discard, Retry, RetryLater, SettingsError, UsageError
from postline.runtime.retry import Again, Decision, GiveUp, Later, Throw, decide

policies = st.builds(
    Retry,
    immediate=st.integers(0, 5),
    delays=st.lists(st.floats(0, 10_000) | st.timedeltas(timedelta(0), timedelta(days=1)), max_size=5),
    jitter=st.floats(0, 1),
)


def ladder(retry: Retry, error: BaseException, seed: int = 0) -> list[Decision]:
    """Every decision until the record is given up."""
    chance = random.Random(seed)
    steps: list[Decision] = []
    while not steps or isinstance(steps[-1], Again | Later):
        steps.append(decide(retry, len(steps) + 1, error, chance))
        assert len(steps) < 100
    return steps


@given(policies, st.integers())
def test_attempts_are_the_first_the_quick_ones_and_one_for_each_delay(retry: Retry, seed: int):
    steps = ladder(retry, ValueError(), seed)
    assert len(steps) == retry.attempts_max == 1 + retry.immediate + len(retry.delays)
    assert steps[: retry.immediate] == [Again()] * retry.immediate
    assert steps[-1] == GiveUp()
    waits = [step.delay_seconds for step in steps if isinstance(step, Later)]
    for wait, delay in zip(waits, retry.delays_seconds, strict=True):
        assert delay <= wait <= delay * (1 + retry.jitter) * 1.000001
    assert max(waits, default=0.0) <= retry.delay_seconds_max * 1.000001


@given(policies, st.integers(1, 50))
def test_intents_are_obeyed_whatever_the_policy(retry: Retry, attempt: int):
    chance = random.Random(0)
    assert decide(retry, attempt, Discard("no use"), chance) == Throw()
    assert decide(retry, attempt, DeadLetter("broken"), chance) == GiveUp()
    assert decide(retry, attempt, DecodeError("bytes"), chance) == GiveUp()
    later = decide(retry, attempt, RetryLater(7), chance)
    assert later == (Later(7.0) if attempt < retry.attempts_max else GiveUp())


def test_the_most_derived_type_with_a_policy_decides():
    patient, hasty = Retry(immediate=5, delays=()), Retry(immediate=0, delays=(3,), jitter=0)
    retry = Retry(immediate=1, delays=(), by_type={OSError: patient, ConnectionError: hasty})
    assert len(ladder(retry, FileNotFoundError())) == 6
    assert ladder(retry, ConnectionResetError()) == [Later(3.0), GiveUp()]
    assert len(ladder(retry, ValueError())) == 2
    assert retry.attempts_max == 6


def test_never_goes_by_subclasses_and_belongs_to_the_policy_in_force():
    retry = Retry(never=(LookupError,), by_type={KeyError: Retry(immediate=1, delays=())})
    assert ladder(retry, IndexError()) == [GiveUp()]
    assert ladder(retry, KeyError()) == [Again(), GiveUp()]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"immediate": -1}, "immediate is -1"),
        ({"delays": (1, -2)}, "a delay is negative"),
        ({"delays": (1, math.nan)}, "a delay is over 366 days or no number"),
        ({"delays": (math.inf,)}, "a delay is over 366 days or no number"),
        ({"delays": (1, timedelta(days=367))}, "a delay is over 366 days or no number"),
        ({"jitter": 1.5}, "jitter is 1.5"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options: dict[str, object], problem: str):
    with pytest.raises(SettingsError, match=problem):
        Retry(**options)  # type: ignore[arg-type]


def test_all_that_makes_no_sense_is_named_at_once():
    with pytest.raises(SettingsError, match=r"immediate.*delay.*jitter"):
        Retry(immediate=-1, delays=(-1,), jitter=-1)


@pytest.mark.parametrize("delay", [math.inf, math.nan, 1e20, timedelta(days=367), -math.inf])
def test_a_record_can_be_put_off_for_a_year_at_most(delay: float | timedelta):
    with pytest.raises(UsageError, match="RetryLater can't wait"):
        RetryLater(delay)
    assert RetryLater(timedelta(days=366)).delay_seconds == 366 * 86_400


def test_a_time_that_has_passed_already_means_at_once():
    assert RetryLater(-3).delay_seconds == 0
