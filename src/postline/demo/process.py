"""One process of the demo: `python -m postline.demo.process SERVICE`, in the directory of the run.

It runs one service until SIGTERM, SIGINT, or the end of its standard input, which tells that the supervisor is gone.
At SIGUSR1 it writes to its log where all its tasks and threads stand.
"""

from __future__ import annotations

import asyncio
import faulthandler
import importlib
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from postline import App
from postline.clock import SystemClock
from postline.demo.scenario import Scenario
from postline.errors import LogUnavailable

__all__ = ["ALLOWANCE", "CURSOR", "SERVICES", "main"]

#: Services with subscriptions; the shop publishes only.
SERVICES = ("billing", "packing", "refunds", "statistics")
CURSOR = "shop-cursor"
ALLOWANCE = "shop-allowance"
_AGAIN_SECONDS = 1.0


def main(service: str) -> None:
    """Run one service."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(_shop() if service == "shop" else _consumer(service))


async def _shop() -> None:
    from postline.demo import shop

    scenario = Scenario.load(Path.cwd())
    stop = _stop_requested()
    async with _started(shop.app, stop):
        publishing = asyncio.create_task(
            shop.publish_files(
                Path(scenario.input), shop.Cursor(Path(CURSOR)), shop.Allowance(Path(ALLOWANCE)), SystemClock()
            )
        )
        _say_ready()
        await _first_of(publishing, stop)
        if publishing.done():
            publishing.result()
        else:
            publishing.cancel()


async def _consumer(service: str) -> None:
    app: App = importlib.import_module(f"postline.demo.{service}").app
    stop = _stop_requested()
    async with _started(app, stop):
        failed = asyncio.create_task(app.wait_failed())
        _say_ready()
        await _first_of(failed, stop)
        if failed.done():
            raise failed.result()
        failed.cancel()


@asynccontextmanager
async def _started(app: App, stop: asyncio.Future[None]) -> AsyncIterator[None]:
    """The app between start and stop; it starts again and again while the log is away, as under a service manager."""
    while True:
        try:
            await app.start()
            break
        except LogUnavailable as error:
            if stop.done():
                raise
            logging.getLogger("postline.demo").warning("started again: %s", error)
            await SystemClock().sleep(_AGAIN_SECONDS)
    try:
        yield
    finally:
        await app.stop()


async def _first_of(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _stop_requested() -> asyncio.Future[None]:
    """Done at SIGTERM, at SIGINT, and when the supervisor closes the pipe, be it by its death."""
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[None] = loop.create_future()

    def ask() -> None:
        if not asked.done():
            asked.set_result(None)
        loop.remove_reader(sys.stdin.fileno())

    loop.add_signal_handler(signal.SIGTERM, ask)
    loop.add_signal_handler(signal.SIGINT, ask)
    loop.add_signal_handler(signal.SIGUSR1, _write_stacks)
    loop.add_reader(sys.stdin.fileno(), ask)
    return asked


def _write_stacks() -> None:
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)
    faulthandler.dump_traceback(sys.stderr, all_threads=True)


def _say_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
