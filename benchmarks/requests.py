"""Requests: a command's way to its reply and back, one at a time and with 100 under way, in one process on a file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from msgspec import Struct

from benchmarks import raw
from benchmarks.orders import order
from benchmarks.peers import redis_server
from benchmarks.request_peers import celery_requests, faststream_requests, nats_server
from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import Options, best, directory, open_log, run, running, settle
from postline import App, CommandTopic
from postline.log.sqlite.log import SqliteLog

__all__ = ["requests"]

_UNDER_WAY = 100
#: A way to make so many requests.
_Way = Callable[[App, int], Coroutine[Any, Any, None]]
_ALONE_SECONDS_MORE = 0.0003

_LEDGER = CommandTopic("ledger", owner="ledger", key="source")


class Transferred(Struct, frozen=True):
    """The reply."""

    left: int


@_LEDGER.command("ledger.Transfer", reply=Transferred)
class Transfer(Struct, frozen=True):
    """The command."""

    source: str
    target: str
    amount: int
    note: str = "as agreed on the phone this morning, for the third quarter"


def _service() -> App:
    app = App("ledger", owns=[_LEDGER])

    @app.serve(_LEDGER).on(Transfer)
    async def transfer(command: Transfer) -> Transferred:
        return Transferred(command.amount)

    return app


async def _alone(app: App, number: int) -> None:
    for each in range(number):
        await app.request(Transfer(f"account {each % 1000}", "bob", each))


async def _together(app: App, number: int) -> None:
    async def caller(first: int) -> None:
        for each in range(first, number, _UNDER_WAY):
            await app.request(Transfer(f"account {each % 1000}", "bob", each))

    await asyncio.gather(*(caller(first) for first in range(_UNDER_WAY)))


def _measured(
    options: Options, number: int, ask: Callable[[App, int], Coroutine[Any, Any, None]]
) -> tuple[float, float, float]:
    """Requests a second, single commits of one row a second in the same turns, and the log's commits for each."""
    rates: list[float] = []
    commits: list[float] = []
    made: list[float] = []
    rows = [order(each) for each in range(500)]

    async def main() -> None:
        path = Path(place) / "bench.db"
        async with open_log(path) as environment, running(_service(), environment) as app:
            assert isinstance(environment.log, SqliteLog)
            writer = environment.log.storage.writer
            await ask(app, 200)
            for _ in range(options.rounds):
                settle(path)
                commits.append(raw.single_commits(Path(place) / "raw.db", rows))
                began, before = time.perf_counter(), writer.commits
                await ask(app, number)
                rates.append(number / (time.perf_counter() - began))
                made.append((writer.commits - before) / number)

    with directory() as place:
        run(main)
    return best(rates), best(commits), max(made)


def requests(options: Options) -> Result:
    """Request to reply; targets: alone two commits' time and 0.3 ms at most, 100 under way 0.3 commits each."""
    alone, commits, _ = _measured(options, options.some(2_000), _alone)
    together, commits_then, made = _measured(options, options.some(20_000), _together)
    result = Result("requests", "a command to its reply, one process, each stored twice with an fsync")
    result.figures += [
        Figure("single commits", commits),
        Figure("Postline, one at a time", alone),
        Figure(f"Postline, {_UNDER_WAY} under way", together),
    ]
    limit = 1 / (2 / commits + _ALONE_SECONDS_MORE)
    result.ratios += [
        Ratio("one at a time, of two commits + 0.3 ms", alone / limit, 1.0),
        Ratio(f"{_UNDER_WAY} under way, commits made for each", made, 0.3, at_least=False, unit=""),
        Ratio(f"{_UNDER_WAY} under way, in times of a single commit each", commits_then / together, unit=""),
    ]
    _peers(options, result, alone, together)
    return result


def _peers(options: Options, result: Result, alone: float, together: float) -> None:
    with nats_server(result) as port:
        if port is not None:
            singly = faststream_requests(port, options.some(2_000), 1)
            many = faststream_requests(port, options.some(5_000), _UNDER_WAY)
            result.figures.append(Figure("FastStream on NATS, one at a time", singly))
            result.figures.append(Figure(f"FastStream on NATS, {_UNDER_WAY} under way", many))
            result.ratios.append(Ratio("one at a time, beside FastStream on NATS (stores nothing)", alone / singly))
            result.ratios.append(Ratio(f"{_UNDER_WAY} under way, beside it", together / many))
    with redis_server(result) as port:
        if port is not None and (rate := celery_requests(port, options.some(500))) is not None:
            result.figures.append(Figure("Celery on Redis, one at a time", rate))
            result.ratios.append(Ratio("one at a time, beside Celery on Redis", alone / rate))
