"""The kill loop on a Kafka cluster of its own: `scripts/soak --kafka --kills 200 --seed 1 --brokers 3`.

Workers and publishers are killed with SIGKILL in the middle of what they do and started again; with three brokers every
tenth step kills or stops a broker instead. At the end everything is drained and judged. Exit code 0: every guarantee
was kept; 1: it was not, or something is stuck. Then the directory is kept, with journals and what the processes said.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.brokers.cluster import Cluster
from tests.brokers.install import HOME
from tests.fault.kafka.plan import Plan
from tests.fault.kafka.trial import Trial, running
from tests.fault.kafka.verdict import judged

__all__ = ["disturb", "main"]

_STEPS_PER_BROKER = 10


async def disturb(trial: Trial, kills: int, report: Callable[[str], None]) -> None:
    """Kill so many processes, and brokers between them where one can be spared."""
    chance, brokers = trial.plan.random_of("brokers"), trial.cluster.numbers
    for step in range(1, kills + 1):
        place = await trial.kill_somebody()
        report(f"kill {step}: {place.name}")
        if len(brokers) >= 3 and step % _STEPS_PER_BROKER == 0:
            number = chance.choice(brokers)
            await _disturb_broker(trial, number, paused=chance.random() < 0.3, report=report)


async def _disturb_broker(trial: Trial, number: int, *, paused: bool, report: Callable[[str], None]) -> None:
    cluster = trial.cluster
    report(f"broker {number} is {'stopped for a while' if paused else 'killed'}")
    await asyncio.to_thread(cluster.pause if paused else cluster.kill, number)
    await trial.acknowledged(50)
    await trial.kill_somebody()
    if paused:
        cluster.resume(number)
        await asyncio.to_thread(cluster.wait_until_in_sync, number)
    else:
        await asyncio.to_thread(cluster.restart, number)


async def _soak(cluster: Cluster, plan: Plan, kills: int, directory: Path, report: Callable[[str], None]) -> None:
    async with running(cluster, plan, directory) as trial:
        await disturb(trial, kills, report)
        report("no more kills; coming to rest")
        verdict = await judged(trial)
        figures = {"seed": plan.seed, "kills": trial.kills, "kills within": trial.within, **verdict.figures}
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


def main(arguments: Sequence[str]) -> int:
    """Parse, run, print figures; gives the exit code."""
    parser = argparse.ArgumentParser(prog="soak --kafka", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--kills", type=int, default=200, help="how many processes are killed (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides messages, victims and moments (%(default)s)")
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1, help="how many brokers (%(default)s)")
    parser.add_argument("--protocol", choices=("auto", "classic", "consumer"), default="auto", help="of the groups")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="an empty directory to leave everything in")
    options = parser.parse_args(arguments)
    directory = options.keep or Path(tempfile.mkdtemp(prefix="postline-soak-"))
    directory.mkdir(parents=True, exist_ok=True)
    given = {"publish_seconds": "60", "group.protocol": options.protocol}
    plan = Plan(seed=options.seed, workers=3, publishers=2, options=given)
    cluster = Cluster(HOME / f"tests-{os.getpid()}-soak", options.brokers, tests=True)

    def report(text: str) -> None:
        sys.stderr.write(text + "\n")

    try:
        cluster.start()
        asyncio.run(_soak(cluster, plan, options.kills, directory, report))
    except AssertionError as wrong:
        report(f"{wrong}\nseed {options.seed}; see {directory}")
        return 1
    finally:
        cluster.stop(remove=True, gently=False)
    if options.keep is None:
        shutil.rmtree(directory)
    report("nothing lost, nothing doubled, order kept, audit balanced")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
