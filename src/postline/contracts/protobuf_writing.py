"""Plain values (dicts, lists, text, numbers) as what Protobuf's message classes are made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET

from postline.contracts.plain_values import natively
from postline.contracts.protobuf_layout import (
    ANY_LIST,
    ANY_MAP,
    GOOGLE,
    GOOGLE_FILES,
    is_implicit,
    option_names,
    proto_names,
)
from postline.contracts.protobuf_numbers import options_of, symbol_numbers
from postline.contracts.schema import (
    Enumeration,
    Field,
    ListOf,
    MapOf,
    Record,
    Reference,
    Scalar,
    ScalarKind,
    Schema,
    TupleOf,
    Type,
    UnionOf,
)

__all__ = ["RecordWriter"]

#: What becomes of a value that isn't None; None as a function leaves it as it is.
_Write: TypeAlias = Callable[[Any], Any] | None

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FLOAT_MAX = 3.4028235677973366e38  # rounds to the largest 32-bit float, and no more
_EXACT_MAX = 1 << 53
_SPAN_SECONDS_MAX = 315_576_000_000
_PLAIN: dict[ScalarKind, tuple[type, ...]] = {
    "boolean": (bool,),
    "integer": (int,),
    "number": (float, int),
    "bytes": (bytes,),
    "datetime": (datetime,),
    "duration": (timedelta,),
}


#: In place of a field that was left out, may be None, and has no default that the schema knows.
_UNSAYABLE = object()
_NATIVE_OF = {"bytes": bytes, "datetime": datetime, "duration": timedelta}


class _Step(NamedTuple):
    """One field: names, type, how it is written, whether None is a value, and what stands for one left out."""

    name: str
    attribute: str
    type: Type
    write: _Write
    takes_none: bool
    default: Any


class RecordWriter:
    """How records of one schema are written, compiled once; `messages` has each record's message class."""

    def __init__(self, schema: Schema, messages: Mapping[str, Any]) -> None:
        self._schema, self._messages, self._loose = schema, messages, _Loose(messages)
        self._steps: dict[str, list[_Step]] = {}
        assert isinstance(schema.root, Reference)
        self._root = schema.root.name
        #: The keyword arguments of the root's message class, of a plain record.
        self.root: Callable[[Any], dict[str, Any]] = self._record(self._root)

    def _record(self, name: str) -> Callable[[Any], dict[str, Any]]:
        record = self._schema.definitions[name]
        assert isinstance(record, Record)
        known = name in self._steps
        steps = self._steps.setdefault(name, [])  # filled below, since records may contain themselves
        if not known:
            attributes = proto_names(record)
            steps += [
                _Step(
                    each.name,
                    attributes[each.name],
                    each.type,
                    self.field(each.type),
                    each.type == Scalar(kind="any"),
                    self._default(each),
                )
                for each in record.fields
            ]

        def write(value: Any) -> dict[str, Any]:
            found = {}
            for key, attribute, _, convert, takes_none, default in steps:
                inner = value.get(key, default)
                if inner is _UNSAYABLE:
                    raise ValueError(f"{key} is left out, which Protobuf can't tell from None; give it a default")
                if inner is not None or (takes_none and key in value):
                    found[attribute] = inner if convert is None else convert(inner)
            return found

        if any(field.oneof for field in record.fields):
            return _exclusive(record, write)
        if not record.positional:
            return write
        names = [None] * bool(record.tag_field) + [field.name for field in record.fields]
        return lambda value: write(dict(zip(names, value, strict=False)))

    def _default(self, field: Field) -> Any:
        """What a class that leaves out defaults did not write: its readers may have other ones."""
        if field.default is UNSET and not field.required and options_of(field.type) != (field.type,):
            return _UNSAYABLE
        if field.default is UNSET or field.default is None or is_implicit(self._schema, field):
            return None
        return natively(self._schema, field.type, field.default, _NATIVE_OF)

    def field(self, part: Type) -> _Write:
        """For a field of a message, where lists and maps have their place."""
        match part:
            case ListOf(items=items):
                item = self.value(items)
                return None if item is None else lambda value: [item(each) for each in value]
            case MapOf(values=values):
                inner = self.value(values)
                return None if inner is None else lambda value: {key: inner(each) for key, each in value.items()}
        options = options_of(part)
        return self.value(options[0] if len(options) == 1 else part)

    def value(self, part: Type) -> _Write:
        """For a single value: an item, a map's value, an alternative of a union."""
        match part:
            case Scalar(wire=wire) if wire in GOOGLE_FILES["wrappers"]:
                inner = self.value(msgspec.structs.replace(part, wire=""))
                return lambda value: {"value": value if inner is None else inner(value)}
            case Scalar(kind="any"):
                return self._loose.value
            case Scalar(kind="datetime"):
                return _timestamp
            case Scalar(kind="duration"):
                return _span
            case Scalar(kind="number", bits=32):
                return _float
            case Scalar(kind="decimal"):
                return _decimal
            case Scalar():
                return None
            case Reference(name=name):
                found = self._schema.definitions[name]
                return symbol_numbers(found).__getitem__ if isinstance(found, Enumeration) else self._record(name)
            case TupleOf(items=items):
                return self._tuple(items)
            case UnionOf() if len(options_of(part)) > 1:
                return self._union(options_of(part))
        if part in (ANY_MAP, ANY_LIST):
            return self._loose.fields if part == ANY_MAP else self._loose.items
        inner = self.field(part)
        return lambda value: {} if value is None else {"value": value if inner is None else inner(value)}

    def _tuple(self, items: Iterable[Type]) -> Callable[[Any], Any]:
        steps = [
            (f"item_{number}", self.field(item), item == Scalar(kind="any")) for number, item in enumerate(items, 1)
        ]

        def write(value: Any) -> dict[str, Any]:
            return {
                attribute: each if convert is None else convert(each)
                for (attribute, convert, takes_none), each in zip(steps, value, strict=True)
                if each is not None or takes_none
            }

        return write

    def _union(self, options: tuple[Type, ...]) -> Callable[[Any], Any]:
        labels = option_names(self._schema, options)
        choices = sorted(
            (_rank(self._schema, option), label, self._accepts(option), self.value(option))
            for label, option in zip(labels, options, strict=True)
        )

        def write(value: Any) -> dict[str, Any]:
            if value is None:
                return {}
            for _, label, accepts, convert in choices:
                if accepts(value):
                    return {label: value if convert is None else convert(value)}
            raise TypeError(f"a value of type {type(value).__name__} is none of {', '.join(labels)}")

        return write

    def _accepts(self, option: Type) -> Callable[[Any], bool]:
        match option:
            case Scalar(kind="any"):
                return lambda value: True
            case Scalar(kind=kind):
                plain = _PLAIN.get(kind, (str,))
                return lambda value: type(value) in plain
            case MapOf():
                return lambda value: isinstance(value, dict)
            case ListOf():
                return lambda value: isinstance(value, list | tuple)
            case TupleOf(items=items):
                return lambda value: isinstance(value, list | tuple) and len(value) == len(items)
        found = self._schema.resolve(option)
        if isinstance(found, Enumeration):
            return lambda value: type(value) in {str, int} and value in found.symbols
        assert isinstance(found, Record)
        return _is_record(found)

    def fault_in(self, plain: Any) -> str:
        """The path of the first value in a plain record that can't be written; "" if none is found.

        Each part is tried alone, so this is slow, and for errors only.
        """
        return self._fault_in_record(self._root, plain, "") if isinstance(plain, dict) else ""

    def _fault_in_record(self, name: str, plain: dict[str, Any], path: str) -> str:
        for step in self._steps[name]:
            inner = plain.get(step.name)
            if inner is not None and not self._writes(name, step, inner):
                return self._fault_in_field(name, step, inner, f"{path}.{step.name}" if path else step.name)
        return path

    def _fault_in_field(self, name: str, step: _Step, value: Any, path: str) -> str:
        parts: list[tuple[str, Type, Any, Any]] = []
        match step.type:
            case ListOf(items=item) if isinstance(value, list):
                parts = [(f"{path}[{index}]", item, each, [each]) for index, each in enumerate(value)]
            case MapOf(values=item) if isinstance(value, dict):
                parts = [(f"{path}[{key!r}]", item, each, {key: each}) for key, each in value.items()]
            case part if len(options_of(part)) == 1:
                parts = [(path, options_of(part)[0], value, value)]
        for here, item, each, alone in parts:
            if not self._writes(name, step, alone):
                if isinstance(item, Reference) and item.name in self._steps and isinstance(each, dict):
                    return self._fault_in_record(item.name, each, here)
                return here
        return path

    def _writes(self, name: str, step: _Step, value: Any) -> bool:
        try:
            self._messages[name](**{step.attribute: value if step.write is None else step.write(value)})
        except Exception:  # noqa: BLE001 - the error itself is told already; this asks where it is
            return False
        return True


def _rank(schema: Schema, option: Type) -> int:
    """What is asked first of a union's alternatives: the narrower before the wider."""
    match option:
        case Scalar(kind="any"):
            return 9
        case Scalar(kind="text" | "boolean" | "integer" | "bytes" | "datetime" | "duration"):
            return 3
        case Scalar():  # text that stands for something else, and numbers
            return 4
        case Reference():
            found = schema.resolve(option)
            return 1 if isinstance(found, Enumeration) or found.tag_field else 2  # type: ignore[union-attr]
        case TupleOf():
            return 5
        case _:
            return 6


def _is_record(record: Record) -> Callable[[Any], bool]:
    tag_field, tag, names = record.tag_field, record.tag, {field.name for field in record.fields}
    required = {field.name for field in record.fields if field.required}
    if record.positional:
        return lambda value: isinstance(value, list) and (not tag_field or value[:1] == [tag])
    if tag_field:
        return lambda value: isinstance(value, dict) and value.get(tag_field) == tag
    return lambda value: isinstance(value, dict) and required <= value.keys() <= names


def _exclusive(record: Record, write: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    """Refuses a record that has two fields of one oneof, of which Protobuf would keep the last."""
    oneofs = [(field.name, field.oneof) for field in record.fields if field.oneof]

    def checked(value: Any) -> dict[str, Any]:
        given: dict[str, str] = {}
        for name, oneof in oneofs:
            if value.get(name) is not None and given.setdefault(oneof, name) != name:
                raise ValueError(f"{given[oneof]} and {name} exclude each other")
        return write(value)

    return checked


def _timestamp(value: Any) -> dict[str, int]:
    if not isinstance(value, datetime):
        raise TypeError(f"a datetime is needed, not {type(value).__name__}")
    if value.tzinfo is None:
        raise ValueError("a datetime without time zone is no moment; give it one")
    since = value - _EPOCH
    return {"seconds": since.days * 86_400 + since.seconds, "nanos": since.microseconds * 1_000}


def _span(value: Any) -> dict[str, int]:
    if not isinstance(value, timedelta):
        raise TypeError(f"a timedelta is needed, not {type(value).__name__}")
    sign, size = (-1, -value) if value < timedelta(0) else (1, value)
    seconds = size.days * 86_400 + size.seconds
    if seconds > _SPAN_SECONDS_MAX:
        raise ValueError("a timedelta of more than 10,000 years can't be written")
    return {"seconds": sign * seconds, "nanos": sign * size.microseconds * 1_000}


def _float(value: Any) -> Any:
    if math.isfinite(value) and abs(value) >= _FLOAT_MAX:
        raise ValueError(f"{value} is too large for 32 bits")
    return value


def _decimal(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"Expected `decimal`, got `{type(value).__name__}`")
    if not value.lstrip("-")[:1].isdigit():
        raise ValueError(f"{value} is no finite number")
    return value


class _Loose:
    """Values of any kind, as messages: what Protobuf's classes make of plain dicts there differs by their version."""

    def __init__(self, messages: Mapping[str, Any]) -> None:
        self._value: Any = messages.get(GOOGLE + "Value")
        self._map: Any = messages.get(GOOGLE + "Struct")
        self._list: Any = messages.get(GOOGLE + "ListValue")

    def value(self, value: Any) -> Any:
        """A google.protobuf.Value."""
        match value:
            case None:
                return self._value(null_value=0)
            case bool():
                return self._value(bool_value=value)
            case int() if abs(value) > _EXACT_MAX:
                raise ValueError(f"{value} would not be exact: Protobuf's Value has floats only")
            case float() if not math.isfinite(value):
                raise ValueError(f"{value} can't stand in Protobuf's Value")
            case int() | float():
                return self._value(number_value=value)
            case str():
                return self._value(string_value=value)
            case list() | tuple():
                return self._value(list_value=self.items(value))
            case dict():
                return self._value(struct_value=self.fields(value))
            case _:
                raise TypeError(f"a {type(value).__name__} can't stand in Protobuf's Value")

    def fields(self, value: Any) -> Any:
        """A google.protobuf.Struct."""
        found = self._map()
        for key, each in value.items():
            if not isinstance(key, str):
                raise TypeError(f"Expected `str`, got `{type(key).__name__}` as the key {key!r:.60}")
            found.fields[key].CopyFrom(self.value(each))
        return found

    def items(self, value: Any) -> Any:
        """A google.protobuf.ListValue."""
        found = self._list()
        found.values.extend([self.value(each) for each in value])
        return found
