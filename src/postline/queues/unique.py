"""Unique tasks: the request id that calls of one key share within a window of time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec

from postline.errors import UsageError
from postline.ids import derived_id
from postline.queues.definitions import Definition
from postline.runtime.dedup import OWN_ID_WINDOW

__all__ = ["unique_id"]

#: Marks of own ids are kept no less long, so that the last call of a window is still recognised.
_LONGEST = OWN_ID_WINDOW[0]


def unique_id(
    definition: Definition, window: timedelta, key_of: Callable[..., object] | None
) -> Callable[[Any, int], str]:
    """Of a task's message and the time, the id of its call: the same for all of one key in one window.

    Windows follow each other from the epoch on. The key is what `key_of` makes of the arguments, else all of them.
    Raises UsageError for a window that can't be kept.
    """
    window_ms = int(window.total_seconds() * 1000)
    if not 0 < window_ms <= _LONGEST.total_seconds() * 1000:
        raise UsageError(
            f"Task {definition.name} can't be unique for {window}.",
            remedy=f"Give more than nothing, and at most {_LONGEST.days} days.",
        )

    def own_id(message: Any, now_ms: int) -> str:
        if key_of is None:
            told = msgspec.json.encode(message, order="sorted")
        else:
            args, kwargs = definition.arguments(message)
            told = msgspec.json.encode(key_of(*args, **kwargs), order="sorted")
        return derived_id("unique", definition.name, told, now_ms // window_ms)

    return own_id
