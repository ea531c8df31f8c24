"""Where values and JSON are at fault: what libraries change in silence as they write, or don't say as they read."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from postline.contracts.json_paths import with_keys
from postline.errors import PostlineError

__all__ = ["loss_in", "no_number_in", "reading_fault", "text_fault", "zoneless_in"]

#: A value, what came back of it, and where.
_Pairs = Iterator[tuple[Any, Any, str]]


def loss_in(value: Any, back: Any) -> str:
    """What became another value on the way to JSON and back, with its path; "" for nothing.

    Slow, for values whose bytes look like it. Numbers that only changed their type count where they lose digits.
    """
    waiting = [(value, back, "$")]
    while waiting:
        here, there, path = waiting.pop()
        if said := _changed(here, there):
            return f"{said} - at `{path}`"
        waiting += _inside(here, there, path)
    return ""


def zoneless_in(value: Any) -> str:
    """Which moment in a value has no time zone, with its path; "" for none."""
    found = (path for each, path in _all_in(value) if isinstance(each, datetime) and each.tzinfo is None)
    path = next(found, "")
    return path and f"A time without a zone is no moment; give it one, such as datetime.UTC - at `{path}`"


def no_number_in(value: Any) -> str:
    """Which number in a value is none in JSON, with its path; "" for nothing."""
    for each, path in _all_in(value):
        if isinstance(each, float | Decimal) and (said := _changed(each, None)):
            return f"{said} - at `{path}`"
    return ""


def _all_in(value: Any) -> Iterator[tuple[Any, str]]:
    waiting, seen = [(value, value, "$")], set[int]()
    while waiting:
        here, _, path = waiting.pop()
        yield here, path
        if id(here) not in seen:  # values may contain themselves
            seen.add(id(here))
            waiting += _inside(here, here, path)


def _changed(value: Any, back: Any) -> str:
    match value, back:
        case float(), None if not math.isfinite(value):
            return f"{value} can't stand in JSON"
        case float(), Decimal():
            return "Expected `decimal`, got `float`"
        case Decimal(), _ if not value.is_finite():
            return f"{value} is no finite number"
        case Mapping(), Mapping() if len(value) > len(back) and _has_twins(value):
            return "Two keys are the same text in JSON"
        case Mapping(), Mapping() if (key := _key_that_became_text(value, back)) is not None:
            return f"Expected `str`, got `{type(key).__name__}` as the key {key!r:.60}"
        case str(), str() if value != back and not _is_utf8(value):
            return "The text can't be written as UTF-8"
    return ""


def _key_that_became_text(value: Mapping[Any, Any], back: Mapping[Any, Any]) -> Any:
    pairs = zip(value, back, strict=False)
    return next((key for key, read in pairs if isinstance(read, str) and not isinstance(key, str | enum.Enum)), None)


def _has_twins(value: Mapping[Any, Any]) -> bool:
    return len(msgspec.to_builtins(dict.fromkeys(value), str_keys=True)) < len(value)


def _inside(value: Any, back: Any, path: str) -> _Pairs:
    match value, back:
        case Mapping(), Mapping():
            for (key, one), (read, other) in zip(value.items(), back.items(), strict=False):
                yield key, read, path
                yield one, other, f"{path}[{key!r}]"
        case (list() | tuple(), list() | tuple()):
            yield from ((*pair, f"{path}[{n}]") for n, pair in enumerate(zip(value, back, strict=False)))
        case ((set() | frozenset()), _) if back:
            # They come back in another order.
            other = next((each for each in back if not isinstance(each, float)), 0)
            yield from ((each, other if math.isfinite(each) else None, path) for each in _floats(value))
            yield from ((each, each, path) for each in value if isinstance(each, Decimal))
        case _ if type(value) is type(back):
            for name in _field_names(value):
                yield getattr(value, name, None), getattr(back, name, None), f"{path}.{name}"
        case _ if isinstance(back, dict | list) and isinstance(value, msgspec.Struct):
            yield msgspec.to_builtins(value, str_keys=True), back, path  # a Struct where anything may be


def _floats(values: Any) -> list[float]:
    return [each for each in values if isinstance(each, float)]


def _field_names(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if dataclasses.is_dataclass(value):
        return [each.name for each in dataclasses.fields(value)]
    return getattr(type(value), "__pydantic_fields__", ())


def reading_fault(error: Exception, data: bytes, decode: Callable[[bytes], Any] | None = None) -> tuple[str, str]:
    """What is wrong with bytes that could not be read, and what to do if that is known.

    In the words of the library; where it names no place of JSON, with one. `decode` is what failed with these bytes.
    """
    if isinstance(error, PostlineError):
        return error.message.removesuffix("."), error.remedy
    said = _json_fault(error, data)
    return (said if decode is None else with_keys(said, data, decode)), ""


def _json_fault(error: Exception, data: bytes) -> str:
    if isinstance(error, RecursionError):
        return "its values are nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        try:
            found = text_fault(json.loads(data.decode(errors="surrogateescape")))
        except (ValueError, RecursionError):
            found = ""
        return f"its text is no UTF-8 - {found or 'in what is no JSON either'}"
    return str(error)


def text_fault(plain: Any) -> str:
    """Where the first text that is no UTF-8 lies in a plain value; "" if there is none."""
    waiting = [(plain, "$")]
    while waiting:
        here, path = waiting.pop()
        if isinstance(here, str) and not _is_utf8(here):
            return f"at `{path}`"
        if isinstance(here, dict):
            inner = list(here.items())
            waiting += [(each, f"{path}.{key}") for key, each in reversed(inner)]
            waiting += [(key, f"{path} in the key {key!r}") for key in here]
        elif isinstance(here, list | tuple):
            waiting += [(each, f"{path}[{n}]") for n, each in reversed(list(enumerate(here)))]
    return ""


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
