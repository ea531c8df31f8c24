"""Each engine as the conformance suite drives it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from postline.ids import IdSource
from postline.log.kafka.log import KafkaLog
from postline.log.kafka.options import read_options
from postline.log.port import Log
from postline.log.sqlite.liveness import FileLiveness
from postline.log.sqlite.log import SqliteLog
from postline.log.sqlite.membership import SqliteMembership
from postline.log.sqlite.presence import Listener
from postline.log.sqlite.storage import Settings, Storage
from tests.brokers.cluster import Cluster
from tests.brokers.waiting import until
from tests.conformance.harness import Engine, JumpingClock, Unsupported
from tests.conformance.upkeep import Upkeep
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


class KafkaEngine:
    """A real cluster's topics and groups, emptied before each test; handles are clients of this process."""

    def __init__(self, cluster: Cluster, protocol: str, cache: Path) -> None:
        self.name = f"kafka-{protocol}"
        self.clock = JumpingClock()
        self._cluster = cluster
        self._logs: list[KafkaLog] = []
        self._killed: list[KafkaLog] = []
        given = {"group.protocol": protocol, "create_topics": "true", "cache_dir": str(cache), **QUICK[protocol]}
        self._options = read_options(cluster.bootstrap.split(","), given)
        self._upkeep = Upkeep(cluster.bootstrap)
        empty(cluster.bootstrap)

    async def open(self) -> KafkaLog:
        """Another client."""
        log = KafkaLog(self._options, clock=self.clock, ids=IdSource(self.clock.now_ms, random.Random()))
        await log.start()
        self._logs.append(log)
        return log

    async def kill(self, log: Log) -> None:
        """Leave without a word, as if the coordinator had noticed already; real deaths are tests/fault's."""
        assert isinstance(log, KafkaLog)
        await asyncio.gather(*(membership.abandon() for membership in log._memberships))

    async def hang(self, log: Log) -> None:
        """Poll no more, so that the member is past its time to be polled."""
        assert isinstance(log, KafkaLog)
        for membership in log._memberships:
            membership.polling.going.clear()

    async def go_on(self, log: Log) -> None:
        """Poll again."""
        assert isinstance(log, KafkaLog)
        for membership in log._memberships:
            membership.polling.going.set()

    async def maintain(self, log: Log) -> None:
        """Copy what is held, as members do before retention comes; then have the brokers drop and compact."""
        for each in self._logs:
            for membership in each._memberships:
                steward = membership._steward
                if not membership._left:
                    await steward._in_commit_thread(steward.writer.copy_threatened)
        await self._upkeep.run(log, self.clock.now_ms(), self.clock.ahead_ms)

    async def close(self) -> None:
        """Close all handles."""
        for log in self._logs:
            await self.go_on(log)
        await asyncio.gather(*(log.close() for log in self._logs))


#: So that a member that stands still is noticed within seconds, yet has its time to give partitions back.
QUICK = {
    "classic": {"session.timeout.ms": "3000", "heartbeat.interval.ms": "200", "max.poll.interval.ms": "6000"},
    "consumer": {"max.poll.interval.ms": "6000"},
}


def empty(bootstrap: str) -> None:
    """Delete every topic and group that a test before this one left, and return when all brokers have heard of it."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    names = [name for name in admin.list_topics(timeout=20).topics if not name.startswith("__")]
    groups = [each.group_id for each in admin.list_consumer_groups().result(20).valid]
    for future in [*admin.delete_topics(names).values()] if names else []:
        future.result(20)
    for future in [*admin.delete_consumer_groups(groups).values()] if groups else []:
        with contextlib.suppress(KafkaException):
            future.result(20)
    # One that lags behind would say of a topic that the next test makes that it is there.
    for address in bootstrap.split(",") if names else []:
        until(partial(_has_none, address, frozenset(names)), 60, lambda: "a broker still has deleted topics")


def _has_none(address: str, names: frozenset[str]) -> bool:
    """Whether a broker has none of these topics; a new client asks the one that it was told of."""
    return names.isdisjoint(AdminClient({"bootstrap.servers": address}).list_topics(timeout=20).topics)


def _storage(log: Log) -> Storage:
    assert isinstance(log, SqliteLog)
    return log.storage


#: By name, the number of brokers and the group protocol.
KAFKA_ENGINES = {"kafka-1": ("kafka_one", "consumer"), "kafka-3": ("kafka_three", "classic")}

ENGINES: dict[str, Callable[[Path], Engine]] = {
    "simulated": SimulatedEngine,
    "sqlite-memory": lambda directory: SqliteEngine(None),
    "sqlite-file": lambda directory: SqliteEngine(directory / "log.db"),
}
