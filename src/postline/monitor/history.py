"""How a subscription went over minutes to two weeks, out of the samples that its partitions keep in their state."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from postline.clock import Clock
from postline.errors import UsageError
from postline.log.port import Bounds, Group, Log, Survey
from postline.monitor.views import HistoryPoint, HistoryView, RateView
from postline.runtime.entries import HISTORY
from postline.runtime.history import RINGS, Sample, read_sample
from postline.runtime.lagging import lag_in
from postline.runtime.outcomes import Outcome

__all__ = ["HISTORY_MS_MAX", "POINTS_MAX", "history"]

#: As far back as samples are kept.
HISTORY_MS_MAX = RINGS[-1].span_ms
POINTS_MAX = 500
_RATES_MINUTES = (1, 5, 15)


class _Moment(NamedTuple):
    """All partitions at a time; None where what lies there is not known."""

    passed: float | None
    end: int | None
    held: int
    dead_letters: int
    generation: int
    #: Counts by outcome.
    counts: Sequence[int] = ()

    @property
    def lag(self) -> int | None:
        return None if self.passed is None or self.end is None else max(0, round(self.end - self.passed))


async def history(log: Log, clock: Clock, survey: Survey, *, span_ms: int, points: int) -> HistoryView:
    """The span up to now in so many steps, of the one subscription of the survey. Raises UsageError, LogUnavailable."""
    if not (0 < span_ms <= HISTORY_MS_MAX and 0 < points <= POINTS_MAX):
        raise UsageError(
            f"History goes back {HISTORY_MS_MAX // 86_400_000} days, in {POINTS_MAX} steps at most.",
            remedy="Ask for a shorter span, or for fewer steps.",
        )
    (group,), now_ms = survey.groups, clock.now_ms()
    bounds = survey.bounds[group.info.topic]
    tracks = [await _track(log, group, number, bounds[number], now_ms) for number in range(len(group.partitions))]
    times = [now_ms - span_ms + span_ms * step // points for step in range(points)]
    rate_times = [now_ms - minutes * 60_000 for minutes in _RATES_MINUTES]
    moments = {at_ms: await _moment(log, group, tracks, at_ms) for at_ms in sorted({*times, *rate_times})}
    moments[now_ms] = _now(tracks, bounds)
    steps = [*times, now_ms]
    return HistoryView(
        subscription=group.info.name,
        topic=group.info.topic,
        rates=[
            _rate(minutes, moments[at_ms], moments[now_ms])
            for minutes, at_ms in zip(_RATES_MINUTES, rate_times, strict=True)
        ],
        points=[
            _point(at_ms, (at_ms - before) / 1000, moments[before], moments[at_ms]) for before, at_ms in pairwise(steps)
        ],
    )


def _rate(minutes: int, before: _Moment, now: _Moment) -> RateView:
    handled, added = _flow(minutes * 60.0, before, now)
    return RateView(minutes=minutes, handled_per_second=handled, added_per_second=added)


def _point(at_ms: int, seconds: float, before: _Moment, now: _Moment) -> HistoryPoint:
    handled, added = _flow(seconds, before, now)
    return HistoryPoint(
        at_ms=at_ms,
        lag_records=now.lag,
        handled_per_second=handled,
        added_per_second=added,
        held=now.held,
        dead_letters=now.dead_letters,
        outcomes=_outcomes(before, now),
    )


def _outcomes(before: _Moment, now: _Moment) -> dict[str, int]:
    """How many offsets got each outcome, by the samples before either moment; {} where that is not known."""
    if not before.counts or not now.counts or before.generation != now.generation:
        return {}
    counted = [each for each in Outcome if each not in (Outcome.PENDING, Outcome.HELD)]
    found = {each.label: now.counts[each] - before.counts[each] for each in counted}
    return {label: number for label, number in found.items() if number > 0}


def _flow(seconds: float, before: _Moment, now: _Moment) -> tuple[float | None, float | None]:
    """Offsets settled or held, and added, in a second; None where a reset or forgotten time lies between."""
    known = before.passed is not None and now.passed is not None and before.generation == now.generation
    handled = (now.passed - before.passed) / seconds if known else None  # type: ignore[operator]
    added = None if before.end is None or now.end is None else (now.end - before.end) / seconds
    return None if handled is None else max(0.0, handled), added


async def _track(log: Log, group: Group, number: int, bounds: Bounds, now_ms: int) -> list[Sample]:
    """A partition's samples in the order of time, the last one of now. What a ring's last lap left is none of them."""
    found: dict[int, Sample] = {}
    after = b""
    while page := await log.peek_state(group.info.name, number, HISTORY, after=after):
        for key, data in page:
            sample = read_sample(data)
            ring = RINGS[key[0]] if key[0] < len(RINGS) else None
            if sample is not None and ring is not None and now_ms - ring.span_ms < sample.at_ms <= now_ms:
                found[sample.at_ms] = sample
        after = page[-1][0]
    lag = lag_in(group.partitions[number], bounds)
    standing, progress = lag.progress.standing, lag.progress
    found[now_ms] = Sample(
        at_ms=now_ms,
        position=lag.first,
        ahead=lag.ahead,
        before=found[now_ms].before if now_ms in found else lag.first + lag.ahead,
        counts=progress.counts,
        generation=progress.generation,
        held=standing.held if standing else 0,
        dead_letters=standing.dead_letters if standing else 0,
    )
    return [found[at_ms] for at_ms in sorted(found)]


def _now(tracks: Sequence[Sequence[Sample]], bounds: Sequence[Bounds]) -> _Moment:
    last = [track[-1] for track in tracks]
    ends = sum(each.end for each in bounds[: len(last)])
    return _summed(last, [float(each.passed) for each in last], ends)


async def _moment(log: Log, group: Group, tracks: Sequence[Sequence[Sample]], at_ms: int) -> _Moment:
    ends = await asyncio.gather(*(_end_at(log, group.info.topic, number, at_ms) for number in range(len(tracks))))
    samples, passed = [], []
    for track in tracks:
        index = bisect_right(track, at_ms, key=lambda sample: sample.at_ms) - 1
        if index < 0:
            return _Moment(None, None if None in ends else sum(filter(None, ends)), 0, 0, 0)
        samples.append(track[index])
        passed.append(_passed_at(track, index, at_ms))
    return _summed(samples, passed, None if None in ends else sum(filter(None, ends)))


def _summed(samples: Sequence[Sample], passed: Sequence[float], end: int | None) -> _Moment:
    return _Moment(
        sum(passed),
        end,
        sum(each.held for each in samples),
        sum(each.dead_letters for each in samples),
        sum(each.generation for each in samples),
        [sum(counts) for counts in zip(*(each.counts for each in samples), strict=False)],
    )


def _passed_at(track: Sequence[Sample], index: int, at_ms: int) -> float:
    """What was committed without a sample came within a step of the sample before, and is spread evenly over that."""
    earlier = track[index]
    if index + 1 == len(track) or track[index + 1].generation != earlier.generation:
        return earlier.passed
    later = track[index + 1]
    spread_ms = min(later.at_ms - earlier.at_ms, _step_ms(track[-1].at_ms - earlier.at_ms))
    part = min(1.0, (at_ms - earlier.at_ms) / spread_ms)
    return earlier.passed + (later.before - earlier.passed) * part


def _step_ms(age_ms: int) -> int:
    """How far samples of this age are apart."""
    return next((ring.step_ms for ring in RINGS if age_ms <= ring.span_ms), RINGS[-1].step_ms)


async def _end_at(log: Log, topic: str, partition: int, at_ms: int) -> int | None:
    """Where the log ended at a time; None if retention has taken the records of it."""
    offset = await log.offset_at(topic, partition, at_ms)
    if offset == 0:
        return 0
    start = (await log.bounds(topic))[partition].start
    return None if offset <= start else offset
