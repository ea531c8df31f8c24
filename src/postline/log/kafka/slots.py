"""Numbers that the processes of one machine take: each live one has its own, and a dead one's is free at once."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import itertools
import os
import stat
import weakref
from pathlib import Path

from postline.errors import LogError, LogFull, LogReadOnly

__all__ = ["Slot", "take_slot"]

_REFUSED = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ENOENT,
    errno.ENOLCK,
    errno.ENOTSUP,
)
_FULL = (errno.ENOSPC, errno.EDQUOT)

_taken: weakref.WeakSet[Slot] = weakref.WeakSet()


class Slot:
    """A number below which lies a directory of one's own, until `release` or the end of the process.

    A forked child doesn't have it: the number stays its parent's, and is free when that one ends.
    """

    def __init__(self, number: int, directory: Path, lock: int) -> None:
        self.number = number
        self.directory = directory
        self._lock: int | None = lock
        _forget_in_children()
        _taken.add(self)

    def release(self) -> None:
        """Let the next one take the number; the directory stays as it is. Idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self.release()


def take_slot(base: Path) -> Slot:
    """Take the lowest number that is free under `base`, making the directories (for this user alone) if need be.

    Blocks for no one. Raises LogReadOnly where `base` can't be written or isn't this user's to trust, LogFull without
    room on the disk.
    """
    try:
        _make_private(base)
        for number in itertools.count():
            lock = _lock_of(base / f"slot-{number}.lock")
            if lock is not None:
                return _slot(number, base / f"slot-{number}", lock)
        raise AssertionError("numbers never end")
    except OSError as error:
        refusal = _refusal(base, error)
        if refusal is None:
            raise
        raise refusal from error


def _slot(number: int, directory: Path, lock: int) -> Slot:
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except BaseException:
        os.close(lock)
        raise
    return Slot(number, directory, lock)


def _make_private(base: Path) -> None:
    """Make `base`. Where everybody may make directories it must be this user's own: another could have planted it."""
    base.parent.mkdir(parents=True, exist_ok=True)
    base.mkdir(mode=0o700, exist_ok=True)
    shared = os.stat(base.parent).st_mode & stat.S_ISVTX
    if shared and os.lstat(base).st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "it belongs to another user")


def _lock_of(file: Path) -> int | None:
    """The descriptor that holds the file's lock, or None if another has it or the file is another user's."""
    try:
        lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except PermissionError:
        if file.exists():
            return None
        raise
    try:
        # Never fcntl's own locks: closing any descriptor of the file would let go of those.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _refusal(base: Path, error: OSError) -> LogError | None:
    if error.errno in _FULL:
        return LogFull(
            f"The cache directory {base} has no room: {error.strerror}.", remedy="Free some room on its disk."
        )
    if error.errno in _REFUSED:
        return LogReadOnly(
            f"The cache directory {base} can't be used: {error.strerror}.",
            remedy="Name a directory on a local disk that this user can write, by cache_dir=PATH in the log's URL.",
        )
    return None


@functools.cache
def _forget_in_children() -> None:
    """From now on, once for the process: a forked child closes what holds its parent's locks."""
    os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    # Closing leaves the lock to the parent: it belongs to the open file that both have. Unlocking would not.
    for slot in list(_taken):
        slot.release()
