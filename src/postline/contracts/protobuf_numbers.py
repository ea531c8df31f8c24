"""Numbers of fields and symbols in Protobuf: who gets which, and what another number or kind on the wire breaks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

import msgspec

from postline.contracts.difference import words_of
from postline.contracts.schema import (
    Definition,
    Enumeration,
    Field,
    ListOf,
    MapOf,
    Record,
    Reference,
    Scalar,
    Schema,
    TupleOf,
    Type,
    UnionOf,
)
from postline.errors import ContractError

__all__ = ["NULL", "numbered", "options_of", "symbol_numbers", "wire_breaks"]

NULL = Scalar(kind="null")

_NUMBER_MAX = (1 << 29) - 1
#: Numbers that Protobuf keeps for itself (language guide, "Assigning Field Numbers").
_RESERVED = range(19_000, 20_000)
_INT32 = range(-(1 << 31), 1 << 31)


def numbered(schema: Schema, *earlier: Schema | None) -> Schema:
    """The schema with a number for every field: its own, else that of the earlier versions, else the next free one.

    `earlier` are the versions before it, oldest first; a field is the same by its name or an alias. Give all of them:
    a number that any of them used for another field is not taken again. Raises ContractError for numbers that
    Protobuf does not allow.
    """
    versions: list[Schema] = []
    for each in (*earlier, schema):
        if each is not None:
            versions.append(_numbered(each, versions))
    return versions[-1]


def _numbered(schema: Schema, versions: Sequence[Schema]) -> Schema:
    definitions: dict[str, Definition] = {}
    for name, part in schema.definitions.items():
        definitions[name] = part
        if isinstance(part, Record):
            before = [found for version in versions if (found := _counterpart(schema, name, part, version))]
            definitions[name] = msgspec.structs.replace(part, fields=_numbered_fields(part, before))
    return msgspec.structs.replace(schema, definitions=definitions)


def _counterpart(schema: Schema, name: str, record: Record, version: Schema) -> Record | None:
    """What a record was in an earlier version; the messages themselves are the same under any name."""
    if schema.root == Reference(name=name):
        return version.record
    found = (version.definitions.get(each) for each in (name, *record.aliases))
    return next((each for each in found if isinstance(each, Record)), None)


def _numbered_fields(record: Record, before: Sequence[Record]) -> tuple[Field, ...]:
    known = {field.name: field.number for each in before for field in each.fields}
    own = {field.number for field in record.fields}
    used = {*known.values(), *own}
    # Behind all that earlier versions used: a gap may have had a field, too.
    free = (each for each in count(max(known.values(), default=0) + 1) if each not in _RESERVED and each not in used)
    taken: dict[int, str] = {}
    fields = []
    for field in record.fields:
        names = (field.name, *field.aliases)
        kept = (known[name] for name in names if name in known and known[name] not in (*taken, *own))
        number = field.number or next(kept, 0) or next(free)
        if number in taken or number in _RESERVED or not 0 < number <= _NUMBER_MAX:
            other = f", which is that of {taken[number]}" if number in taken else ""
            raise ContractError(
                f"{record.name}.{field.name} can't have the number {number}{other}.",
                remedy=f"Use one from 1 to {_NUMBER_MAX:,}, without 19,000 to 19,999, that no other field has.",
            )
        taken[number] = field.name
        fields.append(msgspec.structs.replace(field, number=number))
    return tuple(fields)


def symbol_numbers(part: Enumeration) -> dict[str | int, int]:
    """Each symbol's number. 0 is the default if that is the first symbol, else it stands for none of them.

    Numbers as symbols are their own. Raises ContractError for what Protobuf's enumerations can't have.
    """
    if part.numbers:
        return dict(zip(part.symbols, part.numbers, strict=True))
    whole = [symbol for symbol in part.symbols if isinstance(symbol, int)]
    if whole and (len(whole) < len(part.symbols) or any(symbol not in _INT32 for symbol in whole)):
        raise ContractError(
            f"{part.name} can't be an enumeration of Protobuf: its values are neither all text nor all 32-bit numbers.",
            remedy="Use text for all of them.",
        )
    if whole:
        return {symbol: symbol for symbol in whole}
    start = 0 if part.symbols and part.default == part.symbols[0] else 1
    return {symbol: number for number, symbol in enumerate(part.symbols, start)}


def options_of(part: Type) -> tuple[Type, ...]:
    """What a value may be, without null."""
    return tuple(each for each in part.options if each != NULL) if isinstance(part, UnionOf) else (part,)


def wire_breaks(reader: Schema, writer: Schema) -> list[tuple[str, str]]:
    """What Protobuf's own programs, which know fields by number alone, would misread between two versions.

    Pairs of a field's dotted path and a sentence; [] if nothing. Postline itself reads by the writer's schema and
    by names. Source: Protobuf's language guide, "Updating A Message Type".
    """
    return list(dict.fromkeys(_Wire(numbered(reader), numbered(writer)).types(reader.root, writer.root, "")))


class _Wire:
    """Two versions side by side, fields paired by number; pairs of records once, so that cycles end."""

    def __init__(self, reader: Schema, writer: Schema) -> None:
        self._reader, self._writer = reader, writer
        self._seen: set[tuple[str, str]] = set()

    def types(self, reader: Type, writer: Type, path: str) -> Iterator[tuple[str, str]]:
        mine, theirs = _kind(self._reader, reader), _kind(self._writer, writer)
        if mine != theirs:
            yield path, f"was {self._said(writer, theirs)} and is {self._said(reader, mine, of_reader=True)}."
            return
        match reader, writer:
            case Reference(name=new), Reference(name=old):
                yield from self._definitions(new, old, path)
            case ListOf(), ListOf():
                yield from self.types(reader.items, writer.items, path + "[]")
            case MapOf(), MapOf():
                yield from self.types(reader.keys, writer.keys, path + "[]")
                yield from self.types(reader.values, writer.values, path + "[]")
            case TupleOf(), TupleOf():
                for new_item, old_item in zip(reader.items, writer.items, strict=False):
                    yield from self.types(new_item, old_item, path)
            case _ if isinstance(reader, UnionOf) or isinstance(writer, UnionOf):
                yield from self._options(options_of(reader), options_of(writer), path)

    def _said(self, part: Type, kind: str, *, of_reader: bool = False) -> str:
        return f"{words_of(self._reader if of_reader else self._writer, part)} ({kind})"

    def _definitions(self, new: str, old: str, path: str) -> Iterator[tuple[str, str]]:
        if (new, old) in self._seen:
            return
        self._seen.add((new, old))
        match self._reader.definitions[new], self._writer.definitions[old]:
            case Record() as reader, Record() as writer:
                yield from self._records(reader, writer, path)
            case Enumeration() as reader, Enumeration() as writer:
                yield from _symbols(reader, writer, path)

    def _records(self, reader: Record, writer: Record, path: str) -> Iterator[tuple[str, str]]:
        names = {field.name: field for field in writer.fields}
        numbers = {field.number: field for field in writer.fields}
        for field in reader.fields:
            here = f"{path}.{field.name}" if path else field.name
            same = next((names[name] for name in (field.name, *field.aliases) if name in names), None)
            if same is not None and same.number != field.number:
                yield here, f"its number was {same.number} and is {field.number}."
            if (found := numbers.get(field.number)) is None:
                continue
            if found is same:
                yield from self.types(field.type, found.type, here)
            elif found.name not in {each.name for each in reader.fields} and same is None:
                for _ in self.types(field.type, found.type, here):
                    yield here, f"takes the number {field.number}, which {found.name} had, as another kind."
                    break
            else:
                yield here, f"takes the number {field.number}, which {found.name} had."

    def _options(self, reader: Sequence[Type], writer: Sequence[Type], path: str) -> Iterator[tuple[str, str]]:
        """The alternatives of a oneof are numbered in their order."""
        for number, (new, old) in enumerate(zip(reader, writer, strict=False), 1):
            mine, theirs = words_of(self._reader, new), words_of(self._writer, old)
            if mine != theirs and _kind(self._reader, new) == _kind(self._writer, old) != "message":
                continue  # one kind of text for another
            if mine != theirs:
                yield path, f"its alternative {number} was {theirs} and is {mine}."
            else:
                yield from self.types(new, old, path)


def _kind(schema: Schema, part: Type) -> str:
    """What a field is on the wire; kinds that Protobuf's readers take for one another are one."""
    options = options_of(part)
    if len(options) != 1:
        return "oneof"
    (only,) = options
    if isinstance(part, UnionOf) and isinstance(only, ListOf | MapOf):
        return "optional " + _kind(schema, only)
    match only:
        case Scalar(wire=wire) if wire:
            return wire
        case Scalar(kind="boolean" | "integer"):
            return "varint"
        case Scalar(kind="number", bits=bits):
            return "float" if bits == 32 else "double"
        case Scalar(kind="bytes" | "any" | "datetime" | "duration" | "null" as kind):
            return kind
        case Scalar():
            return "string"
        case Reference(name=name):
            return "message" if isinstance(schema.definitions[name], Record) else "varint"
        case ListOf():
            return "repeated"
        case MapOf():
            return "map"
        case _:
            return "tuple"


def _symbols(reader: Enumeration, writer: Enumeration, path: str) -> Iterator[tuple[str, str]]:
    mine, theirs = symbol_numbers(reader), symbol_numbers(writer)
    names = {number: symbol for symbol, number in mine.items()}
    for symbol, number in theirs.items():
        if symbol in mine and mine[symbol] != number:
            yield path, f"the number of its symbol {symbol!r} was {number} and is {mine[symbol]}."
        elif names.get(number, symbol) != symbol:
            yield path, f"its number {number} was {symbol!r} and is {names[number]!r}."
