"""Examining a file: what is wrong is named with its remedy, a healthy one has no findings, nothing is changed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import apsw
import pytest

from postline.app import care
from postline.app.care import Examination
from postline.clock import Clock, SystemClock
from postline.errors import MissingCapability, UsageError
from postline.log.port import TopicSpec
from postline.log.sqlite.care import facts
from postline.log.sqlite.log import SqliteLog
from postline.log.sqlite.storage import Settings
from postline.settings import LogUrl
from tests.unit.sqlite.build import opened, record, subscribe
from tests.unit.sqlite.spoiling import damage, make_foreign, overwrite

_CLOCK = SystemClock()
_ROOT = Path(__file__).resolve().parents[3]
_SETTINGS = Settings(upkeep_seconds=0, reserve_bytes=1 << 20)


async def _examine(path: Path, *, clock: Clock = _CLOCK, quick: bool = False, **options: str) -> Examination:
    url = LogUrl("sqlite", path=str(path), options={"reserve_mb": "1", **options})
    return await care.examine(url, clock, quick=quick)


def _checks(found: Examination) -> list[str]:
    assert all(each.said and each.remedy for each in found.findings)
    return [each.check for each in found.findings]


@asynccontextmanager
async def _log(path: Path) -> AsyncIterator[SqliteLog]:
    async with opened(path, clock=_CLOCK, settings=_SETTINGS) as log:
        yield log


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A log of 30 records, closed."""
    async with _log(tmp_path / "log.db") as log:
        await log.append([record(number, partition=number % 2, value=b"x" * 100) for number in range(30)])
    return tmp_path / "log.db"


@contextmanager
def _other(program: str, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has come to where it says so, and waits."""
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT / "src"), str(_ROOT)])},
    )
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == b"there\n"
        yield other
    finally:
        other.kill()
        other.communicate()


_READER = """
import apsw, sys
connection = apsw.Connection(sys.argv[1])
connection.execute("BEGIN"); connection.execute("SELECT count(*) FROM records").fetchall()
print("there", flush=True); sys.stdin.read()
"""

_WRITER = _READER.replace('"BEGIN"', '"BEGIN IMMEDIATE"')

_MEMBER = """
import asyncio, sys
from pathlib import Path
from postline.clock import SystemClock
from postline.log.port import GroupSpec, StartAt
from postline.log.sqlite.log import SqliteLog
from postline.log.sqlite.storage import Settings

class Owner:
    async def assigned(self, assignments): print("there", flush=True)
    async def revoked(self, assignments): pass
    def lost(self, assignments): pass

async def main():
    log = SqliteLog(sys.argv[1], clock=SystemClock(), settings=Settings(upkeep_seconds=0, reserve_bytes=1 << 20))
    await log.start()
    spec = GroupSpec(subscription="billing", topic="orders", service="billing", start=StartAt("earliest"))
    member = await log.join(spec, Owner())
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_healthy_log_has_no_findings(path: Path) -> None:
    found = await _examine(path)
    assert found.findings == []
    assert (found.kind, found.format, found.integrity) == ("log", 1, "ok")
    assert [(each.topic, each.records, each.estimated) for each in found.topics] == [("orders", 30, False)]
    assert found.sizes.file > 10 * 4096
    assert found.topics[0].bytes > 3_000
    assert {"records", "state"} <= {each.name for each in found.tables}
    assert {each.name for each in found.settings} >= {"journal_mode", "durability", "lease_seconds"}


def test_an_examination_changes_nothing(path: Path) -> None:
    before = path.read_bytes()
    asyncio.run(_examine(path))
    assert path.read_bytes() == before


async def test_a_running_log_is_examined_beside_its_service(path: Path) -> None:
    async with _log(path) as log:
        await log.append([record(99)])
        found = await _examine(path)
        assert found.findings == []
        assert [each.status for each in found.processes] == ["alive"]
        assert found.topics[0].records == 31
        assert await log.append([record(100)])


async def test_topics_of_many_records_are_estimated(path: Path) -> None:
    async with _log(path) as log:
        await log.append([record(number, value=b"x" * 100) for number in range(4_000)])
    (orders,) = (await _examine(path, quick=True)).topics
    assert orders.estimated
    assert 0.9 * 4_030 < orders.records < 1.1 * 4_030
    assert 100 * 4_030 < orders.bytes < 300 * 4_030


async def test_a_quick_look_leaves_the_whole_file_unread(path: Path) -> None:
    found = await _examine(path, quick=True)
    assert (found.integrity, found.tables, found.state) == ("not checked", [], [])


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (damage, "log"),
        (make_foreign, "unreadable"),
        (overwrite, "unreadable"),
        (lambda path: os.truncate(path, 8192), "unreadable"),
    ],
)
async def test_damage_is_a_finding_not_a_failure(path: Path, spoil: Callable[[Path], None], kind: str) -> None:
    spoil(path)
    found = await _examine(path)
    assert found.kind == kind
    assert found.findings
    _checks(found)
    if kind == "log":
        assert found.integrity == "damaged"


async def test_a_program_that_keeps_a_read_transaction_open_is_named(path: Path) -> None:
    with _other(_READER, path) as other:
        async with _log(path) as log:
            await log.append([record(99)])
            found = await _examine(path, quick=True)
        (finding,) = found.findings
        assert finding.check == "readers"
        assert f"Process {other.pid} keeps a read transaction open" in finding.said
        assert found.readers[0].process == other.pid
        assert "apsw" in found.readers[0].command
        assert found.readers[0].pages_behind > 0


async def test_a_program_that_keeps_a_write_transaction_open_is_named(path: Path) -> None:
    async with _log(path):
        with _other(_WRITER, path) as other:
            found = await _examine(path, quick=True)
    assert _checks(found) == ["writer"]
    assert f"Process {other.pid} keeps a write transaction open" in found.findings[0].said


async def test_members_that_died_or_hang_are_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _other(_MEMBER, path) as other:
        assert (await _examine(path, quick=True)).findings == []
        other.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(facts, "_BEAT_SECONDS", 0.3)
        hung = await _examine(path, quick=True)
    dead = await _examine(path, quick=True)
    for found, status in ((hung, "hung"), (dead, "dead")):
        assert _checks(found) == ["members"]
        assert f"Process {other.pid}" in found.findings[0].said
        (process,) = [each for each in found.processes if each.process == other.pid]
        assert (process.status, process.subscriptions) == (status, ["billing"])


async def test_a_wal_that_has_grown_and_free_pages_and_a_missing_reserve_are_findings(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from postline.log.sqlite.care import examining

    monkeypatch.setattr(examining, "WAL_WARNING_BYTES", 1_000)
    monkeypatch.setattr(examining, "_FREE_BYTES", 100_000)
    async with _log(path) as log:
        await log.append([record(number, value=b"x" * 4_000) for number in range(300)])
        await log.alter_topic(TopicSpec(name="orders", partitions=2, owner="shop", retention_bytes=1))
        await log.run_maintenance()
        path.with_name("log.db-reserve").unlink()
        assert _checks(await _examine(path, quick=True)) == ["reserve", "free pages", "wal"]


class _SlowClock(SystemClock):
    """Says that everything takes a second."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        """A second later each time."""
        self._now += 1.0
        return self._now


async def test_a_slow_disk_is_measured(path: Path) -> None:
    found = await _examine(path, quick=True, clock=_SlowClock())
    assert _checks(found) == ["disk"]
    assert found.disk is not None
    assert (found.disk.median_ms, found.disk.worst_ms) == (1_000, 1_000)


async def test_relaxed_durability_hard_links_and_a_disk_nearly_full_are_findings(path: Path) -> None:
    os.link(path, path.with_name("other.db"))
    found = await _examine(path, quick=True, durability="relaxed", reserve_mb=str(1 << 40))
    assert _checks(found) == ["file", "disk", "settings"]


async def test_a_file_that_can_not_give_pages_back_is_a_finding(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = delete; PRAGMA auto_vacuum = 0; VACUUM").fetchall()
    connection.close()
    assert "settings" in _checks(await _examine(path, quick=True))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("nfs4", "a network file system (nfs4)"),
        ("fuse.sshfs", "a network file system (sshfs)"),
        ("virtiofs", "between a host and a virtual machine"),
        ("tmpfs", "gone when the machine starts anew"),
        ("overlay", "a container's own layer"),
        ("xfs", ""),
    ],
)
async def test_what_a_file_system_means_for_the_log_is_said(
    path: Path, kind: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_text = Path.read_text
    mounts = f"1 0 0:1 / / rw - {kind} /dev/a rw\n"

    def fake(self: Path, *given: str) -> str:
        return mounts if self == Path("/proc/self/mountinfo") else read_text(self, *given)

    monkeypatch.setattr(Path, "read_text", fake)
    found = await _examine(path, quick=True)
    assert found.file_system == kind.removeprefix("fuse.")
    assert [each.said for each in found.findings if said in each.said] == [each.said for each in found.findings]
    assert bool(found.findings) == bool(said)


async def test_a_backup_is_examined_as_one(path: Path) -> None:
    target = path.with_name("backup.db")
    await care.backup(path, target, _CLOCK, lambda done, total: None)
    found = await _examine(target)
    assert (found.kind, found.integrity, found.findings) == ("backup", "ok", [])


async def test_a_partition_whose_owner_is_no_member_is_a_finding(path: Path) -> None:
    async with _log(path) as log:
        await subscribe(log.storage)
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE assignments SET owner = '1-x/1' WHERE partition = 1")
    connection.close()
    found = await _examine(path, quick=True)
    assert "Partition 1 of billing" in found.findings[0].said


async def test_what_is_no_file_is_refused() -> None:
    with pytest.raises(MissingCapability, match="is a cluster"):
        await care.examine(LogUrl("kafka", servers=("localhost:9092",)), _CLOCK)
    with pytest.raises(UsageError, match="in memory"):
        await care.examine(LogUrl("sqlite"), _CLOCK)


async def test_where_locks_can_not_be_looked_at_nothing_is_said_of_them(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert (await _examine(path, quick=True)).findings == []
