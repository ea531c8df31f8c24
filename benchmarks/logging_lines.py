"""What it costs to note each attempt, as is done once tasks that handlers made have logged; in pairs."""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks.consuming import no_op
from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import Options, best, billing, consumed, directory, filled, open_log, run, settle
from postline.runtime.crew import Crew

__all__ = ["logging_lines"]


def logging_lines(options: Options) -> Result:
    """The rate of a no-op handler whose attempts are noted in the context variable, beside none."""
    result = Result("logging", "each attempt noted for tasks that log, beside none")
    rates: dict[bool, list[float]] = {False: [], True: []}
    number = options.some(200_000)

    async def main() -> None:
        path = Path(place) / "bench.db"
        async with open_log(path) as environment:
            await filled(environment, number)
            for turn in range(2 * options.rounds):
                for notes in (False, True) if turn % 2 else (True, False):
                    Crew.exact = notes
                    settle(path)
                    app = billing(False)
                    no_op(app, f"{notes}-{turn}")
                    rates[notes].append(await consumed(app, environment, number))

    with directory() as place:
        try:
            run(main)
        finally:
            Crew.exact = False
    result.figures.append(Figure("without", best(rates[False])))
    result.figures.append(Figure("with", best(rates[True])))
    pairs = [b / a for a, b in zip(rates[False], rates[True], strict=True)]
    result.figures.append(Figure("median of pairs kept", statistics.median(pairs) * 100, unit="%"))
    result.ratios.append(Ratio("rate kept", best(rates[True]) / best(rates[False]), 0.9, unit="%"))
    return result
