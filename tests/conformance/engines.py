"""Each engine as the conformance suite drives it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from postline.log.port import Log
from tests.conformance.harness import Engine, JumpingClock
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


ENGINES: dict[str, Callable[[Path], Engine]] = {"simulated": SimulatedEngine}
