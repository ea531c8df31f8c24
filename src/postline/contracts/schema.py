"""The type model: what a contract's values are made of, whatever class declares them and whatever format carries them.

A `Schema` is plain, immutable data. Classes become schemas (`reflection`), and so do a format's own documents (`avro`,
`protobuf`, `jsonschema`); all rules of evolution (`compatibility`) and of reading between versions (`resolution`) are
over it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

__all__ = [
    "NO_LIMITS",
    "PATHS_MAX",
    "SCHEMA_URN",
    "TEXT",
    "Definition",
    "Enumeration",
    "Field",
    "Limits",
    "ListOf",
    "MapOf",
    "Record",
    "Reference",
    "Scalar",
    "ScalarKind",
    "Schema",
    "TupleOf",
    "Type",
    "UnionOf",
    "counterpart",
    "paired",
]

#: Before a fingerprint, where a schema is named by a URI.
SCHEMA_URN = "urn:postline:schema:"

#: `integer` has no bound unless `bits` says one; `number` is a binary float; `any` is whatever the format can carry.
ScalarKind: TypeAlias = Literal[
    "null",
    "boolean",
    "integer",
    "number",
    "decimal",
    "text",
    "bytes",
    "date",
    "time",
    "datetime",
    "duration",
    "uuid",
    "any",
]


class _Part(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What all parts of a schema are: immutable, equal by content, small as JSON."""


class Limits(_Part, frozen=True):
    """Constraints on a value; None leaves one open. Lengths are of characters, bytes or items."""

    ge: int | float | None = None
    gt: int | float | None = None
    le: int | float | None = None
    lt: int | float | None = None
    multiple_of: int | float | None = None
    min_length: int | None = None
    max_length: int | None = None
    #: A regular expression that is searched for, as JSON Schema's `pattern` is.
    pattern: str | None = None


NO_LIMITS = Limits()


class Scalar(_Part, frozen=True, tag_field="is", tag="scalar"):
    """A single value."""

    kind: ScalarKind
    limits: Limits = NO_LIMITS
    #: Width of an integer (32, 64) or number (32, 64) that a format fixed; 0 where nobody did.
    bits: int = 0
    #: Of a decimal that a format fixed: all digits, and those behind the point; 0 digits where nobody did.
    precision: int = 0
    scale: int = 0
    #: Length that a fixed sequence of bytes has; 0 for any.
    size: int = 0
    #: What a format with several encodings for a kind writes (Protobuf's sint64, its StringValue); "" for the usual.
    wire: str = ""


class Enumeration(_Part, frozen=True, tag_field="is", tag="enumeration"):
    """One of named values. `default` stands for one that the reader does not know; None refuses it."""

    name: str
    symbols: tuple[str | int, ...]
    default: str | int | None = None
    aliases: tuple[str, ...] = ()
    #: The symbols' numbers, in a format that has numbers (Protobuf) and where they don't count from 0 or 1; else ().
    numbers: tuple[int, ...] = ()


class ListOf(_Part, frozen=True, tag_field="is", tag="list"):
    """Any number of values of one type; `unique` for sets."""

    items: Type
    limits: Limits = NO_LIMITS
    unique: bool = False


class TupleOf(_Part, frozen=True, tag_field="is", tag="tuple"):
    """So many values, each of its own type."""

    items: tuple[Type, ...]


class MapOf(_Part, frozen=True, tag_field="is", tag="map"):
    """Values by key; a key is text, or what can be written as text."""

    values: Type
    keys: Type
    limits: Limits = NO_LIMITS


class UnionOf(_Part, frozen=True, tag_field="is", tag="union"):
    """A value of one of several types; optional is a union with null. No option is a union."""

    options: tuple[Type, ...]


class Reference(_Part, frozen=True, tag_field="is", tag="reference"):
    """A record or an enumeration by its name in the schema's definitions; so types can contain themselves."""

    name: str


class Field(_Part, frozen=True):
    """One field of a record. `name` is the one on the wire."""

    name: str
    type: Type
    #: Whether a reader refuses a record without it.
    required: bool = True
    #: The value in its absence, as JSON has it; UNSET if `required`, or if only the class can make it.
    default: Any | UnsetType = UNSET
    #: Names under which older versions wrote it.
    aliases: tuple[str, ...] = ()
    #: Whether people who look at messages are not shown it.
    sensitive: bool = False
    #: Its number on the wire, in a format that has numbers (Protobuf); 0 where there are none.
    number: int = 0
    #: Fields of one record that name the same here exclude each other (Protobuf's oneof); "" for none.
    oneof: str = ""


class Record(_Part, frozen=True, tag_field="is", tag="record"):
    """Named fields. In a union of records, `tag_field` holds `tag` on the wire and says which one a value is."""

    name: str
    fields: tuple[Field, ...] = ()
    aliases: tuple[str, ...] = ()
    tag_field: str = ""
    tag: str | int = ""
    #: Whether a field that it does not declare makes a value invalid.
    closed: bool = False
    #: Whether it is written as a list of its fields' values, without names.
    positional: bool = False

    @property
    def named(self) -> dict[str, Field]:
        """Its fields by their names, and by former names that none of them has now; made anew at each call."""
        former = {alias: field for field in self.fields for alias in field.aliases}
        return former | {field.name: field for field in self.fields}


def paired(reader: Record, writer: Record) -> list[tuple[Field, Field]]:
    """The reader's fields that the writer writes, each with the writer's: by its name, else by the first former one.

    A former name that another of the reader's fields has now is that one's. Positional records go by place.
    """
    if reader.positional:
        return list(zip(reader.fields, writer.fields, strict=False))
    own = {field.name for field in reader.fields}
    written = {field.name: field for field in writer.fields}
    pairs = []
    for field in reader.fields:
        names = (field.name, *(each for each in field.aliases if each not in own))
        if (name := next((each for each in names if each in written), None)) is not None:
            pairs.append((field, written[name]))
    return pairs


Definition: TypeAlias = Record | Enumeration


def counterpart(alike: Sequence[Definition], theirs: Definition) -> Definition | None:
    """Which of a reader's definitions stands for one of the writer's: by tag or name, else by a former one.

    The only one of its sort stands for any. Whoever has a tag or name now goes before who had it.
    """
    for mine in alike:
        if _known_as(mine, theirs) == _known_as(theirs, mine):
            return mine
    for mine in alike:
        if _known_as(theirs, mine) in mine.aliases:
            return mine
    return alike[0] if len(alike) == 1 else None


def _known_as(one: Definition, other: Definition) -> str | int:
    tagged = isinstance(one, Record) and isinstance(other, Record) and one.tag_field and other.tag_field
    return one.tag if isinstance(one, Record) and tagged else one.name


Type: TypeAlias = Scalar | ListOf | TupleOf | MapOf | UnionOf | Reference

TEXT = Scalar(kind="text")

#: Of a schema's paths so many are told: records that hold each other twice over would have more than any memory.
PATHS_MAX = 10_000


class Schema(_Part, frozen=True):
    """A whole contract type: its root, and every record and enumeration in it by name.

    Two schemas that are equal have the same fingerprint, on every machine and Python.
    """

    root: Type
    definitions: dict[str, Definition] = {}

    def resolve(self, part: Type) -> Type | Definition:
        """The part itself, or what it refers to. Raises KeyError for a reference to nothing."""
        return self.definitions[part.name] if isinstance(part, Reference) else part

    @property
    def record(self) -> Record | None:
        """The record that messages are, if they are one."""
        found = self.resolve(self.root)
        return found if isinstance(found, Record) else None

    def encode(self) -> bytes:
        """The schema as canonical JSON."""
        return msgspec.json.encode(self, order="deterministic")

    @staticmethod
    def decode(data: bytes | str) -> Schema:
        """The schema of canonical JSON. Raises msgspec.ValidationError or DecodeError."""
        return msgspec.json.decode(data, type=Schema)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return hashlib.sha256(self.encode()).hexdigest()

    def references(self) -> Iterator[str]:
        """The names of all definitions that its root, or a field, refers to, whether they are there or not."""
        waiting: list[Type] = [self.root]
        for each in self.definitions.values():
            waiting += [field.type for field in each.fields] if isinstance(each, Record) else []
        while waiting:
            match waiting.pop():
                case Reference(name=name):
                    yield name
                case ListOf(items=inner):
                    waiting.append(inner)
                case MapOf(keys=keys, values=values):
                    waiting += (keys, values)
                case TupleOf(items=several) | UnionOf(options=several):
                    waiting += several

    def paths(self) -> Iterator[tuple[str, Field]]:
        """Every field with its dotted path from the root; `[]` stands for items and values, once around a cycle.

        Of a record that is held on many ways there are as many paths; the first 10,000 of all are told.
        """
        yield from islice(_paths(self, self.root, "", frozenset()), PATHS_MAX)


def _paths(schema: Schema, part: Type, path: str, within: frozenset[str]) -> Iterator[tuple[str, Field]]:
    match part:
        case ListOf(items=inner) | MapOf(values=inner):
            yield from _paths(schema, inner, path + "[]", within)
        case TupleOf(items=several) | UnionOf(options=several):
            for each in several:
                yield from _paths(schema, each, path, within)
        case Reference(name=name) if name not in within:
            found = schema.definitions[name]
            for field in found.fields if isinstance(found, Record) else ():
                here = f"{path}.{field.name}" if path else field.name
                yield here, field
                yield from _paths(schema, field.type, here, within | {name})
