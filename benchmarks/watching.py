"""What the watchdog and the watch on the event loop cost, while handlers are at work and while nothing happens."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from benchmarks.consuming import no_op
from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import Options, best, billing, consumed, directory, filled, open_log, run, running, settle
from postline.clock import SystemClock
from postline.runtime.loop_watch import LoopWatch

_IDLE_SECONDS = 20


def watchdog(options: Options) -> Result:
    """The rate of a no-op handler, and the processor time of an idle process, with and without both."""
    result = Result("watchdog", "the watchdog and the watch on the loop beside neither")
    rates: dict[bool, list[float]] = {False: [], True: []}
    idle: dict[bool, list[float]] = {False: [], True: []}
    number = options.some(200_000)

    async def main() -> None:
        path = Path(place) / "bench.db"
        async with open_log(path) as environment:
            await filled(environment, number)
            for turn in range(options.rounds):
                for watches in (False, True):
                    settle(path)
                    app, own = billing(False), replace(environment, watches=watches)
                    no_op(app, f"{watches}-{turn}")
                    with LoopWatch(SystemClock()) if watches else nullcontext():
                        rates[watches].append(await consumed(app, own, number))
                        async with running(app, own):
                            before = time.process_time()
                            await asyncio.sleep(options.some(_IDLE_SECONDS))
                            idle[watches].append(time.process_time() - before)
                        for name in app.subscriptions:
                            await environment.log.remove_subscription(name)

    with directory() as place:
        run(main)
    for watches, name in ((False, "without"), (True, "with")):
        result.figures.append(Figure(name, best(rates[watches])))
        share = min(idle[watches]) / options.some(_IDLE_SECONDS)
        result.figures.append(Figure(f"{name}: of a processor when idle", share * 100, unit="%"))
    result.ratios.append(Ratio("rate kept", best(rates[True]) / best(rates[False]), 0.97, unit="%"))
    return result
