"""`postline schedules`: delayed messages and periodic schedules, listed and cancelled."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec

from postline.cli.failures import NEGATIVE, OK
from postline.cli.opening import Opened, url_option, with_log
from postline.cli.output import ago, alone, console, emit_json, json_option, table, wants_json, when
from postline.cli.requests import wait_option
from postline.monitor import WaitingView, waiting_of
from postline.runtime.delays import DelayToken

__all__ = ["command"]

_EPILOG = """\b
Examples:
  postline schedules
  postline schedules list shop.schedules --limit 1000 --json
  postline schedules cancel lK5zaG9wLnNjaGVkdWxlcwXP…

A delayed message is cancelled by the token that publishing it gave back, which the list shows too.
A periodic schedule belongs to the code of its service: take it out there.
"""


class _Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a cancellation, as `--json` shows it."""

    subscription: str
    #: "cancelled", "gone" (it had left, so nothing was cancelled), "asked" (nobody was waited for, or no worker
    #: runs: the next one does it), or "unanswered" (workers run, but did not get to it in time).
    status: str


@click.group(epilog=_EPILOG, invoke_without_command=True)
@json_option
@url_option
@click.pass_context
def command(ctx: click.Context, as_json: bool | None, url: str | None) -> int | None:
    """List and cancel what waits for its time; by itself it lists."""
    return alone(ctx, list_waiting, as_json, url, names=(), limit=100)


@command.command("list")
@click.argument("names", metavar="[SUBSCRIPTION]...", nargs=-1)
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, help="Delayed messages of each subscription."
)
@json_option
@url_option
def list_waiting(names: tuple[str, ...], limit: int, as_json: bool | None, url: str | None) -> int:
    """List periodic schedules with their next run, and delayed messages, the earliest first.

    \b
    Examples:
      postline schedules list
      postline schedules list shop.schedules --json | jq -r '.[].delayed[].token'
    """

    async def work(opened: Opened) -> tuple[list[WaitingView], int]:
        chosen = [await opened.subscription_name(name) for name in names]
        chosen = chosen or [info.name for info in await opened.log.subscriptions()]
        return [await waiting_of(opened.log, name, limit) for name in chosen], opened.clock.now_ms()

    views, now_ms = with_log(url, work)
    if wants_json(as_json):
        emit_json([view for view in views if view.schedules or view.delayed])
    else:
        _draw(views, now_ms)
    return OK


def _draw(views: Sequence[WaitingView], now_ms: int) -> None:
    periodic = [
        (view.subscription, each.name, each.rule, when(each.next_ms), ago(each.next_ms, now_ms))
        for view in views
        for each in view.schedules
    ]
    delayed = [
        (view.subscription, ago(each.due_ms, now_ms), each.type, each.topic, each.key or "-", each.token)
        for view in views
        for each in view.delayed
    ]
    if periodic:
        console().print(table(("subscription", "schedule", "rule", "next run (UTC)", "due"), periodic))
    if delayed:
        console().print(table(("subscription", "due", "type", "topic", "key", "token"), delayed))
    if not periodic and not delayed:
        click.echo("Nothing waits for its time.")
    for view in views:
        if view.more:
            click.echo(f"{view.subscription} has more delayed messages: see --limit.")


@command.command("cancel")
@click.argument("token")
@wait_option
@json_option
@url_option
def cancel(token: str, wait_seconds: float, as_json: bool | None, url: str | None) -> int:
    """Cancel a delayed message; exit code 1 if it had left, or the workers have not come to it in time.

    Where no worker runs it is asked for, durably, with exit code 0: the next one obeys before it sends anything.

    \b
    Example:
      postline schedules cancel lK5zaG9wLnNjaGVkdWxlcwXP…
    """

    async def work(opened: Opened) -> str:
        request = await opened.operations.cancel(token)
        if not request.live or not wait_seconds:
            return "asked"
        if not await opened.operations.obeyed(request, wait_seconds):
            return "unanswered"
        return "cancelled" if await opened.operations.cancelled(token) else "gone"

    named = DelayToken.read(token)
    status = with_log(url, work)
    said = {
        "cancelled": "cancelled.",
        "gone": "it has left already; nothing was cancelled.",
        "asked": "asked for; takes effect when a worker comes to it.",
        "unanswered": "asked for durably, but the workers have not come to it yet.",
    }
    if wants_json(as_json):
        emit_json(_Cancelled(subscription=named.subscription, status=status))
    else:
        click.echo(f"{named.id} of {named.subscription}: {said[status]}")
    return OK if status in ("cancelled", "asked") else NEGATIVE
