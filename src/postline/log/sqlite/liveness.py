"""Which members live: an OS lock that death frees, and a counter that stops when a process hangs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import threading
from pathlib import Path
from typing import Protocol

from postline.clock import Clock
from postline.log.sqlite.forking import close_after_fork

__all__ = ["FileLiveness", "Liveness", "MemoryLiveness", "is_at", "living_processes"]

#: A loop that has not run for so long hangs, even if the process's other threads go on.
STUCK_LOOP_SECONDS = 300.0
#: Observers look more often than that; what is longer between two looks, they were not running.
LONGEST_LOOK_SECONDS = 1.0

_SUFFIX = ".life"
_COUNTER_BYTES = 8


class Liveness(Protocol):
    """Tells the dead from the living, among those who share one log. Called on the loop's thread."""

    def enter(self, member: str) -> None:
        """This one lives, from now on."""

    def depart(self, member: str) -> None:
        """It is gone: left, or counted as crashed."""

    def is_gone(self, member: str, lease_seconds: float) -> bool:
        """Whether it is dead, or has been silent for its lease while this process looked on."""

    def tick(self) -> None:
        """The event loop of this process runs."""

    def close(self) -> None:
        """All members of this process are gone. Idempotent."""


class MemoryLiveness:
    """Members of one process: they live until somebody says otherwise."""

    def __init__(self) -> None:
        self._living: set[str] = set()

    def enter(self, member: str) -> None:
        """This one lives, from now on."""
        self._living.add(member)

    def depart(self, member: str) -> None:
        """It is gone."""
        self._living.discard(member)

    def is_gone(self, member: str, lease_seconds: float) -> bool:
        """Whether `depart` was called for it; leases don't matter here."""
        return member not in self._living

    def tick(self) -> None:
        """Nothing hangs alone within one process."""

    def close(self) -> None:
        """All of them are gone."""
        self._living.clear()


def living_processes(directory: Path) -> dict[str, bytes]:
    """The processes that have the log of this directory open now: name (`<process id>-…`) and heartbeat's counter."""
    found = {}
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            found[path.stem] = os.pread(descriptor, _COUNTER_BYTES, 0)
        finally:
            os.close(descriptor)
    return found


class _Sighting:
    """What this process has seen of another one's counter."""

    __slots__ = ("counter", "descriptor", "looked", "silent")

    def __init__(self, descriptor: int, now: float) -> None:
        self.descriptor = descriptor
        self.counter = b""
        self.looked = now
        self.silent = 0.0


class FileLiveness:
    """One lock file for each process in the directory beside the file; members are named `process/…`.

    The lock is a `flock`: free at death, however that came. A thread counts up in the file while
    the process runs and its loop ticks. Others measure the counter's age by their own steady clock,
    and only time in which they could look counts: a machine that slept lets nobody lapse.
    """

    def __init__(self, directory: Path, clock: Clock, *, beat_seconds: float = 1.0) -> None:
        self._directory = directory
        self._clock = clock
        self._beat = beat_seconds
        self._sightings: dict[str, _Sighting] = {}
        self._departed: set[str] = set()
        self._ticked = clock.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._sweep()
        self._descriptor: int | None
        self._descriptor, self._path = _locked_file(directory)
        close_after_fork(self)

    @property
    def process(self) -> str:
        """This process's name, unlike any other's on the file."""
        return self._path.stem

    def enter(self, member: str) -> None:
        """Let the heart beat from the first member on."""
        self._departed.discard(member)
        if self._thread is None and self._descriptor is not None:
            self._thread = threading.Thread(target=self._count, name="postline-heartbeat", daemon=True)
            self._thread.start()

    def depart(self, member: str) -> None:
        """Take note that this process's member is gone, although the process lives."""
        self._departed.add(member)

    def is_gone(self, member: str, lease_seconds: float) -> bool:
        """Whether its process is dead, or was silent for the lease while this one looked on."""
        process = member.partition("/")[0]
        if process == self.process:
            return member in self._departed or self._descriptor is None
        sighting = self._sightings.get(process) or self._first_sight(process)
        if sighting is None or self._lock_is_free(process, sighting):
            return True
        now = self._clock.monotonic()
        passed, sighting.looked = now - sighting.looked, now
        counter = os.pread(sighting.descriptor, _COUNTER_BYTES, 0)
        if counter != sighting.counter:
            sighting.counter, sighting.silent = counter, 0.0
        else:
            # If this process itself stood still, the other one may have been alive all the while.
            sighting.silent += min(passed, LONGEST_LOOK_SECONDS)
        return sighting.silent > lease_seconds

    def tick(self) -> None:
        """The event loop of this process runs."""
        self._ticked = self._clock.monotonic()

    def close(self) -> None:
        """Give up the sign of life: the members of this process count as dead. Idempotent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._descriptor is not None:
            _remove(self._path)
        self._close_files()

    def after_fork(self) -> None:
        """In a forked child: drop the copies, which would keep the parent's members alive."""
        self._stop.set()
        self._thread = None
        self._close_files()

    def _close_files(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        for sighting in self._sightings.values():
            os.close(sighting.descriptor)
        self._sightings.clear()

    def _count(self) -> None:
        """The heartbeat's thread: it needs no loop, so that a handler may block that for a while."""
        counter = 0
        descriptor = self._descriptor
        while descriptor is not None and not self._stop.wait(self._beat):
            if self._clock.monotonic() - self._ticked < STUCK_LOOP_SECONDS:
                counter += 1
                # On a full disk that copies what it overwrites this may fail for a while; the next beat tries again.
                with contextlib.suppress(OSError):
                    os.pwrite(descriptor, counter.to_bytes(_COUNTER_BYTES, "big"), 0)

    def _first_sight(self, process: str) -> _Sighting | None:
        try:
            descriptor = os.open(self._directory / f"{process}{_SUFFIX}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        sighting = self._sightings[process] = _Sighting(descriptor, self._clock.monotonic())
        return sighting

    def _lock_is_free(self, process: str, sighting: _Sighting) -> bool:
        # A shared probe: two observers at once don't take each other for the living one.
        try:
            fcntl.flock(sighting.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        _remove(self._directory / f"{process}{_SUFFIX}")
        os.close(sighting.descriptor)
        del self._sightings[process]
        return True

    def _sweep(self) -> None:
        """Remove the files of the dead that nobody has looked after."""
        for path in list(self._directory.iterdir()):
            process = path.stem
            if path.suffix != _SUFFIX or process in self._sightings:
                continue
            sighting = self._first_sight(process)
            if sighting is not None and not self._lock_is_free(process, sighting):
                del self._sightings[process]
                os.close(sighting.descriptor)


def _locked_file(directory: Path) -> tuple[int, Path]:
    """A file of a new name, locked; another one if a sweeper took it for a dead one's in between."""
    while True:
        descriptor, name = tempfile.mkstemp(_SUFFIX, f"{os.getpid()}-", directory)
        path = Path(name)
        # The others need not be of the same user to see who lives.
        os.fchmod(descriptor, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if is_at(path, descriptor):
            try:
                os.pwrite(descriptor, bytes(_COUNTER_BYTES), 0)
            except OSError:
                _remove(path)
                os.close(descriptor)
                raise
            return descriptor, path
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Have it gone; one that can't be removed stays for whoever may, its lock says that it is dead."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def is_at(path: Path, descriptor: int) -> bool:
    """Whether the path still leads to the open file."""
    opened = os.fstat(descriptor)
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return (opened.st_dev, opened.st_ino) == (found.st_dev, found.st_ino)
