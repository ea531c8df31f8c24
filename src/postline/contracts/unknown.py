"""Fields of a value that its contract does not have, which reading skips: for who would rather be told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from postline.contracts.schema import ListOf, MapOf, Record, Reference, Schema, TupleOf, Type, UnionOf

__all__ = ["dropped_fields"]

_Steps: TypeAlias = tuple[str | int, ...]


def dropped_fields(schema: Schema, value: Any, kept: Callable[[], Any]) -> list[str]:
    """The paths of what is lost of a value by reading it as the contract says.

    `value` is what was given, and `kept` gives what became of it, as JSON has both: a model may keep what its schema
    does not name.
    """
    unknown = list(_unknown(schema, schema.root, value, ()))
    back = kept() if unknown else None
    return [_path(steps) for steps in unknown if not _has(back, steps)]


def _unknown(schema: Schema, part: Type, value: Any, at: _Steps) -> Iterator[_Steps]:
    match part:
        case Reference():
            found = schema.resolve(part)
            if isinstance(found, Record):
                yield from _in_record(schema, found, value, at)
        case ListOf(items=items) if isinstance(value, list):
            for place, each in enumerate(value):
                yield from _unknown(schema, items, each, (*at, place))
        case TupleOf(items=items) if isinstance(value, list):
            for place, (item, each) in enumerate(zip(items, value, strict=False)):
                yield from _unknown(schema, item, each, (*at, place))
        case MapOf(values=values) if isinstance(value, dict):
            for key, each in value.items():
                yield from _unknown(schema, values, each, (*at, key))
        case UnionOf(options=options):
            # As the option that knows most of it: which one is meant its class has decided.
            tried = [list(_unknown(schema, each, value, at)) for each in options if _takes(schema, each, value)]
            yield from min(tried, key=len, default=[])


def _takes(schema: Schema, option: Type, value: Any) -> bool:
    """Whether a value has the shape of an option, and its tag where it has one."""
    match schema.resolve(option):
        case Record(positional=True) | ListOf() | TupleOf():
            return isinstance(value, list)
        case Record(tag_field=field, tag=tag):
            return isinstance(value, dict) and (not field or value.get(field) == tag)
        case MapOf():
            return isinstance(value, dict)
    return not isinstance(value, list | dict)


def _in_record(schema: Schema, record: Record, value: Any, at: _Steps) -> Iterator[_Steps]:
    if record.positional and isinstance(value, list):
        for place, each in enumerate(value[1 if record.tag_field else 0 :]):
            if place < len(record.fields):
                yield from _unknown(schema, record.fields[place].type, each, (*at, place))
    elif isinstance(value, dict):
        fields = {field.name: field for field in record.fields}
        for name, each in value.items():
            if name in fields:
                yield from _unknown(schema, fields[name].type, each, (*at, name))
            elif name != record.tag_field:
                yield (*at, name)


def _has(value: Any, steps: _Steps) -> bool:
    for step in steps:
        try:
            value = value[step]
        except (LookupError, TypeError):
            return False
    return True


def _path(steps: _Steps) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")
