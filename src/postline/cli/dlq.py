"""`postline dlq`: dead letters listed, grouped and shown."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec

import postline.cli.dlq_acts as acts
from postline.cli.failures import NEGATIVE, OK, show_error
from postline.cli.opening import Opened, reveal_option, url_option, with_log
from postline.cli.output import ago, alone, console, emit_json, json_option, number, plain, table, wants_json, when
from postline.cli.selecting import Chosen, filter_options
from postline.monitor import DeadLetterDetail, DeadLetterGroup, DeadLetterView, HeldView, RecordId

__all__ = ["command"]

#: Rows of a table; a hundred thousand would take minutes to lay out, and nobody reads them.
_ROWS_MAX = 1_000

_EPILOG = """\b
Examples:
  postline dlq
  postline dlq list billing --key customer-7
  postline dlq show billing 3:1042
  postline dlq groups billing
  postline dlq redrive billing 3:1042 3:1050
  postline dlq redrive billing --group 5f1c03aa --rate 200
  postline dlq edit billing 3:1042 --set address.city=Ulm --reason "typing error"
  postline dlq discard billing 3:1042 --reason "test order"

A record is named by its partition and offset. Redriving gives it, and what waits behind it, another
run under its own offset; nothing is appended again.
"""


class _Letters(msgspec.Struct, frozen=True):
    """One subscription's dead letters, as `dlq list --json` shows them."""

    subscription: str
    dead_letters: list[DeadLetterView]


class _Groups(msgspec.Struct, frozen=True):
    """One subscription's groups, as `dlq groups --json` shows them."""

    subscription: str
    groups: list[DeadLetterGroup]


@click.group(epilog=_EPILOG, invoke_without_command=True)
@json_option
@url_option
@click.pass_context
def command(ctx: click.Context, as_json: bool | None, url: str | None) -> int | None:
    """List, group, show, redrive, edit, discard and export dead letters; by itself it lists them."""
    return alone(ctx, list_letters, as_json, url, names=(), fail_above=None)


@command.command("list")
@click.argument("names", metavar="[SUBSCRIPTION]...", nargs=-1)
@filter_options
@click.option("--fail-above", type=int, metavar="COUNT", help="Exit with 1 if there are more.")
@json_option
@url_option
def list_letters(
    names: tuple[str, ...], chosen: Chosen, fail_above: int | None, as_json: bool | None, url: str | None
) -> int:
    """List what subscriptions gave up, oldest offset first.

    \b
    Examples:
      postline dlq list
      postline dlq list billing --json | jq -r '.[].dead_letters[].id'
      postline dlq list billing --where '{"field": "total", "gt": 100}' --since 2h
      postline dlq list --fail-above 0     # exit code 1 if there are any
    """

    async def work(opened: Opened) -> tuple[list[_Letters], int]:
        selection = chosen.selection(opened)
        full = await _names(opened, names)
        found = [_Letters(name, await opened.monitor.dead_letters(name, selection)) for name in full]
        return found, opened.clock.now_ms()

    found, now_ms = with_log(url, work)
    if wants_json(as_json):
        emit_json(found)
    else:
        _draw_list(found, now_ms)
    number = sum(len(each.dead_letters) for each in found)
    return NEGATIVE if fail_above is not None and number > fail_above else OK


async def _names(opened: Opened, names: Sequence[str]) -> list[str]:
    """The full names that are meant; all, if none is given."""
    named = [await opened.subscription_name(name) for name in names]
    return named or [info.name for info in await opened.log.subscriptions()]


@command.command("groups")
@click.argument("names", metavar="[SUBSCRIPTION]...", nargs=-1)
@filter_options
@json_option
@url_option
def groups(names: tuple[str, ...], chosen: Chosen, as_json: bool | None, url: str | None) -> int:
    """Group dead letters by exception and place, the largest group first.

    The place is the innermost frame of your own code. A group keeps its name while the function keeps
    its; `--group` of the other commands takes it.

    \b
    Examples:
      postline dlq groups
      postline dlq groups billing --since 1h
    """

    async def work(opened: Opened) -> tuple[list[_Groups], int]:
        selection, found = chosen.selection(opened), []
        for name in await _names(opened, names):
            info = await opened.monitor.info(name)
            found.append(_Groups(name, await opened.monitor.letters.groups(info, selection)))
        return found, opened.clock.now_ms()

    found, now_ms = with_log(url, work)
    if wants_json(as_json):
        emit_json(found)
    else:
        _draw_groups(found, now_ms)
    return OK


def _draw_groups(found: Sequence[_Groups], now_ms: int) -> None:
    rows = [
        (
            each.subscription,
            group.group,
            number(group.count),
            group.place,
            ago(group.first_failed_ms, now_ms),
            ago(group.last_failed_ms, now_ms),
            group.example,
            group.error,
        )
        for each in found
        for group in each.groups
    ]
    if not rows:
        click.echo("No dead letters.")
        return
    columns = ("subscription", "group", ">letters", "place", "first", "last", "one of them", "its error")
    console().print(table(columns, rows))


def _draw_list(found: Sequence[_Letters], now_ms: int) -> None:
    letters = [(each.subscription, letter) for each in found for letter in each.dead_letters]
    rows = [
        (
            name,
            letter.id,
            letter.key or "-",
            letter.type,
            str(letter.attempts),
            ago(letter.failed_ms, now_ms),
            f"{letter.blocked} blocked" if letter.holds else "flows",
            letter.group + (" (edited)" if letter.edited else ""),
            letter.error,
        )
        for name, letter in letters[:_ROWS_MAX]
    ]
    if not letters:
        click.echo("No dead letters.")
        return
    columns = ("subscription", "id", "key", "type", ">attempts", "failed", "key's later records", "group", "error")
    console().print(table(columns, rows))
    if more := len(letters) - len(rows):
        click.echo(
            f"… and {number(more)} dead letters more; `postline dlq groups` sums them up, --json lists them all."
        )


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
        ("redriven", f"{letter.redrives} times before"),
        ("origin", detail.origin),
        ("group", f"{letter.group}, {letter.place or 'place unknown'}"),
        ("error", letter.error),
        *(("led to by", cause) for cause in detail.causes),
    ]
    if (edit := detail.edit) is not None:
        lines.append(("edited", f"{when(edit.edited_ms)} UTC by {edit.by}: {edit.reason}"))
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        click.echo(f"{label:<{width}}  {plain(text)}")
    stack = detail.stack or "Its stack is not kept any more."
    click.echo("\n" + "\n".join(plain(line) for line in stack.splitlines()) + "\n")
    _draw_content(detail)
    if detail.related:
        click.echo(f"\nIts conversation, {plain(detail.conversation)}:")
        rows = [(when(each.stored_ms), each.topic, each.id, each.type or "-") for each in detail.related]
        console().print(table(("stored (UTC)", "topic", "record", "type"), rows))


def _draw_content(detail: DeadLetterDetail) -> None:
    if detail.record is None:
        click.echo("Its record is not kept any more.")
        return
    click.echo(msgspec.json.format(msgspec.json.encode(detail.record), indent=2).decode())
    if detail.original is not None:
        click.echo("\nAs it was published:")
        click.echo(msgspec.json.format(msgspec.json.encode(detail.original.data), indent=2).decode())


for each in (acts.redrive, acts.discard, acts.edit, acts.export):
    command.add_command(each)
