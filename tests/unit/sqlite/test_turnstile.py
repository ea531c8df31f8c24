"""The turnstile: one at a time, in turn, with an end to patience."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from postline.errors import LogUnavailable
from postline.log.sqlite.turnstile import Turnstile


def test_one_holds_it_and_the_next_gets_it_afterwards(tmp_path: Path) -> None:
    first, second = Turnstile(tmp_path), Turnstile(tmp_path)
    order: list[str] = []
    first.acquire()

    def wait() -> None:
        with second:
            order.append("second")

    thread = threading.Thread(target=wait)
    thread.start()
    order.append("first")
    first.release()
    thread.join()
    assert order == ["first", "second"]
    first.close()
    second.close()


def test_whoever_sits_on_it_is_named_when_patience_ends(tmp_path: Path) -> None:
    holder, waiting = Turnstile(tmp_path), Turnstile(tmp_path, patience_seconds=0.02)
    with holder:
        for _ in range(2):
            with pytest.raises(LogUnavailable, match=f"process {os.getpid()} holds it"):
                waiting.acquire()
    # The place in the queue that it kept serves the next call.
    with waiting:
        assert waiting.holder() == os.getpid()
    assert waiting.holder() is None
    holder.close()
    waiting.close()


def test_a_turn_that_nobody_waits_for_any_more_is_given_back(tmp_path: Path) -> None:
    holder, impatient, other = Turnstile(tmp_path), Turnstile(tmp_path, patience_seconds=0.02), Turnstile(tmp_path)
    with holder, pytest.raises(LogUnavailable):
        impatient.acquire()
    with other, pytest.raises(LogUnavailable):
        impatient.acquire()
    with other:
        pass
    for each in (holder, impatient, other):
        each.close()


def test_many_threads_exclude_each_other_and_all_get_their_turns(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []
    turns = [0, 0, 0]

    def work(number: int) -> None:
        turnstile = Turnstile(tmp_path)
        for _ in range(100):
            with turnstile:
                inside.append(number)
                most.append(len(inside))
                turns[number] += 1
                inside.remove(number)
        turnstile.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert turns == [100, 100, 100]
    assert max(most) == 1


def test_once_closed_it_can_not_be_taken_and_leaves_nothing_locked(tmp_path: Path) -> None:
    first, second = Turnstile(tmp_path), Turnstile(tmp_path)
    first.acquire()
    first.close()
    first.close()
    with second:
        pass
    second.close()
    with pytest.raises(LogUnavailable, match="closed"):
        first.acquire()


def test_a_forked_childs_copies_hold_nothing(tmp_path: Path) -> None:
    turnstile, other = Turnstile(tmp_path), Turnstile(tmp_path, patience_seconds=5)
    go_on, done = os.pipe()
    turnstile.acquire()
    child = os.fork()
    if child == 0:
        os.read(go_on, 1)
        os._exit(0)
    # What the parent's death does to its descriptors; a copy in the child would still hold the lock.
    turnstile.close()
    with other:
        assert other.holder() == os.getpid()
    os.write(done, b"x")
    os.waitpid(child, 0)
    for descriptor in (go_on, done):
        os.close(descriptor)
    other.close()
