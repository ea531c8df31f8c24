"""Backup, restore, vacuum: a copy of one moment, put in the place of a log without doubling or losing silently."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import apsw
import pytest

from postline.app import care
from postline.app.care import Restored
from postline.clock import SystemClock
from postline.errors import LogCorrupt, LogError, LogFull, LogReadOnly, LogUnavailable, LogVersionError, UsageError
from postline.log.port import Assignment, GroupSpec, StartAt, TopicSpec
from postline.log.sqlite.care import copying, workplace
from postline.log.sqlite.log import SqliteLog
from postline.settings import LogUrl
from tests.unit.sqlite.build import QUIET, change, opened, record, subscribe
from tests.unit.sqlite.spoiling import damage, make_foreign, make_newer, overwrite

_CLOCK = SystemClock()


class Owner:
    """Takes up what it is given."""

    def __init__(self) -> None:
        self.assignments: list[Assignment] = []

    async def assigned(self, assignments: Sequence[Assignment]) -> None:
        """Keep them."""
        self.assignments += assignments

    async def revoked(self, assignments: Sequence[Assignment]) -> None:
        """Nothing to settle."""

    def lost(self, assignments: Sequence[Assignment]) -> None:
        """Nothing to do."""


def _silent(done: int, total: int) -> None:
    pass


async def _backup(source: Path, target: Path, *, force: bool = False) -> care.Backup:
    return await care.backup(source, target, _CLOCK, _silent, force=force)


async def _restore(
    source: Path, target: Path, agree: Callable[[Restored], bool] = lambda _: True, *, skip: int = 0, dry: bool = False
) -> Restored:
    return await care.restore(source, target, _CLOCK, _silent, agree, skip_offsets=skip, dry_run=dry)


async def _filled(path: Path, count: int = 20) -> None:
    async with opened(path) as log:
        await log.append([record(number, partition=number % 2) for number in range(count)])


async def _values(path: Path) -> list[int]:
    """The numbers of the records that are in a log."""
    async with opened(path) as log:
        found = [log.envelope(each).time_ms for number in range(2) for each in await log.read("orders", number, 0)]
    return sorted(found)


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


# Backup


async def test_a_backup_holds_what_was_acknowledged_before_and_is_of_one_moment_while_others_write(
    tmp_path: Path,
) -> None:
    path, target = tmp_path / "log.db", tmp_path / "backup.db"
    async with opened(path) as log:
        # Enough for several steps.
        await log.append([record(number, value=b"x" * 4_000) for number in range(2_000)])
        stop, written = False, 2_000

        async def write() -> None:
            nonlocal written
            while not stop:
                await log.append([record(written), record(written + 1, partition=1)])
                written += 2

        writing = asyncio.ensure_future(write())
        made = await _backup(path, target)
        stop = True
        await writing
    assert (made.topics, made.subscriptions, made.unbalanced) == (1, 0, [])
    assert written > 2_000
    restored = tmp_path / "restored.db"
    await _restore(target, restored)
    async with opened(restored) as log:
        first, second = await log.bounds("orders")
    assert first.end >= 2_000
    # Both records of an append, or neither.
    assert first.end - 2_000 == second.end


async def test_a_backup_is_one_file_with_nothing_beside_it_and_no_service_runs_on_it(tmp_path: Path) -> None:
    place = tmp_path / "backups"
    place.mkdir()
    await _filled(tmp_path / "log.db")
    (tmp_path / "log.db").chmod(0o640)
    await _backup(tmp_path / "log.db", place / "backup.db")
    assert _names(place) == {"backup.db"}
    assert (place / "backup.db").stat().st_mode & 0o777 == 0o640
    before = (place / "backup.db").read_bytes()
    with pytest.raises(LogReadOnly, match="is a backup") as caught:
        await SqliteLog(str(place / "backup.db"), clock=_CLOCK, settings=QUIET).start()
    assert "postline restore" in caught.value.remedy
    assert (place / "backup.db").read_bytes() == before


async def test_a_backup_replaces_nothing_unless_forced(tmp_path: Path) -> None:
    path, target = tmp_path / "log.db", tmp_path / "backup.db"
    await _filled(path)
    target.write_bytes(b"precious")
    with pytest.raises(UsageError, match="there already"):
        await _backup(path, target)
    assert target.read_bytes() == b"precious"
    await _backup(path, target, force=True)
    await _restore(target, tmp_path / "again.db")
    assert await _values(tmp_path / "again.db") == list(range(20))


@pytest.mark.parametrize("name", ["log.db", "log.db-wal", "log.db-shm", "log.db-reserve", "link.db", "hard.db"])
async def test_a_backup_onto_the_log_itself_or_a_part_of_it_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "log.db"
    await _filled(path)
    (tmp_path / "link.db").symlink_to(path)
    os.link(path, tmp_path / "hard.db")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="itself"):
        await _backup(path, tmp_path / name, force=True)
    (tmp_path / "hard.db").unlink()
    assert path.read_bytes() == before


@pytest.mark.parametrize("place", ["nowhere/backup.db", "."])
async def test_a_backup_to_a_place_that_can_hold_none_is_refused(tmp_path: Path, place: str) -> None:
    await _filled(tmp_path / "log.db")
    with pytest.raises(UsageError, match=r"does not exist|is a directory"):
        await _backup(tmp_path / "log.db", tmp_path / place)


_BAD = pytest.mark.parametrize(
    ("spoil", "error"),
    [(make_foreign, LogCorrupt), (overwrite, LogCorrupt), (damage, LogCorrupt), (make_newer, LogVersionError)],
)


@_BAD
async def test_what_is_no_whole_log_is_not_backed_up_and_the_last_good_backup_stays(
    tmp_path: Path, spoil: Callable[[Path], None], error: type[LogError]
) -> None:
    path, target = tmp_path / "log.db", tmp_path / "backup.db"
    await _filled(path, 400)
    await _backup(path, target)
    good = target.read_bytes()
    spoil(path)
    with pytest.raises(error) as caught:
        await _backup(path, target, force=True)
    assert caught.value.remedy
    assert target.read_bytes() == good
    assert "backup.db.partial" not in _names(tmp_path)


@_BAD
async def test_what_is_no_whole_backup_is_not_restored_and_the_log_stays(
    tmp_path: Path, spoil: Callable[[Path], None], error: type[LogError]
) -> None:
    path, target = tmp_path / "log.db", tmp_path / "backup.db"
    await _filled(path, 400)
    await _backup(path, target)
    spoil(target)
    with pytest.raises(error):
        await _restore(target, path)
    assert await _values(path) == list(range(400))
    assert "log.db.partial" not in _names(tmp_path)


async def test_a_target_without_room_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.db"
    await _filled(path)
    real = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*real[:4], 1, *real[5:])))
    with pytest.raises(LogFull, match="needs"):
        await _backup(path, tmp_path / "backup.db")
    assert not any(name.startswith("backup.db") for name in _names(tmp_path))


async def test_a_cancelled_backup_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await _filled(path)

    def cancel(done: int, total: int) -> None:
        running.cancel()

    running = asyncio.ensure_future(care.backup(path, tmp_path / "backup.db", _CLOCK, cancel))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not any(name.startswith("backup.db") for name in _names(tmp_path))


async def test_two_backups_to_one_place_at_once_are_refused_and_a_killed_ones_rest_is_removed(tmp_path: Path) -> None:
    path, target = tmp_path / "log.db", tmp_path / "backup.db"
    await _filled(path)
    with workplace.Workplace(target), pytest.raises(LogUnavailable, match="under way"):
        await _backup(path, target)
    rest = tmp_path / "backup.db.partial"
    rest.mkdir()
    (rest / "lock").touch()
    (rest / "backup.db").write_bytes(b"half")
    (rest / "backup.db.run").mkdir()
    await _backup(path, target)
    assert "backup.db.partial" not in _names(tmp_path)


async def test_a_backup_may_lie_on_a_network_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.db"
    await _filled(path)
    monkeypatch.setattr("postline.log.sqlite.storage.network_file_system", lambda _: "nfs4")
    monkeypatch.setattr(care, "network_file_system", lambda _: "nfs4")
    await _backup(path, tmp_path / "backup.db")
    with pytest.raises(UsageError, match="nfs4"):
        await _restore(tmp_path / "backup.db", tmp_path / "other.db")


# Restore


async def _handled(path: Path, position: int) -> None:
    """Subscription "billing" has handled so many records of partition 0."""
    async with opened(path) as log:
        connection = log.storage.writer.connection
        if not await log.subscriptions():
            await subscribe(log.storage)

        def work(_: object) -> None:
            connection.execute("UPDATE assignments SET position = ? WHERE partition = 0", (position,))
            connection.execute("REPLACE INTO state VALUES (1, 0, 'state', x'00', ?)", (b"%d" % position,))

        await log.storage.writer.submit(work)


@pytest.fixture
async def aged(tmp_path: Path) -> tuple[Path, Path]:
    """A log of 24 records and a backup of its first 20: "billing" had handled 4, and has 11 of partition 0 now."""
    path, target = tmp_path / "log.db", tmp_path / "backup.db"
    await _filled(path, 20)
    await _handled(path, 4)
    async with opened(path) as log:
        await _backup(path, target)
        await log.append([record(number, partition=number % 2) for number in range(20, 24)])
        await log.create_topic(TopicSpec(name="later", partitions=1, owner="shop"))
    await _handled(path, 11)
    return path, target


async def test_what_a_restore_loses_is_said_in_records_before_anything_is_changed(aged: tuple[Path, Path]) -> None:
    path, backup = aged
    asked: list[Restored] = []

    def decline(found: Restored) -> bool:
        asked.append(found)
        return False

    found = await _restore(backup, path, decline)
    assert (found.done, found.replaced, len(asked)) == (False, None, 1)
    loss = asked[0].loss
    assert loss is not None
    assert loss.records == 4
    assert [(each.topic, each.partition, each.first, each.end, each.records) for each in loss.topics] == [
        ("orders", 0, 10, 12, 2),
        ("orders", 1, 10, 12, 2),
    ]
    (billing,) = loss.subscriptions
    assert (billing.handled_again, billing.handled_and_lost, billing.state_entries) == (6, 1, 1)
    assert await _values(path) == list(range(24))


async def test_a_restored_log_is_that_of_the_backup_and_the_old_one_is_kept(aged: tuple[Path, Path]) -> None:
    path, backup = aged
    found = await _restore(backup, path)
    assert found.done
    assert found.replaced is not None
    assert await _values(path) == list(range(20))
    assert await _values(Path(found.replaced)) == list(range(24))
    async with opened(path) as log:
        positions = [each.position for each in await log.partitions("billing")]
    assert positions == [4, 0]


async def test_no_offset_and_no_epoch_of_the_old_log_is_given_again(aged: tuple[Path, Path]) -> None:
    path, backup = aged
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE assignments SET epoch = 5000000 WHERE partition = 0")
    connection.close()
    await _restore(backup, path)
    async with opened(path) as log:
        assert await log.append([record(100), record(101, partition=1)]) == [12, 12]
        epochs = [each.epoch for each in await log.partitions("billing")]
        assert epochs[0] == 5_000_001
        # What a process of the old log still believes to own, it doesn't.
        zombie = Assignment("billing", "orders", 0, 5_000_000, 4, b"")
        assert await log.storage.commit(1, [change(zombie, 12)]) == [zombie]


async def test_of_a_lost_log_offsets_can_be_left_out(aged: tuple[Path, Path]) -> None:
    path, backup = aged
    path.unlink()
    found = await _restore(backup, path, skip=1_000)
    assert (found.loss, found.replaced, found.done) == (None, None, True)
    async with opened(path) as log:
        assert await log.append([record(100)]) == [1_010]


async def test_a_dry_run_says_what_would_be_lost_beside_a_running_service(aged: tuple[Path, Path]) -> None:
    path, backup = aged
    async with opened(path):
        found = await _restore(backup, path, lambda _: pytest.fail("asked"), dry=True)
    assert found.loss is not None
    assert (found.done, found.loss.records) == (False, 4)
    assert await _values(path) == list(range(24))
    elsewhere = await _restore(backup, path.with_name("new.db"), dry=True)
    assert elsewhere.loss is None
    assert not path.with_name("new.db").exists()


async def test_a_restore_refuses_while_a_process_has_the_log_open(aged: tuple[Path, Path]) -> None:
    path, backup = aged
    async with opened(path):
        with pytest.raises(LogUnavailable, match=f"in use by process {os.getpid()}"):
            await _restore(backup, path)
    other = apsw.Connection(str(path))
    other.execute("BEGIN; SELECT count(*) FROM records").fetchall()
    with pytest.raises(LogUnavailable, match="open in some program"):
        await _restore(backup, path)
    other.close()
    assert await _values(path) == list(range(24))


async def test_a_process_of_a_lost_log_can_commit_nothing_once_it_is_restored(tmp_path: Path) -> None:
    path, backup = tmp_path / "log.db", tmp_path / "backup.db"
    await _filled(path)
    log = SqliteLog(str(path), clock=_CLOCK, settings=QUIET)
    await log.start()
    owner = Owner()
    member = await log.join(
        GroupSpec(subscription="billing", topic="orders", service="b", start=StartAt("earliest")), owner
    )
    while len(owner.assignments) < 2:
        await _CLOCK.sleep(0.005)
    await _backup(path, backup)
    # Somebody removed everything, signs of life included, so that the restore can't see the process.
    for name in ("log.db", "log.db-wal", "log.db-shm"):
        (tmp_path / name).unlink()
    shutil.rmtree(tmp_path / "log.db.run")
    await _restore(backup, path)
    with pytest.raises(LogCorrupt, match="removed or replaced"):
        await member.commit([change(owner.assignments[0], 10)])
    with pytest.raises(LogError):
        await member.leave()
    await log.close()
    async with opened(path) as restored:
        assert [each.position for each in await restored.partitions("billing")] == [0, 0]
        assert [each.owner for each in await restored.partitions("billing")] == ["", ""]
        assert await restored.members("billing") == []


async def test_a_damaged_log_is_replaced_and_kept_though_its_loss_can_not_be_counted(aged: tuple[Path, Path]) -> None:
    path, backup = aged
    with path.open("r+b") as file:
        file.write(b"\0" * 4096)
    dry = await _restore(backup, path, dry=True)
    assert (dry.loss, "not a Postline log" in dry.unreadable) == (None, True)
    path.with_name("log.db-wal").write_bytes(b"left over")
    found = await _restore(backup, path)
    assert (found.done, found.loss) == (True, None)
    assert "not a Postline log" in found.unreadable
    assert found.replaced is not None
    kept = path.with_name(found.replaced.rpartition("/")[2])
    assert kept.read_bytes()[:4096] == b"\0" * 4096
    assert kept.with_name(f"{kept.name}-wal").read_bytes() == b"left over"
    assert await _values(path) == list(range(20))


async def test_a_wal_that_lies_around_is_not_taken_for_the_restored_logs_own(aged: tuple[Path, Path]) -> None:
    path, backup = aged
    async with opened(path) as log:
        await log.append([record(500)])
        wal = path.with_name("log.db-wal").read_bytes()
    path.unlink()
    path.with_name("log.db-wal").write_bytes(wal)
    await _restore(backup, path)
    assert await _values(path) == list(range(20))


async def test_another_logs_backup_and_another_programs_database_are_not_mixed_up(
    tmp_path: Path, aged: tuple[Path, Path]
) -> None:
    path, backup = aged
    other = tmp_path / "other.db"
    async with opened(other) as log:
        await log.append([record(number, partition=number % 2) for number in range(70, 100)])
    with pytest.raises(UsageError, match="not a backup of that"):
        await _restore(backup, other)
    assert await _values(other) == list(range(70, 100))
    make_foreign(other)
    foreign = other.read_bytes()
    with pytest.raises(UsageError, match="not a Postline log"):
        await _restore(backup, other)
    assert other.read_bytes() == foreign
    with pytest.raises(UsageError, match="itself"):
        await _restore(path, path)


async def test_a_plain_copy_of_a_stopped_log_can_be_restored_too(tmp_path: Path) -> None:
    await _filled(tmp_path / "log.db")
    shutil.copy(tmp_path / "log.db", tmp_path / "copy.db")
    found = await _restore(tmp_path / "copy.db", tmp_path / "new.db")
    assert (found.done, found.taken_ms) == (True, None)
    assert await _values(tmp_path / "new.db") == list(range(20))


async def test_a_restored_log_can_be_backed_up_and_restored_again(aged: tuple[Path, Path]) -> None:
    path, backup = aged
    await _restore(backup, path)
    await _backup(path, backup, force=True)
    async with opened(path) as log:
        await log.append([record(50)])
    found = await _restore(backup, path)
    assert found.loss is not None
    assert found.loss.records == 1
    connection = apsw.Connection(str(path))
    note = copying.noted(connection, copying.RESTORED_NOTE)
    connection.close()
    assert note is not None
    assert note.source == str(path)


# Vacuum


async def _with_free_pages(path: Path) -> LogUrl:
    async with opened(path) as log:
        await log.append([record(number, value=b"x" * 4_000) for number in range(900)])
        await log.alter_topic(TopicSpec(name="orders", partitions=2, owner="shop", retention_bytes=1))
        spare = log.storage.settings.spare_pages
        assert spare >= 1_000
        await log.run_maintenance()
    return LogUrl("sqlite", path=str(path))


async def test_a_vacuum_gives_all_free_pages_back_in_steps_while_services_write(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    url = await _with_free_pages(path)
    before, reported = path.stat().st_size, []
    async with opened(path) as log:

        def write(done: int, total: int) -> None:
            reported.append((done, total))
            writing.append(asyncio.ensure_future(log.append([record(len(reported), partition=1)])))

        writing: list[asyncio.Future[list[int]]] = []
        done = await care.vacuum(url, _CLOCK, write)
        offsets = [offset for each in writing for offset in await each]
        assert offsets == sorted(set(offsets))
    assert len(reported) >= 8
    assert all(one[0] <= other[0] for one, other in pairwise(reported))
    assert done.pages_given_back >= 800
    assert path.stat().st_size < before / 4


async def test_a_vacuum_that_is_cut_short_keeps_what_it_gave_back_and_can_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    url = await _with_free_pages(path)

    def cancel(done: int, total: int) -> None:
        running.cancel()

    running = asyncio.ensure_future(care.vacuum(url, _CLOCK, cancel))
    with pytest.raises(asyncio.CancelledError):
        await running
    again = await care.vacuum(url, _CLOCK, _silent)
    assert 0 < again.pages_given_back < 1_000
    assert again.pages_free == 0
    assert (await care.vacuum(url, _CLOCK, _silent)).pages_given_back == 0
