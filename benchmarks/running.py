"""What benchmarks of Postline share: a directory, a running log, apps, and the settings of `postline run`."""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from benchmarks.orders import invoices, order, orders
from postline import App
from postline.app import Environment
from postline.clock import SystemClock
from postline.log.sqlite.log import SqliteLog
from postline.settings import load_settings

__all__ = [
    "Options",
    "best",
    "billing",
    "consumed",
    "directory",
    "filled",
    "open_log",
    "run",
    "running",
    "settle",
    "until_caught_up",
]

#: What `postline run` sets: see docs/benchmarks.md.
_SWITCH_SECONDS = 0.0005
_GC_THRESHOLD = 50_000


@dataclass(frozen=True)
class Options:
    """How much is measured."""

    quick: bool = False

    @property
    def rounds(self) -> int:
        """How often each contender runs; the best counts."""
        return 1 if self.quick else 3

    def some(self, number: int) -> int:
        """A number of messages, a fifth of it when there is little time."""
        return number // 5 if self.quick else number


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine as `postline run` would: same switch interval, garbage collector tamed."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    asyncio.run(main())


def best(values: list[float]) -> float:
    """The highest of several rates: the run that others on the machine disturbed least."""
    return max(values)


def directory() -> tempfile.TemporaryDirectory[str]:
    """A place on disk that goes when it is closed."""
    return tempfile.TemporaryDirectory(prefix="postline-bench-")


@asynccontextmanager
async def open_log(path: Path) -> AsyncIterator[Environment]:
    """A file engine with its defaults (FULL), as an environment for apps."""
    log = SqliteLog(str(path), clock=SystemClock())
    await log.start()
    try:
        yield Environment(log, load_settings({}, path.parent))
    finally:
        await log.close()


@asynccontextmanager
async def running(app: App, environment: Environment) -> AsyncIterator[App]:
    """The app between start and stop."""
    await app.start(environment)
    try:
        yield app
    finally:
        await app.stop()


async def filled(environment: Environment, number: int) -> None:
    """Publish `number` orders, and let the file settle."""
    shop = App("shop", owns=[orders])
    async with running(shop, environment):
        await shop.publish_many(order(each) for each in range(number))


def settle(path: Path) -> None:
    """Take the WAL over into the file, so that no contender pays for another's writes."""
    connection = apsw.Connection(str(path))
    connection.pragma("wal_checkpoint(TRUNCATE)")
    connection.close()


async def until_caught_up(app: App) -> None:
    """Wait until everything there is was handled and committed."""
    while not await app.caught_up():
        await asyncio.sleep(0.005)


async def consumed(app: App, environment: Environment, number: int) -> float:
    """Records a second from start to the last commit."""
    began = time.perf_counter()
    async with running(app, environment):
        await until_caught_up(app)
        rate = number / (time.perf_counter() - began)
    for name in app.subscriptions:
        await environment.log.remove_subscription(name)
    return rate


def billing(owns_invoices: bool = False) -> App:
    """The consuming service."""
    return App("billing", owns=[invoices] if owns_invoices else [], publishes_to=[orders])
