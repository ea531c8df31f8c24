"""The kill loop on real processes over one file: `python -m tests.fault.soak --kills 200 --seed 1`.

Publishers, workers, an operator and a keeper of retention and compaction are killed with SIGKILL in the middle of what
they do and started again; at the end everything is drained, and file and journals are judged. Exit code 0: every
guarantee was kept; 1: it was not, or something is stuck. Then the directory is kept, with file, journals and logs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from postline.clock import SystemClock
from tests.fault.nemesis import Nemesis, Stuck
from tests.fault.scenario import Scenario
from tests.fault.verdict import Findings, judge
from tests.simulation.checks import Problem

__all__ = ["main", "soak"]


async def soak(scenario: Scenario, directory: Path, report: Callable[[str], None]) -> Findings:
    """Run the scenario in an empty directory; what was found, with figures."""
    clock, nemesis = SystemClock(), Nemesis(scenario, directory, report)
    began = clock.monotonic()
    try:
        await nemesis.run()
    except Stuck as stuck:
        findings = Findings([Problem("stuck", str(stuck))])
    else:
        report("judging")
        findings = await judge(directory)
    findings.figures |= {
        "seed": scenario.seed,
        "kills": nemesis.kills,
        "restarts": nemesis.restarts,
        "freezes": nemesis.freezes,
        "kills by role": dict(nemesis.by_role),
        "kills within": dict(nemesis.by_phase),
        "seconds": round(clock.monotonic() - began, 1),
    }
    return findings


def main(arguments: Sequence[str]) -> int:
    """Parse, run, print figures; gives the exit code."""
    parser = argparse.ArgumentParser(prog="soak", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--kills", type=int, default=200, help="how many processes are killed (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides messages, victims and moments (%(default)s)")
    parser.add_argument("--restarts", type=int, default=0, help="how many workers are stopped with SIGTERM besides")
    parser.add_argument("--freezes", type=int, default=0, help="how many are stopped past their lease with SIGSTOP")
    parser.add_argument("--lease", type=float, default=10.0, help="seconds of silence after which one is given up")
    parser.add_argument("--served", action="store_true", help="workers are `postline run`")
    parser.add_argument("--mixed", action="store_true", help="two versions of the services work side by side")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="an empty directory to leave everything in")
    options = parser.parse_args(arguments)
    directory = options.keep or Path(tempfile.mkdtemp(prefix="postline-soak-"))
    directory.mkdir(parents=True, exist_ok=True)
    scenario = Scenario(
        seed=options.seed,
        kills=options.kills,
        restarts=options.restarts,
        freezes=options.freezes,
        mixed=options.mixed,
        served=options.served,
        lease_seconds=options.lease,
    )

    def report(text: str) -> None:
        sys.stderr.write(text + "\n")

    findings = asyncio.run(soak(scenario, directory, report))
    sys.stdout.write(json.dumps(findings.figures, indent=2) + "\n")
    if not findings.problems:
        if options.keep is None:
            shutil.rmtree(directory)
        report("nothing lost, nothing doubled, order kept, audit balanced")
        return 0
    for problem in findings.problems[:20]:
        report(str(problem))
    report(f"{len(findings.problems)} problems with seed {options.seed}; see {directory}")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
