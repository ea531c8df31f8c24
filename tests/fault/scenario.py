"""What a kill loop does, from its seed: how many of which processes, which messages, and what goes wrong with them."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec

__all__ = ["ATTEMPTS", "Scenario", "Slot"]

_FILE = "scenario.json"
ATTEMPTS = 5

#: Share of orders by what becomes of them; the rest is simply handled, or takes a while.
_MOODS = {
    "flaky": 0.04,  # fails now and then
    "thrown": 0.01,  # is discarded by its handler
    "poison": 0.003,  # fails until the operator has mended something
    "hopeless": 0.003,  # fails until the operator discards it
}


class Slot(msgspec.Struct, frozen=True):
    """One place for a process; when it is killed another one follows."""

    role: str
    number: int
    version: int = 2

    @property
    def name(self) -> str:
        """Unlike any other's."""
        return f"{self.role}-{self.number}"


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """All that the processes of one run must agree on; the seed makes the rest."""

    seed: int
    #: SIGKILL to any process, SIGTERM to a worker, SIGSTOP to a worker until its partitions have other owners.
    kills: int = 0
    restarts: int = 0
    freezes: int = 0
    publishers: int = 2
    workers: int = 3
    customers: int = 12  # for each publisher
    partitions: int = 4
    #: Some workers are of version 1 of the services, which has no handler for cancellations.
    mixed: bool = False
    #: Workers are `postline run`, as users start them; their commits are not written down.
    served: bool = False
    lease_seconds: float = 10.0
    #: Share of orders whose handler takes a while.
    slow: float = 0.1
    #: Seconds between two publishes of one customer, at most.
    pause_seconds: float = 0.08

    def save(self, directory: Path) -> None:
        """For the processes to read."""
        (directory / _FILE).write_bytes(msgspec.json.encode(self))

    @staticmethod
    def load(directory: Path) -> Scenario:
        """What `save` wrote."""
        return msgspec.json.decode((directory / _FILE).read_bytes(), type=Scenario)

    @property
    def slots(self) -> list[Slot]:
        """All processes, workers first: version 2 among them, so that its types are known before they are published."""
        workers = [Slot("worker", number, 1 if self.mixed and number % 2 else 2) for number in range(self.workers)]
        publishers = [Slot("publisher", number) for number in range(self.publishers)]
        return [*workers, Slot("operator", 0), Slot("keeper", 0), *publishers]

    def customers_of(self, publisher: int) -> list[str]:
        """Whose orders this publisher publishes, alone."""
        return [f"c{publisher}.{number}" for number in range(self.customers)]

    def mood(self, customer: str, number: int) -> str:
        """What becomes of an order: "", "slow", or one of the above."""
        chance = self.random_of(customer, number).random() - self.slow
        if chance < 0:
            return "slow"
        for mood, share in _MOODS.items():
            chance -= share
            if chance < 0:
                return mood
        return ""

    def cancels(self, customer: str, number: int) -> bool:
        """Whether this is a cancellation, which only version 2 handles."""
        return self.mixed and self.random_of(customer, number, "cancels").random() < 0.05

    def failures(self, customer: str, number: int) -> int:
        """How many attempts of a flaky order fail; its ladder is never used up."""
        return self.random_of(customer, number, "failures").randrange(1, ATTEMPTS)

    def fails_in_batch(self, customer: str, number: int) -> bool:
        """Whether the ledger fails at this one for a while."""
        return self.random_of(customer, number, "batch").random() < 0.01

    def random_of(self, *what: object) -> random.Random:
        """Chances that belong to something in this run, whichever process asks."""
        return random.Random("/".join(map(str, (self.seed, *what))))
