"""Apps at work in this process, from start to a clean stop."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from random import Random
from typing import Any

from postline.app import App, Environment, open_log
from postline.cli.failures import FAILED, INTERRUPTED, OK
from postline.cli.logged import Report
from postline.cli.opening import settings_for
from postline.cli.probing import Place, probed
from postline.cli.signals import StopSignals, handling
from postline.clock import SystemClock
from postline.errors import PostlineError

__all__ = ["STOP_SECONDS", "Report", "serve"]

#: What a supervised process may take beyond its grace to commit and leave.
STOP_SECONDS = 15.0

#: What a CPU-bound thread may keep the interpreter from the loop's; Python's own is 5 ms. Beside the
#: file engine it decides how long a write lock is held.
_SWITCH_SECONDS = 0.0005
_GC_THRESHOLD = 50_000


async def serve(
    apps: Sequence[App], url: str | None, grace_seconds: float, report: Report, supervised: bool, health: Place | None
) -> int:
    """Run apps until a signal; gives the exit code.

    The first SIGTERM or SIGINT drains, commits and leaves within `grace_seconds`; another one, a
    second later or more, lets go at once. A supervised process also stops when standard input ends,
    which is how it notices that its supervisor is gone, and ends 15 s after its grace in any case.
    """
    stop = StopSignals(SystemClock())
    with handling(stop), _end_of_input(stop, supervised, grace_seconds):
        environments = _environments(apps, url)
        started: list[App] = []
        try:
            async with probed(apps, health, report, stop.asked.is_set):
                return await _serve(apps, environments, started, stop, grace_seconds, report)
        finally:
            # An app that could not start, or a failure of ours, must not leave the others at work.
            for app in started:
                await app.abort()
            for environment in {id(each): each for each in environments.values()}.values():
                await environment.log.close()


def _environments(apps: Sequence[App], url: str | None) -> dict[str, Environment]:
    """What each app runs on, by its name; apps on one log share its connection, so also one in memory."""
    by_url: dict[str, Environment] = {}
    found = {}
    for app in apps:
        settings = settings_for(url, app.url)
        if settings.url.text not in by_url:
            clock = SystemClock()
            by_url[settings.url.text] = Environment(open_log(settings, clock), settings, clock, Random())
        found[app.name] = by_url[settings.url.text]
    return found


async def _serve(
    apps: Sequence[App],
    environments: dict[str, Environment],
    started: list[App],
    stop: StopSignals,
    grace_seconds: float,
    report: Report,
) -> int:
    for address in dict.fromkeys(environments[app.name].log.address for app in apps):
        report(f"log {address}")
    for app in apps:
        starting = asyncio.ensure_future(app.start(environments[app.name]))
        if not await _unless(starting, stop.asked):
            return OK
        started.append(app)
        report(f"{app.name}: running {', '.join(app.subscriptions) or 'without subscriptions'}")
    _settle_interpreter()
    failure = await _first_failure(started, stop)
    stopping = asyncio.ensure_future(_stop_all(started, grace_seconds, report))
    if not await _unless(stopping, stop.ordered):
        report("aborted: what was not committed is handled again by the next worker")
        return INTERRUPTED
    started.clear()
    if failure is None:
        return OK
    name, error = failure
    return _failed(name, error, report)


async def _unless(task: asyncio.Future[None], event: asyncio.Event) -> bool:
    """Wait for the task, which raises here; cancel it if the event comes first, and give False."""
    waiting = asyncio.ensure_future(event.wait())
    both: set[asyncio.Future[Any]] = {task, waiting}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
            return True
        task.cancel()
        await asyncio.wait({task})
        return False
    finally:
        waiting.cancel()


async def _first_failure(apps: Sequence[App], stop: StopSignals) -> tuple[str, BaseException] | None:
    """Wait until told to stop (None), or until an app can't go on."""
    failing = {asyncio.ensure_future(app.wait_failed()): app.name for app in apps}
    waiting = asyncio.ensure_future(stop.asked.wait())
    try:
        done, _ = await asyncio.wait({waiting, *failing}, return_when=asyncio.FIRST_COMPLETED)
        broken = [each for each in failing if each in done]
        return (failing[broken[0]], broken[0].result()) if broken else None
    finally:
        for each in (waiting, *failing):
            each.cancel()


async def _stop_all(apps: Sequence[App], grace_seconds: float, report: Report) -> None:
    report("stopping: no new attempts; those that run may end")
    await asyncio.gather(*(app.stop(grace_seconds) for app in apps))
    report("stopped: committed and left")


def _failed(name: str, error: BaseException, report: Report) -> int:
    if isinstance(error, PostlineError):
        report.failed(f"App {name!r} failed: {error.message}", error.remedy, error)
    else:
        remedy = "This is a fault of Postline or of a middleware: see above."
        report.failed(f"App {name!r} failed: {error!r}", remedy, error)
    return FAILED


def _settle_interpreter() -> None:
    """What is loaded by now stays: the collector need not look at it again."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, *gc.get_threshold()[1:])


@contextmanager
def _end_of_input(stop: StopSignals, supervised: bool, grace_seconds: float) -> Iterator[None]:
    """Meanwhile the end of standard input asks to stop; a process that hasn't done so in time ends where it is.

    By a thread: a handler may block the loop, and nobody else is left who would end the process.
    """
    if not supervised:
        yield
        return
    loop, source, over = asyncio.get_running_loop(), sys.stdin.fileno(), threading.Event()

    def watch() -> None:
        while os.read(source, 4_096):
            pass
        with suppress(RuntimeError):  # the loop is closed by now
            loop.call_soon_threadsafe(stop.ask)
        if not over.wait(grace_seconds + STOP_SECONDS):
            os._exit(INTERRUPTED)

    threading.Thread(target=watch, name="postline-supervisor-watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()
