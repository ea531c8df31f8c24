"""`postline send` and `postline request`: a command or query from the shell, with its ticket or its reply."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import click
import msgspec

from postline.app import App, Environment, open_log
from postline.cli.failures import FAILED, NEGATIVE, OK, show_error
from postline.cli.loading import load_app
from postline.cli.opening import settings_for, url_option
from postline.cli.output import emit_json, json_option, wants_json
from postline.cli.publishing import require_all_kept
from postline.clock import SystemClock
from postline.commands import Outcome, Ticket
from postline.contracts import Kind, Reading
from postline.contracts.commands import CommandTopic
from postline.contracts.replies import ReplyOutcome
from postline.errors import RequestTimeout, UsageError

__all__ = ["request", "send"]

_CLIENT = "postline.cli"

_SEND_EPILOG = """\b
Examples:
  postline send shop.contracts:app ledger.Transfer '{"source": "anna", "target": "bob", "amount": 3}'
  postline send app.py ledger.Transfer --request-id monday-17 --timeout 60 < transfer.json

It prints the request's id, by which `postline tickets` and `postline request --request-id` find the outcome.
"""
_REQUEST_EPILOG = """\b
Examples:
  postline request app.py ledger.BalanceOf '{"source": "anna"}'
  postline request app.py ledger.Transfer --request-id monday-17 < transfer.json

The exit code is 0 for a success, 1 for a refusal, 4 for a fault or a timeout. Asked again with the same
--request-id (and --as) it gives the first outcome and does nothing twice; another command, key or content under that id
is refused with exit code 2, and not sent.
"""


class _Asked(msgspec.Struct, frozen=True):
    """What is asked for, and as whom."""

    app: str
    type_name: str
    value: str
    request_id: str | None
    priority: str | None
    client: str
    timeout: float | None
    as_json: bool | None
    url: str | None


def _asking(command: Callable[..., int]) -> Callable[..., int]:
    options = [
        click.argument("app", metavar="APP"),
        click.argument("type_name", metavar="COMMAND"),
        click.argument("value", metavar="[JSON]", default="-"),
        click.option("--request-id", metavar="ID", help="Your own id of the request, which makes repeating safe."),
        click.option("--priority", metavar="NAME", help="One of its topic's priorities."),
        click.option(
            "--as", "client", metavar="CLIENT", default=_CLIENT, help="Whose request it is.", show_default=True
        ),
        json_option,
        url_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command(epilog=_SEND_EPILOG)
@click.option("--timeout", type=float, metavar="SECONDS", help="Not begun by then, it expires.")
@_asking
def send(**given: Any) -> int:
    """Send COMMAND (a wire name) with the fields of JSON, else of standard input; APP knows its contract."""
    asked = msgspec.convert(given, _Asked)

    async def work(app: App, command: Any) -> int:
        ticket = await _sent(app, command, asked)
        if wants_json(asked.as_json):
            emit_json({"request_id": ticket.request_id, "client": app.name})
        else:
            click.echo(ticket.request_id)
        return OK

    return asyncio.run(_with_client(asked, work))


@click.command(epilog=_REQUEST_EPILOG)
@click.option("--timeout", type=float, metavar="SECONDS", default=30.0, show_default=True, help="How long to wait.")
@_asking
def request(**given: Any) -> int:
    """Send COMMAND (a wire name) with the fields of JSON, else of standard input, and wait for its outcome."""
    asked = msgspec.convert(given, _Asked)

    async def work(app: App, command: Any) -> int:
        ticket = await _sent(app, command, asked)
        try:
            return _show(await ticket.ended(asked.timeout), wants_json(asked.as_json))
        except RequestTimeout as error:
            (topic,) = app.command_topics
            told = f"`postline tickets {topic.name} --request {ticket.request_id}` tells what becomes of it."
            show_error(error.message, told)
            return FAILED

    return asyncio.run(_with_client(asked, work))


async def _sent(app: App, command: Any, asked: _Asked) -> Ticket:
    return await app.send(command, request_id=asked.request_id, timeout=asked.timeout, priority=asked.priority)


def _show(outcome: Outcome, as_json: bool) -> int:
    told = {
        "request_id": outcome.request_id,
        "state": outcome.state,
        "type": outcome.envelope.type,
        "reply": msgspec.to_builtins(outcome.reply),
    }
    if as_json:
        emit_json(told)
    else:
        click.echo(f"{outcome.state}: {outcome.envelope.type} {msgspec.json.encode(outcome.reply).decode()}")
    match outcome.outcome:
        case ReplyOutcome.SUCCESS:
            return OK
        case ReplyOutcome.REFUSAL:
            return NEGATIVE
    return FAILED


async def _with_client(asked: _Asked, work: Callable[[App, Any], Awaitable[int]]) -> int:
    declared = load_app(asked.app)
    topic, reading = _contract(declared, asked.type_name)
    text = sys.stdin.buffer.read() if asked.value == "-" else asked.value.encode()
    kind = Kind(reading.cls, name=reading.name)
    command = kind.read(text)
    require_all_kept(kind, reading.schema, text, command)
    settings, clock = settings_for(asked.url, declared.url), SystemClock()
    log = open_log(settings, clock)
    try:
        app = App(asked.client, publishes_to=[topic])
        await app.start(Environment(log, settings, clock, Random()), consume=False)
        try:
            return await work(app, command)
        finally:
            await app.stop()
    finally:
        await log.close()


def _contract(app: App, type_name: str) -> tuple[CommandTopic, Reading]:
    topics = app.command_topics
    for topic in topics:
        if type_name in topic.specs:
            return topic, topic.commands.reading_of(type_name)
    known = ", ".join(sorted(name for topic in topics for name in topic.specs)) or "none"
    raise UsageError(f"App {app.name!r} knows no command {type_name!r}.", remedy=f"It knows {known}.")
