"""Schemas given beside a class: how values lie on the wire where the class says less than that.

Widths of numbers, scales, sizes, Protobuf's kinds and numbers, the order of alternatives: a `.proto` or `.avsc` fixes
them, a class doesn't say them, and bytes that name no schema can be read by nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from postline.contracts.compatibility import breaks
from postline.contracts.schema import (
    Definition,
    Field,
    ListOf,
    MapOf,
    Record,
    Reference,
    Schema,
    TupleOf,
    Type,
    UnionOf,
)
from postline.errors import ContractError

__all__ = ["given_schema", "joined", "require_readable"]

_REMEDY = "Run `postline contracts import` on the changed file again; classes and `schema=` are made together."


def given_schema(text: str | Schema | None, name: str) -> Schema | None:
    """The schema that `postline contracts import` wrote beside a class. Raises ContractError for what is none."""
    if not isinstance(text, str):
        return text
    try:
        return Schema.decode(text)
    except msgspec.MsgspecError as error:
        raise ContractError(f"The schema= of {name} can't be read: {error}.", remedy=_REMEDY) from error


def require_readable(own: Schema, given: Schema, name: str) -> None:
    """Refuse a view that could not read what is written under the schema given. Raises ContractError."""
    if found := breaks(own, given, whole=True):
        first = found[0]
        raise ContractError(
            f"{name} can't be read as its schema= says: {first.path or 'the message'}: {first.said}.", remedy=_REMEDY
        )


def joined(own: Schema, given: Schema, name: str) -> Schema:
    """The schema given, with what only the class says of its fields: which are sensitive, and former names.

    Raises ContractError where both differ, with the path.
    """
    require_readable(own, given, name)
    definitions: dict[str, Definition] = dict(given.definitions)
    for path, ours, theirs in _Walk(own, given).pairs():
        _require_same_fields(path, ours, theirs, name)
        before = definitions[theirs.name]
        assert isinstance(before, Record)
        definitions[theirs.name] = _marked(before, ours)
    return msgspec.structs.replace(given, definitions=definitions)


def _require_same_fields(path: str, ours: Record, theirs: Record, name: str) -> None:
    mine, other = {each.name: each for each in ours.fields}, {each.name: each for each in theirs.fields}
    for field in (*ours.fields, *theirs.fields):
        here = f"{path}.{field.name}" if path else field.name
        if (field.name in mine) != (field.name in other):
            which = "its class has, and its schema= has not" if field.name in mine else "its schema= has, not its class"
            raise ContractError(f"{name} has two contracts: {here} is a field that {which}.", remedy=_REMEDY)
        if mine[field.name].number not in (0, other[field.name].number):
            raise ContractError(
                f"{name} has two contracts: {here} has the number {mine[field.name].number} in its class, and "
                f"{other[field.name].number} in its schema=.",
                remedy=_REMEDY,
            )


def _marked(record: Record, ours: Record) -> Record:
    mine = {field.name: field for field in ours.fields}
    return msgspec.structs.replace(record, fields=tuple(_field(each, mine[each.name]) for each in record.fields))


def _field(given: Field, own: Field) -> Field:
    return msgspec.structs.replace(
        given,
        sensitive=given.sensitive or own.sensitive,
        aliases=tuple(dict.fromkeys((*given.aliases, *own.aliases))),
    )


class _Walk:
    """Two schemas side by side, of which the first reads the second."""

    def __init__(self, own: Schema, given: Schema) -> None:
        self._own, self._given = own, given
        self._seen: set[tuple[str, str]] = set()

    def pairs(self) -> Iterator[tuple[str, Record, Record]]:
        """Records that are each other's, with the path at which they are met first."""
        yield from self._types(self._own.root, self._given.root, "")

    def _types(self, own: Type, given: Type, path: str) -> Iterator[tuple[str, Record, Record]]:
        match own, given:
            case _, UnionOf(options=options):
                for each in options:
                    yield from self._types(own, each, path)
            case UnionOf(options=options), _:
                if (option := self._option(options, given)) is not None:
                    yield from self._types(option, given, path)
            case Reference(), Reference():
                yield from self._records(own, given, path)
            case ListOf(), ListOf():
                yield from self._types(own.items, given.items, path + "[]")
            case MapOf(), MapOf():
                yield from self._types(own.values, given.values, path + "[]")
            case TupleOf(), TupleOf():
                for one, other in zip(own.items, given.items, strict=True):
                    yield from self._types(one, other, path)

    def _option(self, options: tuple[Type, ...], given: Type) -> Type | None:
        """The alternative that reads the given type."""
        theirs = msgspec.structs.replace(self._given, root=given)
        return next(
            (each for each in options if not breaks(msgspec.structs.replace(self._own, root=each), theirs, whole=True)),
            None,
        )

    def _records(self, own: Reference, given: Reference, path: str) -> Iterator[tuple[str, Record, Record]]:
        ours, theirs = self._own.definitions[own.name], self._given.definitions[given.name]
        if (own.name, given.name) in self._seen or not isinstance(ours, Record) or not isinstance(theirs, Record):
            return
        self._seen.add((own.name, given.name))
        # Under the name that it has among the definitions, which is the one that it is found by.
        yield path, ours, msgspec.structs.replace(theirs, name=given.name)
        types = {field.name: field.type for field in theirs.fields}
        for field in ours.fields:
            if field.name in types:
                yield from self._types(field.type, types[field.name], f"{path}.{field.name}" if path else field.name)
