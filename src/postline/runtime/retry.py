"""Retry policy, and the pure decision what follows a failed attempt."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from postline.errors import DecodeError, SettingsError
from postline.runtime.intents import LONGEST_DELAY_SECONDS, DeadLetter, Discard, RetryLater

__all__ = ["Again", "Decision", "GiveUp", "Later", "Retry", "Throw", "decide"]

_DEFAULT_DELAYS = (1.0, 10.0, 60.0, 600.0)


@dataclass(frozen=True)
class Retry:
    """How often a failing record is tried: once, `immediate` times at once, then after each delay.

    Attempts in all: 1 + immediate + len(delays). Jitter only lengthens a delay, by up to its
    share. `never` names exception types that go to dead letters at once; `by_type` gives a type
    (subclasses included, the most derived wins) a policy of its own.
    """

    immediate: int = 2
    delays: Sequence[float | timedelta] = _DEFAULT_DELAYS
    jitter: float = 0.1
    never: tuple[type[BaseException], ...] = ()
    by_type: Mapping[type[BaseException], Retry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = []
        if self.immediate < 0:
            problems.append(f"immediate is {self.immediate}; give 0 or more.")
        if any(seconds < 0 for seconds in self.delays_seconds):
            problems.append("a delay is negative; give seconds of 0 or more.")
        if not all(seconds <= LONGEST_DELAY_SECONDS for seconds in self.delays_seconds):
            problems.append("a delay is over 366 days or no number; give less.")
        if not 0 <= self.jitter <= 1:
            problems.append(f"jitter is {self.jitter}; give a share from 0 to 1.")
        if problems:
            raise SettingsError("Retry can't be used: " + " ".join(problems))

    @property
    def delays_seconds(self) -> tuple[float, ...]:
        """The delays in seconds."""
        return tuple(d.total_seconds() if isinstance(d, timedelta) else float(d) for d in self.delays)

    @property
    def attempts_max(self) -> int:
        """The most attempts that one record can have under this policy."""
        own = 1 + self.immediate + len(self.delays)
        return max([own, *(policy.attempts_max for policy in self.by_type.values())])

    @property
    def delay_seconds_max(self) -> float:
        """The longest that this policy can make a record wait, jitter included."""
        own = max(self.delays_seconds, default=0.0) * (1 + self.jitter)
        return max([own, *(policy.delay_seconds_max for policy in self.by_type.values())])

    def policy_for(self, error: BaseException) -> Retry:
        """The policy that an error of this type falls under."""
        for kind in type(error).__mro__:
            if kind in self.by_type:
                return self.by_type[kind]
        return self


@dataclass(frozen=True)
class Again:
    """Try again at once, in place."""


@dataclass(frozen=True)
class Later:
    """Try again after `delay_seconds`; later records of the key wait behind it."""

    delay_seconds: float


@dataclass(frozen=True)
class GiveUp:
    """Put it among the dead letters."""


@dataclass(frozen=True)
class Throw:
    """The handler gave it up: count it as discarded."""


Decision = Again | Later | GiveUp | Throw


def decide(retry: Retry, attempt: int, error: BaseException, randomness: random.Random) -> Decision:
    """What follows when attempt number `attempt` (from 1) ended in `error`."""
    match error:
        case Discard():
            return Throw()
        case DeadLetter() | DecodeError():
            return GiveUp()
        case RetryLater():
            return Later(error.delay_seconds) if attempt < retry.attempts_max else GiveUp()
    policy = retry.policy_for(error)
    if isinstance(error, policy.never):
        return GiveUp()
    if attempt <= policy.immediate:
        return Again()
    step = attempt - policy.immediate - 1
    delays = policy.delays_seconds
    if step >= len(delays):
        return GiveUp()
    return Later(delays[step] * (1 + policy.jitter * randomness.random()))
