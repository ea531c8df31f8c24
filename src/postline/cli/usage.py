"""`postline contracts usage`: which services read which fields, as their last start told the log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from postline.cli.failures import OK
from postline.cli.opening import Opened, url_option, with_log
from postline.cli.output import console, emit_json, json_option, plain, table, wants_json
from postline.contracts.schema import Schema
from postline.errors import ContractError
from postline.registry import View, meaning_of, topic_and_type, write_views
from postline.settings import Settings

__all__ = ["usage"]


class FieldUse(msgspec.Struct, frozen=True):
    """A field, and the services that read it."""

    topic: str
    type: str
    field: str
    read_by: list[str]


class _Contract(NamedTuple):
    topic: str
    type: str
    schema: Schema


@click.command("usage")
@click.argument("topic", required=False)
@click.option("--unused", is_flag=True, help="Only fields that nobody reads.")
@click.option(
    "--save",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the consumers' views to this file, for tests of the owner.",
)
@json_option
@url_option
def usage(topic: str | None, unused: bool, save: Path | None, as_json: bool | None, url: str | None) -> int:
    """Show for each field of TOPIC's newest contracts, or all, which services read it.

    Each subscription tells at its start what it reads. One that was removed from the log does not count.

    \b
    Examples:
      postline contracts usage shop.orders
      postline contracts usage --unused
    """

    async def work(opened: Opened) -> tuple[list[View], list[_Contract], Settings]:
        full = None if topic is None else await opened.topic_name(topic)
        views = [view for view in await opened.views() if full in (None, view.topic)]
        return views, [each for each in await _contracts(opened) if full in (None, each.topic)], opened.settings

    views, contracts, settings = with_log(url, work)
    if save is not None:
        _save(views, save, settings)
    uses = [use for use in _uses(views, contracts) if not (unused and use.read_by)]
    if wants_json(as_json):
        emit_json(uses)
    elif uses:
        rows = [[*map(plain, (use.topic, use.type, use.field, ", ".join(use.read_by)))] for use in uses]
        console().print(table(("topic", "type", "field", "read by"), rows))
    else:
        click.echo("No such fields." if contracts else "No such contracts are registered.")
    return OK


def _save(views: Sequence[View], path: Path, settings: Settings) -> None:
    """Write the views without the namespace of the log: contracts in a repository know of none."""
    before = settings.full_name("")
    plain_views = [
        msgspec.structs.replace(
            view, topic=view.topic.removeprefix(before), subscription=view.subscription.removeprefix(before)
        )
        for view in views
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(write_views(plain_views))


async def _contracts(opened: Opened) -> list[_Contract]:
    """The newest version of each type of a topic that is there."""
    names = [spec.name for spec in await opened.log.topics()]
    found = []
    for subject in await opened.registry.subjects():
        if (found_in := topic_and_type(subject, names)) is None:
            continue
        with contextlib.suppress(ContractError):  # another program's, of which we can't say what is in it
            newest = meaning_of((await opened.registry.versions(subject))[-1].document)
            found.append(_Contract(*found_in, newest))
    return found


def _uses(views: Sequence[View], contracts: Sequence[_Contract]) -> Iterator[FieldUse]:
    for contract in contracts:
        reading = [view for view in views if (view.topic, view.type) == (contract.topic, contract.type)]
        read = [(view.consumer, view.fields_of(contract.schema)) for view in reading]
        for path, _ in contract.schema.paths():
            yield FieldUse(
                contract.topic, contract.type, path, list(dict.fromkeys(who for who, paths in read if path in paths))
            )
