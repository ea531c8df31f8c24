"""Publishers killed at any point: what was acknowledged is there, once, in order, in a sound file."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from tests.unit.sqlite.build import opened

_ROUNDS = 4
_PUBLISHERS = 2


def _start(path: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fault.publisher", str(path), name],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def _round(path: Path, number: int, randomness: random.Random) -> list[str]:
    """Let some publishers run side by side, kill each after some acknowledgements; gives all of these."""
    acknowledged = []
    running = [_start(path, f"p{number}-{each}") for each in range(_PUBLISHERS)]
    for process in running:
        assert process.stdout is not None
        for _ in range(randomness.randrange(1, 300)):
            acknowledged.append(process.stdout.readline().strip())
        process.kill()
        # Whole lines only: the kill may have cut the last one off.
        acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
        process.stdout.close()
        process.wait()
    return acknowledged


async def test_what_killed_publishers_had_acknowledged_is_there_once_and_in_order(tmp_path: Path) -> None:
    path, randomness = tmp_path / "log.db", random.Random(7)
    acknowledged = [text for number in range(_ROUNDS) for text in _round(path, number, randomness)]
    assert len(acknowledged) > _ROUNDS * _PUBLISHERS
    async with opened(path) as log:
        assert log.storage.reader.connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        end = (await log.bounds("orders"))[0].end
        rows = await log.read("orders", 0, 0, limit=1_000_000, max_bytes=1 << 30)
    assert [row[0] for row in rows] == list(range(end))
    stored = [row[4].decode() for row in rows if row[4] is not None]
    assert len(set(stored)) == len(stored)
    assert set(acknowledged) <= set(stored)
    by_caller: dict[str, list[int]] = {}
    for text in stored:
        caller, _, count = text.partition(":")
        by_caller.setdefault(caller, []).append(int(count))
    assert all(counts == list(range(len(counts))) for counts in by_caller.values())
