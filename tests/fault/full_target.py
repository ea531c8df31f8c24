"""Back up to a disk that fills up half-way; run by test_full_disk in a mount namespace of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from postline.app import care
from postline.clock import SystemClock
from postline.errors import LogFull
from postline.log.sqlite.care import copying
from tests.unit.sqlite.build import opened, record

_CLOCK = SystemClock()


async def fill(place: Path) -> dict[str, object]:
    """The whole story; gives what the test asserts on."""
    disk, log = place / "disk", place / "log.db"
    target = disk / "backup.db"
    found: dict[str, object] = {}
    async with opened(log) as opened_log:
        await opened_log.append([record(number, value=b"x" * 1_000) for number in range(100)])
        await care.backup(log, target, _CLOCK, lambda done, total: None)
        good = target.read_bytes()
        await opened_log.append([record(number, value=b"x" * 1_000) for number in range(5_000)])
        found["foreseen"] = await _refused(log, target)
        # As if others took the room meanwhile.
        copying.require_room = lambda directory, size_bytes: None  # type: ignore[attr-defined]
        found["half-way"] = await _refused(log, target)
        found["restored half-way"] = await _refused(log, disk / "other.db", restore=True)
        found["last good one"] = target.read_bytes() == good
        found["left"] = sorted(path.name for path in disk.iterdir())
        found["offset"] = (await opened_log.append([record(1)]))[0]
    return found


async def _refused(log: Path, target: Path, *, restore: bool = False) -> str:
    try:
        if restore:
            await care.restore(log, target, _CLOCK, lambda done, total: None, lambda _: True)
        else:
            await care.backup(log, target, _CLOCK, lambda done, total: None, force=True)
    except LogFull as error:
        return f"{error.message} {error.remedy}"
    return ""


def main(place: Path) -> None:
    """Make the disk, and run it."""
    disk = place / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], check=True)
    sys.stdout.write(json.dumps(asyncio.run(fill(place))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
