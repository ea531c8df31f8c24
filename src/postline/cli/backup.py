"""`postline backup` and `postline restore`: copies of the log's file, and logs made of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import click

from postline.app.care import Restored, file_of
from postline.app.care import backup as make_backup
from postline.app.care import restore as make_log
from postline.cli.failures import NEGATIVE, OK, alarm
from postline.cli.opening import require_existing, settings_for, url_option
from postline.cli.output import emit_json, json_option, number, wants_json, when
from postline.cli.progress import progress_of
from postline.cli.requests import confirm
from postline.clock import SystemClock
from postline.settings import LogUrl

__all__ = ["backup", "restore"]

_BACKUP_EPILOG = """\b
Examples:
  postline backup /backups/shop.db
  postline backup /backups/shop.db --force --url sqlite:////srv/shop/shop.db
  postline backup /srv/shop/shop.db /backups/shop-$(date +%F).db

\b
Services go on meanwhile. The backup is one file, of one moment, there only when it is whole, verified
and on the disk. Exit codes: 0 done; 1 done, but an audit does not balance (in the log itself, too);
2 wrong usage, e.g. TARGET is there already; 3 the log or the disk could not do it.
"""

_RESTORE_EPILOG = """\b
Examples:
  postline restore /backups/shop.db /srv/shop/shop.db
  postline restore /backups/shop.db /srv/shop/shop.db --dry-run
  postline restore /backups/shop.db --url sqlite:////srv/shop/shop.db --yes

\b
Stop the services first. What lies at TARGET is kept as TARGET.replaced-TIME; what it has and the
backup doesn't is said in records before anything is changed. Exit codes: 0 done; 1 an audit does not
balance, or the question was answered with no; 2 wrong usage; 3 the log could not do it, or is in use.
"""


@click.command(epilog=_BACKUP_EPILOG)
@click.argument("places", metavar="[SOURCE] TARGET", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Replace TARGET if it is there.")
@json_option
@url_option
def backup(places: tuple[str, ...], force: bool, as_json: bool | None, url: str | None) -> int:
    """Copy the log's file to the new file TARGET while services use it, and verify the copy.

    SOURCE is a file or a URL, else --url says which log.
    """
    if len(places) > 2:
        raise click.UsageError("One SOURCE and one TARGET, please.")
    source_url = _named(places[0] if len(places) == 2 else None, url)
    source = file_of(source_url, "backup")
    require_existing(source_url)
    with progress_of("copied") as progress:
        made = asyncio.run(make_backup(source, Path(places[-1]), SystemClock(), progress, force=force))
    if wants_json(as_json):
        emit_json(made)
    else:
        click.echo(
            f"{made.target}: {number(made.bytes)} bytes, {made.topics} topics, {made.subscriptions} subscriptions,"
            f" as of {when(made.taken_ms)} UTC; whole, and on the disk."
        )
    return _audited(made.unbalanced)


@click.command(epilog=_RESTORE_EPILOG)
@click.argument("source", metavar="BACKUP", type=click.Path(path_type=Path))
@click.argument("target", required=False)
@click.option("--dry-run", is_flag=True, help="Only say what would be lost; services may run.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option(
    "--skip-offsets",
    type=click.IntRange(0, 1 << 32),
    default=0,
    metavar="N",
    help="Leave so many offsets out in each partition; for a log that is lost, where others remember its offsets.",
)
@json_option
@url_option
def restore(
    source: Path, target: str | None, dry_run: bool, yes: bool, skip_offsets: int, as_json: bool | None, url: str | None
) -> int:
    """Make a log of BACKUP at TARGET, a file or a URL, else where --url says.

    Positions are those of the backup: what was handled since is handled again.
    """
    where = file_of(_named(target, url), "restore")

    def agree(found: Restored) -> bool:
        for line in _meaning(found):
            click.echo(line, err=True)
        confirm(f"Put the backup in the place of {where}?", yes)
        return True

    with progress_of("copied") as progress:
        work = make_log(source, where, SystemClock(), progress, agree, skip_offsets=skip_offsets, dry_run=dry_run)
        found = asyncio.run(work)
    if wants_json(as_json):
        emit_json(found)
    else:
        _tell(found)
    return _audited(found.unbalanced)


def _named(place: str | None, url: str | None) -> LogUrl:
    """The log that is meant: a file or a URL, or what --url and settings say."""
    if place is not None and url is not None:
        raise click.UsageError("Name the log once: as an argument or with --url.")
    if place is not None and "://" not in place:
        return LogUrl("sqlite", path=place)
    return settings_for(place or url).url


def _audited(unbalanced: list[str]) -> int:
    for name in unbalanced:
        alarm(f"the audit of {name} does not balance, in the log as in its copy; `postline audit {name}` shows where")
    return NEGATIVE if unbalanced else OK


def _tell(found: Restored) -> None:
    if found.done:
        click.echo(f"{found.target}: restored from {found.backup}{_as_of(found)}; start its services.")
        if found.replaced:
            click.echo(f"What lay there is kept as {found.replaced}.")
    else:
        for line in _meaning(found):
            click.echo(line)
        click.echo("Nothing was changed.")


def _as_of(found: Restored) -> str:
    return "" if found.taken_ms is None else f", as of {when(found.taken_ms)} UTC"


def _meaning(found: Restored) -> Iterator[str]:
    """What restoring loses, in words."""
    yield f"Restoring {found.target} from {found.backup}{_as_of(found)}."
    loss = found.loss
    if loss is None:
        why = found.unreadable or "There is no log that it could be compared with."
        yield f"  What is lost can't be counted: {why}"
        return
    yield f"  {number(loss.records)} records are lost that were published after the backup" + ":" * bool(loss.topics)
    for topic, parts in groupby(loss.topics, key=lambda each: each.topic):
        lost = list(parts)
        places = ", ".join(f"{each.partition}:{each.first}-{each.end - 1}" for each in lost)
        yield f"    {topic}: {number(sum(each.records for each in lost))} (partition:offsets {places})"
    for sub in loss.subscriptions:
        yield (
            f"  {sub.subscription}: {number(sub.handled_again)} offsets are handled again,"
            f" {number(sub.handled_and_lost)} handled ones are lost, {number(sub.state_entries)} state entries differ"
        )
    for gone in loss.lost_subscriptions:
        yield f"  {gone.subscription} on {gone.topic} is not in the backup: its next worker makes it anew"
