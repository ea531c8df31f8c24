"""Waiting for a condition of another process, with an end to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event

__all__ = ["BrokerError", "until"]

_PAUSE_SECONDS = 0.05


class BrokerError(Exception):
    """A broker, or what it needs, is not there or does not do what was asked; the text says what to do."""


def until(condition: Callable[[], bool], seconds: float, failed: Callable[[], str]) -> None:
    """Return when the condition holds; after so many seconds raise BrokerError with what `failed` says."""
    end = time.monotonic() + seconds
    pause = Event()
    while not condition():
        if time.monotonic() > end:
            raise BrokerError(f"{failed()} (waited {seconds:.0f} s)")
        pause.wait(_PAUSE_SECONDS)
