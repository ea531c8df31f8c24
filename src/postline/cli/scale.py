"""`postline scale`: how many processes a service should have by now, for whoever starts them."""

from __future__ import annotations

import click

from postline.cli.failures import OK
from postline.cli.opening import Opened, url_option, with_log
from postline.cli.output import console, duration, emit_json, json_option, number, table, wants_json
from postline.errors import UsageError
from postline.monitor import Adviser, Decision, Policy, SubscriptionView

__all__ = ["command"]

_EPILOG = """\b
Examples:
  postline scale shop
  postline scale shop --max 8 --drain-seconds 30 --json | jq .desired
  postline scale shop billing              # that run in the same processes

\b
`postline run --workers 1..8` does by itself what this says. Beyond one machine an autoscaler asks
GET /scale of `postline run --health` for the same.
"""


@click.command(epilog=_EPILOG)
@click.argument("services", metavar="SERVICE...", nargs=-1, required=True)
@click.option("--min", "least", default=1, show_default=True, type=click.IntRange(1, 1000), help="No fewer.")
@click.option("--max", "most", default=1000, show_default=True, type=click.IntRange(1, 1000), help="No more.")
@click.option(
    "--drain-seconds",
    default=60.0,
    show_default="60",
    type=click.FloatRange(0.5, 604_800),
    metavar="SECONDS",
    help="In what time a backlog shall be handled.",
)
@click.option(
    "--over",
    default=5.0,
    show_default="5",
    type=click.FloatRange(1.0),
    metavar="SECONDS",
    help="How long to look for how fast it goes on.",
)
@json_option
@url_option
def command(
    services: tuple[str, ...],
    least: int,
    most: int,
    drain_seconds: float,
    over: float,
    as_json: bool | None,
    url: str | None,
) -> int:
    """Say how many processes services should have.

    As many as handle the backlog, and what comes in meanwhile, within --drain-seconds; never more than
    there are partitions; one less than there are if that would do.
    """
    if least > most:
        raise UsageError(f"--min {least} is above --max {most}.", remedy="Exchange them.")
    policy = Policy(workers_min=least, workers_max=most, drain_seconds=drain_seconds)

    async def work(opened: Opened) -> Decision:
        prefix = opened.settings.full_name("")
        known = {each.service for each in await opened.log.subscriptions() if each.name.startswith(prefix)}
        if unknown := [name for name in services if name not in known]:
            raise UsageError(
                f"Service {unknown[0]!r} has no subscription in {opened.log.address}.",
                remedy=f"These have: {', '.join(sorted(known)) or 'none'}.",
            )

        def counts(view: SubscriptionView) -> bool:
            return view.service in services and view.name.startswith(prefix)

        return await Adviser([(opened.monitor, counts)], opened.clock, over).advice(policy)

    _show(with_log(url, work), as_json=wants_json(as_json))
    return OK


def _show(decision: Decision, *, as_json: bool) -> None:
    if as_json:
        emit_json(decision)
        return
    click.echo(f"workers {decision.workers} -> {decision.desired}: {decision.reason}")
    columns = ("subscription", ">workers", ">partitions", ">backlog", ">comes in/s", ">one handles/s", ">drains in")
    rows = [
        (
            each.name,
            number(each.workers),
            number(each.partitions),
            number(each.backlog),
            f"{each.added_per_second:,.0f}",
            ("" if each.measured else "at least ") + f"{each.handled_per_second_per_worker:,.0f}",
            "-" if each.drain_seconds is None else duration(each.drain_seconds),
        )
        for each in decision.subscriptions
    ]
    console().print(table(columns, rows))
