"""What a trial's processes must agree on: its seed, its messages, and what becomes of each."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec

__all__ = ["ENOUGH", "Plan", "hold_of", "order_id"]

_FILE = "plan.json"
#: A file of that name tells publishers to come to an end.
ENOUGH = "enough"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A trial; the seed makes the rest."""

    seed: int
    publishers: int = 1
    workers: int = 2
    customers: int = 8  # for each publisher
    #: Share of orders whose handler takes up to `slow_seconds`.
    slow: float = 0.1
    slow_seconds: float = 0.1
    #: Seconds between two publishes of one customer, at most.
    pause_seconds: float = 0.1
    #: More for the log's URL.
    options: dict[str, str] = {}
    #: The fault that workers have on purpose; see `planted`.
    planted: str = ""

    def save(self, directory: Path) -> None:
        """For the processes to read."""
        (directory / _FILE).write_bytes(msgspec.json.encode(self))

    @staticmethod
    def load(directory: Path) -> Plan:
        """What `save` wrote."""
        return msgspec.json.decode((directory / _FILE).read_bytes(), type=Plan)

    def customers_of(self, publisher: int) -> list[str]:
        """Whose orders this publisher publishes, alone."""
        return [f"c{publisher}.{number}" for number in range(self.customers)]

    def mood(self, customer: str, number: int) -> str:
        """What becomes of an order: `slow`, `flaky` (fails once), `thrown` (discarded), or it is simply handled."""
        chance = self.random_of(customer, number).random() - self.slow
        if chance < 0:
            return "slow"
        return "flaky" if chance < 0.03 else "thrown" if chance < 0.04 else ""

    def random_of(self, *what: object) -> random.Random:
        """Chances that belong to something in this trial, whichever process asks."""
        return random.Random("/".join(map(str, (self.seed, *what))))


def order_id(customer: str, number: int) -> str:
    """The id under which an order is published, each time."""
    return f"{customer}-{number}"


def hold_of(directory: Path, slot: str) -> Path:
    """While this file is there, a worker's next transaction with an invoice stands before its end."""
    return directory / f"hold-{slot}"
