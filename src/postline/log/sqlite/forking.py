"""What must not survive a fork: locks and sockets whose copies in a child would outlive the parent."""

from __future__ import annotations

import functools
import os
import weakref
from typing import Protocol

__all__ = ["ForkSensitive", "close_after_fork"]


class ForkSensitive(Protocol):
    """Something that holds file descriptors which only their own process may keep."""

    def after_fork(self) -> None:
        """Close the copied descriptors, in the child. Takes no lock and removes no file."""


@functools.cache
def _registry() -> weakref.WeakSet[ForkSensitive]:
    """The live ones; the hook is put in once, when the first of them appears."""
    registry: weakref.WeakSet[ForkSensitive] = weakref.WeakSet()

    def close_all() -> None:
        for each in list(registry):
            each.after_fork()

    os.register_at_fork(after_in_child=close_all)
    return registry


def close_after_fork(holder: ForkSensitive) -> None:
    """Have `holder.after_fork` called in every forked child, for as long as `holder` lives."""
    _registry().add(holder)
