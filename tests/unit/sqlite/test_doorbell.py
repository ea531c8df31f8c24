"""Bells: rung for every other process, whatever became of it, and done without where there are no sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from postline.clock import Clock, SystemClock, VirtualClock
from postline.log.sqlite.doorbell import GROUP_CHANGED, RECORDS_APPENDED, Doorbell


class Bells:
    """The bells of one test, what each heard, and the file's version that they see."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.heard: dict[str, list[bool]] = {}
        self.version = 1
        self.bells: list[Doorbell] = []

    def hang(self, name: str, clock: Clock | None = None) -> Doorbell:
        """Another one, listening."""
        heard = self.heard[name] = []
        bell = Doorbell(
            self.directory,
            name,
            clock=clock or VirtualClock(),
            version=lambda: self.version,
            on_ring=heard.append,
        )
        bell.start()
        self.bells.append(bell)
        return bell

    def close(self) -> None:
        """Take them all down."""
        for bell in self.bells:
            bell.close()


@pytest.fixture
def bells(tmp_path: Path):
    """None hang yet."""
    made = Bells(tmp_path)
    yield made
    made.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait for it."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def test_all_others_hear_a_ring_and_what_it_was_about(bells: Bells) -> None:
    mine = bells.hang("mine")
    bells.hang("first")
    bells.hang("second")
    mine.ring(RECORDS_APPENDED)
    await until(lambda: bells.heard["first"] == bells.heard["second"] == [False])
    mine.ring(GROUP_CHANGED)
    await until(lambda: bells.heard["first"] == bells.heard["second"] == [False, True])
    assert bells.heard["mine"] == []


async def test_many_rings_are_heard_as_one_that_may_have_been_about_anything(bells: Bells) -> None:
    mine = bells.hang("mine")
    bells.hang("other")
    for _ in range(1000):
        mine.ring(RECORDS_APPENDED)
    await until(lambda: bells.heard["other"])
    assert bells.heard["other"] == [True]


async def test_the_bell_of_a_dead_process_is_taken_down(bells: Bells) -> None:
    mine = bells.hang("mine")
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = bells.directory / "dead.bell"
    dead.bind(str(path))
    dead.close()
    mine.ring(RECORDS_APPENDED)
    assert not path.exists()


async def test_a_newcomer_is_rung_for(bells: Bells) -> None:
    mine = bells.hang("mine")
    mine.ring(RECORDS_APPENDED)
    bells.hang("newcomer")
    mine.ring(RECORDS_APPENDED)
    await until(lambda: bells.heard["newcomer"])


async def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 30)
    directory.mkdir()
    bells = Bells(directory)
    mine = bells.hang("mine")
    other = bells.hang("other")
    assert mine.has_socket
    assert other.has_socket
    mine.ring(RECORDS_APPENDED)
    await until(lambda: bells.heard["other"])
    bells.close()
    assert list(directory.iterdir()) == []


async def test_a_commit_that_nobody_rang_for_is_noticed_by_the_safety_poll(bells: Bells) -> None:
    clock = VirtualClock()
    bells.hang("mine", clock)
    clock.move_to(10)
    assert bells.heard["mine"] == []
    bells.version += 1
    clock.move_to(10.25)
    assert bells.heard["mine"] == [True]


async def test_without_a_socket_the_version_is_polled_quickly_while_it_changes_and_slowly_while_not(
    tmp_path: Path,
) -> None:
    clock = VirtualClock()
    bells = Bells(tmp_path / "missing")
    bell = bells.hang("mine", clock)
    assert not bell.has_socket
    for _ in range(100):
        bells.version += 1
        clock.move_to(clock.monotonic() + 0.0021)
    assert len(bells.heard["mine"]) >= 90
    clock.move_to(clock.monotonic() + 1)
    due = clock.next_due()
    assert due is not None
    assert due - clock.monotonic() <= 0.02
    bells.version += 1
    before = len(bells.heard["mine"])
    clock.move_to(clock.monotonic() + 0.02)
    assert len(bells.heard["mine"]) == before + 1
    bell.ring(RECORDS_APPENDED)
    bells.close()
    assert clock.next_due() is None


async def test_ringing_without_anybody_is_no_error_even_if_the_directory_is_gone(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    bells = Bells(directory)
    mine = bells.hang("mine", SystemClock())
    (directory / "mine.bell").unlink()
    directory.rmdir()
    mine.ring(RECORDS_APPENDED)
    bells.close()
