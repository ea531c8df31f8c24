"""A migration that kills itself: `python -m tests.fault.migrating SOURCE TARGET CALL before|after`.

CALL counts what it asks either log to change; SIGKILL comes before or after that one. It says "moved" if it got to the
end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from random import Random
from typing import Any, cast

from postline.app import open_log
from postline.clock import SystemClock
from postline.ids import IdSource
from postline.log.transfer import MovableLog, Transfer
from postline.migration import Migration
from postline.settings import Settings, parse_url

_CHANGING = frozenset(
    {
        *("set_mark", "freeze", "prepare", "begin", "restore", "trim", "settle"),
        *("restore_state", "restore_spared", "clear_subscription", "restore_subscription"),
    }
)


class _Counting:
    """A transfer whose changing calls count down to the kill."""

    def __init__(self, inner: Transfer, count: Callable[[str], None]) -> None:
        self._inner, self._count = inner, count

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name not in _CHANGING:
            return value

        async def counted(*args: Any) -> Any:
            self._count("before")
            try:
                return await value(*args)
            finally:
                self._count("after")

        return counted


class _Watched:
    """A log with such a transfer."""

    def __init__(self, log: MovableLog, count: Callable[[str], None]) -> None:
        self._log, self._count = log, count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def transfer(self) -> Transfer:
        """Counts."""
        return cast(Transfer, _Counting(self._log.transfer(), self._count))


async def _main(source_url: str, target_url: str, call: int, when: str) -> None:
    clock = SystemClock()
    left = {"before": call if when == "before" else -1, "after": call if when == "after" else -1}

    def count(moment: str) -> None:
        left[moment] -= 1
        if left[moment] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    logs = [open_log(Settings(url=parse_url(url)), clock) for url in (source_url, target_url)]
    for log in logs:
        await log.start()
    source, target = (cast(MovableLog, _Watched(log, count)) for log in logs)
    ids = IdSource(clock.now_ms, Random())
    await Migration(source, target, clock, ids.next_id, lambda progress: None).cut_over()
    for log in logs:
        await log.close()
    sys.stdout.write("moved\n")


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
