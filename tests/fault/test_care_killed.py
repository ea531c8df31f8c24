"""Backup, restore and vacuum killed at each of their steps: the log is whole, or its backup; nothing is half there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from postline.app import care
from postline.clock import SystemClock
from postline.errors import LogUnavailable
from postline.log.port import TopicSpec
from postline.log.sqlite.schema import BACKUP_ID
from tests.fault.caring import BACKUP, LOG
from tests.unit.sqlite.build import opened, record

_CLOCK = SystemClock()


def _kill_at(verb: str, directory: Path, number: int) -> bool:
    """Run it to that boundary; False if it came to its end before."""
    path = os.pathsep.join(sys.path)
    ran = subprocess.run(
        [sys.executable, "-m", "tests.fault.caring", verb, str(directory), str(number)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert ran.returncode in (0, -signal.SIGKILL), ran.stderr
    return ran.returncode != 0


def _lives(verb: str, template: Path, place: Path) -> Iterator[Path]:
    """The directory as each killed process leaves it."""
    number = 1
    while True:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(template, place)
        if not _kill_at(verb, place, number):
            assert number > 5, "there was something to be killed in"
            return
        yield place
        number += 1


def _found(path: Path) -> tuple[int, str]:
    """How many records it has, and whether it is whole; read without Postline."""
    connection = apsw.Connection(str(path))
    records: list[Any] = connection.execute("SELECT count(*) FROM records").fetchall()
    whole: list[Any] = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    return records[0][0], whole[0][0]


@pytest.fixture
async def template(tmp_path: Path) -> Path:
    """A log of 1,500 records with free pages and, of its first 1,000, a backup."""
    directory = tmp_path / "template"
    directory.mkdir()
    async with opened(directory / LOG) as log:
        await log.create_topic(TopicSpec(name="old", partitions=1, owner="shop"))
        await log.append([record(number, value=b"x" * 1_000) for number in range(1_000)])
        await care.backup(directory / LOG, directory / BACKUP, _CLOCK, lambda done, total: None)
        await log.append([record(number, value=b"x" * 1_000) for number in range(1_000, 1_500)])
    connection = apsw.Connection(str(directory / LOG))
    connection.execute("CREATE TABLE filling (a); INSERT INTO filling VALUES (zeroblob(2000000)); DROP TABLE filling")
    connection.execute("PRAGMA wal_checkpoint(truncate)").fetchall()
    connection.close()
    shutil.rmtree(directory / "log.db.run")
    return directory


async def test_a_killed_backup_leaves_the_last_one_or_the_new_one(template: Path, tmp_path: Path) -> None:
    seen = set()
    for place in _lives("backup", template, tmp_path / "place"):
        connection = apsw.Connection(str(place / BACKUP))
        assert connection.pragma("application_id") == BACKUP_ID
        connection.close()
        records, whole = _found(place / BACKUP)
        assert whole == "ok"
        seen.add(records)
        assert _found(place / LOG) == (1_500, "ok")
    assert seen == {1_000, 1_500}


async def test_after_a_killed_backup_the_next_one_succeeds(template: Path) -> None:
    assert _kill_at("backup", template, 2)
    assert (template / "backup.db.partial").exists()
    await care.backup(template / LOG, template / BACKUP, _CLOCK, lambda done, total: None, force=True)
    assert _found(template / BACKUP) == (1_500, "ok")
    assert not (template / "backup.db.partial").exists()


async def test_a_killed_restore_leaves_the_old_log_or_the_restored_one_and_can_be_repeated(
    template: Path, tmp_path: Path
) -> None:
    seen = set()
    for place in _lives("restore", template, tmp_path / "place"):
        records, whole = _found(place / LOG)
        assert whole == "ok"
        seen.add(records)
        names = (place / LOG).stat().st_nlink
        if names > 1:
            # Between its two names and the new file: services say so, and don't begin.
            with pytest.raises(LogUnavailable, match="2 names"):
                async with opened(place / LOG):
                    pass
        else:
            async with opened(place / LOG) as log:
                (end, _) = await log.bounds("orders")
                # No offset is given twice, however far it came.
                assert end.end == 1_500
        again = await care.restore(place / BACKUP, place / LOG, _CLOCK, lambda done, total: None, lambda _: True)
        assert again.done
        assert _found(place / LOG) == (1_000, "ok")
        kept = [_found(path) for path in place.glob("log.db.replaced-*")]
        assert (1_500, "ok") in kept
        assert (place / LOG).stat().st_nlink == 1
        assert not (place / "log.db.partial").exists()
    assert seen == {1_000, 1_500}


async def test_a_killed_vacuum_leaves_the_log_as_it_was_and_the_next_one_goes_on(
    template: Path, tmp_path: Path
) -> None:
    sizes = []
    for place in _lives("vacuum", template, tmp_path / "place"):
        assert _found(place / LOG) == (1_500, "ok")
        connection = apsw.Connection(str(place / LOG))
        sizes.append(int(connection.pragma("page_count")))
        connection.close()
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]
    assert _kill_at("vacuum", template, 2)
    async with opened(template / LOG) as log:
        assert len(await log.append([record(7)])) == 1
