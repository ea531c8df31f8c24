"""`postline contracts`: contracts written down as files, compared, shown and checked before they ship."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from postline.app import App
from postline.cli.asyncapi import asyncapi
from postline.cli.comparing import (
    Before,
    Compared,
    ForeignBefore,
    TypeBefore,
    before_in,
    compared_option,
    known_snapshot,
    snapshot_path,
    what_was_before,
)
from postline.cli.failures import NEGATIVE, OK, alarm
from postline.cli.importing import import_command
from postline.cli.loading import load_apps
from postline.cli.output import emit_json, json_option, plain, wants_json
from postline.cli.usage import usage
from postline.contracts import Topic
from postline.contracts.compatibility import Broken, Finding, report
from postline.contracts.difference import Difference, differences, words_of
from postline.contracts.formats import format_named
from postline.contracts.schema import Record, Schema
from postline.contracts.snapshot import snapshot_of, updated, write_snapshot
from postline.errors import UsageError
from postline.registry import BrokenConsumer, Readers, broken_consumers
from postline.schedules import SchedulesTopic

__all__ = ["command"]

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_DIRECTORY = "contracts"
_ABANDONED = (
    "its snapshot lies at {}, and no app declares it any more: its records, and whoever reads them, keep its name. "
    "Declare it again; or remove the file, once nobody reads the topic."
)

_EPILOG = """\b
Examples:
  postline contracts snapshot shop:app           write down what is declared, in contracts/
  postline contracts check shop:app              for CI: refuse what breaks somebody
  postline contracts check shop:app --against origin/main
  postline contracts check shop:app --registry   compare with what is registered
  postline contracts diff shop:app
  postline contracts show shop:app shop.OrderPlaced --format avro
  postline contracts usage shop.orders           who reads which field
  postline contracts asyncapi shop:app -o asyncapi.json
  postline contracts import order.avsc --topic shop.orders   typed Python for another's schema
"""


class _Checked(msgspec.Struct, frozen=True):
    topic: str
    type: str
    problems: list[str]
    findings: list[Finding]
    consumers: list[BrokenConsumer]


class _Change(msgspec.Struct, frozen=True):
    path: str
    said: str
    read_by: tuple[str, ...]


class _Changed(msgspec.Struct, frozen=True):
    topic: str
    type: str
    changes: list[_Change]


@click.group(epilog=_EPILOG)
def command() -> None:
    """Write contracts down, compare them, and check that a change breaks nobody."""


command.add_command(usage)
command.add_command(asyncapi)
command.add_command(import_command)


def _targets_argument(command: CommandT) -> CommandT:
    return click.argument("targets", metavar="APP...", nargs=-1, required=True)(command)


def _directory_option(command: CommandT) -> CommandT:
    option = click.option(
        "--directory",
        default=_DIRECTORY,
        show_default=True,
        type=click.Path(file_okay=False, path_type=Path),
        help="Where the snapshots lie, one file a topic.",
    )
    return option(command)


@command.command("snapshot")
@_targets_argument
@_directory_option
@click.option("--force", is_flag=True, help="Also write down what breaks somebody.")
def snapshot(targets: tuple[str, ...], directory: Path, force: bool) -> int:
    """Write down the contracts of these apps' topics, each version once.

    Commit the files: `check` compares with them. Refused, with nothing written, if something breaks the rule.

    \b
    Example:
      postline contracts snapshot shop:app && git add contracts
    """
    topics = list(_owned(load_apps(targets)))
    known = {topic.name: known_snapshot(directory, topic.name) for topic in topics}
    checked = [each for topic in topics for each in _checked(before_in(known[topic.name], topic))]
    if checked and not force:
        _show_checked(checked)
        return NEGATIVE
    directory.mkdir(parents=True, exist_ok=True)
    for topic in topics:
        before, now = known[topic.name], snapshot_of(topic)
        path = snapshot_path(directory, topic.name)
        content = write_snapshot(now if before is None else updated(before, now))
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
            click.echo(f"written    {path}")
        else:
            click.echo(f"unchanged  {path}")
    return OK


@command.command("check")
@_targets_argument
@_directory_option
@compared_option
@json_option
def check(
    targets: tuple[str, ...],
    directory: Path,
    revision: str | None,
    registry: bool,
    url: str | None,
    as_json: bool | None,
) -> int:
    """Check that the contracts of these apps break nobody; exit with 1 if one does.

    Compares with the snapshots in the working directory, or those of a git revision, or with what is registered, as
    the apps' start would. Also what breaks a consumer though the topic's rule allows it is refused: what they read is
    taken from the log with --registry, else from readers.json beside the snapshots (`usage --save`); and what the
    apps read of topics of others, and can't. A topic of theirs without a snapshot is refused, too: nothing would ever
    be compared; and so is a snapshot of theirs without a topic, which was renamed or taken away.

    What is wrong is told on standard error, also where standard output is JSON.

    \b
    Examples:
      postline contracts check shop:app
      postline contracts check shop:app billing:app --against origin/main
      postline contracts check shop:app --registry --url kafka://broker:9092
    """
    compared = what_was_before(load_apps(targets), directory, revision, registry, url)
    checked = [each for known in compared.topics for each in _checked(known)]
    checked += [each for known in compared.foreign for each in _checked_views(known)]
    checked += [_Checked(topic, "", [_ABANDONED.format(path)], [], []) for topic, path in compared.abandoned.items()]
    _tell_beside(compared.foreign, registry)
    _show_checked(checked)
    if wants_json(as_json):
        emit_json(checked)
    elif not checked:
        click.echo(_unbroken(compared))
    return NEGATIVE if checked else OK


@command.command("diff")
@_targets_argument
@_directory_option
@compared_option
@json_option
def diff(
    targets: tuple[str, ...],
    directory: Path,
    revision: str | None,
    registry: bool,
    url: str | None,
    as_json: bool | None,
) -> int:
    """Show what changed since the snapshot, or since the last registered version, whether it breaks anybody or not.

    Each change names the consumers that read the field, by their views in the log with --registry, else in
    readers.json beside the snapshots.

    \b
    Examples:
      postline contracts diff shop:app --against v1.4
      postline contracts diff shop:app --registry
    """
    compared = what_was_before(load_apps(targets), directory, revision, registry, url)
    changed = [each for known in compared.topics for each in _changed(known)]
    if wants_json(as_json):
        emit_json(changed)
    elif not changed:
        click.echo("Nothing changed.")
    for each in changed if not wants_json(as_json) else ():
        click.echo(f"{plain(each.type)}  on {plain(each.topic)}" if each.type else f"topic {plain(each.topic)}")
        for change in each.changes:
            read_by = f"; read by {plain(', '.join(change.read_by))}" if change.read_by else ""
            where = f"{plain(change.path) or 'the message'}: " if each.type else ""
            click.echo(f"  {where}{plain(change.said)}{read_by}")
    return OK


@command.command("show")
@click.argument("target", metavar="APP")
@click.argument("type_name", metavar="TYPE", required=False)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["words", "json", "avro", "protobuf"]),
    default="words",
    show_default=True,
    help="In words, as JSON Schema, as .avsc or as .proto.",
)
def show(target: str, type_name: str | None, format_name: str) -> int:
    """Show the contracts of an app's topics, or one type.

    \b
    Examples:
      postline contracts show shop:app
      postline contracts show shop:app shop.OrderPlaced --format protobuf
    """
    shown = 0
    for topic in _owned(load_apps((target,))):
        for name, contract in sorted(topic.contracts.items()):
            if type_name in (None, name, *contract.reading.aliases):
                _show_type(topic, name, contract.reading.schema, format_name)
                shown += 1
    if not shown:
        raise UsageError(f"{target} declares no message type {type_name!r}.", remedy="Leave it out to see all.")
    return OK


# -- comparing ----------------------------------------------------------------------------------------


def _owned(apps: Sequence[App]) -> Iterator[Topic]:
    # The types of its schedules are Postline's own.
    return (topic for app in apps for topic in app.owns if not isinstance(topic, SchedulesTopic))


def _checked(before: Before) -> Iterator[_Checked]:
    """What is wrong with a topic, a type at a time; nothing for types that nobody knows."""
    topic = before.topic
    if before.problems:
        yield _Checked(topic.name, "", [*before.problems], [], [])
    broken = broken_consumers(topic, before.views, before.gone)
    for name in (*topic.contracts, *before.gone):
        known = before.types.get(name, TypeBefore())
        found = [_with_readers(each, _readers(before, name, known.versions[each.version])) for each in known.findings]
        consumers = [each for each in broken if each.type == name]
        if found or consumers:
            yield _Checked(topic.name, name, [], found, consumers)


def _checked_views(foreign: ForeignBefore) -> Iterator[_Checked]:
    """What an app reads of another's topic and can't, by the newest version that its owner wrote."""
    if (unread := foreign.unread) is not None and unread.breaks:
        of = unread.of
        consumer = BrokenConsumer(
            of.reading.name, foreign.service, of.subscription, unread.breaks, unread.newest.number
        )
        yield _Checked(of.topic, of.reading.name, [], [], [consumer])


def _readers(before: Before, name: str, version: Schema | None) -> Readers:
    contract = before.topic.contracts.get(name)
    return Readers(before.views_of(name), version, contract.reading.schema if contract else None)


def _with_readers(finding: Finding, readers: Readers) -> Finding:
    told = [msgspec.structs.replace(each, read_by=readers.of(each.path)) for each in finding.breaks]
    return msgspec.structs.replace(finding, breaks=told)


def _changed(before: Before) -> Iterator[_Changed]:
    if before.changes:
        yield _Changed(before.topic.name, "", [_Change("", said.removesuffix("."), ()) for said in before.changes])
    for name, contract in before.topic.contracts.items():
        newest = before.types[name].newest
        new = [Difference("", "is new")]
        if changes := new if newest is None else differences(newest, contract.reading.schema):
            yield _changed_of(before, name, changes)
    for name in before.gone:
        yield _changed_of(before, name, [Difference("", "is not declared any more")])


def _changed_of(before: Before, name: str, changes: Sequence[Difference]) -> _Changed:
    readers = _readers(before, name, before.types.get(name, TypeBefore()).newest)
    told = [_Change(each.path, each.said, readers.of(each.path)) for each in changes]
    return _Changed(before.topic.name, name, told)


# -- for people ---------------------------------------------------------------------------------------


def _show_checked(checked: Sequence[_Checked]) -> None:
    for each in checked:
        for problem in each.problems:
            click.echo(f"topic {plain(each.topic)}: {plain(problem)}", err=True)
        found: list[Broken] = [*each.findings, *each.consumers]
        if found:
            click.echo(report(found, f"{each.type} on {each.topic}"), err=True)


def _tell_beside(foreign: Sequence[ForeignBefore], registry: bool) -> None:
    """What refuses nothing of the views of others' topics, and is to be known."""
    for service, of, versions in foreign:
        if not versions:
            where = "registered of" if registry else "in the snapshots about"
            remedy = "" if registry else ": lay its owner's snapshot beside the others, or use --registry"
            said = f"nothing is {where} {plain(of.reading.name)} on {plain(of.topic)}, which {plain(service)} reads"
            alarm(f"{said}, so that was not compared{remedy}.", word="note")
    for unread in (each.unread for each in foreign):
        if unread is not None and unread.older:
            alarm(plain(unread.warning) + ".", word="note")


def _unbroken(compared: Compared) -> str:
    known = [each for before in compared.topics for each in before.types.values()]
    old = sum(1 for each in known if each.versions)
    read = sum(1 for each in compared.foreign if each.versions)
    said = []
    if old:
        said.append(f"{_message_types(len(known))} {'breaks' if len(known) == 1 else 'break'} nobody")
    if readers := {view.subscription for before in compared.topics for view in before.views} if old else ():
        said.append(f"subscriptions that read them: {len(readers)}")
    if read:
        said.append(f"{_message_types(read)} of others can be read")
    return "; ".join(said or ["Nothing was compared"]) + "."


def _message_types(number: int) -> str:
    return f"{number} message type{'' if number == 1 else 's'}"


def _show_type(topic: Topic, name: str, schema: Schema, format_name: str) -> None:
    if format_name == "words":
        click.echo(f"{name}  on {topic.name}, of {topic.owner}, {topic.schemas.evolution}, as {topic.format.name}")
        for definition in schema.definitions.values():
            for field in definition.fields if isinstance(definition, Record) else ():
                said = "" if field.required else ", optional"
                said += ", sensitive" if field.sensitive else ""
                click.echo(f"  {definition.name}.{field.name}: {words_of(schema, field.type)}{said}")
        return
    text = format_named(format_name).document(schema)
    indented = text if format_name == "protobuf" else msgspec.json.format(text, indent=2)
    click.echo(indented)
