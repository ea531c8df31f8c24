"""Starts the processes of a kill loop, kills them with SIGKILL in the middle of their work, and starts them again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from postline.clock import SystemClock
from postline.log.port import Log
from postline.monitor import Monitor, SubscriptionView
from tests.fault.journal import open_work, path_of
from tests.fault.process import ENOUGH, open_log, url_of
from tests.fault.scenario import Scenario, Slot

__all__ = ["Nemesis", "Stuck"]

_ROOT = Path(__file__).resolve().parents[2]
_CLOCK = SystemClock()
#: Workers die more often than the others.
_WEIGHTS = {"worker": 5, "publisher": 3, "operator": 2, "keeper": 2}
#: A process is killed after so many bytes of its journal, chosen anew each time...
_PROGRESS_BYTES = {"worker": 40_000, "publisher": 6_000, "operator": 200, "keeper": 2_000}
#: ... or after so long, if it has less to do.
_PROGRESS_SECONDS = 2.0
_POLL_SECONDS = 0.002
_STUCK_SECONDS = 60.0


class Stuck(Exception):
    """Nothing goes on although something is left to do, or a process ended by itself."""


class _Place:
    """A slot and the process in it."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.life = 0
        self.process: asyncio.subprocess.Process | None = None


class Nemesis:
    """Runs one scenario in a directory; only its own children are ever signalled."""

    def __init__(self, scenario: Scenario, directory: Path, report: Callable[[str], None]) -> None:
        self._scenario, self._directory, self._report = scenario, directory, report
        self._random = scenario.random_of("nemesis")
        self._places = [_Place(slot) for slot in scenario.slots]
        self.kills = self.restarts = self.freezes = 0
        #: How many kills hit a process of a role, and what it had begun by then.
        self.by_role = Counter[str]()
        self.by_phase = Counter[str]()

    async def run(self) -> None:
        """From the first start to the clean end; raises Stuck."""
        self._scenario.save(self._directory)
        (self._directory / "mended").mkdir()
        try:
            for place in self._places:
                await self._start(place)
                if place.slot.role == "worker":
                    await self._ready(place)
            async with open_log(self._scenario, self._directory) as log:
                await self._harass(log)
                await self._come_to_rest(log)
        finally:
            for place in self._places:
                await self._end(place)

    async def _start(self, place: _Place) -> None:
        place.life += 1
        slot = place.slot
        with (self._directory / f"{slot.name}.stderr").open("ab") as errors:
            place.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *self._command(place)),
                stdin=asyncio.subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                cwd=_ROOT,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(sys.path),
                    "FAULT_DIRECTORY": str(self._directory),
                    "POSTLINE_INSTANCE": f"{slot.name}.{place.life}",
                },
            )

    def _command(self, place: _Place) -> list[str]:
        slot = place.slot
        if slot.role == "worker" and self._scenario.served:
            apps = [f"tests.fault.served:{name}" for name in ("billing", "ledger", "mirror")]
            return ["postline", "run", *apps, "--supervised", "--url", url_of(self._directory)]
        arguments = (self._directory, slot.role, slot.number, slot.version, place.life)
        return ["tests.fault.process", *map(str, arguments)]

    async def _end(self, place: _Place) -> None:
        if place.process is not None and place.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                place.process.kill()
            await place.process.wait()

    async def _ready(self, place: _Place) -> None:
        await self._until(lambda: self._written(place) > 0, _STUCK_SECONDS)
        if not self._written(place):
            raise Stuck(f"{place.slot.name} does not start")

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for the condition, but not for ever; sees whether all processes live meanwhile."""
        end = _CLOCK.monotonic() + seconds
        while not condition() and _CLOCK.monotonic() < end:
            self._require_alive()
            await _CLOCK.sleep(_POLL_SECONDS)

    def _require_alive(self) -> None:
        for place in self._places:
            if place.process is not None and place.process.returncode is not None:
                errors = (self._directory / f"{place.slot.name}.stderr").read_text()[-4_000:]
                raise Stuck(f"{place.slot.name} ended by itself with {place.process.returncode}:\n{errors}")

    def _written(self, place: _Place) -> int:
        with contextlib.suppress(FileNotFoundError):
            return path_of(self._directory, place.slot.name, place.life).stat().st_size
        return 0

    # Trouble

    async def _harass(self, log: Log) -> None:
        scenario = self._scenario
        steps = ["kill"] * scenario.kills + ["restart"] * scenario.restarts + ["freeze"] * scenario.freezes
        self._random.shuffle(steps)
        for step in steps:
            if step == "kill":
                await self._kill()
            elif step == "restart":
                await self._restart(log)
            else:
                await self._freeze(log)

    async def _in_its_work(self, *roles: str) -> _Place:
        """A process of these roles at some moment of its work; now and then one that only just starts."""
        chance = self._random
        places = [each for each in self._places if each.slot.role in roles]
        place = chance.choices(places, [_WEIGHTS[each.slot.role] for each in places])[0]
        wanted = 0 if chance.random() < 0.05 else chance.randrange(1, _PROGRESS_BYTES[place.slot.role])
        if wanted:
            await self._ready(place)
            # Of its life so far some part is over: so much more.
            wanted += self._written(place)
        await self._until(lambda: self._written(place) >= wanted, _PROGRESS_SECONDS)
        await _CLOCK.sleep(chance.uniform(0, 0.01))
        self._require_alive()
        return place

    async def _kill(self) -> None:
        place = await self._in_its_work(*_WEIGHTS)
        assert place.process is not None
        place.process.kill()
        if await place.process.wait() != -signal.SIGKILL:
            raise Stuck(f"{place.slot.name} ended by itself with {place.process.returncode}")
        self.kills += 1
        self.by_role[place.slot.role] += 1
        phases = open_work(self._directory, place.slot.name, place.life) or ["nothing"]
        self.by_phase.update(set(phases))
        self._report(f"kill {self.kills}: {place.slot.name} within {', '.join(sorted(phases))}")
        await self._start(place)

    async def _restart(self, log: Log) -> None:
        """SIGTERM: it has to end, at once have no partition any more, and have seen its attempts through."""
        place = await self._in_its_work("worker")
        process = place.process
        assert process is not None
        process.terminate()
        await self._ended(place)
        owned = [f"{name}/{partition}" for name, partition in await _owned_by(log, process.pid)]
        cut_off = open_work(self._directory, place.slot.name, place.life)["run"]
        if owned or cut_off:
            raise Stuck(f"{place.slot.name} was asked to stop and left {owned}, {cut_off} attempts cut off")
        self.restarts += 1
        self._report(f"restart {self.restarts}: {place.slot.name}")
        await self._start(place)

    async def _freeze(self, log: Log) -> None:
        """SIGSTOP amidst attempts, until its partitions have other owners; then it goes on."""
        frozen = None
        while frozen is None:
            frozen = await self._try_to_freeze(log)
        self.freezes += 1
        self._report(f"freeze {self.freezes}: {frozen}")

    async def _try_to_freeze(self, log: Log) -> str | None:
        place = self._random.choice([each for each in self._places if each.slot.role == "worker"])
        await self._until(lambda: self._attempts_alone(place), _PROGRESS_SECONDS)
        process = place.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        usable = self._attempts_alone(place) and await _owned_by(log, process.pid)
        frozen = bool(usable) and await self._taken_over(log, process.pid)
        process.send_signal(signal.SIGCONT)
        return place.slot.name if frozen else None

    def _attempts_alone(self, place: _Place) -> bool:
        """Whether attempts run, and no write: who is stopped in the middle of one holds up all others."""
        amidst = open_work(self._directory, place.slot.name, place.life)
        return bool(amidst["run"]) and not amidst["commit"]

    async def _taken_over(self, log: Log, pid: int) -> bool:
        end = _CLOCK.monotonic() + 3 * self._scenario.lease_seconds
        while await _owned_by(log, pid) and _CLOCK.monotonic() < end:
            self._require_alive()
            await _CLOCK.sleep(0.05)
        return not await _owned_by(log, pid)

    # The end

    async def _come_to_rest(self, log: Log) -> None:
        """No more publishing; wait until everything is handled, then stop everybody politely."""
        (self._directory / ENOUGH).touch()
        self._report("no more kills; coming to rest")
        publishers = [place for place in self._places if place.slot.role == "publisher"]
        await self._leave(publishers, asked=False)
        if old := [place for place in self._places if place.slot.version == 1 and place.slot.role == "worker"]:
            await self._leave(old, asked=True)
            for place in old:
                self._places.append(_Place(Slot(place.slot.role, place.slot.number + 100)))
                await self._start(self._places[-1])
        await self._drain(log)
        await self._leave(list(self._places), asked=True)

    async def _leave(self, leaving: Sequence[_Place], *, asked: bool) -> None:
        for place in leaving:
            if asked and place.process is not None:
                await self._ready(place)
                place.process.terminate()
            await self._ended(place)
            self._places.remove(place)

    async def _ended(self, place: _Place) -> None:
        """It ends, without an error."""
        assert place.process is not None
        try:
            async with asyncio.timeout(_STUCK_SECONDS):
                code = await place.process.wait()
        except TimeoutError:
            raise Stuck(f"{place.slot.name} does not come to its end") from None
        if code:
            errors = (self._directory / f"{place.slot.name}.stderr").read_text()[-4_000:]
            raise Stuck(f"{place.slot.name} ended with {code}:\n{errors}")

    async def _drain(self, log: Log) -> None:
        monitor = Monitor(log, _CLOCK)
        last: list[tuple[object, ...]] = []
        since = _CLOCK.monotonic()
        # Twice: what is upstream may have put something downstream after that was looked at.
        for _ in range(2):
            while True:
                views = await monitor.subscriptions()
                standing = [_standing(view) for view in views]
                if not any(_left(view) for view in views):
                    break
                if standing != last:
                    last, since = standing, _CLOCK.monotonic()
                if _CLOCK.monotonic() - since > _STUCK_SECONDS:
                    raise Stuck(f"nothing goes on: {[view for view in views if _left(view)]}")
                self._require_alive()
                await _CLOCK.sleep(0.1)


async def _owned_by(log: Log, pid: int) -> list[tuple[str, int]]:
    return [
        (info.name, each.partition)
        for info in await log.subscriptions()
        for each in await log.partitions(info.name)
        if each.owner.startswith(f"{pid}-")
    ]


def _left(view: SubscriptionView) -> int:
    behind = any(part.position < part.end for part in view.partitions)
    return view.held + view.dead_letters + behind


def _standing(view: SubscriptionView) -> tuple[object, ...]:
    positions = tuple(part.position for part in view.partitions)
    return view.name, positions, view.held, view.dead_letters, view.next_attempt_ms
