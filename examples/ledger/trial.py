"""Random transfers while clients and servers are killed, and the proof that no money and no outcome is lost.

`python -m examples.ledger.trial --transfers 10000 --kills 40 --seed 1`: on a file of its own, else where `--url` says.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import msgspec

from examples.ledger.client import ACCOUNTS, outcomes, transfer
from examples.ledger.contracts import OPENING
from postline.app import open_environment
from postline.log.port import Log
from postline.monitor import Monitor, SubscriptionView

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = [f"client-{number}" for number in range(4)]
SERVERS = 2
_LOOK_SECONDS = 0.02


class Trial:
    """One trial: its processes, who is killed when, and how it is judged."""

    def __init__(self, url: str, directory: Path, transfers: int, seed: int) -> None:
        self.url, self.directory, self.each = url, directory, transfers // len(CLIENTS)
        self.random = random.Random(seed)
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.kills: Counter[str] = Counter()
        self.said = (directory / "processes.log").open("ab")

    async def start(self, name: str) -> None:
        """Start a client, a server or the reader."""
        if name.startswith("client"):
            command = ["-m", "examples.ledger.client", self.url, str(self.directory), name, str(self.each)]
        else:
            module = "reader" if name == "reader" else "scaled"
            command = ["-m", "postline", "run", f"examples.ledger.{module}:app", "--url", self.url]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
        self.processes[name] = await asyncio.create_subprocess_exec(
            *(sys.executable, *command), cwd=ROOT, env=variables, stdout=self.said, stderr=self.said
        )

    async def run(self, kills: int) -> None:
        """Let the clients come to their end, with so many kills on the way."""
        for number in range(SERVERS):
            await self.start(f"server-{number}")
        while (self.directory / "processes.log").read_bytes().count(b": running") < SERVERS:
            self.require_alive()
            await asyncio.sleep(_LOOK_SECONDS)
        for name in ("reader", *CLIENTS):
            await self.start(name)
        marks = sorted(self.random.sample(range(self.each * len(CLIENTS) * 9 // 10), kills))
        while not self.finished():
            done = self.done()
            while marks and done >= marks[0]:
                marks.pop(0)
                await self.kill_one()
            self.require_alive()
            await asyncio.sleep(_LOOK_SECONDS)

    def done(self) -> int:
        """How many outcomes the clients have written down."""
        return sum(self._lines(name) for name in CLIENTS)

    def _lines(self, name: str) -> int:
        path = self.directory / f"{name}.outcomes"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def finished(self) -> bool:
        """Whether every client has ended well."""
        return all(self.processes[name].returncode == 0 for name in CLIENTS)

    async def kill_one(self) -> None:
        """SIGKILL for one of those that run, and a new life."""
        alive = [name for name, process in self.processes.items() if process.returncode is None and name != "reader"]
        if not alive:
            return
        name = self.random.choice(alive)
        self.processes[name].send_signal(signal.SIGKILL)
        await self.processes[name].wait()
        self.kills[name.split("-")[0]] += 1
        await self.start(name)

    def require_alive(self) -> None:
        """Whoever died of something else than a kill is an error."""
        for name, process in self.processes.items():
            if process.returncode not in (None, 0):
                raise AssertionError(f"{name} ended with {process.returncode}; see {self.said.name}")

    async def end(self) -> None:
        """Stop what still runs."""
        for process in self.processes.values():
            if process.returncode is None:
                process.terminate()
        await asyncio.gather(*(process.wait() for process in self.processes.values()))
        self.said.close()

    # -- judging ----------------------------------------------------------------------------------

    async def judge(self) -> str:
        """What was found; AssertionError if money or an outcome is missing, or was made."""
        environment = open_environment(self.url)
        await environment.log.start()
        try:
            monitor = Monitor(environment.log, environment.clock)
            for name in ("ledger", "ledger.accounts", "reader"):
                view = await at_the_end(monitor, name)
                assert not view.held, f"{name} still holds {view.held} records"
                assert (await monitor.audit(name)).balanced, f"the audit of {name} does not balance"
            return self._compare(
                await states(environment.log, "ledger.accounts"), await states(environment.log, "reader")
            )
        finally:
            await environment.log.close()

    def _compare(self, kept: dict[str, int], read: dict[str, int]) -> str:
        expected = dict.fromkeys(ACCOUNTS, OPENING)
        ends: Counter[str] = Counter()
        for name in CLIENTS:
            known = outcomes(self.directory, name)
            assert sorted(known) == list(range(self.each)), f"{name} lacks outcomes"
            for number, outcome in known.items():
                ends[outcome.split()[0]] += 1
                if outcome == "transferred":
                    asked = transfer(name, number)
                    expected[asked.source] -= asked.amount
                    expected[asked.target] += asked.amount
        moved = {account: balance for account, balance in expected.items() if account in kept or balance != OPENING}
        assert kept == moved, f"balances differ from what clients were told: {_differences(kept, moved)}"
        assert read == kept, f"the reader's balances differ: {_differences(read, kept)}"
        assert sum(expected.values()) == OPENING * len(ACCOUNTS), "money was made or lost"
        assert min(kept.values()) >= 0, "an account is overdrawn"
        return f"{dict(ends)}, kills {dict(self.kills)}, money {sum(expected.values())} of {OPENING * len(ACCOUNTS)}"


async def at_the_end(monitor: Monitor, name: str) -> SubscriptionView:
    """How a subscription stands once it has handled all there is."""
    while True:
        view = await monitor.subscription(name)
        if not view.lag_records:
            return view
        await asyncio.sleep(_LOOK_SECONDS)


async def states(log: Log, subscription: str) -> dict[str, int]:
    """The balances that a subscription keeps."""
    found: dict[str, int] = {}
    for info in await log.partitions(subscription):
        after = b""
        while page := await log.peek_state(subscription, info.partition, "state", after=after):
            found |= {key.decode(): msgspec.json.decode(value, type=int) for key, value in page}
            after = page[-1][0]
    return found


def _differences(found: dict[str, int], wanted: dict[str, int]) -> dict[str, tuple[int | None, int | None]]:
    names = found.keys() | wanted.keys()
    return {name: (found.get(name), wanted.get(name)) for name in names if found.get(name) != wanted.get(name)}


async def main(transfers: int, kills: int, seed: int, url: str) -> str:
    """Run a trial and judge it."""
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        trial = Trial(url or f"sqlite:///{directory / 'ledger.db'}", directory, transfers, seed)
        began = time.monotonic()
        try:
            await trial.run(kills)
            took = time.monotonic() - began
            found = await trial.judge()
        except BaseException:
            trial.said.flush()
            print((directory / "processes.log").read_text()[-5_000:], file=sys.stderr)
            raise
        finally:
            await trial.end()
    return f"sound: {transfers} transfers in {took:.1f} s, seed {seed}: {found}"


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--transfers", type=int, default=10_000)
    options.add_argument("--kills", type=int, default=40)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--url", default="")
    print(asyncio.run(main(**vars(options.parse_args()))))
