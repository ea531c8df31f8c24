"""`scripts/simulate`: many seeds of the scenarios, on several processors; a failing one replays exactly."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import click

from tests.simulation.aging import run_aging
from tests.simulation.cluster import ENGINE_MUTANTS
from tests.simulation.delaying import run_delaying
from tests.simulation.faults import FaultPlan
from tests.simulation.mutants import RUNTIME_MUTANTS, mutated
from tests.simulation.resetting import run_resetting
from tests.simulation.scenario import run_shop
from tests.simulation.toy import run_toy
from tests.simulation.upgrading import run_upgrading
from tests.simulation.world import Result

__all__ = ["ALL_MUTANTS", "main", "run_seed", "run_seeds", "scenario_of"]

#: The whole runtime in different circumstances; "toy" is a consumer on the bare port.
SCENARIOS: dict[str, Callable[..., Result]] = {
    "shop": run_shop,
    "resetting": run_resetting,
    "aging": run_aging,
    "upgrading": run_upgrading,
    "delaying": run_delaying,
    "toy": run_toy,
}
#: Of seven consecutive seeds each scenario gets its share.
_MIXTURE = ("shop", "resetting", "shop", "aging", "shop", "upgrading", "delaying")
ALL_MUTANTS = (*ENGINE_MUTANTS, *RUNTIME_MUTANTS)

_CHUNK = 20
_SHOWN_MAX = 5


def scenario_of(seed: int, scenario: str = "mixed") -> str:
    """The scenario that a seed runs."""
    return _MIXTURE[seed % len(_MIXTURE)] if scenario == "mixed" else scenario


def run_seed(
    seed: int, *, scenario: str = "mixed", mutant: str = "", read_faults: bool = True, keep_trace: bool = False
) -> Result:
    """One seed of a scenario, under the faults that it draws."""
    # What the runtime warns of is injected, and there is much of it.
    logging.disable(logging.CRITICAL)
    try:
        name = scenario_of(seed, scenario)
        # The toy doesn't ask again.
        plan = FaultPlan.by_seed(seed, read_faults=read_faults and name != "toy")
        engine_mutant = mutant if mutant in ENGINE_MUTANTS else ""
        with mutated(mutant):
            return SCENARIOS[name](seed, plan, mutant=engine_mutant, keep_trace=keep_trace)
    finally:
        logging.disable(logging.NOTSET)


def run_seeds(
    first: int, count: int, *, jobs: int, scenario: str = "mixed", mutant: str = "", read_faults: bool = True
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
@click.option("--scenario", type=click.Choice(("mixed", *SCENARIOS)), default="mixed", show_default=True)
@click.option("--mutant", type=click.Choice(("", *ALL_MUTANTS)), default="", help="Something that is wrong on purpose.")
@click.option("--read-faults/--no-read-faults", default=True, show_default=True, help="Let reads be refused too.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Processes.")
def main(seeds: int, first: int, seed: int | None, scenario: str, mutant: str, read_faults: bool, jobs: int) -> None:
    """Run the simulation. Ends with 1 if a seed is not sound, or, with --mutant, if every seed is."""
    if seed is not None:
        _replay(run_seed(seed, scenario=scenario, mutant=mutant, read_faults=read_faults, keep_trace=True), scenario)
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
        click.echo(f"{scenario_of(result.seed, scenario)}, {result}")
    if broken:
        again = f"--scenario {scenario}" + (f" --mutant {mutant}" if mutant else "")
        again += "" if read_faults else " --no-read-faults"
        click.echo(f"Replay one with: scripts/simulate --seed {broken[0].seed} {again}")
    raise SystemExit(bool(broken) != bool(mutant))


def _replay(result: Result, scenario: str) -> None:
    for line in result.trace or ():
        click.echo(line)
    click.echo(f"{scenario_of(result.seed, scenario)} under {FaultPlan.by_seed(result.seed)}\n{result}")
    raise SystemExit(bool(result.problems))


if __name__ == "__main__":
    main()
