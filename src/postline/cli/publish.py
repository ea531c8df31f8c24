"""`postline publish`: JSON lines from standard input, each published or refused with its number."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from postline.cli.failures import INTERRUPTED, LOG, NEGATIVE, OK, show_error
from postline.cli.lines import read_lines
from postline.cli.opening import url_option
from postline.cli.output import emit_json, json_option, number, wants_json
from postline.cli.publishing import Line, Publisher, open_publisher
from postline.clock import Clock, SystemClock
from postline.errors import LogError, MessageError

__all__ = ["command"]

_EPILOG = """\b
Examples:
  postline publish shop.orders shop.OrderPlaced --app shop:app < orders.jsonl
  postline publish shop.orders shop.OrderPlaced --key-field customer_id --id-field order_id < orders.jsonl
  echo '{"level": 3}' | postline publish alarms ops.Alarm --key site-7

With --app each line is checked by the app's contract. Without it, lines must be JSON and the key is
--key, or --key-field, else the field that the topic declares.
Refused lines are named on standard error with their numbers, the others are published in their
order, and the exit code is 1. With --id-field everything can be repeated: a message that is there
already is dropped by every subscription.
"""

_SHOW_SECONDS = 0.2


class _Options(msgspec.Struct, frozen=True):
    """How lines become messages."""

    app: str | None
    key: str | None
    key_field: str | None
    id_field: str | None
    stop_on_error: bool
    as_json: bool | None
    url: str | None


class _Summary(msgspec.Struct):
    """What became of the lines, as `--json` shows it."""

    topic: str
    type: str
    published: int = 0
    refused: int = 0


@click.command(epilog=_EPILOG)
@click.argument("topic")
@click.argument("type_name", metavar="TYPE")
@click.option("--app", metavar="APP", help="Check each line by the contract of this app: module:name, or a file.")
@click.option("--key", help="The key of all messages.")
@click.option("--key-field", metavar="PATH", help="The field, or dotted path, that holds the key.")
@click.option("--id-field", metavar="PATH", help="The field that holds the message's id; makes repeating safe.")
@click.option("--stop-on-error", is_flag=True, help="Publish nothing after the first refused line.")
@json_option
@url_option
def command(topic: str, type_name: str, **given: Any) -> int:
    """Publish the JSON lines of standard input to TOPIC as messages of TYPE (a wire name)."""
    options = msgspec.convert(given, _Options)
    summary = _Summary(topic, type_name)
    try:
        code = asyncio.run(_publish(summary, options))
    except KeyboardInterrupt:
        code = INTERRUPTED
    if wants_json(options.as_json):
        emit_json(summary)
    else:
        click.echo(f"published {number(summary.published)}, refused {number(summary.refused)}")
    return code


async def _publish(summary: _Summary, options: _Options) -> int:
    clock = SystemClock()
    if options.app is None:
        click.echo("note: without --app no contract checks these lines; they need only be JSON", err=True)
    opening = open_publisher(
        summary.topic,
        summary.type,
        app=options.app,
        url=options.url,
        key=options.key,
        key_field=options.key_field,
        id_field=options.id_field,
    )
    async with opening as publisher:
        progress = _Progress(clock, summary)
        async for lines in read_lines(sys.stdin.fileno()):
            last = lines[-1].number
            try:
                refused = await _publish_lines(publisher, lines, summary, options.stop_on_error)
            except LogError as error:
                progress.clear()
                show_error(
                    f"{error.message} Lines {lines[0].number} to {last} may or may not be published.",
                    error.remedy or "Repeat them with --id-field.",
                )
                return LOG
            progress.show()
            if refused and options.stop_on_error:
                break
        progress.clear()
    return NEGATIVE if summary.refused else OK


async def _publish_lines(publisher: Publisher, lines: Sequence[Line], summary: _Summary, stop: bool) -> bool:
    """Publish what can be; whether any was refused."""
    messages, refused = [], False
    for line in lines:
        try:
            messages.append(publisher.read(line))
        except MessageError as error:
            _refuse(summary, line, error)
            refused = True
            if stop:
                break
    await publisher.publish(messages)
    summary.published += len(messages)
    return refused


def _refuse(summary: _Summary, line: Line, error: MessageError) -> None:
    summary.refused += 1
    show_error(f"line {line.number}: {error.message}")


class _Progress:
    """A count that runs along on a terminal."""

    def __init__(self, clock: Clock, summary: _Summary) -> None:
        self._clock, self._summary = clock, summary
        self._began = self._shown = clock.monotonic()
        self._on = sys.stderr.isatty()

    def show(self) -> None:
        """Draw it, a few times a second."""
        now = self._clock.monotonic()
        if not self._on or now - self._shown < _SHOW_SECONDS:
            return
        self._shown = now
        rate = int(self._summary.published / max(now - self._began, 0.001))
        click.echo(f"\r\x1b[Kpublished {number(self._summary.published)} ({number(rate)}/s)", err=True, nl=False)

    def clear(self) -> None:
        """Leave the terminal's line empty."""
        if self._on:
            click.echo("\r\x1b[K", err=True, nl=False)
