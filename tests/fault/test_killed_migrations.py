"""Migrations killed at any step, again and again: run once more they go on, and everything is there once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from postline.app import open_log
from postline.clock import SystemClock
from postline.errors import LogMoved
from postline.log.port import Log
from postline.log.sqlite.log import SqliteLog
from postline.log.transfer import MovableLog, MovedSubscription, Phase, StateRow, Transfer
from postline.settings import Settings, parse_url
from tests.brokers.cluster import Cluster
from tests.conformance.engines import empty
from tests.conformance.harness import appended, joined, settled, topic
from tests.conformance.test_migration_records import contents

_TOPICS = ("shop.customers", "shop.events", "shop.orders")
_LIVES_MAX = 60


async def _make(path: Path) -> None:
    """A log with gaps, a start that isn't 0, and a subscription that holds and remembers."""
    log = SqliteLog(str(path), clock=SystemClock())
    await log.start()
    for name in _TOPICS:
        await log.create_topic(topic(name, partitions=2, compacted=name == "shop.customers"))
        for partition in (0, 1):
            await appended(log, *[b"%d" % number for number in range(50)], partition=partition, topic=name)
    await log.transfer().trim("shop.events", 0, 20)
    await log.run_maintenance()
    membership, owner = await joined(log, 2)
    for partition in (0, 1):
        commit = settled(owner.owned[partition], 40, b"progress")
        commit.puts = [("later", b"%d" % number, b"v") for number in range(1_500)]
        commit.puts.append(("held", (7).to_bytes(8), b"why"))
        await membership.commit([commit])
    await membership.leave()
    await log.close()


def _lives(source: str, target: str, call: int, when: str) -> bool:
    """One life; says whether it came to the end. What it says is shown if it ends otherwise than by the kill."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fault.migrating", source, target, str(call), when],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return "moved" in done.stdout


async def _publish(path: Path, value: bytes) -> None:
    """Somebody publishes between two lives, as long as the source is the log."""
    log = SqliteLog(str(path), clock=SystemClock())
    await log.start()
    try:
        await appended(log, value)
    except LogMoved:
        pass
    finally:
        await log.close()


async def _everything(log: Log, transfer: Transfer) -> tuple[list[object], list[MovedSubscription], list[StateRow]]:
    subscriptions = await transfer.subscriptions()
    state = [row for each in subscriptions for n in (0, 1) async for page in transfer.state(each, n) for row in page]
    return [await contents(log, name) for name in _TOPICS], subscriptions, state


async def _check_equal(source: MovableLog, target: MovableLog) -> None:
    await source.start()
    await target.start()
    try:
        ours, theirs = source.transfer(), target.transfer()
        assert await _everything(source, ours) == await _everything(target, theirs)
        marks = (await ours.mark(), await theirs.mark())
        assert [mark.phase for mark in marks if mark is not None] == [Phase.MOVED, Phase.FILLED]
    finally:
        await source.close()
        await target.close()


async def _killed_until_done(path: Path, target: str, seed: int, calls_max: int) -> int:
    """Gives how many lives it took. Each does at most so many steps more than it needs to find its place."""
    randomness = random.Random(seed)
    source = f"sqlite:///{path}"
    for life in range(1, _LIVES_MAX):
        if _lives(source, target, randomness.randrange(1, calls_max + life), randomness.choice(["before", "after"])):
            return life
        await _publish(path, b"life %d" % life)
    raise AssertionError(f"seed {seed}: it did not come to an end in {_LIVES_MAX} lives")


@pytest.mark.parametrize("seed", [1])
async def test_a_migration_between_files_is_killed_until_it_is_done(tmp_path: Path, seed: int) -> None:
    source, target = tmp_path / "source.db", tmp_path / "target.db"
    await _make(source)
    assert await _killed_until_done(source, f"sqlite:///{target}", seed, 9) > 2
    await _check_equal(SqliteLog(str(source), clock=SystemClock()), SqliteLog(str(target), clock=SystemClock()))


@pytest.mark.brokers
async def test_a_migration_to_a_cluster_is_killed_until_it_is_done(tmp_path: Path, kafka_one: Cluster) -> None:
    empty(kafka_one.bootstrap)
    source = tmp_path / "source.db"
    await _make(source)
    target = f"kafka://{kafka_one.bootstrap}?cache_dir={tmp_path / 'cache'}"
    assert await _killed_until_done(source, target, 3, 16) > 1
    other = open_log(Settings(url=parse_url(target)), SystemClock())
    await _check_equal(SqliteLog(str(source), clock=SystemClock()), other)
