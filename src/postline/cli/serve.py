"""`postline serve`: an app over HTTP, in this process: its gateway, its receiver of events, or its notifications."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import click
import msgspec

from postline.app import Environment, open_log
from postline.cli.failures import OK
from postline.cli.loading import load_app, load_attribute
from postline.cli.opening import settings_for, url_option
from postline.cli.web import listening, require_uvicorn, server_of, until_stopped
from postline.clock import SystemClock
from postline.errors import UsageError
from postline.runtime.loop_watch import LoopWatch
from postline.settings import Settings

if TYPE_CHECKING:
    from postline.http.doors import Served

__all__ = ["command"]

_EPILOG = """\b
Examples:
  postline serve shop:app                            on http://127.0.0.1:8080, for this machine alone
  postline serve shop:web --host 0.0.0.0 --port 80   web = gateway(app, authenticate=…)
  postline serve shop:events --port 8081             events = receiver(app, path="/events/{topic}")
  postline serve shop:news --port 8082               news = notifications(app, streams=[orders])
  postline serve shop:app --openapi -o openapi.json

\b
SIGTERM or SIGINT: take no new requests, answer those that are under way within --grace, leave.
"""


@click.command(epilog=_EPILOG)
@click.argument("target", metavar="APP")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65_535), help="0 takes a free one.")
@click.option("--consume", is_flag=True, help="Run the app's subscriptions here, too; else `postline run` does.")
@click.option("--openapi", is_flag=True, help="Write the OpenAPI 3.1 document, as JSON, and serve nothing.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it there.")
@click.option("--grace", default=10.0, show_default=True, metavar="SECONDS", help="For requests under way at the stop.")
@url_option
def command(
    target: str,
    host: str,
    port: int,
    consume: bool,
    openapi: bool,
    output: Path | None,
    grace: float,
    url: str | None,
) -> int:
    """Take commands over HTTP: 202 once stored, then a status to poll or to watch; or events, or tell of them.

    APP is module:name of an app, or of what was made of it to say who may ask: a gateway, a receiver of events, or
    notifications. Without one that does, only this machine is served.

    \b
    Example:
      postline serve shop:app &
      curl -i -H 'Content-Type: application/json' -H 'Idempotency-Key: "1"' \\
        -d '{"source": "anna", "target": "bob", "amount": 30}' http://127.0.0.1:8080/commands/ledger.Transfer
    """
    web = _served(target)
    if openapi:
        return _write(web, output)
    _require_closed(web, host)
    require_uvicorn()
    return asyncio.run(_serve(web, settings_for(url, web.app.url), (host, port), grace, consume=consume))


def _served(target: str) -> Served:
    from postline.http.doors import Served
    from postline.http.gateway import gateway

    found = load_attribute(target)
    return found if isinstance(found, Served) else gateway(load_app(target))


def _require_closed(web: Served, host: str) -> None:
    from postline.http.callers import is_loopback

    if not (web.authenticates or is_loopback(host)):
        raise UsageError(
            f"It would listen on {host}, and nobody says who may ask there.",
            remedy="Serve what knows, as web = gateway(app, authenticate=…), by module:web; or leave --host out.",
        )


def _write(web: Served, output: Path | None) -> int:
    text = msgspec.json.format(msgspec.json.encode(web.document), indent=2)
    if output is None:
        click.echo(text)
    else:
        output.write_bytes(text + b"\n")
        click.echo(f"written  {output}: {len(web.document['paths'])} paths", err=True)
    return OK


async def _serve(web: Served, settings: Settings, place: tuple[str, int], grace: float, *, consume: bool) -> int:
    clock = SystemClock()
    log = open_log(settings, clock)
    try:
        with closing(listening(*place)) as listener:
            await web.app.start(Environment(log, settings, clock, Random()), consume=consume)
            try:
                with LoopWatch(clock):
                    await _answer(web, listener, clock, grace, consume=consume)
            finally:
                await web.app.stop(grace)
    finally:
        await log.close()
    return OK


async def _answer(web: Served, listener: socket.socket, clock: SystemClock, grace: float, *, consume: bool) -> None:
    from postline.http.health import Health

    leaving = asyncio.Event()
    health = Health([web.app], then=web, consume=consume, stopping=leaving.is_set)
    server = server_of(
        health,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(grace)),
    )

    def let_go() -> None:
        leaving.set()
        web.let_go()

    serving = asyncio.ensure_future(until_stopped(server, listener, clock, let_go))
    failing = asyncio.ensure_future(web.app.wait_failed())
    try:
        await asyncio.wait({serving, failing}, return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            web.let_go()
            server.should_exit = True
            await serving
            raise failing.result()
        await serving
    finally:
        failing.cancel()
