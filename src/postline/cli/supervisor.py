"""Several worker processes kept alive: restarted when they die, or when their sources change, stopped together."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from postline.cli.failures import FAILED, INTERRUPTED, OK, USAGE
from postline.cli.service import STOP_SECONDS
from postline.cli.signals import StopSignals, handling
from postline.cli.sources import Sources
from postline.clock import Clock, SystemClock

__all__ = ["Supervisor"]

_DELAY_SECONDS = 0.1
_DELAY_SECONDS_MAX = 10.0
#: A worker that ran so long was well; its next death is a first one.
_WELL_SECONDS = 30.0
#: So many failures in a row, none of them a kill, and the whole is given up.
_FAILURES_MAX = 6
_WATCH_SECONDS = 0.5


@dataclass(eq=False)
class _Slot:
    """A worker, whatever processes it is one after another."""

    number: int
    process: asyncio.subprocess.Process | None = None
    #: The process was asked to stop.
    told: bool = False
    keeper: asyncio.Task[None] | None = None
    #: Sources changed since it started.
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    #: It is not needed any more.
    leaving: asyncio.Event = field(default_factory=asyncio.Event)

    def __str__(self) -> str:
        return f"worker {self.number}"


class Supervisor:
    """Runs `postline` with these arguments in several processes until a signal comes.

    A worker that dies is restarted, after a delay that doubles from 0.1 to 10 s; one that exits for
    wrong usage or settings, or that fails six times in a row without having been well for 30 s, ends
    the whole. Workers notice the supervisor's own death by their standard input.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        workers: int,
        *,
        watch: bool,
        grace_seconds: float,
        report: Callable[[str], None],
        own_arguments: Callable[[int], Sequence[str]] | None = None,
        steer: Callable[[Supervisor], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """`steer` runs beside the workers, and may `resize` their number."""
        self._command = (sys.executable, "-m", "postline", *arguments)
        #: What one worker is told besides, by its number from 0.
        self._own_arguments = own_arguments or (lambda slot: ())
        self._first_workers = workers
        self._watch = watch
        self._grace_seconds = grace_seconds
        self._report = report
        self._steer = steer
        self._clock: Clock = SystemClock()
        self._stop = StopSignals(self._clock)
        self._stopping = self._stop.asked
        self._slots: dict[int, _Slot] = {}
        self._code = OK

    async def run(self) -> int:
        """Keep the workers alive; gives the exit code of the whole."""
        with handling(self._stop, self._told):
            self._report(f"starting {self._first_workers} worker{'s' * (self._first_workers != 1)}")
            await self._keep_all()
        self._report("all workers have stopped")
        return self._code

    @property
    def workers(self) -> int:
        """How many there shall be: those that leave are none, those that wait to be restarted are."""
        return sum(not slot.leaving.is_set() for slot in self._slots.values())

    @property
    def leaving(self) -> int:
        """How many were told to leave, and have not ended yet."""
        return len(self._slots) - self.workers

    def resize(self, workers: int) -> None:
        """Start workers, or tell those with the highest numbers to leave; until they have, their numbers stay taken."""
        staying = sorted(number for number, slot in self._slots.items() if not slot.leaving.is_set())
        for number in staying[workers:]:
            self._slots[number].leaving.set()
        for _ in range(workers - len(staying)):
            number = next(each for each in itertools.count() if each not in self._slots)
            slot = self._slots[number] = _Slot(number)
            slot.keeper = asyncio.create_task(self._keep(slot), name=f"worker {number}")

    async def _keep_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            self.resize(self._first_workers)
            beside = [group.create_task(self._watch_sources())] if self._watch else []
            beside += [group.create_task(self._steer(self))] if self._steer else []
            try:
                while self._slots:
                    keepers = {slot.keeper: number for number, slot in self._slots.items() if slot.keeper}
                    ended, _ = await asyncio.wait(keepers, return_when=asyncio.FIRST_COMPLETED)
                    for keeper in ended:
                        del self._slots[keepers[keeper]]
                        keeper.result()
            finally:
                for each in beside:
                    each.cancel()

    def _told(self) -> None:
        """A signal: pass it on; the workers count for themselves."""
        if self._stop.ordered.is_set():
            self._code = INTERRUPTED
        self._signal_all()

    def _signal_all(self) -> None:
        for slot in self._slots.values():
            self._ask_to_stop(slot)

    def _ask_to_stop(self, slot: _Slot) -> None:
        """Once: a worker takes a second signal for an order, which only a second one of ours is."""
        if slot.process is not None and (not slot.told or self._stop.ordered.is_set()):
            slot.told = True
            _ask_to_stop(slot.process)

    def _give_up(self, code: int) -> None:
        self._code = self._code or code
        self._stop.ask()
        self._signal_all()

    # -- one worker ---------------------------------------------------------------------------

    async def _keep(self, slot: _Slot) -> None:
        failures, delay = 0, _DELAY_SECONDS
        while not self._over(slot):
            began = self._clock.monotonic()
            code, replaced = await self._run_once(slot)
            if self._over(slot):
                return
            if replaced:
                failures, delay = 0, _DELAY_SECONDS
                continue
            if self._clock.monotonic() - began >= _WELL_SECONDS:
                failures, delay = 0, _DELAY_SECONDS
            failures += code >= 0
            if self._watch:
                self._report(f"{slot} {_ended(code)}; waiting for a change")
                await self._first(slot.changed.wait(), slot.leaving.wait(), self._stopping.wait())
                slot.changed.clear()
                continue
            if code == USAGE or failures >= _FAILURES_MAX:
                self._report(f"{slot} {_ended(code)}; giving up")
                self._give_up(code if code == USAGE else code or FAILED)
                return
            self._report(f"{slot} {_ended(code)}; restarting in {delay:g} s")
            await self._first(self._clock.sleep(delay), slot.leaving.wait(), self._stopping.wait())
            delay = min(delay * 2, _DELAY_SECONDS_MAX)

    def _over(self, slot: _Slot) -> bool:
        return slot.leaving.is_set() or self._stopping.is_set()

    async def _run_once(self, slot: _Slot) -> tuple[int, bool]:
        """One life of a worker: its exit code, and whether it ended because sources changed."""
        # A group of its own: a Ctrl-C at the terminal must reach it through us, once.
        arguments = (*self._command, *self._own_arguments(slot.number))
        process = await asyncio.create_subprocess_exec(*arguments, stdin=asyncio.subprocess.PIPE, process_group=0)
        slot.process, slot.told = process, False
        self._report(f"{slot} started as {process.pid}")
        if self._stopping.is_set():
            self._ask_to_stop(slot)
        await self._first(process.wait(), slot.changed.wait(), slot.leaving.wait(), self._stopping.wait())
        replaced = slot.changed.is_set() and not self._over(slot) and process.returncode is None
        if process.returncode is None:
            if replaced:
                slot.changed.clear()
            self._ask_to_stop(slot)
            await self._first(process.wait(), self._clock.sleep(self._grace_seconds + STOP_SECONDS))
            if process.returncode is None:
                self._report(f"{slot} does not stop; killing it")
                process.kill()
        code = await process.wait()
        slot.process = None
        if slot.leaving.is_set() and not self._stopping.is_set():
            self._report(f"{slot} left: it {_ended(code)}")
        return code, replaced

    @staticmethod
    async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
        """Return once one of them is done; cancel the others."""
        tasks = [asyncio.ensure_future(each) for each in waits]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    # -- sources ------------------------------------------------------------------------------

    async def _watch_sources(self) -> None:
        sources = Sources(Path.cwd())
        while not self._stopping.is_set():
            await self._clock.sleep(_WATCH_SECONDS)
            if changed := sources.changed():
                self._report(f"changed: {', '.join(changed[:3])}{' …' * (len(changed) > 3)}")
                for slot in self._slots.values():
                    slot.changed.set()


def _ask_to_stop(process: asyncio.subprocess.Process) -> None:
    """Not by its `send_signal`, which polls first: nobody would learn the exit code of one that ends just then."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)


def _ended(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    return f"was killed by {signal.Signals(-code).name}"
