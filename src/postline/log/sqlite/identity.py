"""Noticing that the file, or what SQLite keeps beside it, was taken away or replaced underneath."""

from __future__ import annotations

import os
from pathlib import Path

from postline.errors import LogCorrupt

__all__ = ["FileWatch"]

#: The file itself and what SQLite keeps beside it for as long as a connection is open.
_SUFFIXES = ("", "-wal", "-shm")


class FileWatch:
    """What was opened, compared with what lies there now.

    A process goes on writing to a file that was deleted or renamed, and nobody would ever read
    that. `require_same` may be called on any thread.
    """

    def __init__(self, path: Path) -> None:
        """Take note of what lies there; call it when the connections have been used."""
        self._path = path.absolute()
        # The real one: SQLite puts the others beside what a symbolic link leads to.
        real = os.path.realpath(self._path)
        places = [os.fspath(self._path), *(real + suffix for suffix in _SUFFIXES)]
        self._seen = {place: found for place in places if (found := _identity(place))}
        self.gone = ""

    def require_same(self) -> None:
        """Raise LogCorrupt if something was removed or replaced; for good, whatever lies there later."""
        if not self.gone:
            self.gone = next((place for place, seen in self._seen.items() if _identity(place, seen) != seen), "")
        if self.gone:
            raise LogCorrupt(
                f"The log {self._path} was removed or replaced while it was open: {self.gone} is not what it was.",
                remedy="Stop all its processes, put the file and its -wal back (or a backup), then start them. What was"
                " not acknowledged may be lost.",
            )

    def look(self) -> None:
        """Look at what is there; who uses the log next is told."""
        try:
            self.require_same()
        except LogCorrupt:
            return


def _identity(place: str, unknown: tuple[int, int] | None = None) -> tuple[int, int] | None:
    """Device and inode; None if nothing is there, `unknown` if that can't be told."""
    try:
        found = os.stat(place)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return unknown
    return found.st_dev, found.st_ino
