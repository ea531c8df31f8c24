"""What Avro's decoder gives for one version of a schema, as plain values (dicts, lists, text, numbers) of another."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import msgspec

from postline.contracts.avro_layout import Layout
from postline.contracts.avro_names import INTEGERS, field_names, symbol_names
from postline.contracts.avro_writing import NATIVE_OF, Misfit, fits
from postline.contracts.plain_values import in_order
from postline.contracts.schema import (
    Enumeration,
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

__all__ = ["reader_of"]

#: What a decoded value becomes; None leaves it as it is.
_Read: TypeAlias = Callable[[Any], Any] | None
#: The reader's side of a type; None where it has none, and the writer's own is read.
_Wanted: TypeAlias = Type | None

_INT_MIN, _INT_MAX = INTEGERS[32]
#: Kinds that whoever asks for a decimal takes, too.
_PROMOTED = frozenset({"integer", "number"})
#: What is text to a reader that asks for text, written as JSON has it.
_AS_TEXT = frozenset({"date", "time", "datetime", "duration", "decimal", "uuid", "bytes"})


def reader_of(reader: Schema, layout: Layout) -> Callable[[Any], Any]:
    """What makes a plain value of the reader's schema out of what Avro's decoder gives for the layout's.

    Fields go by name and alias; what the reader does not know is left out.
    """
    return _Reading(reader, layout).part(reader.root, layout.schema.root) or (lambda value: value)


class _Reading:
    """Two versions side by side; records are compiled once per pair, lazily, since they may contain themselves."""

    def __init__(self, reader: Schema, layout: Layout) -> None:
        self._reader, self._layout, self._writer = reader, layout, layout.schema
        self._records: dict[tuple[str, str], Callable[[Any], Any]] = {}

    def part(self, wanted: _Wanted, part: Type) -> _Read:
        match part:
            case Scalar():
                return self._scalar(wanted, part)
            case ListOf(items=items):
                return _each_item(self.part(_items_of(wanted), items))
            case MapOf(values=values):
                return _each_entry(self._key(_keys_of(wanted), part.keys), self.part(_values_of(wanted), values))
            case TupleOf(items=items):
                return self._tuple(wanted, items)
            case UnionOf():
                return self._union(wanted, part)
            case Reference(name=name):
                found, goal = self._writer.definitions[name], self._counterpart(wanted, part)
                return self._symbols(goal, found) if isinstance(found, Enumeration) else self._record(goal, name, found)

    # -- records ------------------------------------------------------------------------------

    def _record(self, mine: Any, name: str, theirs: Record) -> Callable[[Any], Any]:
        goal = mine if isinstance(mine, Record) else None
        key = (goal.name if goal else "", name)
        if key not in self._records:
            steps: list[tuple[str, str, _Read]] = []
            self._records[key] = _reads(steps, goal)
            steps += self._steps(goal, theirs)
        return self._records[key]

    def _steps(self, mine: Record | None, theirs: Record) -> list[tuple[str, str, _Read]]:
        if mine is None:
            return [(avro, field.name, self.part(None, field.type)) for field, avro in field_names(theirs)]
        names = {field.name: avro for field, avro in field_names(theirs)}
        return [
            (names[other.name], goal.name, self.part(goal.type, other.type)) for goal, other in paired(mine, theirs)
        ]

    # -- other types --------------------------------------------------------------------------

    def _scalar(self, wanted: _Wanted, part: Scalar) -> _Read:
        read = _of_scalar(part)
        kinds = {each.kind for each in _options(wanted) if isinstance(each, Scalar)}
        if part.kind in _AS_TEXT and "text" in kinds and part.kind not in kinds:
            return lambda value: msgspec.to_builtins(value if read is None else read(value))
        if part.kind in _PROMOTED and "decimal" in kinds and not kinds & _PROMOTED:
            return lambda value: _promoted(value if read is None else read(value))
        return read

    def _symbols(self, mine: Any, theirs: Enumeration) -> _Read:
        symbols = {name: symbol for symbol, name in symbol_names(theirs).items()}
        if isinstance(mine, Enumeration) and mine.default is not None:
            symbols = {name: each if each in mine.symbols else mine.default for name, each in symbols.items()}
        return None if all(name == symbol for name, symbol in symbols.items()) else symbols.__getitem__

    def _key(self, wanted: _Wanted, part: Type) -> _Read:
        """What makes a key of the text that it is in Avro."""
        if any(isinstance(each, Scalar) and each.kind == "text" for each in _options(wanted)):
            return None
        match part:
            case Scalar(kind="integer" | "number") if any(each == Scalar(kind="decimal") for each in _options(wanted)):
                return decimal.Decimal
            case Scalar(kind="integer"):
                return int
            case Scalar(kind="number"):
                return float
            case Scalar(kind=kind) if kind in NATIVE_OF:
                return partial(msgspec.convert, type=NATIVE_OF[kind], strict=False)
            case Reference() if isinstance(found := self._writer.resolve(part), Enumeration):
                return {str(symbol): symbol for symbol in found.symbols}.__getitem__
        return None

    def _tuple(self, wanted: _Wanted, items: tuple[Type, ...]) -> Callable[[Any], Any]:
        goal = next((each for each in _options(wanted) if isinstance(each, TupleOf)), None)
        goals = goal.items if goal and len(goal.items) == len(items) else (None,) * len(items)
        reads = [(f"item_{n}", self.part(*pair)) for n, pair in enumerate(zip(goals, items, strict=True), 1)]
        return lambda found: [found[key] if read is None else read(found[key]) for key, read in reads]

    def _union(self, wanted: _Wanted, part: UnionOf) -> _Read:
        named: dict[str, Callable[[Any], Any]] = {}
        others: list[tuple[Callable[[Any], bool], Callable[[Any], Any]]] = []
        for option in part.options:
            read = self.part(wanted, option)
            if isinstance(option, TupleOf):
                named[self._layout.tuples[option]] = read or _as_it_is
                continue
            if isinstance(option, Reference):
                # An enumeration comes with its name, too, but only where it was defined before.
                named[self._layout.names[option.name]] = read or _as_it_is
            if read is not None:
                others.append((_decoded_as(self._writer, option), read))
        if not named and not others:
            return None

        def read_one(value: Any) -> Any:
            if type(value) is tuple:  # with its name
                return named[value[0]](value[1])
            for takes, read in others:
                if takes(value):
                    return read(value)
            return value

        return read_one

    def _counterpart(self, wanted: _Wanted, part: Reference) -> Record | Enumeration | None:
        """The reader's definition in place of one of the writer's: of its alternatives, the one that is the same."""
        theirs = self._writer.definitions[part.name]
        alike = [self._reader.resolve(each) for each in _options(wanted)]
        alike = [each for each in alike if isinstance(each, type(theirs))]
        return counterpart(alike, theirs)  # type: ignore[arg-type]


def _options(wanted: _Wanted) -> tuple[Type, ...]:
    if wanted is None:
        return ()
    return wanted.options if isinstance(wanted, UnionOf) else (wanted,)


def _items_of(wanted: _Wanted) -> _Wanted:
    return next((each.items for each in _options(wanted) if isinstance(each, ListOf)), None)


def _values_of(wanted: _Wanted) -> _Wanted:
    return next((each.values for each in _options(wanted) if isinstance(each, MapOf)), None)


def _keys_of(wanted: _Wanted) -> _Wanted:
    return next((each.keys for each in _options(wanted) if isinstance(each, MapOf)), None)


def _as_it_is(value: Any) -> Any:
    return value


def _reads(steps: list[tuple[str, str, _Read]], mine: Record | None) -> Callable[[Any], Any]:
    tagged = {mine.tag_field: mine.tag} if mine is not None and mine.tag_field else {}

    def read(found: Any) -> dict[str, Any]:
        plain: dict[str, Any] = {**tagged}
        for avro, name, convert in steps:
            value = found[avro]
            if convert is not None:
                try:
                    value = convert(value)
                except (ValueError, ArithmeticError) as error:
                    raise _misfit(error).under(name) from None
            plain[name] = value
        return plain

    if mine is None or not mine.positional:
        return read
    return lambda found: in_order(read(found), mine)


def _each_item(read: _Read) -> _Read:
    if read is None:
        return None

    def read_all(found: Any) -> list[Any]:
        values: list[Any] = []
        try:
            for each in found:
                values.append(read(each))
        except (ValueError, ArithmeticError) as error:
            raise _misfit(error).under(f"[{len(values)}]") from None
        return values

    return read_all


def _each_entry(read_key: _Read, read: _Read) -> _Read:
    if read_key is None and read is None:
        return None
    key_of, value_of = read_key or _as_it_is, read or _as_it_is
    return lambda found: {key_of(key): value_of(each) for key, each in found.items()}


def _of_scalar(part: Scalar) -> _Read:
    match part.kind:
        case "integer" if part.bits == 32:
            return _int
        case "decimal":
            return _decimal(part.scale) if part.precision else _plain_decimal
        case "duration":
            return lambda value: datetime.timedelta(microseconds=value)
        case "any":
            return _json
        case "uuid" if part.size:
            return lambda value: uuid.UUID(bytes=value)
        case _:
            return None


def _int(value: int) -> int:
    """The decoder takes longer numbers for an int, too."""
    if not _INT_MIN <= value <= _INT_MAX:
        raise Misfit(f"{value} is not from {_INT_MIN} to {_INT_MAX}")
    return value


def _decimal(scale: int) -> Callable[[Any], Any]:
    unit = decimal.Decimal((0, (1,), -scale))

    def read(value: decimal.Decimal) -> decimal.Decimal:
        if not value.same_quantum(unit):
            raise Misfit("it has more digits than its schema says")  # and was rounded by the decoder
        return value

    return read


def _promoted(value: float) -> decimal.Decimal:
    """A number as the decimal of the digits that JSON would have for it."""
    return decimal.Decimal(repr(value))  # also of one without end, which both can be


def _plain_decimal(text: str) -> decimal.Decimal:
    try:
        found = decimal.Decimal(text)
    except decimal.InvalidOperation:
        raise Misfit(f"{text!r:.60} is no decimal") from None
    if not found.is_finite():
        raise Misfit(f"{text} is no finite number")
    return found


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise Misfit(f"it is no JSON: {error}") from None


def _misfit(error: Exception) -> Misfit:
    return error if isinstance(error, Misfit) else Misfit(str(error))


def _decoded_as(schema: Schema, part: Type) -> Callable[[Any], bool]:
    """Whether the decoder's value is of this alternative, where it differs from the plain one."""
    match part:
        case Scalar(kind="decimal", precision=0) | Scalar(kind="any"):
            return lambda value: isinstance(value, str)
        case Scalar(kind="duration"):
            return lambda value: isinstance(value, int)
        case Scalar(kind="uuid") if part.size:
            return lambda value: isinstance(value, bytes) and len(value) == part.size
        case Reference():
            found = schema.resolve(part)
            if isinstance(found, Enumeration):
                names = frozenset(symbol_names(found).values())
                return lambda value: isinstance(value, str) and value in names
    return fits(schema, part)
