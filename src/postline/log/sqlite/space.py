"""The reserve for a full disk: a file that is given up so that positions can still be committed."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import apsw

from postline.logs.events import event

__all__ = ["RESERVE_BYTES", "Reserve"]

#: Twice the size to which the WAL is cut back.
RESERVE_BYTES = 16 << 20
_logger = logging.getLogger("postline.log.sqlite")


class Reserve:
    """A file of `size` bytes beside the log, one for all its processes.

    Without it a full disk would stop everything: deleting needs room in the WAL too.
    """

    def __init__(self, log: Path, size: int) -> None:
        self._log, self._path = log, log.with_name(log.name + "-reserve")
        self._size = size

    def give_up(self, connection: apsw.Connection) -> None:
        """Make room on the disk, then empty the WAL into the file; call it under the write lock."""
        try:
            self._path.unlink()
            _logger.warning(
                "the disk of %s is full: the reserve of %d bytes is in use",
                self._log,
                self._size,
                extra=event("disk.full", path=self._path),
            )
        except FileNotFoundError:
            pass
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except (apsw.BusyError, apsw.FullError, apsw.IOError) as error:
            # A reader is in the way, or others took the room: what comes next will show.
            _logger.warning(
                "the WAL of %s could not be emptied: %s",
                self._log,
                error,
                extra=event("file.wal_not_emptied", path=self._log),
            )

    def restore(self) -> bool:
        """Have the reserve, making it if there is room for it and as much again; says if it is there."""
        if self._size == 0:
            return True
        try:
            if self._path.stat().st_size >= self._size:
                return True
        except FileNotFoundError:
            pass
        if self._free_bytes() < 2 * self._size:
            return False
        return self._allocate()

    def _allocate(self) -> bool:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                _reserve_blocks(descriptor, self._size)
            except OSError:
                self._path.unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)
        except OSError as error:
            _logger.warning(
                "no room for the reserve %s: %s", self._path, error, extra=event("disk.no_reserve", path=self._path)
            )
            return False
        return True

    def _free_bytes(self) -> int:
        status = os.statvfs(self._path.parent)
        return status.f_bavail * status.f_frsize


def _reserve_blocks(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    # macOS has no such call: write the blocks.
    for start in range(0, size, 1 << 20):
        os.pwrite(descriptor, b"\1" * min(1 << 20, size - start), start)
