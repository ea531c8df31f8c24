"""A client that moves money about at random, and can be killed at any time.

`python -m examples.ledger.client URL DIRECTORY NAME COUNT`. What it will ask follows from its name and the number of
the request. Outcomes go to a file as they come; started again it asks for the rest under the same ids, and finds out
what became of those that it had asked for before it died.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from examples.ledger.contracts import Transfer, ledger
from postline import App, LogError, Refused, RequestTimeout

ACCOUNTS = [f"account {number}" for number in range(50)]
IN_FLIGHT = 20


def transfer(name: str, number: int) -> Transfer:
    """The transfer that a client's request of that number asks for."""
    chosen = random.Random(f"{name}/{number}")
    source, target = chosen.sample(ACCOUNTS, 2)
    return Transfer(source, target, chosen.randrange(1, 400))


def outcomes(directory: Path, name: str) -> dict[int, str]:
    """What a client knows of its requests, by number; a torn last line doesn't count."""
    path = directory / f"{name}.outcomes"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return {int(number): outcome for number, _, outcome in (line.partition(" ") for line in lines)}


async def ask(app: App, name: str, number: int) -> str:
    """Ask for a transfer until there is an outcome, however often it takes."""
    while True:
        try:
            await app.request(transfer(name, number), request_id=f"{name}/{number}", timeout=3600)
        except Refused as refused:
            return f"refused {refused.refusal!r}"
        except (LogError, RequestTimeout):
            continue
        return "transferred"


async def work(app: App, name: str, numbers: Iterator[int], path: Path) -> None:
    """Ask for one transfer after another, and write down how each ended."""
    for number in numbers:
        outcome = await ask(app, name, number)
        with path.open("a") as file:
            file.write(f"{number} {outcome}\n")


async def main(url: str, directory: Path, name: str, count: int) -> None:
    """Do what is left to do."""
    known = outcomes(directory, name)
    numbers = iter([number for number in range(count) if number not in known])
    path = directory / f"{name}.outcomes"
    if path.exists():
        written = path.read_bytes()
        path.write_bytes(written[: written.rfind(b"\n") + 1])  # without the line that a kill may have torn
    async with App(name, publishes_to=[ledger], url=url) as app:
        await asyncio.gather(*(work(app, name, numbers, path) for _ in range(IN_FLIGHT)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
