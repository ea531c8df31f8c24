"""How long the write lock is held while another thread of the process computes."""

from __future__ import annotations

import statistics
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from benchmarks.orders import order, orders
from benchmarks.publishing import by_callers
from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import Options, directory, open_log, run, running
from postline import App
from postline.log.sqlite.log import SqliteLog

__all__ = ["lock_hold"]


class _Timed:
    """The log's write lock, with a stopwatch."""

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self._lock = lock
        self._began = 0.0
        self.held: list[float] = []

    def __enter__(self) -> None:
        self._lock.__enter__()
        self._began = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, trace)
        self.held.append(time.perf_counter() - self._began)


class _Busy:
    """A thread that computes in Python for as long as it is open."""

    def __enter__(self) -> None:
        self._over = False
        self._thread = threading.Thread(target=self._compute, daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()

    def _compute(self) -> None:
        number = 1
        while not self._over:
            number = number * 31 % 1_000_003


def lock_hold(options: Options) -> Result:
    """publish_many (1,000 to a commit) and 100 callers beside a CPU-bound thread."""
    result = Result("lock-hold", "write lock held beside a CPU-bound thread")
    held: dict[str, list[float]] = {}

    async def main() -> None:
        shop = App("shop", owns=[orders])
        async with open_log(Path(place) / "bench.db") as environment, running(shop, environment):
            assert isinstance(environment.log, SqliteLog)
            writer = environment.log.storage.writer
            timed = writer._lock = _Timed(writer._lock)
            with _Busy():
                for name in ("publish_many", "100 callers"):
                    timed.held = held[name] = []
                    if name == "publish_many":
                        await shop.publish_many([order(each) for each in range(options.some(100_000))])
                    else:
                        await by_callers(shop, [order(each) for each in range(options.some(10_000))])

    with directory() as place:
        run(main)
    for name, times in held.items():
        parts = statistics.quantiles(times, n=100)
        result.figures += [Figure(f"{name} p50", parts[49] * 1000, "ms"), Figure(f"{name} p99", parts[98] * 1000, "ms")]
        result.figures.append(Figure(f"{name} longest", max(times) * 1000, "ms"))
        result.ratios.append(Ratio(f"{name} p99", parts[98] * 1000, 20, at_least=False, unit="ms"))
    return result
