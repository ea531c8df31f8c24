"""`Mover`: the shop's log goes to another file or cluster while it works, by `postline migrate`, killed on its way."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postline.clock import Clock
from postline.demo.shoplog import Addresses, adopt_target
from postline.demo.supervisor import Supervisor, environment_without_settings
from postline.errors import PostlineError

__all__ = ["Moved", "Mover"]

#: It is run again for so long: what a killed one left is noticed after some seconds, and a broker may be away.
_PATIENCE_SECONDS, _AGAIN_SECONDS = 180.0, 1.0
#: Lines of progress after which a kill comes, at most; a copy may print only one.
_COPY_LINES_MAX, _CUT_OVER_LINES_MAX = 1, 3


@dataclass
class Moved:
    """What moving the log came to."""

    source: str
    target: str
    #: Migrations that died of SIGKILL, and those that were asked to.
    kills: int = 0
    kills_wanted: int = 0
    #: Records of all topics, and entries of all subscriptions' state, that were found equal on both sides.
    records: int = 0
    entries: int = 0
    #: How long no service worked.
    closed_seconds: float = 0.0


class Mover:
    """Does what a person would do by `docs/howto/migrate.md`; raises PostlineError if it does not get there."""

    def __init__(self, directory: Path, addresses: Addresses, randomness: random.Random, clock: Clock) -> None:
        self._directory, self._random, self._clock = directory, randomness, clock
        self._addresses = addresses
        self.moved = Moved(addresses.source.redacted, addresses.target.redacted)

    async def copy(self, kills: int) -> None:
        """Copy what there is, while services go on."""
        await self._migrate([], kills, _COPY_LINES_MAX)

    async def cut_over(self, supervisor: Supervisor, kills: int) -> None:
        """Stop the services, hand over, and start them on the target."""
        closed_at = self._clock.monotonic()
        await supervisor.stop()
        report = await self._migrate(["--cut-over"], kills, _CUT_OVER_LINES_MAX)
        adopt_target(self._directory)
        supervisor.start()
        moved = self.moved
        moved.closed_seconds = self._clock.monotonic() - closed_at
        moved.records = sum(topic["records"] for topic in report["topics"])
        moved.entries = sum(each["entries"] for each in report["subscriptions"])

    async def _migrate(self, options: list[str], kills: int, lines_max: int) -> Any:
        """The report of a migration that came to its end, after so many that were killed."""
        self.moved.kills_wanted += kills
        for _ in range(kills):
            self.moved.kills += await self._killed(options, self._random.randint(1, lines_max))
        until = self._clock.monotonic() + _PATIENCE_SECONDS
        while True:
            process = await self._started(options)
            try:
                told, complaint = await process.communicate()
            finally:
                if process.returncode is None:  # the run is broken off
                    process.kill()
            if process.returncode == 0:
                return json.loads(told)
            if self._clock.monotonic() > until:
                raise PostlineError(
                    f"The log could not be moved: {complaint.decode(errors='replace')[-2_000:]}",
                    remedy="Run `postline migrate` by hand, in the run's directory.",
                )
            await self._clock.sleep(_AGAIN_SECONDS)

    async def _killed(self, options: list[str], lines: int) -> bool:
        """Whether a migration died by our hand after so many lines of progress; false if it had ended before."""
        process = await self._started(options)
        assert process.stderr is not None
        for _ in range(lines):
            if not await process.stderr.readline():
                break
        if process.returncode is None:
            process.kill()
        await process.communicate()
        return process.returncode == -signal.SIGKILL

    async def _started(self, options: list[str]) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "postline", "migrate", "--json", *options),
            *(self._addresses.source.text, self._addresses.target.text),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            cwd=self._directory,
            env=environment_without_settings(),
            start_new_session=True,
        )
