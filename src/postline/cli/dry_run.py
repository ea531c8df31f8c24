"""`postline dlq redrive --dry-run`: what an app would make of dead letters now."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from random import Random

import click

from postline.app import App, DryRun, Environment, rehearse
from postline.cli.failures import NEGATIVE, OK
from postline.cli.loading import load_app
from postline.cli.opening import Opened, with_log
from postline.cli.output import console, emit_json, number, plain, table
from postline.cli.selecting import Chosen
from postline.monitor.deadletters import Opened as OpenedLetter

__all__ = ["rehearse_letters"]


def rehearse_letters(name: str, target: str, chosen: Chosen, limit: int | None, json: bool, url: str | None) -> int:
    """Say what would become of the chosen letters; exit code 1 if one would fail, or there is none."""
    app = load_app(target)

    async def work(opened: Opened) -> DryRun:
        full = await opened.subscription_name(name)
        environment = Environment(opened.log, opened.settings, opened.clock, Random())
        return await rehearse(app, environment, full, _pages(opened, full, chosen, limit))

    found = with_log(url, work)
    if json:
        emit_json(found)
    else:
        _draw(found, app)
    return OK if found.letters and not found.failed else NEGATIVE


async def _pages(opened: Opened, name: str, chosen: Chosen, limit: int | None) -> AsyncIterator[Sequence[OpenedLetter]]:
    info, letters, left = await opened.monitor.info(name), opened.monitor.letters, limit
    async for page in letters.pages(info, chosen.selection(opened)):
        for first in range(0, len(page), _OPENED):
            some = page[first : first + _OPENED]
            some = some if left is None else some[:left]
            if not some:
                return
            left = None if left is None else left - len(some)
            yield await letters.opened(info, some)


#: Records in memory at a time.
_OPENED = 100


def _draw(found: DryRun, app: App) -> None:
    click.echo(f"{number(found.letters)} dead letters of {found.subscription} through {app.name}; nothing was stored:")
    rows = [
        (found.succeed, "would succeed now"),
        (found.filtered, "would be filtered: no handler wants them any more"),
        (found.discarded, "would be discarded by their handler"),
        (found.failed, "would fail"),
        (found.lost, "are not kept any more"),
        *((count, f"of {name} were not run, and can be read and routed") for name, count in found.not_run.items()),
        *((count, f"of {name} have no handler") for name, count in found.unserved.items()),
    ]
    for count, said in rows:
        if count:
            click.echo(f"{number(count):>10}  {plain(said)}")
    if found.not_run:
        click.echo(
            "To have a handler run, declare it `.on(…, dry_run=True)` and leave out effects where ctx.dry_run is set."
        )
    if found.fails:
        columns = ("group", ">letters", "place", "one of them", "its error")
        drawn = [(each.group, number(each.count), each.place, each.example, each.error) for each in found.fails]
        console().print(table(columns, drawn))
