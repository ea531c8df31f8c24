"""`crash_points`: proof that a process may die anywhere in handlers, and the effects are those of one execution."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from postline.app import App, Environment, open_log
from postline.clock import SystemClock
from postline.errors import UsageError
from postline.log.port import Log
from postline.settings import load_settings
from postline.testing.crashing import Orders, Point, load
from postline.testing.namespaces import remove_namespace

__all__ = ["CrashReport", "Feed", "Finding", "Point", "crash_points"]

#: Publishes or sends what the app is to handle; awaited with the app, which is started but handles nothing here.
Feed = Callable[[App], Awaitable[object]]


@dataclass(frozen=True)
class Finding:
    """A boundary at which a process that dies changes the effects."""

    point: Point
    expected: Any
    found: Any

    def __str__(self) -> str:
        return (
            f"killed {_named(self.point)}\n"
            f"  once:   {self.expected!r:.600}\n"
            f"  killed: {self.found!r:.600}\n"
            "  fix: make it the same when it is done again: key it by ctx.idempotency_key or by what the message names,"
            " put it into ctx.state, or publish it through ctx."
        )


@dataclass
class CrashReport:
    """What a search for crash points found."""

    #: All boundaries of one execution, in their order, and those at which a process was killed.
    points: list[Point]
    killed: list[Point]
    #: What one execution, without a crash, left.
    effects: Any
    findings: list[Finding] = field(default_factory=list)
    #: Boundaries that were to be tried and were not there again. Of commits they may be: one held more this time.
    missed: list[Point] = field(default_factory=list)

    def require(self, *, missed: bool = False) -> None:
        """Raise AssertionError with every finding, and where it stands.

        Also if a boundary of a handler could not be tried, unless `missed` ones may be there, of which the report
        tells; and if less than half of all could.
        """
        if len(self.killed) <= len(self.missed):
            raise AssertionError(
                f"Only {len(self.killed)} processes were killed, {len(self.missed)} boundaries were not reached again:"
                " does `feed` publish what the app handles, and does it handle that alike each time?"
            )
        untried = [] if missed else [each for each in self.missed if not each.kind.endswith(" the commit")]
        if untried:
            number = f"{len(untried)} boundaries of handlers were not reached again, so that nobody died there:"
            fix = "  fix: have handlers do the same in each run (no dice, clocks or files from outside); or allow for"
            fix += " them: crash_points(…).require(missed=True)."
            raise AssertionError("\n".join([number, *(f"missed {_named(each)}" for each in untried), fix]))
        if self.findings:
            number = f"{len(self.findings)} of {len(self.killed)} crash points change the effects:"
            raise AssertionError("\n".join([number, *map(str, self.findings)]))


def crash_points(
    target: str,
    feed: Feed,
    effects: Callable[[Path], Any] = lambda directory: None,
    *,
    url: str | None = None,
    inside: Sequence[str] = (),
    max_points: int = 200,
    timeout_seconds: float = 60.0,
) -> CrashReport:
    """Kill a process of the app at each boundary, let another one go on, and compare the effects with one execution's.

    `target` is "module:name" of the app. `feed` publishes what it is to handle. Boundaries are before and after each
    handler, each commit of Postline, each `execute` and `commit` of the standard library's sqlite3 in a handler, and
    each call of the functions that `inside` names ("psycopg:Connection.commit", "shop.bank:charge").

    Each run has a directory of its own, which is the process's working directory and holds a new log; or, where `url`
    names brokers, a namespace of its own there. `effects` is called with that directory after each run and gives what
    is compared; what the app's own topics hold is compared besides. Handlers run one at a time. With more boundaries
    than `max_points`, evenly chosen ones are tried. Blocks; may be called where an event loop runs. The report's
    `require` fails the test. Raises UsageError for a target that is no app, for an execution that fails without a
    crash, and for two of them that differ.
    """
    search = _Search(target, feed, effects, url, tuple(inside), timeout_seconds)
    with ThreadPoolExecutor(1) as thread:  # feeding needs an event loop of its own
        return thread.submit(search.run, max_points).result()


@dataclass(frozen=True)
class _Search:
    target: str
    feed: Feed
    effects: Callable[[Path], Any]
    url: str | None
    inside: tuple[str, ...]
    timeout_seconds: float

    def run(self, max_points: int) -> CrashReport:
        points, expected = self._once(None)
        again = self._once(None)[1]
        if again != expected:
            raise UsageError(
                f"Two executions without a crash differ: {expected!r:.300} and {again!r:.300}.",
                remedy="Compare what is the same each time: leave times, fresh ids and order between keys out.",
            )
        chosen = _evenly(points, max_points)
        report = CrashReport(points, [], expected)
        for point in chosen:
            reached, found = self._once(point)
            if point not in reached:
                report.missed.append(point)  # as a commit that held more this time
                continue
            report.killed.append(point)
            if found != expected:
                report.findings.append(Finding(point, expected, found))
        return report

    def _once(self, kill_at: Point | None) -> tuple[list[Point], Any]:
        """One execution, with a crash there: the boundaries up to it, and the effects in the end."""
        with tempfile.TemporaryDirectory(prefix="postline-crash-") as place:
            directory = Path(place)
            around = self._environment(directory)
            try:
                return self._executed(directory, around, kill_at)
            finally:
                if self.url is not None:
                    remove_namespace(load_settings(around, Path.cwd()))

    def _executed(self, directory: Path, around: dict[str, str], kill_at: Point | None) -> tuple[list[Point], Any]:
        asyncio.run(self._fed(around))
        code, reached = self._process(directory, around, kill_at)
        if code == -signal.SIGKILL and kill_at is not None:
            code, _ = self._process(directory, around, None)
        if code:
            raise UsageError(
                f"The app ended with exit code {code}: {(directory / 'said').read_text()[-2_000:]}",
                remedy="Make it handle what `feed` publishes, first without a crash.",
            )
        return reached, (self.effects(directory), asyncio.run(self._topics(around)))

    def _environment(self, directory: Path) -> dict[str, str]:
        found = {name: said for name, said in os.environ.items() if not name.startswith("POSTLINE_")}
        found["PYTHONPATH"] = os.pathsep.join([os.getcwd(), *filter(None, sys.path)])
        found["POSTLINE_URL"] = self.url or f"sqlite:///{directory / 'log' / 'crash.db'}"
        if self.url is not None:
            found["POSTLINE_NAMESPACE"] = directory.name.replace("_", "-")
        (directory / "log").mkdir()
        return found

    def _process(self, directory: Path, around: dict[str, str], kill_at: Point | None) -> tuple[int, list[Point]]:
        told = directory / "log" / f"points-{len(list((directory / 'log').glob('points-*')))}"
        orders = Orders(self.target, list(self.inside), str(told), kill_at)
        (directory / "log" / "orders.json").write_bytes(msgspec.json.encode(orders))
        command = [sys.executable, "-m", "postline.testing.crashing", str(directory / "log" / "orders.json")]
        with (directory / "said").open("ab") as said:
            try:
                ended = subprocess.run(
                    command, check=False, cwd=directory, env=around, stderr=said, timeout=self.timeout_seconds
                )
            except subprocess.TimeoutExpired as error:
                after = "" if kill_at is None else f", after it was to be killed {kill_at.kind} of {kill_at.record}"
                raise UsageError(
                    f"The app had not handled everything after {self.timeout_seconds:g} s{after}.",
                    remedy="Look for what it waits for; or give more timeout_seconds.",
                ) from error
        lines = told.read_bytes().splitlines() if told.exists() else []
        return ended.returncode, [msgspec.json.decode(line, type=Point) for line in lines]

    async def _fed(self, around: dict[str, str]) -> None:
        app = load(self.target)
        environment = _opened(around)
        await app.start(environment, consume=False)
        try:
            await self.feed(app)
        finally:
            await app.stop()
            await environment.log.close()

    async def _topics(self, around: dict[str, str]) -> dict[str, list[Any]]:
        """What the app's own topics hold: type, key and value, in the order of each partition."""
        app, environment = load(self.target), _opened(around)
        await environment.log.start()
        try:
            fresh = {each.tickets.name for each in app.command_topics}  # their keys are ids of requests
            return {
                topic.name: await _records(environment.log, environment.settings.full_name(topic.name))
                for topic in app.owns
                if topic.name not in fresh
            }
        finally:
            await environment.log.close()


def _named(point: Point) -> str:
    where = f", in {point.place}" if point.place else ""
    attempt = f", attempt {point.attempt}" if point.attempt else ""
    record = f" of {point.record}{attempt}" if point.record else ""
    return f"{point.kind}{record}{where}"


def _opened(around: dict[str, str]) -> Environment:
    settings, clock = load_settings(around, Path.cwd()), SystemClock()
    return Environment(open_log(settings, clock), settings, clock)


async def _records(log: Log, topic: str) -> list[Any]:
    found: list[Any] = []
    for partition, bounds in enumerate(await log.bounds(topic)):
        at = bounds.start
        while page := await log.read(topic, partition, at):
            found += [(record[3], record[2], record[4]) for record in page]
            at = page[-1][0] + 1
    return sorted(found, key=lambda each: each[1] or b"")  # which keeps the order of each key


def _evenly(points: list[Point], most: int) -> list[Point]:
    if len(points) <= most:
        return points
    step = len(points) / most
    return [points[int(number * step)] for number in range(most)]
