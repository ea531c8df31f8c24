"""Each engine as the conformance suite drives it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from postline.log.port import Log
from postline.log.sqlite.liveness import FileLiveness
from postline.log.sqlite.log import SqliteLog
from postline.log.sqlite.membership import SqliteMembership
from postline.log.sqlite.presence import Listener
from postline.log.sqlite.storage import Settings, Storage
from tests.conformance.harness import Engine, JumpingClock, Unsupported
from tests.simulation.cluster import SimulatedCluster
from tests.simulation.engine import SimulatedLog

__all__ = ["ENGINES"]


class SimulatedEngine:
    """The simulator's engine without its faults, on the real event loop, with short times."""

    name = "simulated"

    def __init__(self, directory: Path) -> None:
        del directory
        self.clock = JumpingClock()
        self._cluster = SimulatedCluster(lease_seconds=0.3, death_seconds=0.05)
        self._logs: list[SimulatedLog] = []

    async def open(self) -> SimulatedLog:
        """Another process's handle."""
        log = SimulatedLog(self._cluster, self.clock)
        await log.start()
        self._logs.append(log)
        return log

    async def kill(self, log: Log) -> None:
        """End it."""
        assert isinstance(log, SimulatedLog)
        log.die()

    async def hang(self, log: Log) -> None:
        """Stop its heartbeats and its membership's work."""
        assert isinstance(log, SimulatedLog)
        for membership in log.memberships:
            membership.hang()

    async def go_on(self, log: Log) -> None:
        """Let them go on."""
        assert isinstance(log, SimulatedLog)
        for membership in log.memberships:
            membership.go_on()

    async def maintain(self, log: Log) -> None:
        """Apply retention and compaction."""
        del log
        self._cluster.maintain(self.clock.now_ms())

    async def close(self) -> None:
        """Close the handles that live."""
        for log in self._logs:
            if not log.dead:
                await log.close()


class SqliteEngine:
    """The embedded engine, in memory (one handle) or on a file (handles as if of several processes)."""

    def __init__(self, path: Path | None) -> None:
        self.name = "sqlite-memory" if path is None else "sqlite-file"
        self.clock = JumpingClock()
        self._path = path
        self._logs: list[SqliteLog] = []
        self._deaf: dict[int, list[Listener]] = {}

    async def open(self) -> SqliteLog:
        """Another handle, if the log is a file."""
        if self._path is None and self._logs:
            raise Unsupported("a log in memory is private to its process")
        settings = Settings(lease_seconds=0.5, upkeep_seconds=0, reserve_bytes=0)
        log = SqliteLog(None if self._path is None else str(self._path), clock=self.clock, settings=settings)
        await log.start()
        self._logs.append(log)
        return log

    async def kill(self, log: Log) -> None:
        """Leave nothing of it but what is in the file; processes that die for sure are tests/fault's."""
        storage = _storage(log)
        for membership in list(storage.presence._listeners):
            assert isinstance(membership, SqliteMembership)
            await membership.abandon()
        storage.presence.close()

    async def hang(self, log: Log) -> None:
        """Give no sign of life and hear nothing."""
        presence = _storage(log).presence
        assert isinstance(presence.liveness, FileLiveness)
        presence.liveness._stop.set()
        self._deaf[id(log)] = list(presence._listeners)
        presence._listeners.clear()

    async def go_on(self, log: Log) -> None:
        """Give signs of life again and hear what was missed."""
        presence = _storage(log).presence
        living = presence.liveness
        assert isinstance(living, FileLiveness)
        living._stop.clear()
        living._thread = threading.Thread(target=living._count, daemon=True)
        living._thread.start()
        for membership in self._deaf.pop(id(log)):
            presence.add(membership)
            membership.group_changed()

    async def maintain(self, log: Log) -> None:
        """One pass of upkeep."""
        assert isinstance(log, SqliteLog)
        await log._upkeep.run()

    async def close(self) -> None:
        """Close all handles."""
        for log in self._logs:
            await log.close()


def _storage(log: Log) -> Storage:
    assert isinstance(log, SqliteLog)
    return log.storage


ENGINES: dict[str, Callable[[Path], Engine]] = {
    "simulated": SimulatedEngine,
    "sqlite-memory": lambda directory: SqliteEngine(None),
    "sqlite-file": lambda directory: SqliteEngine(directory / "log.db"),
}
