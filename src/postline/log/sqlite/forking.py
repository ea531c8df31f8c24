"""What must not survive a fork: locks and sockets whose copies outlive the parent, and files that were open."""

from __future__ import annotations

import functools
import os
import weakref
from collections import Counter
from pathlib import Path
from typing import Protocol

from postline.errors import LogUnavailable

__all__ = ["ForkSensitive", "OpenFiles", "close_after_fork", "open_files"]


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


class OpenFiles:
    """The log files that this process has open, and those that were open when it was forked.

    SQLite keeps a list of a process's locks, and a forked child inherits the list without the
    locks. What the child then commits to such a file can vanish when the parent closes it.
    """

    def __init__(self) -> None:
        self._open: Counter[Path] = Counter()
        self._inherited: set[Path] = set()

    def require_own(self, path: Path) -> None:
        """Raise LogUnavailable for a file that was open when this process was forked."""
        if path.resolve() in self._inherited:
            raise LogUnavailable(
                f"The log {path} was open when this process was forked, so it can't be used safely in it.",
                remedy="Open it after forking only, close it before, start the process anew (spawn), "
                "or publish through postline.sync, which does that by itself.",
            )

    def opened(self, path: Path) -> None:
        """The file is open from now on."""
        self._open[path.resolve()] += 1

    def closed(self, path: Path) -> None:
        """One that opened it has closed it."""
        self._open[path.resolve()] -= 1

    def after_fork(self) -> None:
        """In the child: remember what it must not open."""
        self._inherited |= {path for path, number in self._open.items() if number > 0}
        self._open.clear()


@functools.cache
def open_files() -> OpenFiles:
    """This process's list, made when the first file is opened."""
    files = OpenFiles()
    close_after_fork(files)
    return files
