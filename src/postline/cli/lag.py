"""`postline lag`: how far subscriptions are behind, in records and in seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from postline.cli.causes import cause_line
from postline.cli.failures import NEGATIVE, OK, alarm
from postline.cli.opening import Opened, url_option, with_log
from postline.cli.output import ago, console, duration, emit_json, json_option, number, table, wants_json, when
from postline.cli.planning import tell_beyond
from postline.cli.times import parse_span_ms
from postline.monitor import HistoryView, PriorityView, SubscriptionView

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["command", "tell_reasons"]

_EPILOG = """\b
Examples:
  postline lag
  postline lag billing --partitions
  postline lag --watch
  postline lag --fail-above 60        # exit code 1 if any is more than a minute behind
  postline lag --fail-on dead,unserved,stalled  # exit code 1 if any has such records, or is so
  postline lag billing --history 2h
"""

#: How long one call looks for the rate.
_RATE_SECONDS = 0.5

_SPAN = "postline.lag span"

#: What `--fail-on` may name: how many of it a subscription has, or whether that is its status.
_KINDS: dict[str, Callable[[SubscriptionView], int]] = {
    "held": lambda view: view.held,
    "dead": lambda view: view.dead_letters,
    "unserved": lambda view: view.unserved,
    "alarm": lambda view: int(bool(view.dead_letters_alarm)),
    "growing": lambda view: view.status == "growing",
    "stalled": lambda view: view.status == "stalled",
    "no-member": lambda view: view.status == "no member",
}


def _kinds(ctx: click.Context, param: click.Parameter, text: str | None) -> list[str]:
    kinds = [] if text is None else [kind.strip() for kind in text.split(",")]
    if unknown := [kind for kind in kinds if kind not in _KINDS]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(_KINDS)}.", ctx, param)
    return kinds


def _remember_span(ctx: click.Context, param: click.Parameter, text: str | None) -> None:
    ctx.meta[_SPAN] = text


@click.command(epilog=_EPILOG)
@click.argument("names", metavar="[SUBSCRIPTION]...", nargs=-1)
@click.option("--partitions", is_flag=True, help="A line for each partition.")
@click.option("--watch", is_flag=True, help="Go on showing until interrupted; with --json a line each time.")
@click.option(
    "--every",
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often --watch looks. Else, where anything is behind: how long to look for the rate, at most "
    "half a second; 0 looks once.",
)
@click.option("--fail-above", type=float, metavar="SECONDS", help="Exit with 1 if a lag is above this.")
@click.option(
    "--fail-on",
    metavar="held,dead,unserved,alarm,growing,stalled,no-member",
    callback=_kinds,
    help="Exit with 1 if there are such records, such a status, or an alarm about dead letters; any of.",
)
@click.option(
    "--history",
    metavar="SPAN",
    callback=_remember_span,
    expose_value=False,
    help="How it went instead, up to now: 2h, 1d, 14d at most, in 24 steps.",
)
@json_option
@url_option
def command(
    names: tuple[str, ...],
    partitions: bool,
    watch: bool,
    every: float,
    fail_above: float | None,
    fail_on: list[str],
    as_json: bool | None,
    url: str | None,
) -> int:
    """Show how far subscriptions are behind.

    Lag counts records that are neither settled nor held, and the age of the oldest of them. Held
    records (retrying, and blocked behind them) and dead letters are counted by themselves. If anything
    is behind, it looks twice, and tells how fast it drains and when it will be at the end.

    \b
    The status is that of the worst partition, and has its reason below the table:
      growing            more comes than is settled, over the last minutes
      stalled            there is something to do, workers are there, and nothing is settled
      rewound            its position went back, and is not there again
      held by a key      dead letters hold keys, or as much is held as may be
      waits for a bound  a topic that its handlers publish to is over its bound
      no member          no worker is there
      paused             an operator wanted it; of some partitions "partly paused"
    """
    json = wants_json(as_json)
    if (span := click.get_current_context().meta.get(_SPAN)) is not None:
        return _history(names, parse_span_ms(span), json, url)

    async def work(opened: Opened) -> int:
        if watch:
            await _watch(opened, names, partitions, max(every, 0.1), json)
            return OK
        views = await _views(opened, names)
        if every > 0 and any(view.lag_records for view in views):
            await opened.clock.sleep(min(every, _RATE_SECONDS))
            views = await _views(opened, names)
        for view in {view.topic: view for view in views if view.topic_partitions > len(view.partitions)}.values():
            tell_beyond(view.topic, len(view.partitions), view.topic_partitions, view.beyond)
        for view in views:
            if view.dead_letters_alarm:
                alarm(f"subscription {view.name}: {view.dead_letters_alarm}: `postline dlq groups {view.name}`")
        if json:
            emit_json(views)
        else:
            console().print(_drawn(views, partitions, opened.clock.now_ms()))
            tell_reasons(views)
        late = fail_above is not None and any(view.lag_seconds > fail_above for view in views)
        waiting = any(_KINDS[kind](view) for kind in fail_on for view in views)
        return NEGATIVE if late or waiting else OK

    try:
        return with_log(url, work)
    except KeyboardInterrupt:
        if watch:
            return OK
        raise


async def _views(opened: Opened, names: Sequence[str]) -> list[SubscriptionView]:
    if names:
        return [await opened.monitor.subscription(await opened.subscription_name(name)) for name in names]
    return await opened.monitor.subscriptions()


async def _watch(opened: Opened, names: Sequence[str], partitions: bool, every: float, json: bool) -> None:
    forever = asyncio.Event()
    if json:
        while not forever.is_set():
            emit_json(await _views(opened, names))
            await opened.clock.sleep(every)
    from rich.live import Live

    with Live(console=console(redraws=True), auto_refresh=False) as live:
        while not forever.is_set():
            live.update(_drawn(await _views(opened, names), partitions, opened.clock.now_ms()), refresh=True)
            await opened.clock.sleep(every)


def _history(names: Sequence[str], span_ms: int, json: bool, url: str | None) -> int:
    async def work(opened: Opened) -> list[HistoryView]:
        full = [await opened.subscription_name(name) for name in names]
        wanted = full or [view.name for view in await opened.monitor.subscriptions()]
        return [await opened.monitor.history(name, span_ms=span_ms) for name in wanted]

    found = with_log(url, work)
    if json:
        emit_json(found)
        return OK
    for view in found:
        rates = ", ".join(f"{_per_second(each.handled_per_second)} in {each.minutes} min" for each in view.rates)
        click.echo(f"{view.subscription} on {view.topic}: a second {rates}")
        rows = [
            (
                when(each.at_ms),
                "-" if each.lag_records is None else number(each.lag_records),
                _per_second(each.handled_per_second),
                _per_second(each.added_per_second),
                number(each.held),
                number(each.dead_letters),
            )
            for each in view.points
        ]
        console().print(table(("until (UTC)", ">lag", ">handled a second", ">added a second", ">held", ">dead"), rows))
    return OK


def _per_second(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def tell_reasons(views: Sequence[SubscriptionView]) -> None:
    """A line for each subscription that is not well, which says why."""
    for view in views:
        if view.reason:
            click.echo(f"{view.name}: {view.status}: {view.reason}")


def _drawn(views: Sequence[SubscriptionView], partitions: bool, now_ms: int) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    figures = _by_partition(views, now_ms) if partitions else _by_subscription(views, now_ms)
    lines = [cause_line(view.name, cause, now_ms) for view in views for cause in view.causes]
    return Group(figures, *(Text(line) for line in lines)) if lines else figures


def _by_subscription(views: Sequence[SubscriptionView], now_ms: int) -> RenderableType:
    shares = any(view.priority for view in views)
    columns = (
        "subscription",
        "topic",
        "status",
        *(("priority", ">share") if shares else ()),
        ">lag",
        ">behind",
        ">a second",
        "at the end",
        ">of bound",
        ">retrying",
        ">blocked",
        ">unserved",
        ">dead",
        "next attempt",
    )
    return table(
        columns,
        [
            (
                view.name,
                view.topic,
                _status(view),
                *(_priority(view.priority) if shares else ()),
                number(view.lag_records),
                duration(view.lag_seconds),
                _rate(view),
                _drains(view),
                _used(view),
                number(view.retrying),
                number(view.blocked),
                number(view.unserved),
                number(view.dead_letters),
                ago(view.next_attempt_ms, now_ms),
            )
            for view in views
        ],
    )


def _rate(view: SubscriptionView) -> str:
    rate = view.drained_per_second
    return "-" if rate is None or not (rate or view.lag_records) else f"{rate:,.0f}"


def _drains(view: SubscriptionView) -> str:
    """When it will be at the end, in words."""
    drained, added = view.drained_per_second, view.added_per_second
    if not view.lag_records:
        return "now"
    if view.drains_in_seconds is not None:
        return f"in {duration(view.drains_in_seconds)}"
    if drained is None or added is None:
        return "-"
    return "growing" if added > drained else "standing still"


def _used(view: SubscriptionView) -> str:
    return "-" if view.bound is None else f"{view.bound.used:.0%}"


def _priority(priority: PriorityView | None) -> tuple[str, str]:
    return ("-", "-") if priority is None else (priority.name, f"{priority.share:.0%}" if priority.share else "-")


def _status(view: SubscriptionView) -> str:
    workers = f" ({len(view.members)})" if view.members else ""
    return view.status + workers


def _by_partition(views: Sequence[SubscriptionView], now_ms: int) -> RenderableType:
    columns = (
        "subscription",
        ">partition",
        ">position",
        ">end",
        ">lag",
        ">behind",
        ">ahead",
        ">held",
        ">dead",
        "next attempt",
        "status",
        "owner",
    )
    return table(
        columns,
        [
            (
                view.name,
                str(each.partition),
                number(each.position),
                number(each.end),
                number(each.lag_records),
                duration(each.lag_seconds),
                number(each.ahead),
                number(each.held),
                number(each.dead_letters),
                ago(each.next_attempt_ms, now_ms),
                each.status,
                each.owner or "-",
            )
            for view in views
            for each in view.partitions
        ],
    )
