"""Care of a file that kills itself: `python -m tests.fault.caring VERB DIRECTORY NUMBER`.

VERB is backup, restore or vacuum. At the boundary of that number (a step, or a change of names on the disk) the
process is killed; it exits with 0 if it comes to its end before.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from postline.app import care
from postline.clock import SystemClock
from postline.log.sqlite.care import comparing, copying, replacing, workplace
from postline.settings import LogUrl

LOG, BACKUP = "log.db", "backup.db"
_CLOCK = SystemClock()


class _Boundaries:
    """Counts what could be the last thing that a process does."""

    def __init__(self, last: int) -> None:
        self._left = last

    def step(self, *_: object) -> None:
        """One more."""
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with a boundary before and after it."""

        def bounded(*given: Any, **named: Any) -> Any:
            self.step()
            result = function(*given, **named)
            self.step()
            return result

        return bounded


def _watch(boundaries: _Boundaries) -> None:
    os.link = boundaries.around(os.link)
    os.replace = boundaries.around(os.replace)
    os.rename = boundaries.around(os.rename)
    for module in (care, copying, replacing, workplace):
        if hasattr(module, "make_durable"):
            module.make_durable = boundaries.around(workplace.make_durable)  # type: ignore[attr-defined]
    for name in ("seal", "revive"):
        setattr(care, name, boundaries.around(getattr(copying, name)))
    replacing.outdo = boundaries.around(comparing.outdo)  # type: ignore[attr-defined]


async def _run(verb: str, directory: Path, boundaries: _Boundaries) -> None:
    log, backup = directory / LOG, directory / BACKUP
    if verb == "backup":
        await care.backup(log, backup, _CLOCK, boundaries.step, force=True)
    elif verb == "restore":
        await care.restore(backup, log, _CLOCK, boundaries.step, lambda _: True)
    else:
        await care.vacuum(LogUrl("sqlite", path=str(log), options={"reserve_mb": "0"}), _CLOCK, boundaries.step)


def main(arguments: Sequence[str]) -> None:
    """Begin, and end where it is said."""
    verb, directory, number = arguments
    boundaries = _Boundaries(int(number))
    _watch(boundaries)
    asyncio.run(_run(verb, Path(directory), boundaries))


if __name__ == "__main__":
    main(sys.argv[1:])
