"""Avro's documents: a schema as the content of an `.avsc` file, and any `.avsc` as a schema.

Source: Apache Avro 1.12, "Specification".
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from msgspec import UNSET

from postline.contracts.avro_defaults import alternative_of, from_avro
from postline.contracts.avro_guard import Guard
from postline.contracts.avro_layout import DURATION, JSON_TEXT, PLAIN_DECIMAL, Layout
from postline.contracts.fitting import is_endless
from postline.contracts.schema import (
    TEXT,
    Definition,
    Enumeration,
    Field,
    ListOf,
    MapOf,
    Record,
    Reference,
    Scalar,
    Schema,
    Type,
    UnionOf,
)
from postline.errors import ContractError, SettingsError

__all__ = ["MODEL", "document", "parse"]

#: Where the model stands in a document of ours; Avro lets documents have attributes that it does not know.
MODEL = "x-postline"

_DEPTH_MAX = 200
_FIXED_MAX = 1 << 31
_PRIMITIVES: dict[str, Type] = {
    "null": Scalar(kind="null"),
    "boolean": Scalar(kind="boolean"),
    "int": Scalar(kind="integer", bits=32),
    "long": Scalar(kind="integer", bits=64),
    "float": Scalar(kind="number", bits=32),
    "double": Scalar(kind="number", bits=64),
    "bytes": Scalar(kind="bytes"),
    "string": TEXT,
}
#: By Avro's type and logical type. What Avro does not know, or on another type, is ignored, as it asks for.
_LOGICAL: dict[tuple[str, str], Type] = {
    ("int", "date"): Scalar(kind="date"),
    ("int", "time-millis"): Scalar(kind="time", wire="time-millis"),
    ("long", "time-micros"): Scalar(kind="time"),
    ("long", "timestamp-micros"): Scalar(kind="datetime"),
    ("string", "uuid"): Scalar(kind="uuid"),
    ("string", PLAIN_DECIMAL): Scalar(kind="decimal"),
    ("string", JSON_TEXT): Scalar(kind="any"),
    ("long", DURATION): Scalar(kind="duration"),
}
_LOGICAL |= {
    ("long", name): Scalar(kind="datetime", wire=name)
    for name in ("timestamp-millis", "local-timestamp-millis", "local-timestamp-micros")
}


def document(schema: Schema) -> Any:
    """The content of an `.avsc` file; `parse` gives back an equal schema.

    Raises ContractError for what Avro can't say.
    """
    content = Layout(schema).content
    return {**content, MODEL: msgspec.to_builtins(schema)} if isinstance(content, dict) else content


def parse(document: Any) -> Schema:
    """The schema of an `.avsc` file's content. Raises ContractError for what is none, with the path."""
    try:
        return _ours(document) or _theirs(document)
    except RecursionError as error:
        raise ContractError("The Avro schema nests types too deeply.", remedy="Correct it.") from error


def _theirs(document: Any) -> Schema:
    parsing = _Parsing()
    root = parsing.type(document, "", "", 0)
    _check(document)
    schema = _with_defaults(Schema(root=root, definitions=dict(sorted(parsing.definitions.items()))))
    Guard(Layout(schema).content)
    return schema


def _ours(document: Any) -> Schema | None:
    """The model that a document of ours carries, unless the rest was changed since."""
    if not isinstance(document, dict) or MODEL not in document:
        return None
    try:
        found = msgspec.convert(document[MODEL], Schema)
    except msgspec.ValidationError as error:
        raise ContractError(
            f"{MODEL} can't be read: {error}.", remedy="A newer version may have written it."
        ) from error
    rest = {key: value for key, value in document.items() if key != MODEL}
    try:
        return found if Layout(found).content == rest else None
    except KeyError as error:
        raise ContractError(f"{MODEL} refers to {error}, which it does not define.", remedy="Correct it.") from error


def _check(document: Any) -> None:
    """What Avro's own library says of it. Raises ContractError."""
    try:
        from fastavro import parse_schema
    except ImportError as error:
        raise SettingsError("Avro needs fastavro.", remedy="pip install 'postline[avro]'") from error
    try:
        parse_schema(document)
    except Exception as error:  # its errors have no common class
        raise ContractError(f"It is no Avro schema: {error}.", remedy="Correct it.") from error


def _with_defaults(schema: Schema) -> Schema:
    """The same, its defaults as JSON has them. One that the model would take for another alternative's is left out."""
    definitions = dict(schema.definitions)
    for name, found in definitions.items():
        if isinstance(found, Record):
            _require_small(schema, name, found)
            fields = tuple(
                msgspec.structs.replace(field, default=_default(schema, field.type, field.default))
                for field in found.fields
            )
            definitions[name] = msgspec.structs.replace(found, fields=fields)
    return msgspec.structs.replace(schema, definitions=definitions)


def _require_small(schema: Schema, name: str, record: Record) -> None:
    """Refuse defaults of defaults, of which a few can be more than there is room for."""
    for field in record.fields:
        if field.default is not UNSET and is_endless(schema, field.type, field.default):
            raise _wrong(f"{name}.{field.name}", "its default has no end, or makes thousands of records")


def _default(schema: Schema, part: Type, value: Any) -> Any:
    if value is UNSET:
        return UNSET
    try:
        found = from_avro(schema, part, value)
        if isinstance(part, UnionOf) and alternative_of(schema, part, found):
            return UNSET
    except ValueError:
        # Since Avro 1.12 it may be of any alternative; the bytes need them in the order that they have.
        return UNSET
    return found


class _Parsing:
    """One document; names are resolved as they are met, which is the order that Avro asks for."""

    def __init__(self) -> None:
        self.definitions: dict[str, Definition] = {}
        self._fixed: dict[str, Type] = {}

    def type(self, content: Any, namespace: str, path: str, depth: int) -> Type:
        if depth > _DEPTH_MAX:
            raise ContractError(f"{path[:200]} nests types deeper than {_DEPTH_MAX}.", remedy="Flatten the schema.")
        match content:
            case str():
                return self._named(content, namespace, path)
            case list():
                options = [self.type(each, namespace, path, depth + 1) for each in content]
                if not options:
                    raise _wrong(path, "it is a union of nothing")
                if any(isinstance(each, UnionOf) for each in options):
                    raise _wrong(path, "it is a union within a union")
                return UnionOf(options=tuple(options))
            case {"type": str(kind)}:
                return self._complex(content, kind, namespace, path, depth)
            case {"type": inner}:
                return self.type(inner, namespace, path, depth + 1)
        raise _wrong(path, f"{content!r:.100} is no type")

    def _named(self, name: str, namespace: str, path: str) -> Type:
        if name in _PRIMITIVES:
            return _PRIMITIVES[name]
        for full in (_full(name, namespace), name):
            if full in self._fixed:
                return self._fixed[full]
            if full in self.definitions:
                return Reference(name=full)
        raise _wrong(path, f"there is no type {name!r} before it")

    def _complex(self, content: dict[str, Any], kind: str, namespace: str, path: str, depth: int) -> Type:
        match kind:
            case "record" | "error":
                return self._record(content, namespace, path, depth)
            case "enum":
                return self._enumeration(content, namespace, path)
            case "fixed":
                return self._of_fixed(content, namespace, path)
            case "array":
                return ListOf(items=self.type(content.get("items"), namespace, path + "[]", depth + 1))
            case "map":
                return MapOf(keys=TEXT, values=self.type(content.get("values"), namespace, path + "[]", depth + 1))
        logical = content.get("logicalType", "")
        if kind == "bytes" and logical == "decimal":
            return _decimal(content, path)
        known = _LOGICAL.get((kind, logical)) if isinstance(logical, str) else None
        return known or self._named(kind, namespace, path)

    def _record(self, content: dict[str, Any], namespace: str, path: str, depth: int) -> Type:
        name, inside = _name_of(content, namespace, path)
        self._require_new(name, path)
        # A placeholder, so that fields may refer to the record that they are of.
        self.definitions[name] = Record(name=name)
        fields = content.get("fields")
        if not isinstance(fields, list) or not all(
            isinstance(each, dict) and isinstance(each.get("name"), str) for each in fields
        ):
            raise _wrong(path, f"record {name} has no fields, or one without a name")
        counts = Counter(each["name"] for each in fields)
        if twice := next((each for each, count in counts.items() if count > 1), None):
            raise _wrong(path, f"record {name} has two fields {twice}")
        made = tuple(self._field(each, inside, path, depth) for each in fields)
        aliases = tuple(_full(each, inside) for each in _aliases_of(content, path))
        self.definitions[name] = Record(name=name, fields=made, aliases=aliases)
        return Reference(name=name)

    def _field(self, content: dict[str, Any], namespace: str, path: str, depth: int) -> Field:
        name = content["name"]
        here = f"{path}.{name}" if path else name
        return Field(
            name=name,
            type=self.type(content.get("type"), namespace, here, depth + 1),
            required="default" not in content,
            default=content.get("default", UNSET),
            aliases=_aliases_of(content, here),
        )

    def _enumeration(self, content: dict[str, Any], namespace: str, path: str) -> Type:
        name, inside = _name_of(content, namespace, path)
        self._require_new(name, path)
        symbols = content.get("symbols")
        if not isinstance(symbols, list) or not symbols or not all(isinstance(each, str) for each in symbols):
            raise _wrong(path, f"enum {name} has no symbols")
        aliases = tuple(_full(each, inside) for each in _aliases_of(content, path))
        self.definitions[name] = Enumeration(
            name=name, symbols=tuple(symbols), default=content.get("default"), aliases=aliases
        )
        return Reference(name=name)

    def _of_fixed(self, content: dict[str, Any], namespace: str, path: str) -> Type:
        name, _ = _name_of(content, namespace, path)
        self._require_new(name, path)
        size = content.get("size")
        if type(size) is not int or not 1 <= size <= _FIXED_MAX:
            raise _wrong(path, f"fixed {name} has the size {size!r:.40}")
        match content.get("logicalType"), size:
            case "decimal", _:
                self._fixed[name] = msgspec.structs.replace(_decimal(content, path), size=size)
            case "uuid", 16:
                self._fixed[name] = Scalar(kind="uuid", size=size)
            case "duration", 12:  # months and days have no fixed length
                self._fixed[name] = Scalar(kind="bytes", size=size, wire="duration")
            case _:
                self._fixed[name] = Scalar(kind="bytes", size=size)
        return self._fixed[name]

    def _require_new(self, name: str, path: str) -> None:
        if name in self.definitions or name in self._fixed:
            raise _wrong(path, f"{name} is defined twice")


def _decimal(content: dict[str, Any], path: str) -> Scalar:
    precision, scale = content.get("precision"), content.get("scale", 0)
    if type(precision) is not int or type(scale) is not int or not 0 <= scale <= precision or precision < 1:
        raise _wrong(path, f"a decimal of precision {precision} and scale {scale} is none")
    return Scalar(kind="decimal", precision=precision, scale=scale)


def _name_of(content: dict[str, Any], namespace: str, path: str) -> tuple[str, str]:
    """The full name, and the namespace that holds inside."""
    name = content.get("name")
    if not isinstance(name, str) or not name:
        raise _wrong(path, "a named type has no name")
    own = content.get("namespace", namespace)
    if own is not None and not isinstance(own, str):
        raise _wrong(path, f"{name} has the namespace {own!r:.40}")
    full = _full(name, own)
    if full in _PRIMITIVES:
        raise _wrong(path, f"{name} is the name of one of Avro's own types")
    return full, full.rpartition(".")[0]


def _aliases_of(content: dict[str, Any], path: str) -> tuple[str, ...]:
    found = content.get("aliases", ())
    if not isinstance(found, list | tuple) or not all(isinstance(each, str) for each in found):
        raise _wrong(path, f"its aliases are {found!r:.40}")
    return tuple(found)


def _full(name: str, namespace: str | None) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _wrong(path: str, said: str) -> ContractError:
    return ContractError(f"It is no Avro schema: {path or 'at its root'}: {said}.", remedy="Correct it.")
