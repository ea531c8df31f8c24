"""Serving a web application until the process is told to stop, as every command does that listens."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from postline.cli.signals import StopSignals, handling
from postline.clock import Clock
from postline.errors import SettingsError, UsageError

if TYPE_CHECKING:
    import uvicorn

__all__ = ["address", "listening", "require_uvicorn", "server_of", "until_stopped"]


async def until_stopped(
    server: uvicorn.Server, listener: socket.socket, clock: Clock, then: Callable[[], None] | None = None
) -> None:
    """Serve until a signal; `then` is called as it comes, for what would go on for long to end."""
    stop = StopSignals(clock)

    def told() -> None:
        server.should_exit = True
        server.force_exit = stop.ordered.is_set()
        if then is not None:
            then()

    with handling(stop, told):
        await server.serve([listener])


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises UsageError where that can't be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1_024)
    except OSError as error:
        raise UsageError(
            f"Can't listen on {address(host, port)}: {(error.strerror or '').partition(' (while')[0]}.",
            remedy="Give another --port, of which 0 takes a free one, or a --host of this machine.",
        ) from error


def address(host: str, port: int) -> str:
    """How the place is reached."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def require_uvicorn() -> None:
    """Raise SettingsError where nothing can be served."""
    try:
        import uvicorn  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise SettingsError("Serving needs uvicorn.", remedy="pip install 'postline[http]'") from error


def server_of(application: Any, *, tell: Callable[[str], None] = click.echo, **options: Any) -> uvicorn.Server:
    """What serves an ASGI application whose life is its caller's. Raises SettingsError without uvicorn."""
    require_uvicorn()
    import uvicorn

    class _Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Generator[None, None, None]:
            yield  # they are ours, so that the log is closed before the process ends

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            for each in sockets or ():
                tell(address(*each.getsockname()[:2]))

    return _Server(uvicorn.Config(application, log_level="warning", log_config=None, lifespan="off", **options))
