"""What one process of a kill loop saw, written so that nothing of it is lost with the process."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["OPENINGS", "Entry", "Journal", "entries", "open_work"]

#: What begins with the one mark and ends with one of the others; the same fields tell which.
OPENINGS = {
    "try": ("ack",),
    "run": ("ok", "bad"),
    "commit": ("committed",),
    "ask": ("asked",),
    "tidy": ("tidied",),
}
_FOLDER = "journals"


class Entry(NamedTuple):
    """One line: what a process did at a moment of the machine's steady clock."""

    time_ns: int
    process: str
    mark: str
    fields: tuple[str, ...]


class Journal:
    """Appends lines with one system call each: whole or not at all, and there when the process is killed."""

    def __init__(self, directory: Path, slot: str, life: int) -> None:
        path = path_of(directory, slot, life)
        path.parent.mkdir(exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)

    def write(self, mark: str, *fields: object) -> None:
        """One line. Safe in threads."""
        os.write(self._file, f"{time.monotonic_ns()} {mark} {' '.join(map(str, fields))}\n".encode())


def path_of(directory: Path, slot: str, life: int) -> Path:
    """Where a process writes its journal."""
    return directory / _FOLDER / f"{slot}.{life}"


def entries(directory: Path, slot: str = "*") -> list[Entry]:
    """What all processes (of a slot) saw, in the order in which it happened."""
    found = [entry for path in (directory / _FOLDER).glob(f"{slot}.*") for entry in _read(path)]
    return sorted(found, key=lambda entry: entry.time_ns)


def open_work(directory: Path, slot: str, life: int) -> Counter[str]:
    """What a process had begun and not ended when it was killed, by mark."""
    begun: dict[tuple[str, tuple[str, ...]], None] = {}
    begins = {ending: opening for opening, endings in OPENINGS.items() for ending in endings}
    path = path_of(directory, slot, life)
    for entry in _read(path) if path.exists() else ():
        if entry.mark in OPENINGS:
            begun[entry.mark, entry.fields] = None
        elif entry.mark in begins:
            begun.pop((begins[entry.mark], entry.fields), None)
    return Counter(mark for mark, _ in begun)


def _read(path: Path) -> Iterator[Entry]:
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            time_ns, mark, *fields = line.split()
            yield Entry(int(time_ns), path.name, mark, tuple(fields))
