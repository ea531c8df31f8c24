"""The demo's processes: starts them, kills them with SIGKILL when told to, starts them again, stops them at the end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from postline.errors import PostlineError

__all__ = ["Slot", "Supervisor", "environment_without_settings"]

_GRACE_SECONDS = 20.0
_OWN_ENDS_MAX = 3
_PACKAGES = Path(__file__).resolve().parent.parent.parent


@dataclass
class Slot:
    """One place for a process of a service; killed processes are followed by new ones."""

    name: str
    service: str
    process: Process | None = None
    #: The process said that it runs its service.
    ready: bool = False
    #: It was told to stop.
    asked: bool = False
    starts: int = 0
    kills: int = 0
    #: Starts after a process that ended without having been told to.
    restarts: int = 0
    #: Exit codes of processes that ended without having been told or killed.
    own_ends: list[int] = field(default_factory=list)
    finished: bool = False


class Supervisor:
    """Keeps a process in every slot until it is told to stop. Only its own children are ever signalled."""

    def __init__(self, directory: Path, services: Mapping[str, int]) -> None:
        self._directory = directory
        self.slots = [
            Slot(f"{service}-{number}", service)
            for service, count in services.items()
            for number in range(1, count + 1)
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self.exit_codes: dict[str, int] = {}

    @property
    def kills(self) -> int:
        """How many processes were seen to die of SIGKILL."""
        return sum(slot.kills for slot in self.slots)

    @property
    def restarts(self) -> int:
        """How many processes were started in the place of one that was killed or ended by itself."""
        return sum(slot.restarts for slot in self.slots)

    @property
    def own_ends(self) -> dict[str, list[int]]:
        """Exit codes of processes that ended by themselves, by slot."""
        return {slot.name: slot.own_ends for slot in self.slots if slot.own_ends}

    def start(self) -> None:
        """Start a process in every slot that has work left."""
        (self._directory / "logs").mkdir(exist_ok=True)
        self._stopping.clear()
        self._tasks = [
            asyncio.create_task(self._keep(slot), name=slot.name) for slot in self.slots if not slot.finished
        ]

    def check(self) -> None:
        """Raise PostlineError if a service can't be kept running."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error

    def ask_where_they_are(self) -> None:
        """Have every process write to its log where its tasks and threads stand, for whoever looks into a stall."""
        for slot in self.slots:
            if slot.ready and slot.process is not None:
                slot.process.send_signal(signal.SIGUSR1)

    async def kill(self, slot: Slot) -> bool:
        """Kill the slot's process; True once it is dead of that, False if there was none to kill."""
        process = slot.process
        if process is None or process.returncode is not None:
            return False
        process.kill()
        return await process.wait() == -signal.SIGKILL

    async def stop(self) -> None:
        """Ask every process to stop, and wait until all have; after a grace period they are killed.

        `exit_codes` has those of the processes that ran their service, of the first that was not 0 where several did.
        One that was just being started is killed, since it may not listen yet.
        """
        self._stopping.set()
        for slot in self.slots:
            if slot.process is not None and slot.process.returncode is None:
                if slot.ready:
                    slot.asked = True
                    slot.process.terminate()
                else:
                    slot.process.kill()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_GRACE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, slot: Slot) -> None:
        while not self._stopping.is_set() and not slot.finished:
            code = await self._run(slot)
            slot.restarts += not (self._stopping.is_set() or (code == 0 and slot.service == "shop"))
            if self._stopping.is_set():
                if slot.asked:
                    self.exit_codes[slot.name] = self.exit_codes.get(slot.name, 0) or code
            elif code == -signal.SIGKILL:
                slot.kills += 1
            elif code == 0 and slot.service == "shop":
                slot.finished = True
            else:
                slot.own_ends.append(code)
                self._require_few(slot)

    async def _run(self, slot: Slot) -> int:
        """Start a process and wait for its end; gives its exit code."""
        with self._log_of(slot).open("ab") as log:
            process = slot.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "postline.demo.process", slot.service),
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                cwd=self._directory,
                env=_environment(slot),
                start_new_session=True,
            )
        slot.starts += 1
        slot.asked = False
        if self._stopping.is_set():
            process.kill()
        try:
            assert process.stdout is not None
            slot.ready = await process.stdout.readline() == b"ready\n"
            return await process.wait()
        finally:
            slot.ready = False
            if process.returncode is None:
                process.kill()

    def _log_of(self, slot: Slot) -> Path:
        return self._directory / "logs" / f"{slot.name}.log"

    def _require_few(self, slot: Slot) -> None:
        if len(slot.own_ends) < _OWN_ENDS_MAX:
            return
        tail = self._log_of(slot).read_text(errors="replace")[-2_000:]
        raise PostlineError(
            f"{slot.name} ended by itself, each time with an exit code of {slot.own_ends}. Its log ends:\n{tail}",
            remedy=f"Read {self._log_of(slot)}.",
        )


def _environment(slot: Slot) -> dict[str, str]:
    return {**environment_without_settings(), "POSTLINE_INSTANCE": slot.name}


def environment_without_settings() -> dict[str, str]:
    """Our own environment, without settings for Postline, and with a way to this package."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POSTLINE_")}
    paths = [str(_PACKAGES), *filter(None, [kept.get("PYTHONPATH", "")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths)}
