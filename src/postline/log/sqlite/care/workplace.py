"""Where a copy is made before it gets its name: a directory beside it that a killed program leaves to the next one."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from types import TracebackType

from postline.errors import LogFull, LogUnavailable
from postline.log.sqlite.connection import translated
from postline.log.sqlite.liveness import is_at

__all__ = ["Workplace", "make_durable", "require_room"]

_LOCK = "lock"
#: Beyond the pages: what verifying the copy writes beside it.
_ROOM_BESIDE_BYTES = 1 << 20


class Workplace:
    """`TARGET.partial`, one program's at a time, empty at first and gone afterwards; a context manager.

    What is finished in it is moved to `target` by one rename, so that there is never half of one.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._directory = target.with_name(target.name + ".partial")
        #: Where to make the file.
        self.file = self._directory / target.name
        self._lock: int | None = None

    def __enter__(self) -> Workplace:
        with translated(str(self._target)):
            while self._lock is None:
                self._directory.mkdir(mode=0o700, exist_ok=True)
                self._lock = self._locked()
            self._clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _locked(self) -> int | None:
        """The lock; None if another program has just removed the directory."""
        path = self._directory / _LOCK
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise LogUnavailable(
                f"Another backup or restore to {self._target} is under way.", remedy="Wait for its end, or end it."
            ) from None
        if is_at(path, descriptor):
            return descriptor
        os.close(descriptor)
        return None

    def _clear(self) -> None:
        """Remove what a killed one left."""
        for path in self._directory.iterdir():
            if path.name == _LOCK:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def require_room(directory: Path, size_bytes: int) -> None:
    """Raise LogFull unless so many bytes, and a little more, fit on the directory's disk."""
    status = os.statvfs(directory)
    free, needed = status.f_bavail * status.f_frsize, size_bytes + _ROOM_BESIDE_BYTES
    if free < needed:
        raise LogFull(
            f"A copy in {directory} needs {needed >> 20} MB, and its disk has {free >> 20} MB free.",
            remedy="Free some room there, or name a place on another disk.",
        )


def make_durable(path: Path) -> None:
    """Have a file, or the names in a directory, outlast a power cut. No process may use it as a database meanwhile."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
