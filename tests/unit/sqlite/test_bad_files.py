"""Files that are not what they should be: each has its own error, and is left as it was."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from postline.clock import VirtualClock
from postline.errors import LogCorrupt, LogError, LogReadOnly, LogUnavailable, LogVersionError
from postline.log.sqlite import connection as connection_module
from postline.log.sqlite import schema, storage
from postline.log.sqlite.log import SqliteLog
from postline.log.sqlite.places import network_file_system
from postline.log.sqlite.storage import Settings
from tests.unit.sqlite.build import QUIET, opened, record

_NOBODY = 65534


async def _start(path: Path, settings: Settings = QUIET) -> None:
    log = SqliteLog(str(path), clock=VirtualClock(), settings=settings)
    try:
        await log.start()
    finally:
        await log.close()


async def _filled(path: Path) -> None:
    async with opened(path) as log:
        await log.append([record(n, value=b"x" * 500) for n in range(500)])


def _execute(path: Path, text: str) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(text)
    connection.close()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    path.write_bytes(b"dear diary, " * 1_000)
    with pytest.raises(LogCorrupt, match="not a Postline log"):
        await _start(path)
    assert path.read_bytes() == b"dear diary, " * 1_000


async def test_somebody_elses_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    _execute(path, "CREATE TABLE diary (day)")
    before = path.read_bytes()
    with pytest.raises(LogCorrupt, match="not a Postline log"):
        await _start(path)
    assert path.read_bytes() == before


async def test_a_truncated_file_is_refused_at_start(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await _filled(path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(LogCorrupt):
        await _start(path)


async def test_damage_that_a_read_comes_upon_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await _filled(path)
    with path.open("r+b") as file:
        file.seek(4_096 * 20)
        file.write(b"\xff" * (path.stat().st_size - 4_096 * 20))
    with pytest.raises(LogCorrupt) as caught:
        async with opened(path) as log:
            await log.read("orders", 0, 0)
    assert isinstance(caught.value.__cause__, apsw.Error)
    assert ".recover" in caught.value.remedy


async def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await _filled(path)
    newer = schema.VERSION + 2
    _execute(
        path, f"PRAGMA user_version = {newer}; UPDATE meta SET value = {newer - 1} WHERE key = 'min_reader_version'"
    )
    with pytest.raises(LogVersionError, match=f"format {newer}"):
        await _start(path)


async def test_a_file_of_the_next_version_is_worked_on_if_it_allows_that(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await _filled(path)
    _execute(path, f"PRAGMA user_version = {schema.VERSION + 1}")
    async with opened(path) as log:
        assert await log.append([record(1)]) == [500]
    assert apsw.Connection(str(path)).pragma("user_version") == schema.VERSION + 1


async def test_an_old_file_is_migrated_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.db"
    await _filled(path)
    steps = {"migrations/2.sql": "CREATE TABLE two (a)", "migrations/3.sql": "CREATE TABLE three (a)"}
    monkeypatch.setattr(schema, "VERSION", 3)
    monkeypatch.setattr(schema, "script", steps.__getitem__)
    await _start(path)
    found = apsw.Connection(str(path))
    assert found.pragma("user_version") == 3
    assert found.execute("SELECT name FROM sqlite_schema WHERE name IN ('two', 'three') ORDER BY 1").fetchall() == [
        ("three",),
        ("two",),
    ]


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.db"
    await _filled(path)
    monkeypatch.setattr(schema, "VERSION", 2)
    monkeypatch.setattr(schema, "script", lambda name: "CREATE TABLE two (a); CREATE TABLE topics (a)")
    with pytest.raises(LogError):
        await _start(path)
    found = apsw.Connection(str(path))
    assert found.pragma("user_version") == 1
    assert found.execute("SELECT name FROM sqlite_schema WHERE name = 'two'").fetchall() == []


async def test_a_file_locked_by_another_program_is_unavailable_until_it_lets_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "_BUSY_MS", 1)
    path = tmp_path / "log.db"
    async with opened(path) as log:
        log.storage.writer.connection.set_busy_timeout(1)
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogUnavailable, match="locked") as caught:
            await log.append([record(1)])
        assert caught.value.retryable
        other.execute("ROLLBACK")
        other.close()
        assert await log.append([record(1)]) == [0]


async def test_a_missing_directory_or_a_directory_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailable, match="does not exist"):
        await _start(tmp_path / "nowhere" / "log.db")
    with pytest.raises(LogUnavailable, match="is a directory"):
        await _start(tmp_path)


async def test_a_file_with_a_second_name_is_refused_under_both_until_that_is_gone(tmp_path: Path) -> None:
    path, other = tmp_path / "log.db", tmp_path / "other.db"
    await _filled(path)
    os.link(path, other)
    for name in (path, other):
        with pytest.raises(LogUnavailable, match="2 names") as caught:
            await _start(name)
        assert "hard link" in str(caught.value)
    other.unlink()
    await _start(path)


async def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "network_file_system", lambda path: "nfs4")
    with pytest.raises(LogUnavailable, match="nfs4"):
        await _start(tmp_path / "log.db")
    assert os.listdir(tmp_path) == []


def test_the_file_system_is_taken_from_the_innermost_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.path.realpath(tmp_path)
    table = (
        "1 0 0:1 / / rw - ext4 /dev/a rw\n"
        f"2 1 0:2 / {real} rw shared:1 - nfs4 host:/x rw\n"
        f"3 1 0:3 / {real}x rw - xfs b rw\n"
    )
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: table)
    assert network_file_system(tmp_path / "log.db") == "nfs4"
    assert network_file_system(tmp_path.parent / "log.db") is None


@pytest.fixture
def foreign_place() -> Iterator[Path]:
    """A directory in which this test is somebody without rights."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        yield place
        if os.geteuid() != os.getuid():
            os.seteuid(os.getuid())
        place.chmod(0o755)


def _give_up_rights(place: Path) -> None:
    place.chmod(0o555)
    if os.getuid() == 0:
        os.seteuid(_NOBODY)


async def test_a_file_that_can_not_be_written_is_refused(foreign_place: Path) -> None:
    path = foreign_place / "log.db"
    await _filled(path)
    path.chmod(0o444)
    _give_up_rights(foreign_place)
    with pytest.raises(LogReadOnly):
        await _start(path)


async def test_a_directory_that_can_not_be_written_is_refused(foreign_place: Path) -> None:
    _give_up_rights(foreign_place)
    with pytest.raises(LogReadOnly):
        await _start(foreign_place / "log.db")
    assert os.listdir(foreign_place) == []


async def test_the_file_can_be_read_with_plain_sql(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with opened(path) as log:
        await log.append([record(1, key=b"k", value=b"{}", partition=1)])
    rows = (
        apsw.Connection(str(path)).execute("SELECT topic, partition, offset, key, type, value FROM messages").fetchall()
    )
    assert rows == [("orders", 1, 0, "k", "shop.OrderPlaced", "{}")]
