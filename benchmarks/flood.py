"""A flood of submissions before a backend that takes 500 a second: accepted, drained, and slowed by a bound."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import Options, directory, run
from examples import flood as example
from postline import App, Bound, Topic
from postline.app import open_environment
from postline.clock import SystemClock
from postline.monitor import Monitor, SubscriptionView

__all__ = ["flood"]

_ROOT = Path(__file__).resolve().parent.parent
_MANY = 100_000
_BOUNDED = 20_000
_BOUND = 5_000
_LOOK_SECONDS = 0.5


def flood(options: Options) -> Result:
    """The voting example as processes: the flood without a bound until all is counted, then a smaller one with it."""
    result = Result("flood", f"{options.some(_MANY):,} submissions, a backend of 500/s")

    async def main() -> None:
        await _accepted_and_drained(result, f"sqlite:///{place}/flood.db", options.some(_MANY))
        await _slowed(result, f"sqlite:///{place}/bounded.db", options.some(_BOUNDED), options.some(_BOUND))

    with directory() as place:
        run(main)
    return result


class _Seen:
    """What was seen of a service while it worked."""

    def __init__(self) -> None:
        self.resident_mb: list[float] = []
        self.lags: list[int] = []
        #: When it was seen, how many were behind, and when it was said to be at the end.
        self.forecasts: list[tuple[float, float]] = []
        self.drained: list[float] = []
        self.used: list[float] = []

    def look(self, pid: int, view: SubscriptionView) -> None:
        self.resident_mb.append(_resident_mb(pid))
        self.lags.append(view.lag_records)
        if view.drained_per_second and view.lag_records > _BOUND:
            self.drained.append(view.drained_per_second)
        if view.drains_in_seconds and view.lag_records > 2_000 and view.added_per_second == 0:
            self.forecasts.append((time.monotonic(), view.drains_in_seconds))
        if view.bound is not None:
            self.used.append(view.bound.used)


async def _accepted_and_drained(result: Result, url: str, number: int) -> None:
    async with _service(url) as process, _sender(url, None) as sender:
        seen, began = _Seen(), time.monotonic()
        watching = asyncio.create_task(_watch(sender, process.pid, number, seen))
        flooded = await example.submit(sender, number)
        accepted_seconds = time.monotonic() - began
        publisher_mb = _resident_mb(os.getpid())
        await watching
        at_end = time.monotonic()
        audit = await Monitor(sender.log, SystemClock()).audit("counting")
    assert audit.balanced, audit
    assert audit.outcomes["done"] == number == flooded.accepted, audit
    quarter = len(seen.resident_mb) // 4
    result.figures += [
        Figure("accepted, each durable", number / accepted_seconds),
        Figure("drained", sorted(seen.drained)[len(seen.drained) // 2]),
        Figure("drained whole in", at_end - began, "s"),
        Figure("most behind", max(seen.lags), "records"),
        Figure("service resident, first quarter", max(seen.resident_mb[: quarter or 1]), "MB"),
        Figure("service resident, last quarter", max(seen.resident_mb[-quarter or -1 :]), "MB"),
        Figure("publisher resident after the flood", publisher_mb, "MB"),
    ]
    if seen.forecasts:
        off = [abs(said - (at_end - when)) / (at_end - when) for when, said in seen.forecasts]
        result.ratios.append(Ratio("time to drain: forecast off by, median", sorted(off)[len(off) // 2], unit="%"))
    result.notes.append(f"nothing lost: the audit balances with {number:,} done")


async def _slowed(result: Result, url: str, number: int, bound: int) -> None:
    async with _service(url, BOUND=str(bound)) as process, _sender(url, bound) as sender:
        seen, began = _Seen(), time.monotonic()
        watching = asyncio.create_task(_watch(sender, process.pid, number, seen))
        flooded = await example.submit(sender, number)
        seconds = time.monotonic() - began
        await watching
        audit = await Monitor(sender.log, SystemClock()).audit("counting")
    assert audit.balanced, audit
    assert audit.outcomes["done"] == number, audit
    result.figures += [
        Figure(f"bound of {bound:,}: accepted", number / seconds),
        Figure(f"bound of {bound:,}: most behind", max(seen.lags), "records"),
        Figure(f"bound of {bound:,}: refused for now", flooded.refused, "times"),
    ]
    result.ratios.append(Ratio("most of the bound that was used", max(seen.used), 1.05, at_least=False, unit="%"))


@asynccontextmanager
async def _service(url: str, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "postline", "run", str(_ROOT / "examples" / "flood.py"), "--url", url),
        env={**os.environ, "PYTHONPATH": str(_ROOT / "src"), **variables},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    while b": running" not in (line := await process.stderr.readline()):
        assert line, "the service ended"
    try:
        yield process
    finally:
        process.terminate()
        await process.communicate()


@asynccontextmanager
async def _sender(url: str, bound: int | None) -> AsyncIterator[App]:
    """Publishes the example's votes, to a topic with this bound."""
    limit = None if bound is None else Bound(records=bound, subscriptions=("counting",), wait_seconds=1.0)
    topic = Topic(example.votes.name, owner="polls", key="voter", bound=limit)
    topic.event("polls.VoteCast")(example.VoteCast)
    app, environment = App("voters", publishes_to=[topic]), open_environment(url)
    await app.start(environment, consume=False)
    try:
        yield app
    finally:
        await app.stop()
        await environment.log.close()


async def _watch(sender: App, pid: int, number: int, seen: _Seen) -> None:
    """Look twice a second until so many are counted."""
    monitor = Monitor(sender.log, SystemClock())
    while True:
        view = await monitor.subscription("counting")
        seen.look(pid, view)
        if sum(each.position for each in view.partitions) >= number:
            return
        await asyncio.sleep(_LOOK_SECONDS)


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
