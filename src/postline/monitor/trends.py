"""How a partition's lag goes: rules over a window of looks at it, without a threshold of lag that anybody has to set.

They are those of Burrow (github.com/linkedin/Burrow, core/internal/evaluator/caching.go,
`calculatePartitionStatus`), with two differences: a look is taken at a time, not at a commit, so that "stopped" and
"stalled" are one; and a position that fell back is told as long as it has not come back, whatever the lag was before.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

__all__ = ["SPAN_SECONDS_MIN", "WINDOW_SECONDS", "Look", "Trend", "judge", "reconstructed"]

#: The window; and what it must span before it says anything bad.
WINDOW_SECONDS = 180.0
SPAN_SECONDS_MIN = 20.0


class Look(NamedTuple):
    """A partition at a time."""

    at_seconds: float
    #: Offsets that the subscription was done with, held ones among them.
    passed: int
    #: The next offset of the topic's partition; None if nobody looked.
    end: int | None

    @property
    def lag(self) -> int | None:
        """Offsets neither settled nor held; None if it isn't known."""
        return None if self.end is None else max(0, self.end - self.passed)


class Trend(enum.Enum):
    """What a window of looks says."""

    OK = "ok"
    #: Its lag has not shrunk in the whole window, and has grown.
    GROWING = "growing"
    #: There is lag, and nothing was settled for longer than that took before.
    STALLED = "stalled"
    #: Its position went back and has not come back yet.
    REWOUND = "rewound"


def judge(looks: Sequence[Look]) -> Trend:
    """What these looks say, which are in the order of time; the last one is of now, with its end."""
    if not looks or not looks[-1].lag:
        return Trend.OK
    if looks[-1].passed < max(look.passed for look in looks):
        return Trend.REWOUND
    if _stopped(looks):
        return Trend.STALLED
    lags = [(look.at_seconds, look.lag) for look in looks if look.lag is not None]
    if any(lag == 0 for _, lag in lags):
        return Trend.OK  # it was at the end within the window
    if lags[-1][0] - lags[0][0] < SPAN_SECONDS_MIN:
        return Trend.OK
    shrank = any(later < before for (_, before), (_, later) in pairwise(lags))
    return Trend.GROWING if not shrank and lags[-1][1] > lags[0][1] else Trend.OK


def _stopped(looks: Sequence[Look]) -> bool:
    """Whether it stands still for longer than it was seen to move, or to have nothing to do, before."""
    now, began = looks[-1].at_seconds, looks[0].at_seconds
    since = began
    for before, look in pairwise(looks):
        if look.passed != before.passed:
            since = look.at_seconds
    since = max([since, *(look.at_seconds for look in looks if look.lag == 0)])
    return now - since >= SPAN_SECONDS_MIN and now - since > since - began


def reconstructed(
    samples: Iterable[tuple[float, int]], settled_within: float, oldest_at: float | None, now: Look
) -> list[Look]:
    """Looks that nobody took, from what the owner keeps beside its position, up to the one of now.

    `samples` are times and offsets passed, at commits; what was committed less than `settled_within` seconds after one
    left none. `oldest_at` is the time of the oldest record that it is not done with: it was the end then, and since
    then, for want of better knowledge, records came evenly.
    """
    moves = [each for each in samples if each[0] < now.at_seconds]
    if moves and moves[-1][1] != now.passed:
        moves.append((min(now.at_seconds, moves[-1][0] + settled_within), now.passed))
    if not moves:
        return [now]
    times = {at for at, _ in moves} | ({oldest_at} if oldest_at is not None else set())
    begin = now.at_seconds - WINDOW_SECONDS
    wanted = sorted({max(at, begin) for at in times if at < now.at_seconds})
    found = []
    for at in wanted:
        passed = [offsets for moved_at, offsets in moves if moved_at <= at]
        if passed:
            found.append(Look(at, passed[-1], _end_at(at, oldest_at, now)))
    return [*found, now]


def _end_at(at: float, oldest_at: float | None, now: Look) -> int | None:
    if oldest_at is None or now.end is None or at < oldest_at or oldest_at >= now.at_seconds:
        return None
    part = (at - oldest_at) / (now.at_seconds - oldest_at)
    return now.passed + round((now.end - now.passed) * part)
