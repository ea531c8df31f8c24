"""The process that `crash_points` runs: an app whose boundaries are told, at one of which it kills itself."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import os
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec

from postline.app import App, open_environment
from postline.app.explaining import function_of
from postline.errors import UsageError
from postline.events import Subscription
from postline.log.port import Assignment, CommitUnit, GroupSpec, Log, Membership, PartitionOwner
from postline.logs.handled import HANDLED
from postline.runtime.handlers import Handler
from postline.runtime.plan import Plan
from postline.runtime.progress import Progress

__all__ = ["Orders", "Point", "load"]

_LOOK_SECONDS = 0.02


class Point(msgspec.Struct, frozen=True):
    """One boundary at which a process may end, by what stays the same from run to run."""

    #: "before the handler", "after the handler", "before the commit", "after the commit", "before NAME", "after NAME".
    kind: str
    #: Of a commit "".
    subscription: str
    #: Topic, partition and offset of the record; of a commit, topics, partitions and the positions that it stores. Of
    #: topics without keys partitions are left out: their records go where their fresh ids say.
    record: str
    #: Of a commit 0.
    attempt: int
    #: Which of those that are the same in all of this.
    number: int
    #: Where the handler stands: its module, name, file and line.
    place: str


class Orders(msgspec.Struct):
    """What the process is to do."""

    target: str
    #: Functions that are boundaries as well: "module:function" or "module:Class.method".
    inside: list[str]
    #: Where points are written to, one JSON object a line.
    told: str
    #: Where it ends by SIGKILL; None for nowhere.
    kill_at: Point | None = None


def load(target: str) -> App:
    """The app that `module:name` names. Raises UsageError for what names none."""
    module, _, name = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), name or "app", None)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{target!r} names no app: {error}.", remedy="Name a module that can be imported here."
        ) from error
    if not isinstance(found, App):
        raise UsageError(f"{target!r} names no app.", remedy='Say "module:name" of one.')
    return found


class Boundaries:
    """Tells each boundary that is reached, and ends the process at the one that it was told.

    Called from the event loop and from handlers' threads, of which one runs at a time.
    """

    def __init__(self, orders: Orders, prefix: str) -> None:
        self._kill_at = orders.kill_at
        #: What names begin with on this run's log, and on no other's.
        self._prefix = prefix
        self._file = os.open(orders.told, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._seen = Counter[tuple[str, str, str, int]]()
        self.places: dict[str, str] = {}
        #: Topics whose records have no key.
        self.keyless: set[str] = set()

    def reach(self, kind: str, committed: str = "") -> None:
        """This boundary; the record is that of the attempt that runs here, if one does."""
        handled = HANDLED.get()
        at = {} if handled is None else handled.log_fields()
        key = (kind, "", committed, 0)
        if "offset" in at:
            subscription, topic = self.short(at["subscription"]), self.short(at["topic"])
            place = "without a key" if at["topic"] in self.keyless else f"{at['partition']}:{at['offset']}"
            key = (kind, subscription, f"{topic} {place}", at["attempt"])
        self._seen[key] += 1
        point = Point(*key, self._seen[key], self.places.get(f"{key[1]} {at.get('handler')}", ""))
        os.write(self._file, msgspec.json.encode(point) + b"\n")
        if point == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def short(self, name: str) -> str:
        """The name that the app gave to what has this one on the log."""
        return name.removeprefix(self._prefix)

    def named(self, unit: CommitUnit) -> str:
        """A commit by where partitions stand after it: how many there are before it is not the same in each run."""
        places, sums = list[tuple[str, int, int]](), Counter[str]()
        for part in unit:
            topic = self.short(part.assignment.topic)
            if part.assignment.topic in self.keyless:
                sums[topic] += part.position
            else:
                places.append((topic, part.assignment.partition, part.position))
        named = [f"{topic} {partition} to {position}" for topic, partition, position in sorted(places)]
        return ", ".join([*named, *(f"{topic} to {passed} in all" for topic, passed in sorted(sums.items()))])

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with a boundary before and after each call that returns."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def calls(*arguments: Any, **named: Any) -> Any:
                self.reach(f"before {name}")
                result = await function(*arguments, **named)
                self.reach(f"after {name}")
                return result

            return calls

        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            self.reach(f"before {name}")
            result = function(*arguments, **named)
            self.reach(f"after {name}")
            return result

        return call


# -- what is watched -------------------------------------------------------------------------------------


def watch_handlers(app: App, boundaries: Boundaries) -> None:
    """Make a boundary of the beginning and the end of each handler, and let one run at a time."""
    for subscription in app.subscriptions.values():
        watched = functools.partial(_watched_plan, subscription, subscription.plan, boundaries)
        subscription.plan = watched  # type: ignore[method-assign]


def _watched_plan(
    subscription: Subscription, made: Callable[..., Plan], boundaries: Boundaries, service: str, topic: str, name: str
) -> Plan:
    plan = made(service, topic, name)
    watched: dict[int, Handler] = {}
    if not plan.keyed:
        boundaries.keyless.add(plan.topic)
    for handler in plan.handlers.values():
        function = inspect.unwrap(function_of(subscription, handler))
        code = getattr(function, "__code__", None)
        line = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
        called = f"{function.__module__}.{getattr(function, '__qualname__', handler.type_name)}"
        boundaries.places[
            f"{boundaries.short(name)} {getattr(handler.function, '__qualname__', handler.type_name)}"
        ] = called + line
        watched[id(handler)] = replace(handler, function=boundaries.around("the handler", handler.function))
    handlers = {kind: watched[id(handler)] for kind, handler in plan.handlers.items()}
    return replace(plan, handlers=handlers, concurrency=1)


class WatchedLog:
    """A log whose commits are boundaries; all else is the log's own."""

    def __init__(self, log: Log, boundaries: Boundaries) -> None:
        self._log, self._boundaries = log, boundaries

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def join(self, spec: GroupSpec, owner: PartitionOwner) -> Membership:
        """As `Log.join`."""
        return cast(Membership, _WatchedMembership(await self._log.join(spec, owner), self._boundaries))


class _WatchedMembership:
    def __init__(self, membership: Membership, boundaries: Boundaries) -> None:
        self._membership, self._boundaries = membership, boundaries

    def __getattr__(self, name: str) -> Any:
        return getattr(self._membership, name)

    async def commit(self, unit: CommitUnit) -> list[Assignment]:
        """As `Membership.commit`."""
        named = self._boundaries.named(unit)
        self._boundaries.reach("before the commit", named)
        refused = await self._membership.commit(unit)
        self._boundaries.reach("after the commit", named)
        return refused


def watch_calls(inside: Sequence[str], boundaries: Boundaries) -> None:
    """Make boundaries of calls of these functions, and of what is done to SQLite databases."""
    for target in inside:
        module, _, path = target.partition(":")
        *owners, name = path.split(".")
        owner: Any = importlib.import_module(module)
        for each in owners:
            owner = getattr(owner, each)
        setattr(owner, name, boundaries.around(target, getattr(owner, name)))
    sqlite3.connect = sqlite3.dbapi2.connect = functools.partial(_connect, sqlite3.connect, _sqlite_class(boundaries))


def _connect(connect: Callable[..., Any], watched: type[sqlite3.Connection], *arguments: Any, **named: Any) -> Any:
    if len(arguments) < _FACTORY:
        named.setdefault("factory", watched)
    return connect(*arguments, **named)


#: The place of `factory` among `sqlite3.connect`'s arguments, from 1.
_FACTORY = 6


def _sqlite_class(boundaries: Boundaries) -> type[sqlite3.Connection]:
    def watched(owner: type, name: str) -> Any:
        plain = getattr(owner, name)

        def call(self: Any, *arguments: Any, **named: Any) -> Any:
            if HANDLED.get() is None:  # not from a handler
                return plain(self, *arguments, **named)
            return boundaries.around(f"sqlite3 {name}", plain)(self, *arguments, **named)

        return call

    def members(owner: type, *names: str) -> dict[str, Any]:
        return {name: watched(owner, name) for name in names}

    cursor = type("WatchedCursor", (sqlite3.Cursor,), members(sqlite3.Cursor, *_STATEMENTS))

    def cursor_of(self: sqlite3.Connection, factory: Any = cursor) -> Any:
        return sqlite3.Connection.cursor(self, factory)

    def end(self: sqlite3.Connection, kind: Any, error: Any, trace: Any) -> bool:
        if kind is None:
            self.commit()
        else:
            self.rollback()
        return False

    own = {**members(sqlite3.Connection, *_STATEMENTS, "commit"), "cursor": cursor_of, "__exit__": end}
    return type("WatchedConnection", (sqlite3.Connection,), own)


_STATEMENTS = ("execute", "executemany", "executescript")


# -- the run ---------------------------------------------------------------------------------------------


async def run(orders: Orders) -> None:
    """Run the app until all is handled and nothing waits for a retry; or until the process kills itself."""
    environment = open_environment()
    boundaries = Boundaries(orders, environment.settings.full_name(""))
    watch_calls(orders.inside, boundaries)
    app = load(orders.target)
    watch_handlers(app, boundaries)
    environment = replace(environment, log=cast(Log, WatchedLog(environment.log, boundaries)))
    await app.start(environment)
    failed = asyncio.ensure_future(app.wait_failed())
    while not failed.done() and not (await app.caught_up() and not await _retries(app)):
        await environment.clock.sleep(_LOOK_SECONDS)
    if failed.done():
        raise failed.result()
    failed.cancel()
    await app.stop()
    await environment.log.close()


async def _retries(app: App) -> bool:
    """Whether a record waits for its next attempt."""
    for consumer in app.consumers:
        for each in await app.log.partitions(consumer.plan.name):
            standing = Progress.decode(each.progress, each.position).standing
            if standing is not None and standing.retrying:
                return True
    return False


if __name__ == "__main__":
    sys.path.insert(0, "")
    asyncio.run(run(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Orders)))
