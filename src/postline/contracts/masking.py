"""Masks: what people who look at messages are shown in place of what a contract marks as sensitive."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from typing import Any

import msgspec

from postline.contracts.schema import ListOf, MapOf, Record, Reference, Schema, TupleOf, Type, UnionOf

__all__ = ["MASK", "has_sensitive", "hidden_texts", "hides", "masked", "without_texts"]

MASK = "***"
#: Of texts shorter than this only whole words are masked: a digit stands in many a number.
_WORDS_ONLY_BELOW = 4


def has_sensitive(schema: Schema) -> bool:
    """Whether anything in it is marked."""
    return any(
        field.sensitive
        for definition in schema.definitions.values()
        if isinstance(definition, Record)
        for field in definition.fields
    )


def hides(schema: Schema, path: str) -> bool:
    """Whether a value at a path, as errors name it, must not be told; also where it can't be found out."""
    if not has_sensitive(schema):
        return False
    parts: list[Type] = [schema.root]
    for step in re.sub(r"\[[^\]]*\]", "", path).split(".") if path else ():
        records = [found for found in map(schema.resolve, _within(parts)) if isinstance(found, Record)]
        fields = [found for record in records if (found := record.named.get(step)) is not None]
        if not fields or any(field.sensitive for field in fields):
            return True
        parts = [field.type for field in fields]
    return any(
        field.sensitive
        for found in map(schema.resolve, _within(parts))
        if isinstance(found, Record)
        for field in found.fields
    )


def _within(parts: Iterable[Type]) -> Iterator[Type]:
    """Parts, without lists, maps and unions around them."""
    for part in parts:
        match part:
            case ListOf(items=inner) | MapOf(values=inner):
                yield from _within([inner])
            case TupleOf(items=several) | UnionOf(options=several):
                yield from _within(several)
            case _:
                yield part


def masked(schema: Schema, value: Any) -> Any:
    """The value, as JSON has it, with a mask for whatever is sensitive; a null stays one.

    What does not look as the schema says is masked as far as the names of its fields say so.
    """
    return _masked(schema, schema.root, value)


def hidden_texts(schema: Schema, value: Any) -> set[str]:
    """Every sensitive value in a value, as JSON has it, in the ways in which texts may show it."""
    return {text for each in _hidden(value, masked(schema, value)) for text in _spellings(each)}


def without_texts(text: str, hidden: Iterable[str]) -> str:
    """A text with a mask for each of these texts."""
    parts = [
        re.escape(each) if len(each) >= _WORDS_ONLY_BELOW else rf"(?<!\w){re.escape(each)}(?!\w)"
        for each in sorted(hidden, key=len, reverse=True)
    ]
    return re.sub("|".join(parts), MASK, text) if parts else text


def _hidden(value: Any, shown: Any) -> Iterator[Any]:
    """What is masked in a value, down to single ones."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _hidden(each, shown[name] if isinstance(shown, Mapping) else MASK)
            if not isinstance(shown, Mapping):
                yield name
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from _hidden(each, shown[place] if isinstance(shown, list) else MASK)
    elif isinstance(shown, str) and shown == MASK:
        yield value


def _spellings(value: Any) -> Iterator[str]:
    text = str(value)
    if not text.strip() or value is None:
        return
    yield text
    if isinstance(value, bool):
        yield text.lower()
    if isinstance(value, str):
        yield repr(value)[1:-1]
        yield msgspec.json.encode(value).decode()[1:-1]
        for kind in (datetime, date, time, timedelta, bytes):
            with suppress(msgspec.ValidationError):
                own: Any = msgspec.convert(value, kind)
                yield from (str(own), repr(own))


def _masked(schema: Schema, part: Type, value: Any) -> Any:
    match part:
        case Reference(name=name):
            found = schema.definitions[name]
            return _record(schema, found, value) if isinstance(found, Record) else value
        case ListOf(items=items) if isinstance(value, list):
            return [_masked(schema, items, each) for each in value]
        case TupleOf(items=items) if isinstance(value, list) and len(value) == len(items):
            return [_masked(schema, item, each) for item, each in zip(items, value, strict=True)]
        case MapOf(values=values) if isinstance(value, dict):
            return {key: _masked(schema, values, each) for key, each in value.items()}
        case UnionOf(options=options):
            for option in _likely(schema, options, value):
                value = _masked(schema, option, value)
    return value


def _likely(schema: Schema, options: tuple[Type, ...], value: Any) -> list[Type]:
    """The options that a value may be of: records by its tag, where it has one that is known."""
    if isinstance(value, dict):
        for option in options:
            found = schema.resolve(option)
            if isinstance(found, Record) and found.tag_field and value.get(found.tag_field) == found.tag:
                return [option]
    return list(options)


def _record(schema: Schema, record: Record, value: Any) -> Any:
    if record.positional and isinstance(value, list):
        start = 1 if record.tag_field else 0
        behind = value[start:]
        fields = record.fields[: len(behind)]
        shown = [_field(schema, field.type, field.sensitive, each) for field, each in zip(fields, behind, strict=False)]
        return [*value[:start], *shown, *behind[len(fields) :]]
    if not isinstance(value, Mapping):
        return value
    named = record.named
    return {
        name: _field(schema, field.type, field.sensitive, each) if (field := named.get(name)) else each
        for name, each in value.items()
    }


def _field(schema: Schema, part: Type, sensitive: bool, value: Any) -> Any:
    if sensitive:
        return value if value is None else MASK
    return _masked(schema, part, value)
