"""When a periodic schedule runs: every so often, or as a cron expression says in a time zone."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol
from zoneinfo import ZoneInfo

from postline.errors import SettingsError, UsageError

if TYPE_CHECKING:
    from cronsim import CronSim

__all__ = ["Cron", "Every", "Rule"]


class Rule(Protocol):
    """Planned times, in wall-clock milliseconds; the same whoever asks, and whenever."""

    #: Tells one rule from another.
    text: str

    @property
    def zone(self) -> ZoneInfo | None:
        """The zone that people read its times in; None for UTC."""

    def after(self, time_ms: int) -> int | None:
        """The first planned time after `time_ms`; None if there is none."""

    def latest(self, time_ms: int) -> int | None:
        """The last planned time up to `time_ms`; None if there is none."""


class Every:
    """At multiples of an interval since 1970 (UTC): every hour on the hour, every day at midnight UTC."""

    def __init__(self, interval: timedelta | float) -> None:
        seconds = interval.total_seconds() if isinstance(interval, timedelta) else interval
        if not 1 <= seconds < math.inf or seconds * 1000 != int(seconds * 1000):
            raise UsageError(
                f"A schedule can't run every {interval!r}.",
                remedy="Give an interval of a second or more, in whole milliseconds; for what is quicker, loop in the"
                " app's lifespan.",
            )
        self._interval_ms = int(seconds * 1000)
        self.text = f"every {timedelta(milliseconds=self._interval_ms)}"

    @property
    def zone(self) -> None:
        """UTC."""

    def after(self, time_ms: int) -> int:
        """The first planned time after `time_ms`."""
        return (time_ms // self._interval_ms + 1) * self._interval_ms

    def latest(self, time_ms: int) -> int:
        """The last planned time up to `time_ms`."""
        return time_ms // self._interval_ms * self._interval_ms


class Cron:
    """As Debian's cron reads five fields (a sixth, in front, for seconds), by the clock on the wall in a time zone.

    Where daylight saving skips an hour, what has a fixed hour in it runs as soon as it is over; where an hour comes
    twice, it runs the first time. What runs at every hour, or several times an hour, runs by the time that passes.
    """

    def __init__(self, expression: str, tz: str | ZoneInfo) -> None:
        self._zone = _zone(tz)
        self._expression = " ".join(expression.split())
        self.text = f"cron {self._expression} {self._zone.key}"
        self._times(0, reverse=False)

    @property
    def zone(self) -> ZoneInfo:
        """The zone that the expression is read in."""
        return self._zone

    def after(self, time_ms: int) -> int | None:
        """The first planned time after `time_ms`; None if there is none for fifty years."""
        return _first(self._times(time_ms, reverse=False))

    def latest(self, time_ms: int) -> int | None:
        """The last planned time up to `time_ms`; None if there was none for fifty years."""
        return _first(self._times(time_ms + 1, reverse=True))

    def _times(self, time_ms: int, *, reverse: bool) -> CronSim:
        try:
            from cronsim import CronSim, CronSimError
        except ModuleNotFoundError as error:
            raise SettingsError(
                "@app.cron needs a reader of cron expressions, which is not installed.",
                remedy="pip install 'postline[cron]'",
            ) from error
        local = datetime.fromtimestamp(time_ms / 1000, UTC).astimezone(self._zone)
        try:
            return CronSim(self._expression, local, reverse=reverse)
        except CronSimError as error:
            raise UsageError(
                f"{self._expression!r} is no cron expression: {error}.",
                remedy='Give minute, hour, day, month and weekday: "0 3 * * *" is three in the morning of every day.',
            ) from error


def _first(times: CronSim) -> int | None:
    found = next(times, None)
    return None if found is None else round(found.timestamp() * 1000)


def _zone(tz: str | ZoneInfo) -> ZoneInfo:
    if isinstance(tz, ZoneInfo):
        return tz
    try:
        return ZoneInfo(tz)
    except (KeyError, ValueError, OSError) as error:
        raise UsageError(
            f"There is no time zone {tz!r} on this machine.",
            remedy='Give a name such as "Europe/Berlin" or "UTC"; a machine without time zones gets them by'
            " pip install 'postline[cron]'.",
        ) from error
