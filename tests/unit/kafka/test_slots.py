"""Slots: each live process has its own number, and a dead one's is free at once."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from postline.errors import LogReadOnly
from postline.log.kafka.slots import take_slot

SOURCE = Path(__file__).resolve().parents[3] / "src"
HOLD = """
import sys
from pathlib import Path
from postline.log.kafka.slots import take_slot
slot = take_slot(Path(sys.argv[1]))
sys.stdout.write(f"{slot.number}\\n")
sys.stdout.flush()
sys.stdin.read()
"""


def holder(base: Path) -> tuple[subprocess.Popen[str], int]:
    """Another process that holds a slot until its input ends, and the slot's number."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(base)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_the_lowest_free_number_is_taken(tmp_path: Path) -> None:
    slots = [take_slot(tmp_path / "cache") for _ in range(3)]
    assert [slot.number for slot in slots] == [0, 1, 2]
    slots[1].release()
    slots[1].release()
    again = take_slot(tmp_path / "cache")
    assert again.number == 1
    for slot in (*slots, again):
        slot.release()


def test_each_has_a_directory_for_this_user_alone(tmp_path: Path) -> None:
    base = tmp_path / "some" / "cache"
    slot = take_slot(base)
    assert slot.directory == base / "slot-0"
    assert {stat.S_IMODE(each.stat().st_mode) for each in (base, slot.directory)} == {0o700}
    (slot.directory / "kept").touch()
    slot.release()
    slot = take_slot(base)
    assert (slot.directory / "kept").exists()
    slot.release()


def test_a_forgotten_slot_is_free(tmp_path: Path) -> None:
    slot = take_slot(tmp_path)
    del slot
    slot = take_slot(tmp_path)
    assert slot.number == 0
    slot.release()


def test_a_killed_processs_number_is_free_at_once(tmp_path: Path) -> None:
    process, number = holder(tmp_path)
    with process:
        mine = take_slot(tmp_path)
        assert (number, mine.number) == (0, 1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        freed = take_slot(tmp_path)
        assert freed.number == 0
    freed.release()
    mine.release()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_doesnt_keep_the_lock(tmp_path: Path) -> None:
    slot = take_slot(tmp_path)
    told, tell = os.pipe()
    wait, end = os.pipe()
    child = os.fork()
    if child == 0:
        # The parent has it still, whatever the child does with its own copy.
        slot.release()
        os.write(tell, b"%d" % take_slot(tmp_path).number)
        os.close(end)
        os.read(wait, 1)
        os._exit(0)
    try:
        assert os.read(told, 9) == b"1"
        slot.release()
        again = take_slot(tmp_path)
        assert again.number == 0
        again.release()
    finally:
        os.close(end)
        os.waitpid(child, 0)
        for descriptor in (told, tell, wait):
            os.close(descriptor)


def test_a_base_that_is_no_directory_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for base in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(LogReadOnly, match="cache_dir=") as told:
            take_slot(base)
        assert isinstance(told.value.__cause__, OSError)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_base_that_cant_be_written_is_refused_with_a_remedy(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        for base in (tmp_path, tmp_path / "below"):
            with pytest.raises(LogReadOnly, match="cache_dir="):
                take_slot(base)
    finally:
        tmp_path.chmod(0o700)


def test_a_number_that_another_user_has_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slot-0.lock").touch()
    really = os.open

    def refusing(path: Path, *rest: int) -> int:
        if Path(path).name == "slot-0.lock":
            raise PermissionError(13, "Permission denied")
        return really(path, *rest)

    monkeypatch.setattr(os, "open", refusing)
    slot = take_slot(tmp_path)
    assert slot.number == 1
    slot.release()


def test_among_shared_directories_only_ones_own_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o1777)
    take_slot(tmp_path / "mine").release()
    monkeypatch.setattr(os, "geteuid", lambda: 4_294_000_000)
    with pytest.raises(LogReadOnly, match="another user"):
        take_slot(tmp_path / "mine")
