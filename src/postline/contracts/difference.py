"""What is different between two versions of a contract, in words, whether it breaks anybody or not."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from postline.contracts.schema import (
    Enumeration,
    Field,
    Limits,
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

__all__ = ["Difference", "differences", "words_of"]


class Difference(msgspec.Struct, frozen=True):
    """One change: where, as a dotted path ("" for the message itself), and what it is."""

    path: str
    said: str
    #: The name that the field had before, if this is another one.
    renamed_from: str = ""


def differences(before: Schema, after: Schema) -> list[Difference]:
    """Every change from one version to the next, in the order of the newer one's fields; [] for equal schemas."""
    return list(_Comparison(before, after).types(before.root, after.root, ""))


def words_of(schema: Schema, part: Type) -> str:
    """A type in a few words: `list of text`, `integer or null`, `shop.Line`."""
    match part:
        case Scalar(kind=kind):
            return _scalar_words(part) if kind in {"integer", "number", "decimal", "bytes"} else kind
        case ListOf(items=items, unique=unique):
            return f"{'set' if unique else 'list'} of {words_of(schema, items)}"
        case TupleOf(items=items):
            return f"tuple of {', '.join(words_of(schema, each) for each in items)}"
        case MapOf(values=values):
            return f"map of {words_of(schema, values)}"
        case UnionOf(options=options):
            return " or ".join(words_of(schema, each) for each in options)
        case Reference(name=name):
            return name


def _scalar_words(part: Scalar) -> str:
    if part.bits:
        return f"{part.kind} of {part.bits} bits"
    if part.precision:
        return f"decimal of {part.precision} digits, {part.scale} behind the point"
    return f"bytes of length {part.size}" if part.size else part.kind


class _Comparison:
    """Two schemas side by side; pairs that were compared once are not compared again, so cycles end."""

    def __init__(self, before: Schema, after: Schema) -> None:
        self._before, self._after = before, after
        self._seen: set[tuple[str, str]] = set()

    def types(self, before: Type, after: Type, path: str) -> Iterator[Difference]:
        match before, after:
            case Reference(name=old), Reference(name=new):
                if (old, new) not in self._seen:
                    self._seen.add((old, new))
                    yield from self._definitions(old, new, path)
            case ListOf(), ListOf():
                yield from self._limits(before.limits, after.limits, path)
                yield from self.types(before.items, after.items, path + "[]")
            case MapOf(), MapOf():
                yield from self.types(before.values, after.values, path + "[]")
            case TupleOf(), TupleOf() if len(before.items) == len(after.items):
                for old_item, new_item in zip(before.items, after.items, strict=True):
                    yield from self.types(old_item, new_item, path)
            case UnionOf(), UnionOf():
                yield from self._options(before, after, path)
            case Scalar(), Scalar() if msgspec.structs.replace(before, limits=after.limits) == after:
                yield from self._limits(before.limits, after.limits, path)
            case _ if before != after:
                yield Difference(path, f"was {words_of(self._before, before)}, is {words_of(self._after, after)}")

    def _definitions(self, old: str, new: str, path: str) -> Iterator[Difference]:
        match self._before.definitions[old], self._after.definitions[new]:
            case Record() as before, Record() as after:
                yield from self._records(before, after, path)
            case Enumeration() as before, Enumeration() as after:
                yield from _symbols(before, after, path)
            case _:
                yield Difference(path, f"was {old}, is {new}")

    def _records(self, before: Record, after: Record, path: str) -> Iterator[Difference]:
        old = {field.name: field for field in before.fields}
        known = set()
        for field in after.fields:
            here = f"{path}.{field.name}" if path else field.name
            name = next((name for name in (field.name, *field.aliases) if name in old), None)
            if name is None:
                yield Difference(here, f"added: {words_of(self._after, field.type)}, {_presence(field)}")
                continue
            known.add(name)
            if name != field.name:
                yield Difference(here, f"renamed from {name}", name)
            yield from self._field(old[name], field, here)
        for name in old.keys() - known:
            here = f"{path}.{name}" if path else name
            yield Difference(here, f"removed (it was {words_of(self._before, old[name].type)})")
        if before.closed != after.closed:
            said = "no longer takes" if after.closed else "now takes"
            yield Difference(path, f"{said} fields that it doesn't declare")

    def _field(self, before: Field, after: Field, path: str) -> Iterator[Difference]:
        yield from self.types(before.type, after.type, path)
        if before.required != after.required:
            yield Difference(path, "is required now" if after.required else f"is {_presence(after)} now")
        elif before.default != after.default:
            yield Difference(path, f"its default was {before.default!r}, is {after.default!r}")
        if before.sensitive != after.sensitive:
            yield Difference(path, "is sensitive now" if after.sensitive else "is not sensitive any more")
        if before.number != after.number:
            yield Difference(path, f"its number was {before.number}, is {after.number}")

    def _options(self, before: UnionOf, after: UnionOf, path: str) -> Iterator[Difference]:
        old = {words_of(self._before, each): each for each in before.options}
        new = {words_of(self._after, each): each for each in after.options}
        for name in new.keys() - old.keys():
            yield Difference(path, f"may be {name} now")
        for name in old.keys() - new.keys():
            yield Difference(path, f"may not be {name} any more")
        for name in old.keys() & new.keys():
            yield from self.types(old[name], new[name], path)

    def _limits(self, before: Limits, after: Limits, path: str) -> Iterator[Difference]:
        for name in Limits.__struct_fields__:
            old, new = getattr(before, name), getattr(after, name)
            if old != new:
                yield Difference(path, f"its limit {name} was {_or_none(old)}, is {_or_none(new)}")


def _symbols(before: Enumeration, after: Enumeration, path: str) -> Iterator[Difference]:
    for symbol in after.symbols:
        if symbol not in before.symbols:
            yield Difference(path, f"knows {symbol!r} now")
    for symbol in before.symbols:
        if symbol not in after.symbols:
            yield Difference(path, f"does not know {symbol!r} any more")
    if before.default != after.default:
        yield Difference(path, f"takes what it does not know for {after.default!r} (was {before.default!r})")


def _presence(field: Field) -> str:
    if field.required:
        return "required"
    return "optional" if field.default is msgspec.UNSET else f"{field.default!r} by default"


def _or_none(limit: object) -> str:
    return "none" if limit is None else repr(limit)
