"""Avro's documents: a schema as the content of an `.avsc` file, and any `.avsc` as a schema.

Source: Apache Avro 1.12, "Specification".
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec
from msgspec import UNSET

from postline.contracts.avro_layout import DURATION, JSON_TEXT, PLAIN_DECIMAL, Layout
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
    known = _ours(document)
    if known is not None:
        return known
    parsing = _Parsing()
    root = parsing.type(document, "", "", 0)
    schema = Schema(root=root, definitions=dict(sorted(parsing.definitions.items())))
    _check(document)
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
    return found if Layout(found).content == rest else None


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
                return options[0] if len(options) == 1 else UnionOf(options=tuple(options))
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
        return _LOGICAL.get((kind, logical)) or self._named(kind, namespace, path)

    def _record(self, content: dict[str, Any], namespace: str, path: str, depth: int) -> Type:
        name, inside = _name_of(content, namespace, path)
        self._require_new(name, path)
        # A placeholder, so that fields may refer to the record that they are of.
        self.definitions[name] = Record(name=name)
        fields = content.get("fields")
        if not isinstance(fields, list) or not all(isinstance(each, dict) and "name" in each for each in fields):
            raise _wrong(path, f"record {name} has no fields")
        made = tuple(self._field(each, inside, path, depth) for each in fields)
        aliases = tuple(_full(each, inside) for each in content.get("aliases", ()))
        self.definitions[name] = Record(name=name, fields=made, aliases=aliases)
        return Reference(name=name)

    def _field(self, content: dict[str, Any], namespace: str, path: str, depth: int) -> Field:
        here = f"{path}.{content['name']}" if path else str(content["name"])
        part = self.type(content.get("type"), namespace, here, depth + 1)
        default: Any = UNSET
        if "default" in content:
            default = self._default(part, content["default"])
        return Field(
            name=str(content["name"]),
            type=part,
            required="default" not in content,
            default=default,
            aliases=tuple(content.get("aliases", ())),
        )

    def _default(self, part: Type, value: Any) -> Any:
        """A default as JSON has values; UNSET where Avro's JSON and ours differ, but for bytes."""
        if isinstance(part, UnionOf):
            part = part.options[0]
        match part:
            case Scalar(kind="bytes"):
                return base64.b64encode(str(value).encode("latin-1", "replace")).decode()
            case Scalar(kind="date" | "time" | "datetime" | "decimal" | "duration"):
                return UNSET
        return value

    def _enumeration(self, content: dict[str, Any], namespace: str, path: str) -> Type:
        name, inside = _name_of(content, namespace, path)
        self._require_new(name, path)
        symbols = content.get("symbols")
        if not isinstance(symbols, list) or not all(isinstance(each, str) for each in symbols):
            raise _wrong(path, f"enum {name} has no symbols")
        aliases = tuple(_full(each, inside) for each in content.get("aliases", ()))
        self.definitions[name] = Enumeration(
            name=name, symbols=tuple(symbols), default=content.get("default"), aliases=aliases
        )
        return Reference(name=name)

    def _of_fixed(self, content: dict[str, Any], namespace: str, path: str) -> Type:
        name, _ = _name_of(content, namespace, path)
        self._require_new(name, path)
        size = content.get("size")
        if not isinstance(size, int) or size < 0:
            raise _wrong(path, f"fixed {name} has no size")
        found: Type = Scalar(kind="bytes", size=size)
        if content.get("logicalType") == "decimal":
            found = msgspec.structs.replace(_decimal(content, path), size=size)
        self._fixed[name] = found
        return found

    def _require_new(self, name: str, path: str) -> None:
        if name in self.definitions or name in self._fixed:
            raise _wrong(path, f"{name} is defined twice")


def _decimal(content: dict[str, Any], path: str) -> Scalar:
    precision, scale = content.get("precision"), content.get("scale", 0)
    if not isinstance(precision, int) or not isinstance(scale, int) or not 0 <= scale <= precision or precision < 1:
        raise _wrong(path, f"a decimal of precision {precision} and scale {scale} is none")
    return Scalar(kind="decimal", precision=precision, scale=scale)


def _name_of(content: dict[str, Any], namespace: str, path: str) -> tuple[str, str]:
    """The full name, and the namespace that holds inside."""
    name = content.get("name")
    if not isinstance(name, str) or not name:
        raise _wrong(path, "a named type has no name")
    full = _full(name, content.get("namespace", namespace))
    return full, full.rpartition(".")[0]


def _full(name: str, namespace: str | None) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _wrong(path: str, said: str) -> ContractError:
    return ContractError(f"It is no Avro schema: {path or 'at its root'}: {said}.", remedy="Correct it.")
