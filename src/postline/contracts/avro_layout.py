"""How a schema lies in Avro: the names of its records and fields there, and each type in Avro's words.

Source: Apache Avro 1.12, "Specification". What Avro has no type for has a rule here that loses nothing: a decimal of no
fixed precision is text, a duration a long of microseconds, a tuple a record, a value of any type JSON text, and keys of
maps are text.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from postline.contracts.avro_defaults import alternative_of, to_avro
from postline.contracts.avro_names import avro_name, field_names, symbol_names
from postline.contracts.schema import (
    Definition,
    Enumeration,
    Field,
    ListOf,
    MapOf,
    Reference,
    Scalar,
    Schema,
    TupleOf,
    Type,
    UnionOf,
)
from postline.errors import ContractError

__all__ = ["DURATION", "JSON_TEXT", "PLAIN_DECIMAL", "Layout"]

#: Logical types of ours; readers that don't know them see the type below.
PLAIN_DECIMAL, DURATION, JSON_TEXT = "decimal-text", "duration-micros", "json"

_SCALARS: dict[str, Any] = {
    "null": "null",
    "boolean": "boolean",
    "text": "string",
    "bytes": "bytes",
    "date": {"type": "int", "logicalType": "date"},
    "time": {"type": "long", "logicalType": "time-micros"},
    "datetime": {"type": "long", "logicalType": "timestamp-micros"},
    "uuid": {"type": "string", "logicalType": "uuid"},
    "duration": {"type": "long", "logicalType": DURATION},
    "any": {"type": "string", "logicalType": JSON_TEXT},
}
_INT_LOGICAL = frozenset({"time-millis"})


class Layout:
    """A schema with its names in Avro. Raises ContractError for what Avro can't say."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._taken: set[str] = set()
        #: What is in no namespace is in the root's: Avro resolves names that have none by where they stand.
        self._namespace = _full(schema.root.name).rpartition(".")[0] if isinstance(schema.root, Reference) else ""
        #: Full names of records and enumerations by their names in the schema, and of tuples.
        self.names = {name: self._free(_full(name)) for name in schema.definitions}
        self.tuples: dict[TupleOf, str] = {}
        self._written: set[str] = set()
        self._path: list[str] = []
        self.content: Any = self._type(schema.root)

    def _free(self, name: str) -> str:
        if self._namespace and "." not in name:
            name = f"{self._namespace}.{name}"
        free = next(each for each in (name, *(f"{name}_{n}" for n in range(2, 10_000))) if each not in self._taken)
        self._taken.add(free)
        return free

    # -- in Avro's words ----------------------------------------------------------------------

    def _type(self, part: Type) -> Any:
        match part:
            case Scalar():
                return self._scalar(part)
            case ListOf():
                return {"type": "array", "items": self._type(part.items)}
            case MapOf():
                return {"type": "map", "values": self._type(part.values)}
            case UnionOf():
                return self._union([self._type(each) for each in part.options])
            case TupleOf():
                return self._tuple(part)
            case Reference(name=name):
                return self._definition(self.names[name], self.schema.definitions[name])

    def _scalar(self, part: Scalar) -> Any:
        if part.kind == "decimal":
            return self._decimal(part)
        if part.size:
            logical = {"logicalType": part.wire or part.kind} if part.wire or part.kind == "uuid" else {}
            return {"type": "fixed", **_named(self._free(f"Fixed{part.size}")), "size": part.size, **logical}
        if part.kind == "integer":
            return "int" if part.bits == 32 else "long"
        if part.kind == "number":
            return "float" if part.bits == 32 else "double"
        if part.wire and part.kind in {"time", "datetime"}:
            return {"type": "int" if part.wire in _INT_LOGICAL else "long", "logicalType": part.wire}
        return _SCALARS[part.kind]

    def _decimal(self, part: Scalar) -> Any:
        if not part.precision:
            return {"type": "string", "logicalType": PLAIN_DECIMAL}
        logical = {"logicalType": "decimal", "precision": part.precision, "scale": part.scale}
        if part.size:
            return {"type": "fixed", **_named(self._free(f"Decimal{part.size}")), "size": part.size, **logical}
        return {"type": "bytes", **logical}

    def _union(self, options: list[Any]) -> list[Any]:
        """Avro tells alternatives apart by their types alone, but for named ones."""
        kinds = [_kind(each) for each in options]
        if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
            where = ".".join(self._path) or "The message"
            raise ContractError(
                f"{where} can't be said in Avro: two of its alternatives are {twice} there.",
                remedy="Make one of them a class of its own, or use another format.",
            )
        return options

    def _tuple(self, part: TupleOf) -> Any:
        if (known := self.tuples.get(part)) is not None:
            return known
        self.tuples[part] = name = self._free(f"Tuple{len(self.tuples) + 1}")
        items = [{"name": f"item_{n}", "type": self._type(each)} for n, each in enumerate(part.items, 1)]
        return {"type": "record", **_named(name), "fields": items}

    def _definition(self, name: str, found: Definition) -> Any:
        if name in self._written:
            return name
        self._written.add(name)
        aliases = {"aliases": [_full(each) for each in found.aliases]} if found.aliases else {}
        if isinstance(found, Enumeration):
            names = symbol_names(found)
            default = {} if found.default is None else {"default": names[found.default]}
            return {"type": "enum", **_named(name), "symbols": list(names.values()), **default, **aliases}
        return {
            "type": "record",
            **_named(name),
            "fields": [self._field(*each) for each in field_names(found)],
            **aliases,
        }

    def _field(self, field: Field, name: str) -> Any:
        part, default = self._with_default(field)
        self._path.append(field.name)
        content = self._type(part)
        self._path.pop()
        said: dict[str, Any] = {"name": name, "type": content}
        if default is not UNSET:
            said["default"] = default
        if field.aliases:
            said["aliases"] = [avro_name(each) for each in field.aliases]
        return said

    def _with_default(self, field: Field) -> tuple[Type, Any]:
        """The type, a union with the alternative first that the default is of, and the default; UNSET for none."""
        part, default = field.type, field.default
        if field.required or default is UNSET:
            return part, UNSET
        try:
            if isinstance(part, UnionOf):
                number, options = alternative_of(self.schema, part, default), part.options
                part = UnionOf(options=(options[number], *options[:number], *options[number + 1 :]))
            return part, to_avro(self.schema, part, default)
        except ValueError:  # only the class can make it
            return field.type, UNSET


def _full(name: str) -> str:
    return ".".join(avro_name(each) for each in name.split("."))


def _named(name: str) -> dict[str, str]:
    namespace, _, short = name.rpartition(".")
    return {"name": short, "namespace": namespace} if namespace else {"name": short}


def _kind(content: Any) -> str:
    """What must differ between the alternatives of a union."""
    if isinstance(content, dict):
        return ".".join(filter(None, (content.get("namespace"), content.get("name")))) or str(content["type"])
    return str(content)
