"""`postline contracts import`: typed Python for `.avsc`, `.proto` and JSON Schema files."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from postline.cli.failures import OK
from postline.contracts.python_source import source_of
from postline.contracts.schema import Schema
from postline.errors import ContractError, UsageError

__all__ = ["import_command"]

_FORMATS = {".avsc": "avro", ".proto": "protobuf", ".json": "json"}


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

    The values of the topic are in the files' format. Its classes read what the schema's owner writes.

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
        types |= _schemas_in(path, foreign=not owner)
    if type_name is not None:
        if len(types) > 1:
            raise UsageError(f"There are {len(types)} types: {', '.join(types)}.", remedy="Leave --type out.")
        types = {type_name: next(iter(types.values()))}
    origin = ", ".join(path.name for path in files)
    text = source_of(types, topic=topic, owner=owner, format_name=formats.pop(), origin=origin)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text)
        click.echo(f"written  {output}: {', '.join(types)}", err=True)
    return OK


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

                return _outermost(messages(path.read_text(), foreign=foreign))
            case _:
                from postline.contracts.jsonschema import parse as parse_json

                schema = parse_json(_json(path))
                return {_root(schema, path): schema}
    except ContractError as error:
        raise ContractError(f"{path}: {error.message}", remedy=error.remedy) from error


def _json(path: Path) -> object:
    try:
        return msgspec.json.decode(path.read_bytes())
    except msgspec.DecodeError as error:
        raise ContractError(f"It is no JSON: {error}.", remedy="Correct it.") from error


def _root(schema: Schema, path: Path) -> str:
    if schema.record is None:
        raise ContractError("Its root is no record.", remedy="Name a file whose root is one.")
    name = schema.record.name
    return path.stem if name == "Value" else name


def _outermost(found: dict[str, Schema]) -> dict[str, Schema]:
    """Those messages that are no part of another."""
    parts = {name for root, schema in found.items() for name in schema.definitions if name != root and name in found}
    return {name: schema for name, schema in found.items() if name not in parts} or found
