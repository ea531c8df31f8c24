"""Fill a small disk with a log and see what still works; run by test_full_disk in a mount namespace of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from postline.clock import VirtualClock
from postline.errors import LogFull
from postline.log.port import TopicSpec
from postline.log.sqlite.storage import Settings
from tests.unit.sqlite.build import change, opened, owned, record, subscribe

_DISK = "size=16m"
_SETTINGS = Settings(upkeep_seconds=0, reserve_bytes=4 << 20)


async def fill(place: Path) -> dict[str, object]:
    """The whole story; gives what the test asserts on."""
    clock = VirtualClock()
    found: dict[str, object] = {}
    async with opened(place / "log.db", clock=clock, settings=_SETTINGS) as log:
        await subscribe(log.storage)
        stored = 0
        try:
            while True:
                await log.append([record(n, value=b"x" * 1_000) for n in range(100)])
                stored += 100
        except LogFull:
            found["refused_after"] = stored
        found["refused_commits"] = [len(await log.storage.commit(1, [change(owned(), n)])) for n in range(300)].count(1)
        found["position"] = (await log.partitions("billing"))[0].position
        found["kept"] = (await log.bounds("orders"))[0].end
        checked = log.storage.reader.connection.execute("PRAGMA integrity_check").fetchall()
        found["integrity"] = checked[0][0]
        clock.move_to(clock.monotonic() + 10)
        try:
            await log.append([record(1)])
        except LogFull:
            found["refused_while_full"] = True
        await log.alter_topic(TopicSpec(name="orders", partitions=2, owner="shop", retention_bytes=1 << 20))
        for _ in range(3):
            clock.move_to(clock.monotonic() + 10)
            await log.run_maintenance()
        found["offset_afterwards"] = (await log.append([record(1)]))[0]
        found["reserve"] = (place / "log.db-reserve").stat().st_size
    return found


if __name__ == "__main__":
    mount = Path(sys.argv[1])
    subprocess.run(["mount", "-t", "tmpfs", "-o", _DISK, "none", str(mount)], check=True)
    sys.stdout.write(json.dumps(asyncio.run(fill(mount))))
