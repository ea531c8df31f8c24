"""Times on the command line: a moment, or so long ago."""

from __future__ import annotations

from datetime import datetime

from postline.errors import SettingsError, UsageError
from postline.settings import parse_duration_ms

__all__ = ["parse_span_ms", "parse_time_ms"]


def parse_span_ms(text: str) -> int:
    """Milliseconds of a span such as `2h` or `14d`. Raises UsageError."""
    try:
        return parse_duration_ms(text)
    except SettingsError as error:
        raise UsageError(f"{text!r} is no span of time.", remedy="Write one such as 90s, 15m, 2h or 14d.") from error


def parse_time_ms(text: str, now_ms: int) -> int:
    """Wall-clock milliseconds of `2026-05-01T12:00:00Z` (any offset), or of a span before now such as `2h`.

    Raises UsageError, also for a moment without a time zone.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is not None and moment.tzinfo is not None:
        return int(moment.timestamp() * 1000)
    try:
        if moment is None and not text.strip().isdigit():
            return now_ms - parse_duration_ms(text)
    except SettingsError:
        pass
    raise UsageError(
        f"{text!r} is no time{' with a time zone' if moment is not None else ''}.",
        remedy="Write one such as 2026-05-01T12:00:00Z, 2026-05-01T14:00:00+02:00, or 2h for two hours ago.",
    )
