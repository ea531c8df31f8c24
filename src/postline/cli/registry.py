"""`postline registry`: the registry of schemas over HTTP, for programs without Postline."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import click

from postline.cli.failures import OK
from postline.cli.opening import Opened, url_option, with_log
from postline.cli.web import listening, require_uvicorn, server_of, until_stopped
from postline.registry import SCHEMAS_TOPIC, LogRegistry, schemas_topic

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
    made = _asgi()

    async def work(opened: Opened) -> int:
        await opened.log.create_topic(schemas_topic(opened.settings.full_name(SCHEMAS_TOPIC)))
        with closing(listening(host, port)) as listener:
            await until_stopped(server_of(made(opened.registering())), listener, opened.clock)
        return OK

    return with_log(url, work)


def _asgi() -> Callable[[LogRegistry], Any]:
    """What serves a registry; asked for before the log is opened, since it may be missing."""
    require_uvicorn()
    from postline.registry.rest import asgi

    return asgi
