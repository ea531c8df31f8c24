"""Commands that take care of the file: backup, restore, doctor, vacuum."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Project

CLUSTER = "kafka://localhost:9092"


def test_a_backup_keeps_positions_held_records_and_dead_letters(broken: Project) -> None:
    made = broken.run("backup", "backup.db")
    assert made.code == 0
    assert made.json["target"] == "backup.db"
    assert (made.json["unbalanced"], made.json["subscriptions"]) == ([], 1)
    assert broken.run("restore", "backup.db", "other.db").json["done"]
    url = f"sqlite:///{broken.folder}/other.db"
    assert broken.run("dlq", "list", "--url", url).json == broken.run("dlq", "list").json
    assert broken.run("audit", "--url", url).json == broken.run("audit").json
    broken.file.unlink()
    broken.write("mended", "")
    assert broken.run("restore", "backup.db").json["loss"] is None
    broken.run("dlq", "redrive", "billing", "--all")
    broken.handle_all()
    (audit,) = broken.run("audit").json
    assert audit["balanced"]
    assert audit["outcomes"]["done"] == 5


def test_what_is_there_is_replaced_by_force_alone(broken: Project) -> None:
    assert broken.run("backup", "backup.db").code == 0
    again = broken.run("backup", "backup.db")
    assert (again.code, again.out) == (2, "")
    assert "is there already" in again.err
    assert "--force" in again.err
    told = broken.run("backup", "backup.db", "--force", "--table")
    assert "whole, and on the disk" in told.out


def test_a_backup_takes_its_source_as_a_file_or_a_url(broken: Project) -> None:
    assert broken.run("backup", "postline.db", "one.db").code == 0
    assert broken.run("backup", "sqlite:///postline.db", "two.db").code == 0
    twice = broken.run("backup", "postline.db", "three.db", "--url", "sqlite:///postline.db")
    assert (twice.code, "Name the log once" in twice.err) == (2, True)
    assert broken.run("backup", "a", "b", "c").code == 2
    assert broken.run("backup", "nothing.db", "four.db").code == 3
    assert not (broken.folder / "four.db").exists()


def test_a_restore_asks_after_it_said_in_records_what_is_lost(broken: Project) -> None:
    broken.run("backup", "backup.db")
    broken.run("publish", "shop.orders", "shop.OrderPlaced", "--app", "app.py", given='{"customer":"bob","total":1}')
    broken.handle_all()
    dry = broken.run("restore", "backup.db", "--dry-run", "--table")
    assert dry.code == 0
    assert "1 records are lost" in dry.out
    assert "shop.orders: 1" in dry.out
    assert "Nothing was changed." in dry.out
    unasked = broken.run("restore", "backup.db")
    assert unasked.code == 2
    assert "1 records are lost" in unasked.err
    assert "Add --yes" in unasked.err
    assert len(broken.run("tail", "shop.orders").out.splitlines()) == 6
    done = broken.run("restore", "backup.db", "--yes", "--table")
    assert done.code == 0
    assert "restored from backup.db" in done.out
    assert "kept as" in done.out
    assert len(broken.run("tail", "shop.orders").out.splitlines()) == 5
    # The offset of the lost record is a gap that a running service passes.
    broken.handle_all()
    (audit,) = broken.run("audit").json
    assert (audit["balanced"], audit["gaps"]) == (True, 1)


def test_a_restore_from_an_unbalanced_log_says_so(broken: Project) -> None:
    async def spoil(log: object) -> None:
        from postline.log.sqlite import SqliteLog

        assert isinstance(log, SqliteLog)
        await log.storage.writer.submit(
            lambda connection: connection.execute("DELETE FROM state WHERE namespace = 'held'").fetchall()
        )

    broken.on_log(spoil)
    assert broken.run("audit").code == 1
    made = broken.run("backup", "backup.db")
    assert (made.code, made.json["unbalanced"]) == (1, ["billing"])
    assert "audit of billing does not balance" in made.err
    assert (broken.folder / "backup.db").exists()


def test_the_doctor_exits_with_1_if_there_is_something_to_do(broken: Project) -> None:
    well = broken.run("doctor", "--url", "sqlite:///postline.db?reserve_mb=1")
    assert (well.code, well.json["findings"], well.json["integrity"]) == (0, [], "ok")
    told = broken.run("doctor", "--table")
    assert told.code == 0
    assert "All is well." in told.out
    assert "shop.orders" in told.out
    sick = broken.run("doctor", "--quick", "--table", "--url", "sqlite:///postline.db?durability=relaxed")
    assert sick.code == 1
    assert "fix: Leave it out of the URL" in sick.out
    broken.file.write_bytes(b"no database, " * 1_000)
    bad = broken.run("doctor")
    assert (bad.code, bad.json["kind"]) == (1, "unreadable")
    assert bad.json["findings"][0]["remedy"]


def test_a_vacuum_tells_what_it_gave_back(broken: Project) -> None:
    done = broken.run("vacuum")
    assert (done.code, done.json["pages_free"]) == (0, 0)
    assert "pages given back" in broken.run("vacuum", "--table").out


@pytest.mark.parametrize(
    "arguments",
    [
        ("backup", "backup.db", "--url", CLUSTER),
        ("backup", CLUSTER, "backup.db"),
        ("restore", "backup.db", CLUSTER),
        ("doctor", "--url", CLUSTER),
        ("vacuum", "--url", CLUSTER),
    ],
)
def test_a_cluster_is_told_what_to_do_instead(project: Project, arguments: tuple[str, ...]) -> None:
    result = project.run(*arguments)
    assert (result.code, result.out) == (3, "")
    assert "is a cluster" in result.err
    assert "fix: " in result.err


@pytest.mark.parametrize("command", ["backup", "restore", "doctor", "vacuum"])
def test_a_log_that_is_not_there_or_is_in_memory_is_named(project: Project, command: str) -> None:
    places = {"backup": ("b.db",), "restore": ("nowhere.db",)}.get(command, ())
    missing = project.run(command, *places, "--url", "sqlite:///nothing.db")
    assert missing.code == 3
    assert "no log at" in missing.err or "no file" in missing.err
    memory = project.run(command, *places, "--url", "sqlite://")
    assert memory.code == 2
    assert not (project.folder / "nothing.db").exists()


def test_progress_goes_to_a_terminal_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from postline.cli import progress

    with progress.progress_of("copied") as report:
        report(1, 2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.progress_of("copied") as report:
        for done in range(3):
            report(done, 2)
    assert capsys.readouterr().err == "\rcopied: 0 %\rcopied: 50 %\rcopied: 100 %\n"


async def test_a_program_backs_its_own_log_up_while_it_publishes(tmp_path: Path) -> None:
    from postline.app import care
    from postline.clock import SystemClock
    from tests.unit.sqlite.build import opened, record

    clock = SystemClock()
    async with opened(tmp_path / "log.db", clock=clock) as log:
        appending = [asyncio.ensure_future(log.append([record(number)])) for number in range(50)]
        made = await care.backup(tmp_path / "log.db", tmp_path / "backup.db", clock, lambda done, total: None)
        assert sorted([offset for each in appending for offset in await each]) == list(range(50))
    assert made.topics == 1
