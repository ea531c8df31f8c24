"""One detached process with its record on disk: whoever comes later can find it, stop it, pause it or see it dead."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.brokers.waiting import until

__all__ = ["Recorded", "is_alive"]

# The shell ends at once, so that the process belongs to nobody here: no zombie of ours, no signal from our terminal.
_DETACH = '"$@" >>"$0" 2>&1 </dev/null & echo $!'


@dataclass(frozen=True)
class Recorded:
    """A process whose number stands in a file, and whose command line holds the directory of that file."""

    directory: Path

    @property
    def log(self) -> Path:
        """What the process says."""
        return self.directory / "log"

    @property
    def pid(self) -> int | None:
        """Its number, or None when it isn't there (a zombie and another process of that number don't count)."""
        pid = self._recorded()
        return pid if pid is not None and self._state(pid) not in {"", "Z", "X"} else None

    @property
    def state(self) -> str:
        """`running`, `paused` or `stopped`."""
        pid = self._recorded()
        letter = self._state(pid) if pid is not None else ""
        return {"": "stopped", "Z": "stopped", "X": "stopped", "T": "paused"}.get(letter, "running")

    def spawn(self, command: list[str]) -> None:
        """Start it in a session of its own; its words are added to the log."""
        spawned = subprocess.run(
            ["/bin/sh", "-c", _DETACH, str(self.log), *command],
            start_new_session=True,
            stdout=subprocess.PIPE,
            check=True,
        )
        self._file.write_bytes(spawned.stdout)

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; False when the process isn't there."""
        if (pid := self.pid) is None:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        until(lambda: self.pid is None, 20, lambda: f"{self.directory.name} does not die")

    def last_words(self, lines: int = 15) -> str:
        """The end of the log."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    @property
    def _file(self) -> Path:
        return self.directory / "pid"

    def _recorded(self) -> int | None:
        try:
            return int(self._file.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None

    def _state(self, pid: int) -> str:
        """The letter that ps has for its state; empty when no process of ours has this number."""
        letter, command = _seen(pid)
        # A zombie has no command line any more, nor has what was forked and isn't the program yet.
        return letter if letter == "Z" or str(self.directory) in command or not command else ""


def is_alive(pid: int) -> bool:
    """Whether any process has this number; what is dead and only not yet buried doesn't count."""
    return _seen(pid)[0] not in {"", "Z", "X"}


def _seen(pid: int) -> tuple[str, str]:
    """The letter of its state and its command line, both empty when there is none."""
    return _from_proc(pid) if Path("/proc/self/stat").exists() else _from_ps(pid)


def _from_proc(pid: int) -> tuple[str, str]:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except (FileNotFoundError, ProcessLookupError):
        return "", ""
    return stat.rpartition(")")[2].split()[0].upper(), command.decode(errors="replace")


def _from_ps(pid: int) -> tuple[str, str]:
    command = ["ps", "-o", "stat=", "-o", "command=", "-p", str(pid)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    state, _, rest = said.partition(" ")
    return state[:1].upper(), rest
