"""The windows of looks at each partition that trends are judged by, as far as this process looked, or owners tell."""

from __future__ import annotations

from collections import deque

from postline.clock import Clock
from postline.log.port import PartitionInfo
from postline.monitor.trends import WINDOW_SECONDS, Look, Trend, judge, reconstructed
from postline.runtime.lagging import PartitionLag
from postline.runtime.standing import SAMPLE_MS

__all__ = ["Windows"]

#: Looks that are nearer together say nothing of a trend: commits come in batches.
_APART_SECONDS = 15.0


class Windows:
    """Remembers looks, a dozen of a partition at most. Times are wall-clock seconds, as owners' are."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._looks: dict[tuple[str, int], deque[Look]] = {}

    def trend(self, subscription: str, stored: PartitionInfo, lag: PartitionLag, oldest_ms: int | None) -> Trend:
        """Note how a partition stands, and what that and the looks before say.

        What retention takes is no progress: a subscription that it overtakes stands still.
        """
        passed = stored.position + lag.ahead
        now = Look(self._clock.now_ms() / 1000, passed, passed + lag.records)
        looks = self._looks.setdefault((subscription, stored.partition), deque())
        while looks and not now.at_seconds - WINDOW_SECONDS <= looks[0].at_seconds <= now.at_seconds:
            looks.popleft()
        window = [*looks, now] if lag.records else [now]
        if not looks or now.at_seconds - looks[-1].at_seconds >= _APART_SECONDS:
            looks.append(now)
        if not lag.records or oldest_ms is None:
            return Trend.OK  # what is left are gaps at most
        standing = lag.progress.standing
        if standing is not None:
            samples = [(at_ms / 1000, offsets) for at_ms, offsets in standing.samples]
            told = reconstructed(samples, SAMPLE_MS / 1000, oldest_ms / 1000, now)
            window = [look for look in told if look.at_seconds < window[0].at_seconds] + window
        return judge(window)

    def forget_others(self, names: set[str]) -> None:
        """Keep looks of these subscriptions alone: the others are gone."""
        for place in [place for place in self._looks if place[0] not in names]:
            del self._looks[place]
