"""Unique tasks: what equal calls have in common, for a window of time or until one of them is done."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec

from postline.errors import UsageError
from postline.ids import derived_id
from postline.queues.definitions import Definition
from postline.runtime.dedup import OWN_ID_WINDOW

__all__ = ["UNTIL_DONE", "unique_id", "windowed_id"]

#: Of equal calls one is under way at a time.
UNTIL_DONE = "until-done"
#: Marks of own ids are kept no less long, so that the last call of a window is still recognised.
_LONGEST = OWN_ID_WINDOW[0]


def windowed_id(
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
        return derived_id("unique", definition.name, _told(definition, message, key_of), now_ms // window_ms)

    return own_id


def unique_id(definition: Definition, key_of: Callable[..., object] | None) -> Callable[[Any], str]:
    """Of a task's message, what is the same for all of one key; see `windowed_id`."""
    return lambda message: derived_id("unique", definition.name, _told(definition, message, key_of))


def _told(definition: Definition, message: Any, key_of: Callable[..., object] | None) -> bytes:
    if key_of is None:
        return msgspec.json.encode(message, order="sorted")
    args, kwargs = definition.arguments(message)
    return msgspec.json.encode(key_of(*args, **kwargs), order="sorted")
