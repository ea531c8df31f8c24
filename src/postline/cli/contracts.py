"""`postline contracts`: contracts written down as files, compared, shown and checked before they ship."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from postline.app import App
from postline.cli.asyncapi import asyncapi
from postline.cli.failures import NEGATIVE, OK
from postline.cli.importing import import_command
from postline.cli.loading import load_apps
from postline.cli.output import emit_json, json_option, plain, wants_json
from postline.cli.usage import usage
from postline.contracts import Topic
from postline.contracts.checking import broken_promises, findings
from postline.contracts.compatibility import Finding, report
from postline.contracts.difference import Difference, differences, words_of
from postline.contracts.formats import format_named
from postline.contracts.schema import Record, Schema
from postline.contracts.snapshot import Snapshot, read_snapshot, snapshot_of, updated, write_snapshot
from postline.errors import UsageError

__all__ = ["command"]

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_DIRECTORY = "contracts"

_EPILOG = """\b
Examples:
  postline contracts snapshot shop:app           write down what is declared, in contracts/
  postline contracts check shop:app              for CI: refuse what breaks somebody
  postline contracts check shop:app --against origin/main
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


class _Changed(msgspec.Struct, frozen=True):
    topic: str
    type: str
    changes: list[Difference]


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
    if not force and (checked := [each for topic in topics for each in _checked(topic, _known(directory, topic))]):
        _show_checked(checked)
        return NEGATIVE
    directory.mkdir(parents=True, exist_ok=True)
    for topic in topics:
        known, now = _known(directory, topic), snapshot_of(topic)
        path = _path(directory, topic.name)
        content = write_snapshot(now if known is None else updated(known, now))
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
            click.echo(f"written    {path}")
        else:
            click.echo(f"unchanged  {path}")
    return OK


@command.command("check")
@_targets_argument
@_directory_option
@click.option("--against", "revision", metavar="REV", help="Compare with the snapshots of this git revision.")
@json_option
def check(targets: tuple[str, ...], directory: Path, revision: str | None, as_json: bool | None) -> int:
    """Check that the contracts of these apps break nobody; exit with 1 if one does.

    Compares with the snapshots in the working directory, or those of a git revision.

    \b
    Examples:
      postline contracts check shop:app
      postline contracts check shop:app billing:app --against origin/main
    """
    apps = load_apps(targets)
    checked: list[_Checked] = []
    number = 0
    for topic in _owned(apps):
        known = _of_revision(revision, directory, topic) if revision else _known(directory, topic)
        number += len(topic.contracts)
        checked += _checked(topic, known)
    if wants_json(as_json):
        emit_json(checked)
    elif checked:
        _show_checked(checked)
    else:
        click.echo(f"{number} message types break nobody.")
    return NEGATIVE if checked else OK


@command.command("diff")
@_targets_argument
@_directory_option
@click.option("--against", "revision", metavar="REV", help="Compare with the snapshots of this git revision.")
@json_option
def diff(targets: tuple[str, ...], directory: Path, revision: str | None, as_json: bool | None) -> int:
    """Show what changed since the snapshot, whether it breaks anybody or not.

    \b
    Example:
      postline contracts diff shop:app --against v1.4
    """
    changed = []
    for topic in _owned(load_apps(targets)):
        known = _of_revision(revision, directory, topic) if revision else _known(directory, topic)
        changed += list(_changed(topic, known))
    if wants_json(as_json):
        emit_json(changed)
    elif not changed:
        click.echo("Nothing changed.")
    for each in changed if not wants_json(as_json) else ():
        click.echo(f"{plain(each.type)}  on {plain(each.topic)}")
        for change in each.changes:
            click.echo(f"  {plain(change.path) or 'the message'}: {plain(change.said)}")
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


# -- reading and comparing ----------------------------------------------------------------------------


def _owned(apps: Sequence[App]) -> Iterator[Topic]:
    return (topic for app in apps for topic in app.owns)


def _path(directory: Path, topic: str) -> Path:
    return directory / f"{topic}.json"


def _known(directory: Path, topic: Topic) -> Snapshot | None:
    path = _path(directory, topic.name)
    return read_snapshot(path.read_bytes(), str(path)) if path.exists() else None


def _of_revision(revision: str, directory: Path, topic: Topic) -> Snapshot | None:
    """The snapshot as git has it; None if it has none there."""
    path = _path(directory, topic.name)
    _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", failing=f"git knows no revision {revision!r}.")
    listed = _git("ls-tree", "--name-only", revision, "--", str(path), failing=f"git can't list {path}.")
    if not listed.strip():
        return None
    content = _git("show", f"{revision}:./{path}", failing=f"git can't show {path} of {revision}.")
    return read_snapshot(content, f"{path} of {revision}")


def _git(*arguments: str, failing: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], check=True, capture_output=True).stdout
    except FileNotFoundError as error:
        raise UsageError("git is not installed.", remedy="Install it, or leave out --against.") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise UsageError(f"{failing} {said}".strip(), remedy="Fetch it, or name another revision.") from error


def _checked(topic: Topic, known: Snapshot | None) -> Iterator[_Checked]:
    """What is wrong with a topic, a type at a time; nothing for types that nobody has written down."""
    if known is None:
        return
    if promises := broken_promises(known, snapshot_of(topic)):
        yield _Checked(topic.name, "", promises, [])
    for name, contract in topic.contracts.items():
        before = next((known.types[each] for each in (name, *contract.reading.aliases) if each in known.types), None)
        if before is None or contract.reading.schema in before.versions:
            continue  # what is written down was judged then
        if found := findings(contract.reading, before.numbered, topic.schemas.evolution):
            yield _Checked(topic.name, name, [], found)


def _changed(topic: Topic, known: Snapshot | None) -> Iterator[_Changed]:
    for name, contract in topic.contracts.items():
        names = (name, *contract.reading.aliases)
        before = next((known.types[each] for each in names if each in known.types), None) if known else None
        if before is None:
            yield _Changed(topic.name, name, [Difference("", "is new")])
        elif changes := differences(before.versions[-1], contract.reading.schema):
            yield _Changed(topic.name, name, changes)


# -- for people ---------------------------------------------------------------------------------------


def _show_checked(checked: Sequence[_Checked]) -> None:
    for each in checked:
        for problem in each.problems:
            click.echo(f"topic {plain(each.topic)}: {plain(problem)}", err=True)
        if each.findings:
            click.echo(report(each.findings, f"{each.type} on {each.topic}"), err=True)


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
