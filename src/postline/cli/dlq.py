"""`postline dlq`: dead letters listed, shown, redriven and discarded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import click
import msgspec

from postline.cli.failures import NEGATIVE, OK, show_error
from postline.cli.opening import Opened, reveal_option, url_option, with_log
from postline.cli.output import ago, alone, console, emit_json, json_option, plain, table, wants_json, when
from postline.cli.requests import Answer, await_owner, tell, wait_option
from postline.errors import UsageError
from postline.monitor import DeadLetterDetail, DeadLetterView, HeldView, RecordId

__all__ = ["command"]

_EPILOG = """\b
Examples:
  postline dlq
  postline dlq list billing --key customer-7
  postline dlq show billing 3:1042
  postline dlq redrive billing 3:1042 3:1050
  postline dlq redrive billing --all
  postline dlq discard billing 3:1042 --reason "test order"

A record is named by its partition and offset. Redriving gives it, and what waits behind it, another
run under its own offset; nothing is appended again.
"""


class _Letters(msgspec.Struct, frozen=True):
    """One subscription's dead letters, as `dlq list --json` shows them."""

    subscription: str
    dead_letters: list[DeadLetterView]


@click.group(epilog=_EPILOG, invoke_without_command=True)
@json_option
@url_option
@click.pass_context
def command(ctx: click.Context, as_json: bool | None, url: str | None) -> int | None:
    """List, show, redrive and discard dead letters; by itself it lists them."""
    return alone(ctx, list_letters, as_json, url, names=(), key=None)


@command.command("list")
@click.argument("names", metavar="[SUBSCRIPTION]...", nargs=-1)
@click.option("--key", help="Those of one key.")
@json_option
@url_option
def list_letters(names: tuple[str, ...], key: str | None, as_json: bool | None, url: str | None) -> int:
    """List what subscriptions gave up, oldest offset first.

    \b
    Examples:
      postline dlq list
      postline dlq list billing --json | jq -r '.[].dead_letters[].id'
    """

    async def work(opened: Opened) -> tuple[list[_Letters], int]:
        chosen = [await opened.subscription_name(name) for name in names]
        chosen = chosen or [info.name for info in await opened.log.subscriptions()]
        found = [_Letters(name, await opened.monitor.dead_letters(name, key=key)) for name in chosen]
        return found, opened.clock.now_ms()

    found, now_ms = with_log(url, work)
    if wants_json(as_json):
        emit_json(found)
    else:
        _draw_list(found, now_ms)
    return OK


def _draw_list(found: Sequence[_Letters], now_ms: int) -> None:
    rows = [
        (
            each.subscription,
            letter.id,
            letter.key or "-",
            letter.type,
            str(letter.attempts),
            ago(letter.failed_ms, now_ms),
            f"{letter.blocked} blocked" if letter.holds else "flows",
            letter.error,
        )
        for each in found
        for letter in each.dead_letters
    ]
    if not rows:
        click.echo("No dead letters.")
        return
    columns = ("subscription", "id", "key", "type", ">attempts", "failed", "key's later records", "error")
    console().print(table(columns, rows))


@command.command("show")
@click.argument("name", metavar="SUBSCRIPTION")
@click.argument("record", metavar="ID")
@reveal_option
@json_option
@url_option
def show(name: str, record: str, reveal: bool, as_json: bool | None, url: str | None) -> int:
    """Show a dead letter: its error with the stack, its envelope and its content.

    \b
    Example:
      postline dlq show billing 3:1042
    """
    wanted = RecordId.parse(record)

    async def work(opened: Opened) -> DeadLetterDetail | HeldView | None:
        full = await opened.subscription_name(name)
        detail = await opened.monitor_of(reveal=reveal).dead_letter(full, wanted)
        return detail or await _held(opened, full, wanted)

    detail = with_log(url, work)
    if not isinstance(detail, DeadLetterDetail):
        _tell_no_letter(name, wanted, detail)
        return NEGATIVE
    if wants_json(as_json):
        emit_json(detail)
    else:
        _draw_detail(detail)
    return OK


async def _held(opened: Opened, name: str, wanted: RecordId) -> HeldView | None:
    return next((view for view in await opened.monitor.held(name) if view.id == str(wanted)), None)


def _tell_no_letter(name: str, wanted: RecordId, held: HeldView | None) -> None:
    if held is None:
        show_error(f"Subscription {name!r} has no dead letter {wanted}.", "`postline dlq list` shows what there is.")
        return
    after = f" after {held.attempts} attempt{'s' * (held.attempts != 1)}: {plain(held.error)}" if held.error else ""
    show_error(
        f"Record {wanted} of subscription {name!r} is no dead letter; it is held ({held.status}){after}.",
        f"`postline subscriptions show {name}` lists what is held and when it is tried again.",
    )


def _draw_detail(detail: DeadLetterDetail) -> None:
    letter = detail.letter
    behind = f"held, {letter.blocked} behind it" if letter.holds else "flow on"
    lines = [
        ("record", letter.id),
        ("key", letter.key or "-"),
        ("type", letter.type or "-"),
        ("failed", f"{when(letter.failed_ms)} UTC, after {letter.attempts} attempts"),
        ("later records of its key", behind),
        ("error", letter.error),
    ]
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        click.echo(f"{label:<{width}}  {plain(text)}")
    stack = detail.stack or "Its stack is not kept any more."
    click.echo("\n" + "\n".join(plain(line) for line in stack.splitlines()) + "\n")
    if detail.record is None:
        click.echo("Its record is not kept any more.")
    else:
        click.echo(msgspec.json.format(msgspec.json.encode(detail.record), indent=2).decode())


@command.command("redrive")
@click.argument("name", metavar="SUBSCRIPTION")
@click.argument("records", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every dead letter of the subscription, in order.")
@click.option("--key", help="Those of one key, in order.")
@wait_option
@json_option
@url_option
def redrive(
    name: str,
    records: tuple[str, ...],
    everything: bool,
    key: str | None,
    wait_seconds: float,
    as_json: bool | None,
    url: str | None,
) -> int:
    """Give dead letters another run, in order, before what waits behind them.

    \b
    Examples:
      postline dlq redrive billing 3:1042
      postline dlq redrive billing --key customer-7
      postline dlq redrive billing --all
    """

    answer = _operate("redrive", name, _Selection(records, key, everything), "", wait_seconds, url)
    return _tell(answer, as_json)


@command.command("discard")
@click.argument("name", metavar="SUBSCRIPTION")
@click.argument("records", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every dead letter of the subscription.")
@click.option("--key", help="Those of one key.")
@click.option("--reason", required=True, help="Why; it is kept.")
@wait_option
@json_option
@url_option
def discard(
    name: str,
    records: tuple[str, ...],
    everything: bool,
    key: str | None,
    reason: str,
    wait_seconds: float,
    as_json: bool | None,
    url: str | None,
) -> int:
    """Give dead letters up for good; what waits behind them flows.

    An ID may also be a held record's, as `postline subscriptions show` lists them.

    \b
    Examples:
      postline dlq discard billing 3:1042 --reason "test order"
      postline dlq discard billing --key customer-7 --reason "account closed"
    """
    answer = _operate("discard", name, _Selection(records, key, everything), reason, wait_seconds, url)
    return _tell(answer, as_json)


class _Selection(NamedTuple):
    """Which dead letters are meant: by ids, by key, or all."""

    records: Sequence[str]
    key: str | None
    everything: bool

    async def resolve(self, opened: Opened, name: str) -> list[RecordId]:
        """Their ids, in order. Raises UsageError unless exactly one way to choose was used."""
        if bool(self.records) + (self.key is not None) + self.everything != 1:
            raise UsageError("It isn't clear which dead letters are meant.", remedy="Give ids, or --key, or --all.")
        if self.records:
            return sorted({RecordId.parse(text) for text in self.records})
        letters = await opened.monitor.dead_letters(name, key=self.key)
        return [RecordId(letter.partition, letter.offset) for letter in letters]


def _operate(
    action: str, name: str, selection: _Selection, reason: str, wait_seconds: float, url: str | None
) -> Answer:
    async def work(opened: Opened) -> Answer:
        full = await opened.subscription_name(name)
        chosen = await selection.resolve(opened, full)
        if action == "redrive":
            request = await opened.operations.redrive(full, chosen)
        else:
            request = await opened.operations.discard(full, chosen, reason)
        status = await await_owner(opened, request, wait_seconds) if chosen else "nothing"
        return Answer(subscription=full, action=action, status=status, records=[str(each) for each in chosen])

    return with_log(url, work)


def _tell(answer: Answer, as_json: bool | None) -> int:
    number = len(answer.records)
    what = f"{answer.action} {number} record{'s' * (number != 1)} of {answer.subscription}"
    return tell(answer, what, wants_json(as_json))
