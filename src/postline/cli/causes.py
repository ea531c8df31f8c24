"""Why a subscription stands still, in a line."""

from __future__ import annotations

from postline.cli.output import ago, plain
from postline.monitor import CauseView

__all__ = ["cause_line"]


def cause_line(subscription: str, cause: CauseView, now_ms: int) -> str:
    """`billing: breaker open for shop.Paid, since 3.0m ago: ConnectionError: nobody is there`."""
    since = "" if cause.since_ms is None else f", since {ago(cause.since_ms, now_ms)}"
    # Of a handler that is its place, and the stack follows.
    first = cause.detail.partition("\n")[0] if cause.detail != cause.said else ""
    return plain(f"{subscription}: {cause.said}{since}{f': {first}' if first else ''}")
