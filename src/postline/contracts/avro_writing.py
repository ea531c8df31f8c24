"""Plain values (dicts, lists, text, numbers) on their way into Avro's encoder, by the schema that they are of."""

from __future__ import annotations

import datetime
import decimal
import math
import uuid
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET

from postline.contracts.avro_layout import Layout
from postline.contracts.avro_names import INTEGERS, field_names, symbol_names
from postline.contracts.json_faults import loss_in
from postline.contracts.plain_values import natively
from postline.contracts.schema import (
    TEXT,
    Enumeration,
    Field,
    ListOf,
    MapOf,
    Record,
    Reference,
    Scalar,
    TupleOf,
    Type,
    UnionOf,
)

__all__ = ["NATIVE", "NATIVE_OF", "Misfit", "fits", "writer_of"]

#: What stays as it is between a class and Avro's encoder; all else is text, numbers, lists and dicts.
NATIVE = (
    bytes,
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
)
#: Of the kinds that stay as they are.
NATIVE_OF: dict[str, type] = {
    "bytes": bytes,
    "datetime": datetime.datetime,
    "date": datetime.date,
    "time": datetime.time,
    "duration": datetime.timedelta,
    "decimal": decimal.Decimal,
    "uuid": uuid.UUID,
}
_MICROSECOND = datetime.timedelta(microseconds=1)
_YEARS_AT_THE_ENDS = frozenset({1, 9999})
_EXACT_MAX = 1 << 53
_FLOAT_MAX = 3.4028235677973366e38  # rounds to the largest 32-bit float, and no more

#: What a value becomes; None leaves it as it is.
_Write: TypeAlias = Callable[[Any], Any] | None


class Misfit(ValueError):
    """A value that Avro can't carry as its schema says; `path` grows on the way out."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said, self.path = said, ""

    def under(self, step: str) -> Misfit:
        """The same, seen from further outside."""
        self.path = f"{step}{'.' if self.path and not self.path.startswith('[') else ''}{self.path}"
        return self


def writer_of(layout: Layout) -> Callable[[Any], Any]:
    """What makes Avro's encoder understand a plain value of the schema's root. It raises Misfit."""
    return _Writing(layout).type(layout.schema.root) or (lambda value: value)


class _Writing:
    """Compiles each record once, lazily, since records may contain themselves."""

    def __init__(self, layout: Layout) -> None:
        self._layout, self._schema = layout, layout.schema
        self._records: dict[str, Callable[[Any], Any]] = {}

    def type(self, part: Type) -> _Write:
        match part:
            case Scalar():
                return _scalar(part)
            case ListOf(items=items):
                return _each_item(self.type(items))
            case MapOf():
                return _each_entry(part.keys == TEXT, self.type(part.values))
            case TupleOf():
                return self._tuple(part)
            case UnionOf():
                return self._union(part)
            case Reference(name=name):
                found = self._schema.definitions[name]
                return _symbols(found) if isinstance(found, Enumeration) else self._record(name, found)

    def _record(self, name: str, record: Record) -> Callable[[Any], Any]:
        if name not in self._records:
            steps: list[tuple[str, str, Callable[[Any], Any], Any]] = []
            self._records[name] = _by_position(steps, record) if record.positional else _by_name(steps)
            for field, avro in field_names(record):
                write = self.type(field.type)
                steps.append((field.name, avro, write or _as_it_is, self._default(field)))
        return self._records[name]

    def _default(self, field: Field) -> Any:
        """What stands for a value that was left out, as its class does with defaults."""
        return UNSET if field.default is UNSET else natively(self._schema, field.type, field.default, NATIVE_OF)

    def _tuple(self, part: TupleOf) -> Callable[[Any], Any]:
        writes = [self.type(each) or _as_it_is for each in part.items]

        def write(value: Any) -> Any:
            return {f"item_{n}": each(found) for n, (each, found) in enumerate(zip(writes, value, strict=True), 1)}

        return write

    def _union(self, part: UnionOf) -> Callable[[Any], Any]:
        branches = [
            (fits(self._schema, each), self._branch(each), self._alternative(each))
            for each in sorted(part.options, key=self._rank)
        ]
        # Only values of no class of their own, or of pydantic's, can be of several.
        unnamed = [fits(self._schema, each) for each in part.options if self._is_untagged(each)]
        unnamed = unnamed if len(unnamed) > 1 else []

        def write(value: Any) -> Any:
            if value is None:
                return None
            if isinstance(value, dict) and len([takes for takes in unnamed if takes(value)]) > 1:
                raise Misfit("it is of several of its types, which nothing tells apart")
            for takes, name, convert in branches:
                if takes(value):
                    found = value if convert is None else convert(value)
                    return found if name is None else (name, found)
            raise Misfit(f"{value!r:.100} is of none of its types")

        return write

    def _is_untagged(self, part: Type) -> bool:
        found = self._schema.resolve(part)
        return isinstance(found, Record) and not found.tag_field

    def _rank(self, part: Type) -> int:
        """What is asked first of a union's alternatives: the narrower before the wider."""
        match part:
            case Reference():
                return 0
            case Scalar(kind="number", bits=32):
                return 3  # a wider one beside it loses no digit
            case Scalar(kind="number") | MapOf():
                return 2
            case Scalar(kind="any"):
                return 4
        return 1

    def _alternative(self, part: Type) -> _Write:
        write = self.type(part)
        if isinstance(part, Scalar) and part.kind == "number":  # the encoder takes an int for none
            return lambda value: float(value) if write is None else write(float(value))
        return write

    def _branch(self, part: Type) -> str | None:
        """The name by which the encoder is told which alternative it is: by itself it looks into each item, in vain."""
        if isinstance(part, TupleOf):
            return self._layout.tuples[part]
        if isinstance(part, ListOf | MapOf):
            return "array" if isinstance(part, ListOf) else "map"
        if isinstance(part, Reference) and isinstance(self._schema.resolve(part), Record):
            return self._layout.names[part.name]
        return _primitive(part) if isinstance(part, Scalar) else None


def _primitive(part: Scalar) -> str | None:
    """What an alternative is in Avro, which is told the encoder: by itself it takes text for dates, and so on."""
    if part.size or part.kind == "null":
        return None
    match part.kind:
        case "integer":
            return "int" if part.bits == 32 else "long"
        case "number":
            return "float" if part.bits == 32 else "double"
        case "decimal" if part.precision:
            return "bytes"
        case "date":
            return "int"
        case "time":
            return "int" if part.wire else "long"
        case "datetime" | "duration":
            return "long"
        case "boolean" | "bytes":
            return part.kind
    return "string"


def _as_it_is(value: Any) -> Any:
    return value


def _by_name(steps: list[tuple[str, str, Callable[[Any], Any], Any]]) -> Callable[[Any], Any]:
    def write(value: Any) -> Any:
        found = {}
        for name, avro, convert, default in steps:
            each = value.get(name, default)
            if each is UNSET:
                raise Misfit("it is missing").under(name)
            try:
                found[avro] = convert(each)
            except Misfit as misfit:
                raise misfit.under(name) from None
        return found

    return write


def _by_position(steps: list[tuple[str, str, Callable[[Any], Any], Any]], record: Record) -> Callable[[Any], Any]:
    write, behind = _by_name(steps), 1 if record.tag_field else 0
    names = [field.name for field in record.fields]
    return lambda value: write(dict(zip(names, value[behind:], strict=False)))


def _each_item(write: _Write) -> _Write:
    if write is None:
        return None

    def write_all(value: Any) -> Any:
        found = []
        for number, each in enumerate(value):
            try:
                found.append(write(each))
            except Misfit as misfit:
                raise misfit.under(f"[{number}]") from None
        return found

    return write_all


def _each_entry(has_text_keys: bool, write: _Write) -> _Write:
    if write is None and has_text_keys:
        return None
    convert = write or _as_it_is

    def write_all(value: Any) -> Any:
        found = {}
        for key, each in value.items():
            try:
                found[key if has_text_keys else str(msgspec.to_builtins(key))] = convert(each)
            except Misfit as misfit:
                raise misfit.under(f"[{key!r}]") from None
        if len(found) < len(value):
            raise Misfit("two of its keys are the same text")
        return found

    return write_all


def _symbols(found: Enumeration) -> _Write:
    names = symbol_names(found)

    def write(value: Any) -> str:
        try:
            return names[value]
        except (KeyError, TypeError):
            raise Misfit(f"{value!r:.100} is no {found.name}") from None

    return None if all(symbol == name for symbol, name in names.items()) else write


def _scalar(part: Scalar) -> _Write:
    match part.kind:
        case "integer":
            return _integer(*INTEGERS[part.bits or 64])
        case "decimal":
            return _decimal(part)
        case "datetime":
            return _moment(part.wire)
        case "time":
            return _time(part.wire)
        case "number" if part.bits == 32:
            return _float
        case "uuid" if part.size:
            return lambda value: value.bytes
        case "duration":
            return _duration
        case "any":
            return _anything
        case "bytes" if part.size:
            return lambda value: _sized(value, part.size)
        case _:
            return None


def _anything(value: Any) -> str:
    """JSON, which is what Avro has for it."""
    data = msgspec.json.encode(value)
    back = msgspec.json.decode(data)
    if back != value and (lost := loss_in(value, back)):
        raise Misfit(lost)
    return data.decode()


def _integer(low: int, high: int) -> Callable[[Any], Any]:
    def write(value: Any) -> Any:
        if not low <= value <= high:
            raise Misfit(f"{value!r:.60} is not from {low} to {high}")
        return value

    return write


def _decimal(part: Scalar) -> Callable[[Any], Any]:
    def write(value: decimal.Decimal) -> Any:
        if not value.is_finite():
            raise Misfit(f"{value} is no finite number")
        if not part.precision:
            return str(value)
        _, digits, exponent = value.as_tuple()
        assert isinstance(exponent, int)
        if -exponent > part.scale or len(digits) + exponent + part.scale > part.precision:
            raise Misfit(f"{value} has more than {part.precision} digits, or more than {part.scale} behind the point")
        return value

    return write


def _moment(wire: str) -> Callable[[Any], Any]:
    is_local, has_millis = wire.startswith("local-"), wire.endswith("-millis")

    def write(value: datetime.datetime) -> datetime.datetime:
        if (value.tzinfo is None) != is_local:
            raise Misfit(f"{value} has {'a' if is_local else 'no'} time zone")
        if has_millis and value.microsecond % 1000:
            raise Misfit(f"{value} has microseconds, for which {wire} has no place")
        if value.year in _YEARS_AT_THE_ENDS and not is_local:
            _require_in_utc(value)
        return value

    return write


def _require_in_utc(value: datetime.datetime) -> None:
    try:
        value.astimezone(datetime.UTC)
    except OverflowError:
        raise Misfit(f"{value} is outside of the years 1 to 9999 in UTC") from None


def _time(wire: str) -> Callable[[Any], Any]:
    def write(value: datetime.time) -> datetime.time:
        if value.tzinfo is not None:
            raise Misfit(f"{value} has a time zone, for which Avro has no place")
        if wire and value.microsecond % 1000:
            raise Misfit(f"{value} has microseconds, for which {wire} has no place")
        return value

    return write


def _float(value: Any) -> Any:
    if math.isfinite(value) and abs(value) >= _FLOAT_MAX:
        raise Misfit(f"{value} is too large for 32 bits")
    return value


def _duration(value: datetime.timedelta) -> int:
    return value // _MICROSECOND


def _sized(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise Misfit(f"it has {len(value)} bytes, not {size}")
    return value


def fits(schema: Any, part: Type) -> Callable[[Any], bool]:
    """Whether a plain value may be of a type, as far as its outside tells."""
    match part:
        case Scalar(kind="null"):
            return lambda value: value is None
        case Scalar(kind="boolean"):
            return lambda value: isinstance(value, bool)
        case Scalar(kind="integer"):
            low, high = INTEGERS[part.bits or 64]
            return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        case Scalar(kind="number"):
            return _is_number
        case Scalar(kind="bytes") if part.size:
            return lambda value: isinstance(value, bytes) and len(value) == part.size
        case Scalar(kind="text"):
            return lambda value: isinstance(value, str)
        case Scalar(kind="date"):
            return lambda value: type(value) is datetime.date
        case Scalar(kind="any"):
            return lambda value: True
        case Scalar(kind=kind):
            native = NATIVE_OF[kind]
            return lambda value: isinstance(value, native)
        case ListOf() | TupleOf():
            return lambda value: isinstance(value, list | tuple)
        case MapOf():
            return lambda value: isinstance(value, dict)
        case Reference():
            return _fits_definition(schema.resolve(part))
    return lambda value: False


def _fits_definition(found: Record | Enumeration) -> Callable[[Any], bool]:
    if isinstance(found, Enumeration):
        symbols = frozenset(found.symbols)
        return lambda value: isinstance(value, str | int) and value in symbols
    if found.positional:
        return lambda value: isinstance(value, list | tuple) and (not found.tag_field or value[0] == found.tag)
    if found.tag_field:
        return lambda value: isinstance(value, dict) and value.get(found.tag_field) == found.tag
    names = {field.name for field in found.fields}
    required = {field.name for field in found.fields if field.required}
    return lambda value: isinstance(value, dict) and required <= value.keys() <= names


def _is_number(value: Any) -> bool:
    """Whether it is a float, or an int that is the same as one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= _EXACT_MAX
    return isinstance(value, float)
