"""`postline registry`: the registry of schemas over HTTP, for programs without Postline."""

from __future__ import annotations

from typing import Any

import click

from postline.cli.failures import OK
from postline.cli.opening import Opened, url_option, with_log
from postline.errors import SettingsError

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
    server_of = _server_of()

    async def work(opened: Opened) -> int:
        server = server_of(opened, host, port)
        await server.serve()
        return OK

    return with_log(url, work)


def _server_of() -> Any:
    try:
        import uvicorn
    except ImportError as error:
        raise SettingsError("Serving needs uvicorn.", remedy="pip install 'postline[http]'") from error
    from postline.registry.rest import asgi

    class _Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            for server in self.servers:
                name, number = server.sockets[0].getsockname()[:2]
                click.echo(f"http://{name}:{number}")

    def made(opened: Opened, host: str, port: int) -> uvicorn.Server:
        app = asgi(opened.registering())
        return _Server(uvicorn.Config(app, host=host, port=port, log_level="warning", lifespan="off"))

    return made
