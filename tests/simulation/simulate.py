"""`scripts/simulate`: many seeds of a scenario, on several processors; a failing one is named and replays exactly."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

import click

from tests.simulation.cluster import ENGINE_MUTANTS
from tests.simulation.faults import FaultPlan
from tests.simulation.resetting import run_resetting
from tests.simulation.scenario import Shape, run_shop
from tests.simulation.toy import run_toy
from tests.simulation.world import Result

__all__ = ["main", "run_seed", "run_seeds"]

#: The whole runtime in different circumstances; "toy" is a consumer on the bare port.
SCENARIOS = {"shop": run_shop, "resetting": run_resetting, "toy": run_toy}
_CHUNK = 20
_SHOWN_MAX = 5


def run_seed(
    seed: int, *, scenario: str = "shop", mutant: str = "", read_faults: bool = True, keep_trace: bool = False
) -> Result:
    """One seed of a scenario: "shop" is the whole runtime, "toy" a consumer on the bare port."""
    # What the runtime warns of is injected, and there is much of it.
    logging.disable(logging.CRITICAL)
    try:
        plan = FaultPlan.by_seed(seed, read_faults=read_faults)
        return SCENARIOS[scenario](seed, plan, mutant=mutant, keep_trace=keep_trace)
    finally:
        logging.disable(logging.NOTSET)


def run_seeds(
    first: int, count: int, *, jobs: int, scenario: str = "shop", mutant: str = "", read_faults: bool = True
) -> Iterator[Result]:
    """Results of consecutive seeds, in their order."""
    run = partial(run_seed, scenario=scenario, mutant=mutant, read_faults=read_faults)
    seeds = range(first, first + count)
    if jobs == 1:
        yield from map(run, seeds)
        return
    # Spawned, so that no lock or thread of the parent comes along.
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(run, seeds, _CHUNK)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--seeds", default=2_000, show_default=True, help="How many seeds.")
@click.option("--first", default=0, show_default=True, help="The first of them.")
@click.option("--seed", type=int, help="Replay this one and print all that happened in it.")
@click.option("--scenario", type=click.Choice(tuple(SCENARIOS)), default="shop", show_default=True)
@click.option(
    "--mutant", type=click.Choice(("", *ENGINE_MUTANTS)), default="", help="An engine that is wrong on purpose."
)
@click.option("--read-faults", is_flag=True, help="Let reads be refused too.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Processes.")
def main(seeds: int, first: int, seed: int | None, scenario: str, mutant: str, read_faults: bool, jobs: int) -> None:
    """Run the simulation. Ends with 1 if a seed is not sound, or, with --mutant, if every seed is."""
    if seed is not None:
        _replay(run_seed(seed, scenario=scenario, mutant=mutant, read_faults=read_faults, keep_trace=True))
        return
    started = time.monotonic()
    faults: Counter[str] = Counter()
    broken: list[Result] = []
    results = run_seeds(first, seeds, jobs=jobs, scenario=scenario, mutant=mutant, read_faults=read_faults)
    with click.progressbar(results, length=seeds, label="seeds") as progress:
        for result in progress:
            faults.update(result.faults)
            if result.problems:
                broken.append(result)
    rate = seeds / (time.monotonic() - started) * 60
    click.echo(f"{seeds} seeds of {scenario}, {rate:,.0f} a minute, {len(broken)} not sound")
    click.echo("injected: " + ", ".join(f"{fault} {count:,}" for fault, count in sorted(faults.items())))
    for result in broken[:_SHOWN_MAX]:
        click.echo(str(result))
    again = (
        f"--scenario {scenario}" + (f" --mutant {mutant}" if mutant else "") + (" --read-faults" if read_faults else "")
    )
    if broken:
        click.echo(f"Replay one with: scripts/simulate --seed {broken[0].seed} {again}")
    raise SystemExit(bool(broken) != bool(mutant))


def _replay(result: Result) -> None:
    for line in result.trace or ():
        click.echo(line)
    click.echo(f"{FaultPlan.by_seed(result.seed)}\n{Shape.by_seed(result.seed)}\n{result}")
    raise SystemExit(bool(result.problems))


if __name__ == "__main__":
    main()
