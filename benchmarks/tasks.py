"""Tasks sent, run and their results kept, beside Celery and Dramatiq on Redis and huey on SQLite, all of which sync."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from benchmarks.peers import redis_server
from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import Options, best, directory, run

__all__ = ["tasks"]

_CALLERS = 100
_WORKER = "benchmarks.tasks_on_{}"
#: Where the peers' modules find their log.
_PLACE = "POSTLINE_BENCH_PLACE"
_WARM_UP = 200


def tasks(options: Options) -> Result:
    """One client and one worker process; the clock runs from the first send to the last result."""
    result = Result("tasks", "tasks sent, run, results kept and read; one worker process, everything synced")
    number, fewer = options.some(20_000), (options.some(2_000), options.rounds)
    singly, together = _on_postline(number, options.rounds)
    result.figures += [Figure("postline, send by 100 callers", singly), Figure("postline, send_many", together)]
    rates = {}
    with redis_server(result, "always") as port:
        for name in ("celery", "dramatiq") if port else ():
            rates[f"{name} on Redis, appendfsync always"] = _on_peer(name, str(port), fewer, result)
    with directory() as place:
        rates["huey on SQLite at FULL"] = _on_peer("huey", str(Path(place) / "huey.db"), fewer, result)
    for who, rate in rates.items():
        if rate is not None:
            result.figures.append(Figure(who, rate))
            result.ratios.append(Ratio(who, singly / rate, 5))
    return result


def _on_postline(number: int, rounds: int) -> tuple[float, float]:
    singly: list[float] = []
    together: list[float] = []

    async def main(place: str) -> None:
        os.environ["POSTLINE_URL"] = f"sqlite:///{place}/tasks.db"
        from benchmarks.tasks_on_postline import app, work

        await app.start(consume=False)
        with _worker([sys.executable, "-m", "postline", "run", "benchmarks.tasks_on_postline:app"], {}):
            await asyncio.gather(*[work.request("warm", each) for each in range(_WARM_UP)])
            for _ in range(rounds):
                began = time.perf_counter()
                await asyncio.gather(*(_caller(first, number) for first in range(_CALLERS)))
                singly.append(number / (time.perf_counter() - began))
                began = time.perf_counter()
                tickets = await work.send_many(work.message("cat.jpg", each) for each in range(number))
                for ticket in tickets:
                    await ticket.result()
                together.append(number / (time.perf_counter() - began))
        await app.stop()

    async def _caller(first: int, number: int) -> None:
        from benchmarks.tasks_on_postline import work

        tickets = [await work.send("cat.jpg", each) for each in range(first, number, _CALLERS)]
        for ticket in tickets:
            await ticket.result()

    with directory() as place:
        run(lambda: main(place))
    return best(singly), best(together)


def _on_peer(name: str, place: str, size: tuple[int, int], result: Result) -> float | None:
    """The rate of a peer; None, and a note, where it isn't installed."""
    if find_spec(name) is None:
        result.notes.append(f"{name} skipped: it is not installed (scripts/bench installs it).")
        return None
    number, rounds = size
    os.environ[_PLACE] = place
    module = __import__(_WORKER.format(name), fromlist=["send"])
    send: Callable[[int], Callable[[], int]] = module.send
    with _worker(module.WORKER, {_PLACE: place}), ThreadPoolExecutor(module.CALLERS) as callers:
        _all_results(map(send, range(_WARM_UP)))
        rates = []
        for _ in range(rounds):
            began = time.perf_counter()
            _all_results(callers.map(send, range(number)))
            rates.append(number / (time.perf_counter() - began))
        gc.collect()  # results that go when their server has gone would look for it
        return best(rates)


def _all_results(sent: Iterable[Callable[[], object]]) -> None:
    for result_of in list(sent):
        result_of()


@contextmanager
def _worker(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    """A process that works until it is told to end; what it says is shown when it ends before."""
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError(f"{command} ended with {process.returncode}")
    finally:
        process.terminate()
        process.wait()
