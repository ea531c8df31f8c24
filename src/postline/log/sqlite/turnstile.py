"""The fair write lock among the processes of one file: two `flock`s, a queue and the lock itself.

Whoever wants to write takes the queue, then the lock, then lets the queue go. The one who has just
written finds the queue taken, so it can't overtake those who wait: no process starves, which
SQLite's own `busy_timeout` does not promise.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from postline.errors import LogUnavailable
from postline.log.sqlite.forking import close_after_fork

__all__ = ["Turnstile"]

_EXCLUSIVE_NOW = fcntl.LOCK_EX | fcntl.LOCK_NB
#: How often a first turn looks whether it may.
_LOOK_SECONDS = 0.005


class Turnstile:
    """The write lock of one process; a context manager, taken by one thread at a time.

    `flock` can't wait with a limit, so a contended wait is done by a thread of its own. When the
    patience ends, that thread keeps the place in the queue for the next call.
    """

    def __init__(self, directory: Path, *, patience_seconds: float = 30.0) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._patience = patience_seconds
        self._queue = os.open(directory / "queue.lock", flags, 0o666)
        try:
            self._lock = os.open(directory / "write.lock", flags, 0o666)
        except OSError:
            os.close(self._queue)
            raise
        self._turn = threading.Condition()
        self._thread: threading.Thread | None = None
        #: The thread is at it: the descriptors are its own until it says so.
        self._waiting = False
        #: A caller still wants what the thread waits for.
        self._wanted = False
        self._granted = False
        self._has_queue = False
        self._closed = False
        close_after_fork(self)

    def acquire(self) -> None:
        """Wait for the turn. Raises LogUnavailable when another process sits on it for too long."""
        with self._turn:
            if self._closed:
                raise LogUnavailable("The log is closed in this process.", remedy="Open it again, after a fork too.")
            if not self._waiting and self._try_now():
                return
            self._wait_in_thread()

    @contextlib.contextmanager
    def first_turn(self) -> Iterator[None]:
        """One turn taken without the waiting thread, so that giving up and closing leaves nothing behind.

        It looks again and again instead, and keeps the place in the queue once it has it.
        """
        with self._turn:
            for _ in range(max(1, int(self._patience / _LOOK_SECONDS))):
                if self._closed or self._try_now():
                    break
                self._turn.wait(_LOOK_SECONDS)
            else:
                raise self._impatience()
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Let the next one in; call it when the transaction has ended."""
        if not self._closed:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the place in the queue back. Idempotent."""
        with self._turn:
            if self._closed:
                return
            self._closed = True
            self._turn.notify_all()
            # A thread that still waits closes them itself: a number could be given out anew under it.
            if not self._waiting:
                self._close_files()

    def after_fork(self) -> None:
        """In a forked child: drop the copies, which would hold the lock past the parent's death."""
        if not self._closed:
            self._closed = True
            self._close_files()

    def __enter__(self) -> Turnstile:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def holder(self) -> int | None:
        """The process that holds the write lock now, if the system can tell."""
        return _flock_holder(self._lock)

    def _try_now(self) -> bool:
        """Both locks without waiting; keeps the queue if only the second one is taken."""
        try:
            fcntl.flock(self._queue, _EXCLUSIVE_NOW)
            self._has_queue = True
            fcntl.flock(self._lock, _EXCLUSIVE_NOW)
        except BlockingIOError:
            return False
        self._leave_queue()
        return True

    def _leave_queue(self) -> None:
        fcntl.flock(self._queue, fcntl.LOCK_UN)
        self._has_queue = False

    def _wait_in_thread(self) -> None:
        self._wanted = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._stand_in_line, name="postline-turnstile", daemon=True)
            self._thread.start()
        self._waiting = True
        self._turn.notify_all()
        self._turn.wait_for(lambda: self._granted or self._closed, self._patience)
        granted = self._granted and not self._closed
        self._wanted = self._granted = False
        if not granted:
            raise self._impatience()

    def _stand_in_line(self) -> None:
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
            if not self._has_queue:
                fcntl.flock(self._queue, fcntl.LOCK_EX)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            with self._turn:
                self._waiting = False
                self._hand_over()

    def _hand_over(self) -> None:
        """The thread has both locks: give them to the caller who waits, or back."""
        if self._closed:
            self._close_files()
            return
        self._leave_queue()
        if self._wanted:
            self._granted = True
            self._turn.notify_all()
        else:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _close_files(self) -> None:
        os.close(self._queue)
        os.close(self._lock)

    def _impatience(self) -> LogUnavailable:
        if self._closed:
            return LogUnavailable("The log was closed while a write waited for its turn.")
        pid = self.holder()
        who = f"process {pid}" if pid else "another process"
        return LogUnavailable(
            f"The write lock of the log has not been free for {self._patience:g} s; {who} holds it.",
            remedy=f"It is stopped or hung inside a transaction: continue it or end it ({who}).",
        )


def _flock_holder(descriptor: int) -> int | None:
    """Whom /proc/locks names for this file; None where there is no such table."""
    inode = os.fstat(descriptor).st_ino
    try:
        table = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    for line in table:
        # "3: FLOCK  ADVISORY  WRITE 4711 fe:01:131 0 EOF"; waiting ones have "->" as their second word.
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[5].endswith(f":{inode}"):
            return int(words[4]) or None
    return None
