"""`postline registry`: the registry of schemas over HTTP, for programs without Postline."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import click

from postline.cli.failures import OK
from postline.cli.opening import Opened, url_option, with_log
from postline.cli.signals import StopSignals, handling
from postline.clock import Clock
from postline.errors import SettingsError, UsageError
from postline.registry import SCHEMAS_TOPIC, schemas_topic

if TYPE_CHECKING:
    import uvicorn

__all__ = ["command"]

_EPILOG = """\b
Examples:
  postline registry serve                       on http://127.0.0.1:8081
  postline registry serve --host 0.0.0.0 --port 8085 --url kafka://broker:9092
"""


@click.group(epilog=_EPILOG)
def command() -> None:
    """Serve the schemas of a log to programs that use a schema registry."""


@command.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", default=8081, show_default=True, type=click.IntRange(0, 65_535), help="0 takes a free one.")
@url_option
def serve(host: str, port: int, url: str | None) -> int:
    """Serve the registry over HTTP until interrupted.

    The interface is that of Confluent's Schema Registry, so that its clients and serializers work against it. It asks
    nobody who they are: let it be reached by those alone who may register schemas.

    \b
    Example:
      postline registry serve --port 8081 &
      curl -s http://127.0.0.1:8081/subjects
    """
    made = _server_of()

    async def work(opened: Opened) -> int:
        await opened.log.create_topic(schemas_topic(opened.settings.full_name(SCHEMAS_TOPIC)))
        with closing(_listening(host, port)) as listener:
            await _until_stopped(made(opened), listener, opened.clock)
        return OK

    return with_log(url, work)


async def _until_stopped(server: uvicorn.Server, listener: socket.socket, clock: Clock) -> None:
    stop = StopSignals(clock)

    def told() -> None:
        server.should_exit = True
        server.force_exit = stop.ordered.is_set()

    with handling(stop, told):
        await server.serve([listener])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises UsageError where that can't be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(
            f"Can't listen on {_address(host, port)}: {(error.strerror or '').partition(' (while')[0]}.",
            remedy="Give another --port, of which 0 takes a free one, or a --host of this machine.",
        ) from error


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _server_of() -> Callable[[Opened], uvicorn.Server]:
    try:
        import uvicorn
    except ImportError as error:
        raise SettingsError("Serving needs uvicorn.", remedy="pip install 'postline[http]'") from error
    from postline.registry.rest import asgi

    class _Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Generator[None, None, None]:
            yield  # they are ours, so that the log is closed before the process ends

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            for each in sockets or ():
                click.echo(_address(*each.getsockname()[:2]))

    return lambda opened: _Server(uvicorn.Config(asgi(opened.registering()), log_level="warning", lifespan="off"))
