"""What the supervisor tells the services of one run, and the mishaps that its seed brings about."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from postline import App

__all__ = ["Bench", "Mishap", "Scenario", "bench"]

_ONCE_IN = 400
_LONG_IN = 4_000
_LONG_ATTEMPTS = 4


class Mishap(Exception):
    """Something that goes wrong now and then, and is over at a later attempt."""


class Scenario(msgspec.Struct, frozen=True):
    """One run: where its input lies, its seed, and the invoice that packing can't print a label for."""

    input: str
    seed: int
    poison_invoice: str = ""

    def save(self, directory: Path) -> None:
        """Write it where the services look for it."""
        (directory / "scenario.json").write_bytes(msgspec.json.encode(self))

    @staticmethod
    def load(directory: Path) -> Scenario:
        """What `save` wrote."""
        return msgspec.json.decode((directory / "scenario.json").read_bytes(), type=Scenario)


class Bench(msgspec.Struct, frozen=True):
    """What handlers work with, as `ctx.resources`."""

    scenario: Scenario
    directory: Path

    def may_fail(self, where: str, number: int, attempt: int) -> None:
        """Raise Mishap for a few of the messages: most only once, some until the fifth attempt."""
        roll = zlib.crc32(f"{self.scenario.seed}/{where}/{number}".encode())
        if (roll % _ONCE_IN == 0 and attempt == 1) or (roll % _LONG_IN == 1 and attempt <= _LONG_ATTEMPTS):
            raise Mishap(f"{where} had a mishap with number {number} at attempt {attempt}")

    @property
    def repaired(self) -> Path:
        """Exists once the label printer was repaired."""
        return self.directory / "label-printer-repaired"


@asynccontextmanager
async def bench(app: App) -> AsyncIterator[Bench]:
    """The `lifespan` of the services, which run in the directory of the run."""
    directory = Path.cwd()
    yield Bench(Scenario.load(directory), directory)
