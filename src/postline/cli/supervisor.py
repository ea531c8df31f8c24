"""Several worker processes kept alive: restarted when they die, or when their sources change, stopped together."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from postline.cli.failures import FAILED, INTERRUPTED, OK, USAGE
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
#: What a worker may take beyond its grace to commit and leave.
_KILL_SECONDS = 15.0


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
    ) -> None:
        self._command = (sys.executable, "-m", "postline", *arguments)
        #: What one worker is told besides, by its number from 0.
        self._own_arguments = own_arguments or (lambda slot: ())
        self._workers = workers
        self._watch = watch
        self._grace_seconds = grace_seconds
        self._report = report
        self._clock: Clock = SystemClock()
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._stop = StopSignals(self._clock)
        self._stopping = self._stop.asked
        #: For each worker: sources changed since it started.
        self._changed = [asyncio.Event() for _ in range(workers)]
        self._code = OK

    async def run(self) -> int:
        """Keep the workers alive; gives the exit code of the whole."""
        with handling(self._stop, self._told):
            self._report(f"starting {self._workers} worker{'s' * (self._workers != 1)}")
            await self._keep_all()
        self._report("all workers have stopped")
        return self._code

    async def _keep_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(self._keep(slot)) for slot in range(self._workers)]
            watcher = group.create_task(self._watch_sources()) if self._watch else None
            await asyncio.wait(keepers)
            if watcher is not None:
                watcher.cancel()

    def _told(self) -> None:
        """A signal: pass it on; the workers count for themselves."""
        if self._stop.ordered.is_set():
            self._code = INTERRUPTED
        self._signal_all()

    def _signal_all(self) -> None:
        for process in self._processes.values():
            _ask_to_stop(process)

    def _give_up(self, code: int) -> None:
        self._code = self._code or code
        self._stop.ask()
        self._signal_all()

    # -- one worker ---------------------------------------------------------------------------

    async def _keep(self, slot: int) -> None:
        failures, delay = 0, _DELAY_SECONDS
        while not self._stopping.is_set():
            began = self._clock.monotonic()
            code, replaced = await self._run_once(slot)
            if self._stopping.is_set():
                return
            if replaced:
                failures, delay = 0, _DELAY_SECONDS
                continue
            if self._clock.monotonic() - began >= _WELL_SECONDS:
                failures, delay = 0, _DELAY_SECONDS
            failures += code >= 0
            if self._watch:
                self._report(f"worker {slot} {_ended(code)}; waiting for a change")
                await self._first(self._changed[slot].wait(), self._stopping.wait())
                self._changed[slot].clear()
                continue
            if code == USAGE or failures >= _FAILURES_MAX:
                self._report(f"worker {slot} {_ended(code)}; giving up")
                self._give_up(code if code == USAGE else code or FAILED)
                return
            self._report(f"worker {slot} {_ended(code)}; restarting in {delay:g} s")
            await self._first(self._clock.sleep(delay), self._stopping.wait())
            delay = min(delay * 2, _DELAY_SECONDS_MAX)

    async def _run_once(self, slot: int) -> tuple[int, bool]:
        """One life of a worker: its exit code, and whether it ended because sources changed."""
        # A group of its own: a Ctrl-C at the terminal must reach it through us, once.
        arguments = (*self._command, *self._own_arguments(slot))
        process = await asyncio.create_subprocess_exec(*arguments, stdin=asyncio.subprocess.PIPE, process_group=0)
        self._processes[slot] = process
        self._report(f"worker {slot} started as {process.pid}")
        if self._stopping.is_set():
            _ask_to_stop(process)
        await self._first(process.wait(), self._changed[slot].wait(), self._stopping.wait())
        replaced = self._changed[slot].is_set() and not self._stopping.is_set() and process.returncode is None
        if process.returncode is None:
            if replaced:
                self._changed[slot].clear()
                _ask_to_stop(process)
            await self._first(process.wait(), self._clock.sleep(self._grace_seconds + _KILL_SECONDS))
            if process.returncode is None:
                self._report(f"worker {slot} does not stop; killing it")
                process.kill()
        return await process.wait(), replaced

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
                for event in self._changed:
                    event.set()


def _ask_to_stop(process: asyncio.subprocess.Process) -> None:
    """Not by its `send_signal`, which polls first: nobody would learn the exit code of one that ends just then."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)


def _ended(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    return f"was killed by {signal.Signals(-code).name}"
