"""`postline health`: which subscriptions stand still, and why."""

from __future__ import annotations

import click

from postline.cli.causes import cause_line
from postline.cli.failures import NEGATIVE, OK
from postline.cli.opening import Opened, url_option, with_log
from postline.cli.output import console, duration, emit_json, json_option, number, plain, table, wants_json
from postline.clock import SystemClock
from postline.errors import LogError
from postline.monitor import HealthView, health_of

__all__ = ["command"]

_EPILOG = """\b
Examples:
  postline health
  postline health billing archive --over 30
  postline health --json | jq '.subscriptions[] | select(.status == "stalled")'

\b
Exit codes: 0 all go on; 1 one stands still, or the log does not answer.
Whether a process is to be restarted tells its own /healthz (`postline run --health`): a backlog is no reason.
"""


@click.command(epilog=_EPILOG)
@click.argument("names", metavar="[SUBSCRIPTION]...", nargs=-1)
@click.option(
    "--over",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    help="How long to look: who lags by more than that and handles nothing in that time stands still.",
)
@json_option
@url_option
def command(names: tuple[str, ...], over: float, as_json: bool | None, url: str | None) -> int:
    """Say which subscriptions stand still, and why.

    A subscription stands still if it is behind and nothing of it was handled while this looked. What is known to stand
    in its way is named: no process, a pause, keys that are held, an open breaker, a topic over its bound, or a handler
    that does not come back, with its stack. Looks once where nobody is behind.
    """

    async def work(opened: Opened) -> HealthView:
        wanted = [await opened.subscription_name(name) for name in names]

        async def look() -> list:  # type: ignore[type-arg]
            monitor = opened.monitor
            return [await monitor.subscription(name) for name in wanted] if names else await monitor.subscriptions()

        before = await look()
        if not any(view.lag_records for view in before):
            return health_of(before, before, 0.0)
        await opened.clock.sleep(over)
        return health_of(before, await look(), over)

    try:
        view = with_log(url, work)
    except LogError as error:
        if not error.retryable:
            raise
        view = HealthView(healthy=False, seconds=0.0, log_error=error.message, subscriptions=[])
    _show(view, as_json=wants_json(as_json))
    return OK if view.healthy else NEGATIVE


def _show(view: HealthView, *, as_json: bool) -> None:
    if as_json:
        emit_json(view)
        return
    if view.log_error:
        click.echo(f"the log does not answer: {view.log_error}")
        return
    columns = ("subscription", "status", ">lag", ">behind", ">held", ">dead")
    rows = [
        (
            each.name,
            each.status,
            number(each.lag_records),
            duration(each.lag_seconds),
            number(each.held),
            number(each.dead_letters),
        )
        for each in view.subscriptions
    ]
    console().print(table(columns, rows))
    now_ms = SystemClock().now_ms()
    for each in view.subscriptions:
        for cause in each.causes:
            click.echo(cause_line(each.name, cause, now_ms))
            if cause.kind == "handler":
                click.echo("".join(f"  {plain(line)}\n" for line in cause.detail.splitlines()[1:]), nl=False)
