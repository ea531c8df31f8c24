"""`postline contracts import`: typed Python for `.avsc`, `.proto` and JSON Schema files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import click
import msgspec

from postline.cli.failures import OK, alarm
from postline.cli.output import plain
from postline.contracts.json_documents import json_document
from postline.contracts.python_source import source_of
from postline.contracts.schema import Schema
from postline.contracts.topics import ForeignTopic
from postline.errors import ContractError, UsageError

__all__ = ["import_command"]

_FORMATS = {".avsc": "avro", ".proto": "protobuf", ".json": "json"}
_IMPORT = re.compile(r'^\s*import\s+(?:public\s+|weak\s+)?"([^"]+)"', re.MULTILINE)
#: Notes that are told one by one.
_NOTES_MAX = 10


@click.command("import")
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--topic", required=True, help="The topic that the types are of.")
@click.option(
    "--type", "type_name", help="The wire name, where there is one type; else the name that its file gives it."
)
@click.option(
    "--owner", default="", help="Make a Topic of this service; without it a ForeignTopic, which is only read."
)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write there, not to the screen.")
def import_command(files: tuple[Path, ...], topic: str, type_name: str | None, owner: str, output: Path | None) -> int:
    """Write typed Python for the schemas in FILE: .avsc, .proto, or JSON Schema (.json).

    The values of the topic are in the files' format. Its classes read what the schema's owner writes. Files that
    they refer to are read from where those lie; nothing is fetched.

    \b
    Examples:
      postline contracts import order.avsc --topic shop.orders -o orders.py
      postline contracts import order.proto --topic shop.orders --owner shop
    """
    formats = {_format_of(path) for path in files}
    if len(formats) > 1:
        raise UsageError("The files are of several formats.", remedy="Import those of one format at a time.")
    types: dict[str, Schema] = {}
    for path in files:
        for name, schema in _schemas_in(path, foreign=not owner).items():
            if types.setdefault(name, schema) != schema:
                raise UsageError(f"Two files declare {name} differently.", remedy="Import them one at a time.")
    if type_name is not None:
        if len(types) > 1:
            raise UsageError(f"There are {len(types)} types: {', '.join(types)}.", remedy="Leave --type out.")
        types = {type_name: next(iter(types.values()))}
    _check_names(topic, types)
    origin = ", ".join(path.name for path in files)
    text = source_of(types, topic=topic, owner=owner, format_name=formats.pop(), origin=origin)
    if output is None:
        click.echo(text, nl=False)
        return OK
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(f"{output} can't be written: {error.strerror}.", remedy="Name another file.") from error
    click.echo(f"written  {output}: {', '.join(types)}", err=True)
    return OK


def _check_names(topic: str, types: Mapping[str, Schema]) -> None:
    """Refuse names that the made module would be refused for. Raises ContractError."""
    declared = ForeignTopic(topic)
    for name in types:
        declared.reads(name)(msgspec.defstruct("Empty", []))


def _format_of(path: Path) -> str:
    if (found := _FORMATS.get(path.suffix)) is None:
        raise UsageError(f"{path} is of no known format.", remedy=f"Files end in {', '.join(_FORMATS)}.")
    return found


def _schemas_in(path: Path, foreign: bool) -> dict[str, Schema]:
    """The records in a file by their wire names."""
    try:
        match _format_of(path):
            case "avro":
                from postline.contracts.avro import parse

                schema = parse(_json(path))
                return {_root(schema, path): schema}
            case "protobuf":
                from postline.contracts.protobuf import messages

                text = _text(path)
                return _outermost(messages(text, imports=_imports_of(path, text), foreign=foreign))
            case _:
                schema = _json_schema(path)
                return {_root(schema, path): schema}
    except ContractError as error:
        raise ContractError(f"{path}: {error.message}", remedy=error.remedy) from error


def _json_schema(path: Path) -> Schema:
    from postline.contracts.jsonschema import MODEL, parse
    from postline.contracts.jsonschema_bundling import bundle
    from postline.contracts.jsonschema_parsing import read_foreign

    document = _json(path)
    if isinstance(document, dict) and MODEL in document:
        return parse(document)

    def read(other: str) -> object:
        return None if (found := _beside(path, other)) is None else _json(found)

    schema, notes = read_foreign(bundle(document, read, path=path.name))
    for note in notes[:_NOTES_MAX]:
        alarm(plain(f"{path}: {note}"), "note")
    if len(notes) > _NOTES_MAX:
        alarm(plain(f"{path}: {len(notes) - _NOTES_MAX} more of that kind"), "note")
    return schema


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ContractError(f"It is no text in UTF-8: {error}.", remedy="Correct it.") from error


def _json(path: Path) -> object:
    """What a file says. Raises ContractError for no JSON, bad UTF-8, or a key twice in one object."""
    try:
        return json_document(_text(path))
    except ContractError as error:
        raise ContractError(error.message.replace("The schema", "It", 1), remedy=error.remedy) from error


def _beside(path: Path, name: str) -> Path | None:
    """A file that another one names: from its folder, or from one that contains that, as roots of schemas do."""
    return next((found for folder in path.absolute().parents if (found := folder / name).is_file()), None)


def _imports_of(path: Path, text: str) -> dict[str, str]:
    """What a `.proto` imports, and what that does."""
    found: dict[str, str] = {}
    waiting = [text]
    while waiting:
        for name in _IMPORT.findall(waiting.pop()):
            if name not in found and (place := _beside(path, name)) is not None:
                found[name] = _text(place)
                waiting.append(found[name])
    return found


def _root(schema: Schema, path: Path) -> str:
    if schema.record is None:
        raise ContractError("Its root is no record.", remedy="Name a file whose root is one.")
    name = schema.record.name
    return re.sub(r"\.schema$", "", path.stem) if name == "Value" else name


def _outermost(found: dict[str, Schema]) -> dict[str, Schema]:
    """Those messages that are no part of another; of those that are parts of each other, all."""

    def contains(one: str, other: str) -> bool:
        return one != other and other in found[one].definitions

    return {
        name: schema
        for name, schema in found.items()
        if not any(contains(other, name) and not contains(name, other) for other in found)
    }
