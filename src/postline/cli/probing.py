"""What watches a process that runs services: the probes that it answers, and the stalls of its loop that it names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import click

from postline.app import App
from postline.cli.web import listening, require_uvicorn, server_of
from postline.clock import SystemClock
from postline.runtime.loop_watch import LoopWatch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Place", "health_option", "place_of_worker", "probed"]

#: Host and port.
Place = tuple[str, int]

_HERE = "127.0.0.1"
_QUIET = {"access_log": False, "server_header": False, "timeout_graceful_shutdown": 1}


def _read(ctx: click.Context, param: click.Parameter, text: str | None) -> Place | None:
    if text is None:
        return None
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if colon else _HERE
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise click.BadParameter(f"{text!r} is no port, nor HOST:PORT.", ctx, param)
    return host, int(port)


def health_option(command: Any) -> Any:
    """Let a command be told where to answer probes."""
    return click.option(
        "--health",
        metavar="[HOST:]PORT",
        callback=_read,
        help="Answer /healthz, /readyz and /scale there; on 127.0.0.1 unless a host is given. Worker N takes PORT + N.",
    )(command)


def place_of_worker(place: Place, slot: int) -> list[str]:
    """The option of one of several workers; 0 stays a free port for each."""
    host, port = place
    return ["--health", f"{host}:{port + slot if port else 0}"]


@asynccontextmanager
async def probed(
    apps: Sequence[App], place: Place | None, tell: Callable[[str], None], stopping: Callable[[], bool]
) -> AsyncIterator[None]:
    """Meanwhile stalls of the loop are named, and probes answered where that is asked for.

    Raises UsageError where nothing can listen, SettingsError without the extra `http`.
    """
    with LoopWatch(SystemClock()):
        if place is None:
            yield
            return
        require_uvicorn()
        from postline.http.health import Health

        health = Health(apps, stopping=stopping)
        with closing(listening(*place)) as listener:
            server = server_of(health, tell=lambda at: tell(f"probes at {at}/healthz and /readyz"), **_QUIET)
            serving = asyncio.create_task(server.serve([listener]), name="probes")
            try:
                yield
            finally:
                server.should_exit = True
                await serving
