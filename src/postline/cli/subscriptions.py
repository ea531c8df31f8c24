"""`postline subscriptions`: listed, shown, paused, resumed, retried, reset and removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
import msgspec

from postline.cli.failures import OK
from postline.cli.lag import tell_reasons
from postline.cli.opening import Opened, url_option, with_log
from postline.cli.output import ago, alone, console, duration, emit_json, json_option, number, table, wants_json, when
from postline.cli.requests import Answer, await_owner, confirm, tell, wait_option
from postline.cli.times import parse_time_ms
from postline.errors import UnknownTopic, UsageError
from postline.monitor import HeldKeysView, HeldKeyView, HeldView, RecordId, SubscriptionView
from postline.operations import ResetPlan, ResetTarget

__all__ = ["command"]

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_TARGETS = "postline.reset targets"

_EPILOG = """\b
Examples:
  postline subscriptions
  postline subscriptions show billing
  postline subscriptions pause billing
  postline subscriptions retry billing
  postline subscriptions reset billing --to-time 2h
  postline subscriptions remove old-billing

A service's code makes its subscriptions; here is what operators do with them. Owners of partitions
obey: at once while a worker runs, else when the next one does.
"""


class _Shown(msgspec.Struct, frozen=True):
    """A subscription and what it holds, as `subscriptions show --json` shows it."""

    subscription: SubscriptionView
    #: The first ones.
    held: list[HeldView]
    keys: HeldKeysView


@click.group(epilog=_EPILOG, invoke_without_command=True)
@json_option
@url_option
@click.pass_context
def command(ctx: click.Context, as_json: bool | None, url: str | None) -> int | None:
    """List, pause, resume, retry, reset and remove subscriptions."""
    return alone(ctx, list_subscriptions, as_json, url)


@command.command("list")
@json_option
@url_option
def list_subscriptions(as_json: bool | None, url: str | None) -> int:
    """List subscriptions, who serves them and how they are.

    \b
    Example:
      postline subscriptions list --json | jq -r '.[] | select(.status=="no member") | .name'
    """

    async def work(opened: Opened) -> list[SubscriptionView]:
        return await opened.monitor.subscriptions()

    views = with_log(url, work)
    if wants_json(as_json):
        emit_json(views)
        return OK
    columns = ("subscription", "topic", "service", "status", ">workers", ">lag", ">held", ">dead", "created (UTC)")
    rows = [
        (
            view.name,
            view.topic,
            view.service,
            view.status,
            str(len(view.members)),
            number(view.lag_records),
            number(view.held),
            number(view.dead_letters),
            when(view.created_ms),
        )
        for view in views
    ]
    console().print(table(columns, rows))
    tell_reasons(views)
    return OK


@command.command("show")
@click.argument("name", metavar="SUBSCRIPTION")
@click.option(
    "--held",
    "limit",
    type=click.IntRange(0),
    default=50,
    show_default=True,
    metavar="N",
    help="So many held records, and keys.",
)
@json_option
@url_option
def show(name: str, limit: int, as_json: bool | None, url: str | None) -> int:
    """Show one subscription: its workers, partitions, and the keys and records it holds with their next attempts.

    \b
    Example:
      postline subscriptions show billing
    """

    async def work(opened: Opened) -> tuple[_Shown, int]:
        full = await opened.subscription_name(name)
        monitor = opened.monitor
        view, held = await monitor.subscription(full), await monitor.held(full, limit)
        return _Shown(view, held, await monitor.held_keys(full, limit)), opened.clock.now_ms()

    shown, now_ms = with_log(url, work)
    if wants_json(as_json):
        emit_json(shown)
    else:
        _draw(shown, now_ms)
    return OK


def _draw(shown: _Shown, now_ms: int) -> None:
    view, screen = shown.subscription, console()
    click.echo(f"{view.name}: {view.status}, of service {view.service} on {view.topic}")
    tell_reasons([view])
    workers = [
        (each.member, each.instance, ago(each.joined_ms, now_ms), ", ".join(map(str, each.partitions)) or "-")
        for each in view.members
    ]
    if workers:
        screen.print(table(("worker", "instance", "joined", "partitions"), workers))
    rows = [
        (
            str(each.partition),
            number(each.position),
            number(each.end),
            number(each.lag_records),
            duration(each.lag_seconds),
            number(each.held),
            number(each.dead_letters),
            each.status,
        )
        for each in view.partitions
    ]
    columns = (">partition", ">position", ">end", ">lag", ">behind", ">held", ">dead", "status")
    screen.print(table(columns, rows))
    if shown.held:
        _draw_keys(shown.keys.keys, now_ms)
        _draw_held(shown.held, now_ms)
    if len(shown.held) < view.held:
        click.echo(f"… and {number(view.held - len(shown.held))} held records more; --held shows them.")


def _draw_keys(keys: Sequence[HeldKeyView], now_ms: int) -> None:
    rows = [
        (
            each.key or "-",
            each.status,
            number(each.records),
            str(each.attempts),
            ago(each.next_attempt_ms, now_ms),
            each.error,
        )
        for each in keys
    ]
    console().print(table(("key", "status", ">records", ">attempts", "next attempt", "error"), rows))


def _draw_held(held: Sequence[HeldView], now_ms: int) -> None:
    rows = [
        (each.id, each.key or "-", each.status, str(each.attempts), ago(each.next_attempt_ms, now_ms), each.error)
        for each in held
    ]
    console().print(table(("held", "key", "status", ">attempts", "next attempt", "error"), rows))


@command.command("pause")
@click.argument("name", metavar="SUBSCRIPTION")
@wait_option
@json_option
@url_option
def pause(name: str, wait_seconds: float, as_json: bool | None, url: str | None) -> int:
    """Stop fetching, retries and redrives until resumed; it outlives the workers.

    \b
    Example:
      postline subscriptions pause billing
    """
    return _switch("pause", name, wait_seconds, as_json, url)


@command.command("resume")
@click.argument("name", metavar="SUBSCRIPTION")
@wait_option
@json_option
@url_option
def resume(name: str, wait_seconds: float, as_json: bool | None, url: str | None) -> int:
    """Undo a pause; what came due meanwhile runs.

    \b
    Example:
      postline subscriptions resume billing
    """
    return _switch("resume", name, wait_seconds, as_json, url)


def _switch(action: str, name: str, wait_seconds: float, as_json: bool | None, url: str | None) -> int:
    async def work(opened: Opened) -> Answer:
        full = await opened.subscription_name(name)
        operations = opened.operations
        request = await (operations.pause(full) if action == "pause" else operations.resume(full))
        return Answer(subscription=full, action=action, status=await await_owner(opened, request, wait_seconds))

    answer = with_log(url, work)
    return tell(answer, f"{action} {answer.subscription}", wants_json(as_json))


@command.command("retry")
@click.argument("name", metavar="SUBSCRIPTION")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@wait_option
@json_option
@url_option
def retry(name: str, ids: tuple[str, ...], wait_seconds: float, as_json: bool | None, url: str | None) -> int:
    """Attempt at once what waits for its next attempt: all of it, or the records of these ids (PARTITION:OFFSET).

    For when what they failed by is mended. Their ladders go on where they were; a paused subscription
    comes to it when it is resumed.

    \b
    Examples:
      postline subscriptions retry billing
      postline subscriptions retry billing 3:1042
    """

    async def work(opened: Opened) -> Answer:
        full = await opened.subscription_name(name)
        request = await opened.operations.retry(full, [RecordId.parse(each) for each in ids])
        return Answer(subscription=full, action="retry", status=await await_owner(opened, request, wait_seconds))

    answer = with_log(url, work)
    return tell(answer, f"retry {answer.subscription}", wants_json(as_json))


def _target_option(name: str, said: str, **how: Any) -> Callable[[CommandT], CommandT]:
    """One of the ways to say where a reset goes; `_target` finds out which one was used."""

    def remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is not None and value is not False:
            ctx.meta.setdefault(_TARGETS, []).append((param.name, value))

    return click.option(name, callback=remember, expose_value=False, help=said, **how)


def _target(ctx: click.Context, now_ms: int) -> ResetTarget:
    given = ctx.meta.get(_TARGETS, [])
    if len(given) != 1:
        raise UsageError(
            "It isn't clear where the reset goes.",
            remedy="Give one of --to-earliest, --to-latest, --to-offset N and --to-time TIME.",
        )
    match given[0]:
        case ("to_earliest", _):
            return ResetTarget(offset=0)
        case ("to_offset", offset):
            return ResetTarget(offset=offset)
        case ("to_time", text):
            return ResetTarget(time_ms=parse_time_ms(text, now_ms))
    return ResetTarget()


@command.command("reset")
@click.argument("name", metavar="SUBSCRIPTION")
@_target_option("--to-earliest", "To the first record that is kept.", is_flag=True)
@_target_option("--to-latest", "To the end: skip what is there.", is_flag=True)
@_target_option("--to-offset", "To this offset of each partition.", type=click.IntRange(0), metavar="N")
@_target_option("--to-time", "To 2026-05-01T12:00:00Z, or 2h for two hours ago.", metavar="TIME")
@click.option("--partition", "partitions", type=int, multiple=True, help="Only this one; may be repeated.")
@click.option("--keep-state", is_flag=True, help="Leave the handlers' state as it is.")
@click.option("--yes", is_flag=True, help="Don't ask; needed where no terminal is there to answer.")
@wait_option
@json_option
@url_option
def reset(
    name: str,
    partitions: tuple[int, ...],
    keep_state: bool,
    yes: bool,
    wait_seconds: float,
    as_json: bool | None,
    url: str | None,
) -> int:
    """Move a subscription's position; it says what that means before it does it.

    Handlers' state is cleared unless it is kept. Held records that will be read again are dropped,
    the others count as discarded; dead letters below the new position stay. Counts begin anew.

    \b
    Examples:
      postline subscriptions reset billing --to-time 2h
      postline subscriptions reset billing --to-offset 1000 --partition 3
      postline subscriptions reset audit-trail --to-earliest --keep-state --yes
    """
    ctx = click.get_current_context()

    async def work(opened: Opened) -> Answer:
        full = await opened.subscription_name(name)
        plan = await opened.operations.plan_reset(
            full, _target(ctx, opened.clock.now_ms()), keep_state=keep_state, partitions=partitions or None
        )
        for line in _meaning(plan):
            click.echo(line, err=True)
        confirm("Reset it?", yes)
        request = await opened.operations.reset(plan)
        status = await await_owner(opened, request, wait_seconds)
        return Answer(subscription=full, action="reset", status=status)

    answer = with_log(url, work)
    return tell(answer, f"reset {answer.subscription}", wants_json(as_json))


def _meaning(plan: ResetPlan) -> list[str]:
    """What a reset would do, in words."""
    moves = ", ".join(f"{each.partition}: {each.position} to {each.target}" for each in plan.partitions)
    lines = [f"Resetting {plan.subscription} on {plan.topic} (partition: position) {moves}"]
    said = (
        ("read_again", "offsets that were handled are read again"),
        ("skipped", "offsets that were not handled are skipped"),
        ("held_discarded", "held records are given up and count as discarded"),
        ("held_read_again", "held records are dropped, since they are read again"),
        ("dead_letters_read_again", "dead letters are dropped, since they are read again"),
        ("dead_letters_kept", "dead letters below the new position stay"),
        ("state_cleared", "keys' handler state is cleared"),
    )
    lines += [f"  {number(plan.total(field))} {text}" for field, text in said if plan.total(field)]
    if plan.keep_state:
        lines.append("  the handlers' state stays as it is")
    return lines


async def _what_goes(opened: Opened, full: str) -> str:
    try:
        view = await opened.monitor.subscription(full)
    except UnknownTopic as error:  # what it read is deleted, or its state: it can go all the same
        return f"Removing {full}, of which nothing can be shown: {error.message}"
    return (
        f"Removing {full} of service {view.service}: {number(view.lag_records)} records not handled yet,"
        f" {number(view.held)} held, {number(view.dead_letters)} dead letters."
    )


@command.command("remove")
@click.argument("name", metavar="SUBSCRIPTION")
@click.option("--yes", is_flag=True, help="Don't ask; needed where no terminal is there to answer.")
@json_option
@url_option
def remove(name: str, yes: bool, as_json: bool | None, url: str | None) -> int:
    """Forget a subscription that no code serves any more: its positions, held records and state.

    Stop its workers first. The copies of its dead letters stay on their topic.

    \b
    Example:
      postline subscriptions remove old-billing
    """

    async def work(opened: Opened) -> Answer:
        full = await opened.subscription_name(name)
        click.echo(await _what_goes(opened, full), err=True)
        confirm("Remove it?", yes)
        await opened.operations.remove(full)
        return Answer(subscription=full, action="remove", status="done")

    answer = with_log(url, work)
    return tell(answer, f"remove {answer.subscription}", wants_json(as_json))
