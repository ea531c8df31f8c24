"""pydantic's unions whose options look alike on the wire: a value that would come back as another type is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime
from typing import Any

from postline.contracts.schema import ListOf, MapOf, Record, Scalar, Schema, TupleOf, Type, UnionOf
from postline.errors import EncodeError

__all__ = ["keeping_types", "retyped_in"]

#: Of these a union may have several, which msgspec's classes never do.
_ALIKE = frozenset({"text", "uuid", "date", "datetime", "time", "decimal", "duration", "bytes"})


def keeping_types(
    cls: Any, name: str, schema: Schema, encode: Callable[[Any], bytes], decode: Callable[[bytes], Any]
) -> Callable[[Any], bytes]:
    """The encoder; where a model has such unions, one that raises EncodeError for what would change its type."""
    if not hasattr(cls, "__pydantic_validator__") or not any(map(_is_ambiguous, _types_in(schema))):
        return encode

    def checked(value: Any) -> bytes:
        data = encode(value)
        if said := retyped_in(value, decode(data)):
            raise EncodeError(f"A {name} can't be written: {said}.", remedy="Tell the types apart by a class of each.")
        return data

    return checked


def retyped_in(value: Any, back: Any) -> str:
    """What is of another type since it was written, with its path; "" for nothing."""
    waiting = [(value, back, "$")]
    while waiting:
        here, there, path = waiting.pop()
        if _is_another(here, there):
            return f"a {type(here).__name__} would be read as a {type(there).__name__} - at `{path}`"
        waiting += _inside(here, there, path)
    return ""


def _is_another(here: Any, there: Any) -> bool:
    if isinstance(here, date) and isinstance(there, date):
        return isinstance(here, datetime) is not isinstance(there, datetime)
    numbers = isinstance(here, int | float) and isinstance(there, int | float)
    return not numbers and not isinstance(there, type(here)) and not isinstance(here, type(there))


def _inside(here: Any, there: Any, path: str) -> Iterator[tuple[Any, Any, str]]:
    if isinstance(here, dict):
        yield from ((each, there.get(key, each), f"{path}[{key!r}]") for key, each in here.items())
    elif isinstance(here, list | tuple):
        yield from ((*pair, f"{path}[{at}]") for at, pair in enumerate(zip(here, there, strict=False)))
    else:
        for name in getattr(type(here), "__pydantic_fields__", ()):
            yield getattr(here, name, None), getattr(there, name, None), f"{path}.{name}"


def _types_in(schema: Schema) -> Iterator[Type]:
    waiting = [field.type for each in schema.definitions.values() if isinstance(each, Record) for field in each.fields]
    while waiting:
        part = waiting.pop()
        yield part
        match part:
            case ListOf(items=inner) | MapOf(values=inner):
                waiting.append(inner)
            case TupleOf(items=several) | UnionOf(options=several):
                waiting += several


def _is_ambiguous(part: Type) -> bool:
    options = part.options if isinstance(part, UnionOf) else ()
    scalars = [each for each in options if isinstance(each, Scalar) and each.kind in _ALIKE]
    return len(scalars) > 1 or sum(isinstance(each, ListOf | TupleOf) for each in options) > 1
