"""Protobuf messages of one version of a schema as plain values (dicts, lists, text, numbers) of another."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import msgspec

from postline.contracts.plain_values import in_order
from postline.contracts.protobuf_layout import ANY_LIST, ANY_MAP, GOOGLE_FILES, is_implicit, option_names, proto_names
from postline.contracts.protobuf_numbers import NULL, options_of, symbol_numbers
from postline.contracts.schema import (
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
    counterpart,
    paired,
)

__all__ = ["record_reader"]

#: What a message's attribute becomes; None as a function leaves it as it is.
_Read: TypeAlias = Callable[[Any], Any] | None
#: The reader's side of a type; None where it has none, and the writer's own is read.
_Wanted: TypeAlias = Type | None

#: What isn't text on the wire, and is to a reader that asks for text.
_AS_TEXT = frozenset({"datetime", "duration", "bytes"})

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Whether a field says that it isn't there, and what that means.
_ALWAYS, _LEFT_OUT, _NONE = range(3)


def record_reader(reader: Schema, writer: Schema) -> Callable[[Any], Any]:
    """What makes a plain record of the reader's schema out of a message of the writer's root.

    Fields go by name and alias; what the reader doesn't know is left out, and so is what the writer didn't write.
    """
    return _Reading(reader, writer).root()


class _Reading:
    """Two versions; records are compiled once per pair, lazily, since they may contain themselves."""

    def __init__(self, reader: Schema, writer: Schema) -> None:
        self._reader, self._writer = reader, writer
        self._records: dict[tuple[str, str], Callable[[Any], Any]] = {}

    def root(self) -> Callable[[Any], Any]:
        assert isinstance(self._writer.root, Reference)
        return self._record(self._reader.root, self._writer.root.name)

    def _record(self, wanted: _Wanted, name: str) -> Callable[[Any], Any]:
        theirs = self._writer.definitions[name]
        mine = None if wanted is None else self._reader.resolve(wanted)
        assert isinstance(theirs, Record)
        if not isinstance(mine, Record):
            mine = None
        key = (mine.name if mine else "", name)
        if key not in self._records:
            steps: list[tuple[str, str, _Read, int]] = []
            self._records[key] = _reads(steps, mine)
            steps += self._steps(mine, theirs)
        return self._records[key]

    def _steps(self, mine: Record | None, theirs: Record) -> list[tuple[str, str, _Read, int]]:
        attributes = proto_names(theirs)
        pairs: list[tuple[Field | None, Field]] = [(None, each) for each in theirs.fields]
        if mine is not None:
            pairs = list(paired(mine, theirs))
        steps = []
        for goal, field in pairs:
            part = goal.type if goal else None
            read = self.field(part, field.type)
            steps.append((attributes[field.name], (goal or field).name, read, self._presence(part, field)))
        return steps

    def _presence(self, wanted: _Wanted, field: Field) -> int:
        if isinstance(field.type, ListOf | MapOf) or is_implicit(self._writer, field):
            return _ALWAYS
        is_nullable = isinstance(field.type, UnionOf) and NULL in field.type.options
        return _NONE if is_nullable and (wanted is None or _takes_null(wanted)) else _LEFT_OUT

    def field(self, wanted: _Wanted, part: Type) -> _Read:
        """For a field of a message, where lists and maps have their place."""
        match part:
            case ListOf(items=items):
                item = self.value(_inner(wanted, ListOf), items)
                return list if item is None else lambda found: [item(each) for each in found]
            case MapOf(values=values):
                inner = self.value(_inner(wanted, MapOf), values)
                return dict if inner is None else lambda found: {key: inner(each) for key, each in found.items()}
        options = options_of(part)
        return self.value(wanted, options[0] if len(options) == 1 else part)

    def value(self, wanted: _Wanted, part: Type) -> _Read:
        """For a single value: an item, a map's value, an alternative of a union."""
        match part:
            case Scalar():
                return self._scalar(wanted, part)
            case Reference(name=name):
                found = self._writer.definitions[name]
                goal = self._same(wanted, part)
                return self._symbols(goal, found) if isinstance(found, Enumeration) else self._record(goal, name)
            case TupleOf(items=items):
                return self._tuple(wanted, items)
            case UnionOf() if len(options_of(part)) > 1:
                return self._union(wanted, options_of(part))
        if part in (ANY_MAP, ANY_LIST):
            return _of_any_map if part == ANY_MAP else _of_any_list
        inner = self.field(wanted, part)
        if isinstance(part, UnionOf):
            return lambda found: (inner(found.value) if inner else found.value) if found.HasField("value") else None
        return lambda found: inner(found.value) if inner else found.value

    def _scalar(self, wanted: _Wanted, part: Scalar) -> _Read:
        kinds = {each.kind for each in options_of(wanted) if isinstance(each, Scalar)} if wanted else set()
        if part.wire in GOOGLE_FILES["wrappers"]:
            inner = self._scalar(wanted, msgspec.structs.replace(part, wire=""))
            return lambda found: _applied(inner, found.value)
        read = {"any": _of_any, "datetime": _of_timestamp, "duration": _of_span}.get(part.kind)
        if part.kind in _AS_TEXT and "text" in kinds and part.kind not in kinds:
            return lambda found: msgspec.to_builtins(_applied(read, found))  # as JSON has it
        if part.kind == "text" and "bytes" in kinds and "text" not in kinds:
            return str.encode
        return read

    def _symbols(self, wanted: _Wanted, theirs: Enumeration) -> Callable[[Any], Any]:
        mine = self._reader.resolve(wanted) if wanted is not None else None
        symbols: dict[int, Any] = {number: symbol for symbol, number in symbol_numbers(theirs).items()}
        if not isinstance(mine, Enumeration) or mine.default is None:
            return lambda number: symbols.get(number, number)  # the class refuses what it does not know
        default = mine.default
        known = {number: symbol if symbol in mine.symbols else default for number, symbol in symbols.items()}
        return lambda number: known.get(number, default)

    def _tuple(self, wanted: _Wanted, items: tuple[Type, ...]) -> Callable[[Any], Any]:
        goal = next((each for each in options_of(wanted) if isinstance(each, TupleOf)), None) if wanted else None
        goals = goal.items if goal and len(goal.items) == len(items) else (None,) * len(items)
        steps = []
        for number, (each, part) in enumerate(zip(goals, items, strict=True), 1):
            is_nullable = isinstance(part, UnionOf) and NULL in part.options
            steps.append((f"item_{number}", self.field(each, part), is_nullable))

        def read(found: Any) -> list[Any]:
            return [
                None if is_nullable and not found.HasField(name) else _applied(convert, getattr(found, name))
                for name, convert, is_nullable in steps
            ]

        return read

    def _union(self, wanted: _Wanted, options: tuple[Type, ...]) -> Callable[[Any], Any]:
        reads = {
            label: self.value(self._same(wanted, option), option)
            for label, option in zip(option_names(self._writer, options), options, strict=True)
        }

        def read(found: Any) -> Any:
            label = found.WhichOneof("value")
            return None if label is None else _applied(reads[label], getattr(found, label))

        return read

    def _same(self, wanted: _Wanted, part: Type) -> _Wanted:
        """What the reader has in place of one of the writer's types: of its alternatives, the one that is the same."""
        if wanted is None or not isinstance(part, Reference):
            return wanted
        theirs = self._writer.definitions[part.name]
        alike = [each for each in options_of(wanted) if isinstance(self._reader.resolve(each), type(theirs))]
        found = counterpart([self._reader.resolve(each) for each in alike], theirs)  # type: ignore[misc]
        return next((each for each in alike if self._reader.resolve(each) is found), None)


def _reads(steps: list[tuple[str, str, _Read, int]], mine: Record | None) -> Callable[[Any], Any]:
    tagged = {mine.tag_field: mine.tag} if mine is not None and mine.tag_field else {}

    def read(message: Any) -> dict[str, Any]:
        found: dict[str, Any] = {**tagged}
        for attribute, key, convert, presence in steps:
            if presence != _ALWAYS and not message.HasField(attribute):
                if presence == _NONE:
                    found[key] = None
                continue
            value = getattr(message, attribute)
            found[key] = value if convert is None else convert(value)
        return found

    if mine is None or not mine.positional:
        return read
    return lambda message: in_order(read(message), mine)


def _applied(convert: _Read, value: Any) -> Any:
    return value if convert is None else convert(value)


def _takes_null(wanted: Type) -> bool:
    return wanted in (NULL, Scalar(kind="any")) or (isinstance(wanted, UnionOf) and NULL in wanted.options)


def _inner(wanted: _Wanted, kind: type[ListOf | MapOf]) -> _Wanted:
    """The reader's type of items or values."""
    for each in options_of(wanted) if wanted is not None else ():
        if isinstance(each, kind):
            return each.items if isinstance(each, ListOf) else each.values
    return None


def _of_timestamp(found: Any) -> datetime:
    return _EPOCH + timedelta(seconds=found.seconds, microseconds=found.nanos // 1_000)


def _of_span(found: Any) -> timedelta:
    # Towards zero, as the sign of the nanoseconds is that of the seconds.
    return timedelta(seconds=found.seconds, microseconds=int(found.nanos / 1_000))


def _of_any(found: Any) -> Any:
    match found.WhichOneof("kind"):
        case "number_value":
            number = found.number_value
            return int(number) if number.is_integer() else number  # as Protobuf's own JSON has it
        case "string_value":
            return found.string_value
        case "bool_value":
            return found.bool_value
        case "list_value":
            return _of_any_list(found.list_value)
        case "struct_value":
            return _of_any_map(found.struct_value)
        case _:
            return None


def _of_any_map(found: Any) -> dict[str, Any]:
    return {key: _of_any(each) for key, each in found.fields.items()}


def _of_any_list(found: Any) -> list[Any]:
    return [_of_any(each) for each in found.values]
