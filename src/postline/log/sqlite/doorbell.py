"""Telling the other processes of a file that something was committed, and hearing it from them.

Each process has a datagram socket in the directory beside the file; whoever commits sends a byte to
all the others. Rings may get lost (a full socket, a process that can't make one), so that every
process also looks at the file's version four times a second, or up to 500 times where it has no
socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from postline.clock import Clock, Timer
from postline.log.sqlite.forking import close_after_fork

__all__ = ["GROUP_CHANGED", "RECORDS_APPENDED", "Doorbell"]

#: What a ring says; a listener that can't tell what it missed assumes both.
RECORDS_APPENDED = b"r"
GROUP_CHANGED = b"g"

SAFETY_SECONDS = 0.25
FASTEST_POLL_SECONDS = 0.002
SLOWEST_POLL_SECONDS = 0.02

#: A socket's address has 108 bytes on Linux, 104 elsewhere, with the closing zero.
_LONGEST_ADDRESS = 103
#: The kernel queues some ten datagrams; so many at once mean that others may have been dropped.
_FULL_QUEUE = 8
_MTIME_TICK_SECONDS = 0.05
_SUFFIX = ".bell"


class Doorbell:
    """One process's bell. `ring` may be called by any thread, everything else by the loop's.

    `on_ring(group)` is called on the loop when another process has committed; `group` says that
    the members or assignments may have changed too. `version` gives a number that changes with
    every commit of another connection.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        clock: Clock,
        version: Callable[[], int],
        on_ring: Callable[[bool], None],
    ) -> None:
        self._directory = directory
        self._own = name + _SUFFIX
        self._clock = clock
        self._version = version
        self._on_ring = on_ring
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: socket.socket | None = None
        #: Descriptor of the directory where its path is too long for an address.
        self._shortcut: int | None = None
        self._others: list[str] = []
        self._changed = -1
        self._changed_seen = 0.0
        self._listed = False
        self._listing = threading.Lock()
        self._seen = 0
        self._delay = SAFETY_SECONDS
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begin to listen, on the running loop; without a socket where none can be made."""
        self._loop = asyncio.get_running_loop()
        self._seen = self._version()
        try:
            self._bind()
        except OSError:
            # No Unix sockets here (a foreign file system, a sandbox): polling does the work.
            self._close_socket()
            self._delay = FASTEST_POLL_SECONDS
        close_after_fork(self)
        self._timer = self._clock.call_later(self._delay, self._poll)

    @property
    def has_socket(self) -> bool:
        """Whether others can ring here; if not, polling tells."""
        return self._socket is not None

    def ring(self, what: bytes) -> None:
        """Tell all other processes; never waits, never fails."""
        sender = self._socket
        if sender is None:
            return
        for name in self._neighbours():
            try:
                sender.sendto(what, self._address(name))
            except ConnectionRefusedError:
                # Its process is dead: nothing else can be bound to this name.
                _remove(self._directory / name)
            except OSError:
                # A full queue rings by itself; one that is gone or belongs to another user finds
                # out by its safety poll.
                continue

    def close(self) -> None:
        """Stop listening. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._socket.fileno())
            _remove(self._directory / self._own)
        self._close_socket()

    def after_fork(self) -> None:
        """In a forked child: drop the copies; the address stays the parent's."""
        self._timer = None
        self._close_socket()

    def _bind(self) -> None:
        if len(os.fsencode(self._directory / self._own)) > _LONGEST_ADDRESS:
            self._shortcut = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(self._address(self._own))
        assert self._loop is not None
        self._loop.add_reader(self._socket.fileno(), self._hear)

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._shortcut is not None:
            os.close(self._shortcut)
            self._shortcut = None

    def _address(self, name: str) -> str:
        if self._shortcut is None:
            return f"{self._directory}/{name}"
        return f"/proc/self/fd/{self._shortcut}/{name}"

    def _neighbours(self) -> list[str]:
        """The other bells; the directory is read again when it has changed, or may have."""
        with self._listing:
            now = self._clock.monotonic()
            try:
                changed = self._directory.stat().st_mtime_ns
            except OSError:
                # Somebody has cleared it away: nobody can be rung, all find out by polling.
                return []
            if changed != self._changed:
                self._changed, self._changed_seen, self._listed = changed, now, False
            if not self._listed:
                bells = (path.name for path in self._directory.iterdir() if path.suffix == _SUFFIX)
                self._others = [name for name in bells if name != self._own]
                # Its time ticks coarsely: one that appears in the same tick would be missed for good.
                self._listed = now >= self._changed_seen + _MTIME_TICK_SECONDS
            return self._others

    def _hear(self) -> None:
        """Empty the socket and pass on what was said, once."""
        heard = 0
        group = False
        while self._socket is not None:
            try:
                said = self._socket.recv(16)
            except BlockingIOError:
                break
            heard += 1
            group = group or said == GROUP_CHANGED or heard >= _FULL_QUEUE
        if heard:
            self._on_ring(group)

    def _poll(self) -> None:
        """Look for commits that nobody rang for: often where there is no socket, else for safety."""
        version = self._version()
        changed, self._seen = version != self._seen, version
        if self._socket is None:
            self._delay = FASTEST_POLL_SECONDS if changed else min(self._delay * 1.5, SLOWEST_POLL_SECONDS)
        self._timer = self._clock.call_later(self._delay, self._poll)
        if changed:
            self._on_ring(True)


def _remove(path: Path) -> None:
    """Have it gone, unless it belongs to another user: then it stays, unheard."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
