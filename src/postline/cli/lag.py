"""`postline lag`: how far subscriptions are behind, in records and in seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from postline.cli.failures import NEGATIVE, OK
from postline.cli.opening import Opened, url_option, with_log
from postline.cli.output import ago, console, duration, emit_json, json_option, number, table, wants_json
from postline.cli.planning import tell_beyond
from postline.monitor import PriorityView, SubscriptionView

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["command"]

_EPILOG = """\b
Examples:
  postline lag
  postline lag billing --partitions
  postline lag --watch
  postline lag --rates               # look twice, a second apart
  postline lag --fail-above 60        # exit code 1 if any is more than a minute behind
  postline lag --fail-on dead,unserved  # exit code 1 if any has such records
"""

#: Between the two looks of `--rates`.
_RATE_SECONDS = 1.0

#: What `--fail-on` may name, and how many of it a subscription has.
_KINDS: dict[str, Callable[[SubscriptionView], int]] = {
    "held": lambda view: view.held,
    "dead": lambda view: view.dead_letters,
    "unserved": lambda view: view.unserved,
}


def _kinds(ctx: click.Context, param: click.Parameter, text: str | None) -> list[str]:
    kinds = [] if text is None else [kind.strip() for kind in text.split(",")]
    if unknown := [kind for kind in kinds if kind not in _KINDS]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(_KINDS)}.", ctx, param)
    return kinds


@click.command(epilog=_EPILOG)
@click.argument("names", metavar="[SUBSCRIPTION]...", nargs=-1)
@click.option("--partitions", "shown", flag_value="partitions", help="A line for each partition.")
@click.option("--rates", "shown", flag_value="rates", help="Look twice, a second apart, and show how fast they go on.")
@click.option("--watch", is_flag=True, help="Go on showing until interrupted; with --json a line each time.")
@click.option("--every", default=1.0, show_default=True, metavar="SECONDS", help="How often --watch looks.")
@click.option("--fail-above", type=float, metavar="SECONDS", help="Exit with 1 if a lag is above this.")
@click.option(
    "--fail-on", metavar="held,dead,unserved", callback=_kinds, help="Exit with 1 if there are such records; any of."
)
@json_option
@url_option
def command(
    names: tuple[str, ...],
    shown: str | None,
    watch: bool,
    every: float,
    fail_above: float | None,
    fail_on: list[str],
    as_json: bool | None,
    url: str | None,
) -> int:
    """Show how far subscriptions are behind.

    Lag counts records that are neither settled nor held, and the age of the oldest of them. Held
    records (retrying, and blocked behind them) and dead letters are counted by themselves.
    """
    json, partitions = wants_json(as_json), shown == "partitions"

    async def work(opened: Opened) -> int:
        if watch:
            await _watch(opened, names, partitions, max(every, 0.1), json)
            return OK
        looks = _Looks()
        views = looks.rated(await _views(opened, names), opened.clock.monotonic())
        if shown == "rates":
            await opened.clock.sleep(_RATE_SECONDS)
            views = looks.rated(await _views(opened, names), opened.clock.monotonic())
        for view in {view.topic: view for view in views if view.topic_partitions > len(view.partitions)}.values():
            tell_beyond(view.topic, len(view.partitions), view.topic_partitions, view.beyond)
        if json:
            emit_json(views)
        else:
            console().print(_drawn(views, partitions, opened.clock.now_ms()))
        late = fail_above is not None and any(view.lag_seconds > fail_above for view in views)
        waiting = any(_KINDS[kind](view) for kind in fail_on for view in views)
        return NEGATIVE if late or waiting else OK

    try:
        return with_log(url, work)
    except KeyboardInterrupt:
        if watch:
            return OK
        raise


class _Looks:
    """How fast subscriptions went on since the last look."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self._at = 0.0

    def rated(self, views: Sequence[SubscriptionView], now: float) -> list[SubscriptionView]:
        """The views with their rates, where there was a look before."""
        passed = {view.name: sum(each.position + each.ahead for each in view.partitions) for view in views}
        before, seconds = self._before, now - self._at
        self._before, self._at = passed, now
        return [
            msgspec.structs.replace(view, rate=max(0, passed[view.name] - before[view.name]) / seconds)
            if view.name in before and seconds > 0
            else view
            for view in views
        ]


async def _views(opened: Opened, names: Sequence[str]) -> list[SubscriptionView]:
    if names:
        return [await opened.monitor.subscription(await opened.subscription_name(name)) for name in names]
    return await opened.monitor.subscriptions()


async def _watch(opened: Opened, names: Sequence[str], partitions: bool, every: float, json: bool) -> None:
    forever, looks = asyncio.Event(), _Looks()
    if json:
        while not forever.is_set():
            emit_json(looks.rated(await _views(opened, names), opened.clock.monotonic()))
            await opened.clock.sleep(every)
    from rich.live import Live

    with Live(console=console(redraws=True), auto_refresh=False) as live:
        while not forever.is_set():
            views = looks.rated(await _views(opened, names), opened.clock.monotonic())
            live.update(_drawn(views, partitions, opened.clock.now_ms()), refresh=True)
            await opened.clock.sleep(every)


def _drawn(views: Sequence[SubscriptionView], partitions: bool, now_ms: int) -> RenderableType:
    if partitions:
        return _by_partition(views, now_ms)
    shares, rates = any(view.priority for view in views), any(view.rate is not None for view in views)
    columns = (
        "subscription",
        "topic",
        "status",
        *(["priority", ">share"] if shares else []),
        *([">records/s"] if rates else []),
        ">lag",
        ">behind",
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
                *([_rate(view.rate)] if rates else []),
                number(view.lag_records),
                duration(view.lag_seconds),
                number(view.retrying),
                number(view.blocked),
                number(view.unserved),
                number(view.dead_letters),
                ago(view.next_attempt_ms, now_ms),
            )
            for view in views
        ],
    )


def _priority(priority: PriorityView | None) -> tuple[str, str]:
    return ("-", "-") if priority is None else (priority.name, f"{priority.share:.0%}" if priority.share else "rest")


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:,.0f}"


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
                "paused" if each.paused else each.owner or "-",
            )
            for view in views
            for each in view.partitions
        ],
    )
