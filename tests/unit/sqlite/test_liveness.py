"""Signs of life: death frees a lock, hanging stops a counter, and only time looked at counts."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from postline.clock import VirtualClock
from postline.log.sqlite.liveness import FileLiveness, MemoryLiveness


class Other:
    """Another process's life file, as a test can stop and end it."""

    def __init__(self, directory: Path) -> None:
        self._descriptor, name = tempfile.mkstemp(".life", "4711-", directory)
        self.path = Path(name)
        self.member = f"{self.path.stem}/1"
        self._beats = 0
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self.beat()

    def beat(self) -> None:
        """Count up once."""
        self._beats += 1
        os.pwrite(self._descriptor, self._beats.to_bytes(8, "big"), 0)

    def die(self) -> None:
        """Leave the file behind, its lock free."""
        os.close(self._descriptor)


@pytest.fixture
def clock() -> VirtualClock:
    """Time that the tests move."""
    return VirtualClock()


@pytest.fixture
def observer(tmp_path: Path, clock: VirtualClock) -> Iterator[FileLiveness]:
    """This process's view."""
    liveness = FileLiveness(tmp_path, clock)
    yield liveness
    liveness.close()


def looked_for(observer: FileLiveness, clock: VirtualClock, member: str, seconds: float) -> bool:
    """Look every half second; whether it is gone in the end."""
    gone = False
    for _ in range(int(seconds * 2)):
        clock.move_to(clock.monotonic() + 0.5)
        gone = observer.is_gone(member, 10.0)
    return gone


def test_the_dead_are_gone_at_the_first_look(observer: FileLiveness, tmp_path: Path) -> None:
    other = Other(tmp_path)
    assert not observer.is_gone(other.member, 10.0)
    other.die()
    assert observer.is_gone(other.member, 10.0)
    assert not other.path.exists()


def test_a_member_without_a_file_is_gone(observer: FileLiveness) -> None:
    assert observer.is_gone("4711-unheard/1", 10.0)


def test_a_silent_one_is_gone_after_its_lease_and_back_when_it_counts_again(
    observer: FileLiveness, clock: VirtualClock, tmp_path: Path
) -> None:
    other = Other(tmp_path)
    assert not looked_for(observer, clock, other.member, 10)
    assert looked_for(observer, clock, other.member, 1)
    other.beat()
    assert not looked_for(observer, clock, other.member, 1)
    other.die()


def test_one_that_counts_lives_however_long(observer: FileLiveness, clock: VirtualClock, tmp_path: Path) -> None:
    other = Other(tmp_path)
    for _ in range(10):
        assert not looked_for(observer, clock, other.member, 9)
        other.beat()
    other.die()


def test_time_in_which_nobody_looked_lets_nobody_lapse(
    observer: FileLiveness, clock: VirtualClock, tmp_path: Path
) -> None:
    other = Other(tmp_path)
    assert not observer.is_gone(other.member, 10.0)
    clock.move_to(clock.monotonic() + 3600)
    assert not observer.is_gone(other.member, 10.0)
    other.die()


def test_two_observers_do_not_take_each_other_for_a_life(
    observer: FileLiveness, clock: VirtualClock, tmp_path: Path
) -> None:
    second = FileLiveness(tmp_path, clock)
    other = Other(tmp_path)
    assert not observer.is_gone(other.member, 10.0)
    assert not second.is_gone(other.member, 10.0)
    other.die()
    assert observer.is_gone(other.member, 10.0)
    assert second.is_gone(other.member, 10.0)
    second.close()


def test_the_files_of_the_dead_are_swept_and_those_of_the_living_stay(clock: VirtualClock, tmp_path: Path) -> None:
    dead, living = Other(tmp_path), Other(tmp_path)
    dead.die()
    newcomer = FileLiveness(tmp_path, clock)
    assert not dead.path.exists()
    assert living.path.exists()
    newcomer.close()
    assert [path.name for path in tmp_path.iterdir()] == [living.path.name]
    living.die()


def test_ones_own_members_are_gone_once_they_departed(observer: FileLiveness) -> None:
    member = f"{observer.process}/1"
    observer.enter(member)
    assert not observer.is_gone(member, 10.0)
    observer.depart(member)
    assert observer.is_gone(member, 10.0)


def test_in_memory_members_live_until_they_depart() -> None:
    liveness = MemoryLiveness()
    liveness.enter("memory/1")
    assert not liveness.is_gone("memory/1", 0.0)
    liveness.depart("memory/1")
    assert liveness.is_gone("memory/1", 0.0)
