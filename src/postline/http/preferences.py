"""What a client prefers, as RFC 7240 writes it: to be answered at once, or to wait so many seconds for the outcome."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Preferences", "read_preferences"]

_SECONDS = re.compile(r"[0-9]{1,9}")


class Preferences(NamedTuple):
    """What `Prefer` asks for."""

    respond_async: bool = False
    wait_seconds: int | None = None

    def applied(self, wait_seconds: float | None) -> dict[str, str]:
        """The header that says which of them were heeded, `wait_seconds` being what was."""
        words = ["respond-async"] if self.respond_async else []
        words += [f"wait={wait_seconds:g}"] if self.wait_seconds is not None and wait_seconds is not None else []
        return {"Preference-Applied": ", ".join(words)} if words else {}


def read_preferences(values: Iterable[str]) -> Preferences:
    """Of all `Prefer` fields; the first of several counts, what can't be read is passed over."""
    respond_async, wait = False, None
    for part in ",".join(values).split(","):
        name, _, value = part.partition(";")[0].partition("=")
        name, value = name.strip().lower(), value.strip().strip('"')
        if name == "respond-async":
            respond_async = True
        elif name == "wait" and wait is None and _SECONDS.fullmatch(value):
            wait = int(value)
    return Preferences(respond_async, wait)
