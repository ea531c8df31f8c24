"""Schemas for properties: those that classes can say whole, and any at all."""

from __future__ import annotations

import functools
from typing import Any

from hypothesis import strategies as st
from msgspec import UNSET

from postline.contracts.reflection_types import union_of
from postline.contracts.schema import (
    TEXT,
    Definition,
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

__all__ = ["any_schemas", "sayable_schemas"]

_KINDS: Any = ("boolean", "integer", "number", "decimal", "text", "bytes", "date", "time", "datetime", "uuid", "any")
_NULL = Scalar(kind="null")
_RECORDS = ("Record0", "Record1", "Record2")
_ENUMERATIONS = ("Enum0", "Enum1")
#: Names as they are met on the wire; Python takes few of them as they are.
_NAMES = st.sampled_from(
    ["a", "b-c", "class", "int", "topic", "field", "Record0", "Enum1", "__x", "1", "é", "", "'", "\x7f\u2028", "was"]
) | st.text(st.characters(codec="utf-8", min_codepoint=32, exclude_characters='"\\'), max_size=5)
#: Of a class whose fields happen to follow a style, former names stand for those in that style, too: these are both.
_CASELESS = st.sampled_from(["1", "23", "'", "\x7f\u2028", ""])
_TAGS = st.text(max_size=3) | st.integers()
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
_ANY_LIMITS = st.builds(
    Limits,
    ge=st.none() | st.integers(-(2**65), 2**65) | st.floats(-9, 9),
    gt=st.none() | st.floats(-9, 9),
    le=st.none() | st.integers(-9, 9),
    lt=st.none() | st.integers(-9, 9),
    multiple_of=st.none() | st.integers(-1, 9) | st.floats(-1, 9),
    min_length=st.none() | st.integers(-1, 9),
    max_length=st.none() | st.integers(-1, 9),
    pattern=st.none() | st.sampled_from(["^a", r"\p{L}", "(?<n>a)", '"', "[", "\\"]),
)
_SAYABLE_LIMITS = {
    "integer": st.builds(Limits, ge=st.none() | st.integers(-9, 9), lt=st.none() | st.integers(-9, 9)),
    "number": st.builds(Limits, gt=st.none() | st.floats(-9, 9), multiple_of=st.none() | st.just(0.5)),
    "text": st.builds(Limits, max_length=st.none() | st.integers(0, 9), pattern=st.none() | st.just('^"\\w')),
}


@st.composite
def sayable_schemas(draw: st.DrawFn) -> Schema:
    """Schemas of which classes say all; definitions are called as their classes will be."""
    return _schema(draw, False)


@st.composite
def any_schemas(draw: st.DrawFn) -> Schema:
    """Any schema whose root is a record, however little sense its limits, unions and defaults make."""
    return _schema(draw, True)


def _schema(draw: st.DrawFn, wild: bool) -> Schema:
    definitions: dict[str, Definition] = {name: _enumeration(draw, name, wild) for name in _ENUMERATIONS}
    for name in _RECORDS[: draw(st.integers(1, len(_RECORDS)))] if not wild else _RECORDS:
        definitions[name] = _record(draw, name, wild)
    for name in _RECORDS:
        definitions.setdefault(name, Record(name=name))
    schema = Schema(root=Reference(name=_RECORDS[0]), definitions=dict(sorted(definitions.items())))
    return schema if wild else _reachable(schema)


def _record(draw: st.DrawFn, name: str, wild: bool) -> Record:
    tagged = draw(st.booleans())
    tag_field, tag = ("", "") if not tagged else (draw(_NAMES), draw(_TAGS)) if wild else ("kind of", name)
    return Record(
        name=name,
        aliases=tuple(draw(st.lists(_NAMES, max_size=1))),
        tag_field=tag_field,
        tag=tag,
        closed=draw(st.booleans()),
        positional=wild and draw(st.booleans()),
        fields=tuple(_field(draw, each, wild) for each in draw(st.lists(_NAMES, max_size=4, unique=True))),
    )


def _reachable(schema: Schema) -> Schema:
    """Without what nothing refers to; also without what a class finds only by chance."""
    reached, names = {_RECORDS[0]}, [_RECORDS[0]]
    while names:
        found = schema.definitions[names.pop()]
        for field in found.fields if isinstance(found, Record) else ():
            for name in _named(field.type):
                if name not in reached:
                    reached.add(name)
                    names.append(name)
    return Schema(
        root=schema.root, definitions={name: each for name, each in schema.definitions.items() if name in reached}
    )


def _named(part: Type) -> list[str]:
    match part:
        case Reference(name=name):
            return [name]
        case ListOf(items=inner) | MapOf(values=inner):
            return _named(inner)
        case TupleOf(items=several) | UnionOf(options=several):
            return [name for each in several for name in _named(each)]
    return []


def _enumeration(draw: st.DrawFn, name: str, wild: bool) -> Enumeration:
    texts, integers = st.text(st.characters(codec="utf-8"), max_size=3), st.integers(-5, 5)
    kind: Any = draw(st.sampled_from([texts, integers]))
    kind = texts | st.integers() if wild and draw(st.booleans()) else kind
    symbols = tuple(draw(st.lists(kind, min_size=0 if wild else 1, max_size=4, unique=True)))
    default = draw(st.none() | st.sampled_from(symbols)) if symbols else None
    return Enumeration(name=name, symbols=symbols, default=default, aliases=tuple(draw(st.lists(_NAMES, max_size=1))))


def _field(draw: st.DrawFn, name: str, wild: bool) -> Field:
    part = draw(_types(wild))
    default: Any = UNSET
    required = draw(st.booleans())
    if wild:
        default = draw(_JSON | st.just(UNSET))
    elif not required:
        part, default = _with_default(draw, part)
    return Field(
        name=name,
        type=part,
        required=required,
        default=default,
        aliases=tuple(draw(st.lists(_NAMES if wild else _CASELESS, max_size=2, unique=not wild))),
        sensitive=draw(st.booleans()),
        number=draw(st.integers(0, 2)),
    )


def _with_default(draw: st.DrawFn, part: Type) -> tuple[Type, Any]:
    """A type, or else one like it that takes null, with a default of it."""
    match part:
        case Scalar(kind="integer" | "number" | "text", limits=Limits(ge=None, lt=None, gt=None, pattern=None)):
            values = {"integer": 0, "number": 0.5, "text": ""}
            return part, values[part.kind]
        case ListOf(limits=Limits(min_length=None)):
            return part, []
        case MapOf():
            return part, {}
        case Scalar(kind="any"):
            return part, draw(_JSON)
        case UnionOf():
            return (part if _NULL in part.options else TEXT), None if _NULL in part.options else "x"
        case Scalar(kind="null"):
            return part, None
    return UnionOf(options=(part, _NULL)), None


@functools.cache
def _types(wild: bool) -> st.SearchStrategy[Type]:
    if wild:
        scalars: Any = st.builds(Scalar, kind=st.sampled_from([*_KINDS, "null", "duration"]), limits=_ANY_LIMITS)
    else:
        plain = st.sampled_from([Scalar(kind=kind) for kind in _KINDS if kind not in _SAYABLE_LIMITS])
        limited = [st.builds(Scalar, kind=st.just(kind), limits=limits) for kind, limits in _SAYABLE_LIMITS.items()]
        scalars = st.one_of(plain, *limited)
    known: Any = st.sampled_from([Reference(name=name) for name in (*_RECORDS, *_ENUMERATIONS)])
    limits = _ANY_LIMITS if wild else st.just(Limits()) | st.just(Limits(max_length=7))

    def larger(inner: Any) -> Any:
        keys = inner if wild else st.sampled_from([TEXT, Scalar(kind="integer"), Scalar(kind="date")])
        unions = st.lists(inner, min_size=2, max_size=4).map(union_of) if wild else inner.map(_nullable)
        return st.one_of(
            st.builds(ListOf, items=inner, limits=limits, unique=st.booleans() if wild else st.just(False)),
            st.builds(ListOf, items=st.just(TEXT), unique=st.just(True)),
            st.builds(MapOf, values=inner, keys=keys, limits=limits),
            st.lists(inner, max_size=2).map(lambda items: TupleOf(items=tuple(items))),
            unions,
        )

    return st.recursive(scalars | known, larger, max_leaves=4)


def _nullable(part: Type) -> Type:
    return part if isinstance(part, UnionOf) or part == _NULL else UnionOf(options=(part, _NULL))
