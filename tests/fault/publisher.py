"""A process that publishes until it is killed, saying what was acknowledged; run by test_killed_publishers."""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from postline.clock import SystemClock
from postline.log.sqlite.storage import Settings
from tests.unit.sqlite.build import opened, record

_SETTINGS = Settings(upkeep_seconds=0.01, reserve_bytes=1 << 20)
_CALLERS = 5


async def publish(path: Path, name: str) -> None:
    """Several callers append one record after another, and print its name once it is durable."""
    async with opened(path, clock=SystemClock(), settings=_SETTINGS) as log:

        async def caller(number: int) -> None:
            for count in itertools.count():
                text = f"{name}.{number}:{count}"
                await log.append([record(count, key=f"{name}.{number}".encode(), value=text.encode())])
                sys.stdout.write(f"{text}\n")
                sys.stdout.flush()

        await asyncio.gather(*(caller(number) for number in range(_CALLERS)))


if __name__ == "__main__":
    asyncio.run(publish(Path(sys.argv[1]), sys.argv[2]))
