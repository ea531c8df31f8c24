"""Who can read whom among Avro's own documents: its rules as its readers keep them, by names and kinds on the wire.

Source: Apache Avro 1.12, "Schema Resolution". Logical types don't count there, as in Avro's own checkers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from postline.contracts.readability import Found

__all__ = ["document_breaks"]

_PROMOTED: dict[str, frozenset[str]] = {
    "long": frozenset({"int"}),
    "float": frozenset({"int", "long"}),
    "double": frozenset({"int", "long", "float"}),
    "string": frozenset({"bytes"}),
    "bytes": frozenset({"string"}),
}


def document_breaks(reader: Any, writer: Any) -> Iterator[Found]:
    """What keeps the reader of one `.avsc` document's content from reading what is written under the other's."""
    from fastavro import parse_schema

    mine: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    ours, others = parse_schema(reader, named_schemas=mine), parse_schema(writer, named_schemas=theirs)
    yield from _Rules(mine, theirs).types(ours, others, "")


class _Rules:
    """Two documents; pairs of records under way are taken for readable."""

    def __init__(self, mine: dict[str, Any], theirs: dict[str, Any]) -> None:
        self._mine, self._theirs = mine, theirs
        self._assumed: dict[tuple[str, str], None] = {}
        self._broken: dict[tuple[str, str], Found] = {}

    def types(self, reader: Any, writer: Any, path: str) -> Iterator[Found]:
        ours, others = self._mine.get(_key(reader), reader), self._theirs.get(_key(writer), writer)
        if isinstance(others, list):
            for each in others:
                yield from self.types(ours, each, path)
            return
        if isinstance(ours, list):
            yield from self._branches(ours, others, path)
            return
        match _kind(ours), _kind(others):
            case ("record", "record") | ("error", "error"):
                yield from self._pair(ours, others, path)
            case "enum", "enum":
                yield from _names(ours, others, path) or _symbols(ours, others, path)
            case "fixed", "fixed":
                yield from _names(ours, others, path)
                if ours["size"] != others["size"]:
                    yield Found(path, "type", f"the reader wants {ours['size']} bytes, the writer has {others['size']}")
            case "array", "array":
                yield from self.types(ours["items"], others["items"], path + "[]")
            case "map", "map":
                yield from self.types(ours["values"], others["values"], path + "[]")
            case mine, theirs if mine != theirs and theirs not in _PROMOTED.get(mine, ()):
                yield Found(path, "type", f"the reader wants {mine}, the writer writes {theirs}")

    def _branches(self, options: Sequence[Any], writer: Any, path: str) -> Iterator[Found]:
        nearest: list[Found] = []
        for option in options:
            found = list(self.types(option, writer, path))
            if not found:
                return
            if _kind(self._mine.get(_key(option), option)) == _kind(writer):
                nearest = nearest or found
        kinds = " or ".join(_kind(self._mine.get(_key(each), each)) for each in options)
        yield from nearest or [Found(path, "type", f"the reader wants {kinds}, the writer writes {_kind(writer)}")]

    def _pair(self, ours: Any, others: Any, path: str) -> Iterator[Found]:
        pair = (ours["name"], others["name"])
        if pair in self._assumed:
            return
        if (known := self._broken.get(pair)) is not None:
            yield known.under(path)
            return
        self._assumed[pair] = None
        found = list(_names(ours, others, path)) or list(self._fields(ours, others, path))
        if found:
            for later in list(self._assumed)[list(self._assumed).index(pair) :]:
                del self._assumed[later]  # it may have counted on this pair
            self._broken[pair] = found[0].within(path)
        yield from found

    def _fields(self, ours: Any, others: Any, path: str) -> Iterator[Found]:
        written = {field["name"]: field for field in others["fields"]}
        for field in ours["fields"]:
            here = f"{path}.{field['name']}" if path else field["name"]
            names = (field["name"], *field.get("aliases", ()))
            other = next((written[name] for name in names if name in written), None)
            if other is not None:
                yield from self.types(field["type"], other["type"], here)
            elif "default" not in field:
                yield Found(here, "field-without-default", "the reader wants it, the writer does not write it")


def _key(content: Any) -> str:
    """The name under which a type may be defined elsewhere."""
    return content if isinstance(content, str) else ""


def _kind(content: Any) -> str:
    if isinstance(content, dict):
        return _kind(content["type"])
    return content if isinstance(content, str) else "union"


def _names(ours: Any, others: Any, path: str) -> list[Found]:
    """Named types are each other's by their names, without namespaces, or by the reader's aliases."""
    name = others["name"]
    namespace, _, short = ours["name"].rpartition(".")
    aliases = {each if "." in each or not namespace else f"{namespace}.{each}" for each in ours.get("aliases", ())}
    if short == name.rpartition(".")[2] or name in aliases:
        return []
    return [Found(path, "name", f"the reader wants {ours['name']}, the writer writes {name}")]


def _symbols(ours: Any, others: Any, path: str) -> list[Found]:
    unknown = [each for each in others["symbols"] if each not in ours["symbols"]]
    if not unknown or "default" in ours:
        return []
    named = ", ".join(map(repr, unknown))
    return [Found(path, "unknown-symbol", f"the writer may write {named}, which the reader does not know")]
