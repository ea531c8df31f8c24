"""Each engine as the conformance suite drives it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from postline.log.port import Log
from postline.log.sqlite.log import SqliteLog
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

    async def open(self) -> SqliteLog:
        """Another handle, if the log is a file."""
        if self._path is None and self._logs:
            raise Unsupported("a log in memory is private to its process")
        log = SqliteLog(None if self._path is None else str(self._path), clock=self.clock)
        await log.start()
        self._logs.append(log)
        return log

    async def kill(self, log: Log) -> None:
        """Not within one process."""
        raise Unsupported("killing needs a process of its own; tests/integration does it")

    async def hang(self, log: Log) -> None:
        """Not within one process."""
        raise Unsupported("hanging needs a process of its own; tests/integration does it")

    async def go_on(self, log: Log) -> None:
        """Not within one process."""
        raise Unsupported("hanging needs a process of its own; tests/integration does it")

    async def maintain(self, log: Log) -> None:
        """One pass, as the clock would start it."""
        assert isinstance(log, SqliteLog)
        await log.run_maintenance()

    async def close(self) -> None:
        """Close all handles."""
        for log in self._logs:
            await log.close()


ENGINES: dict[str, Callable[[Path], Engine]] = {
    "simulated": SimulatedEngine,
    "sqlite-memory": lambda directory: SqliteEngine(None),
}
