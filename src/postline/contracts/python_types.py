"""Annotations for the model's types, as msgspec takes them, and what is left out of them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import TypeAlias

import msgspec

from postline.contracts.python_names import literal
from postline.contracts.schema import (
    NO_LIMITS,
    TEXT,
    Definition,
    Enumeration,
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

__all__ = ["SCALARS", "Hints", "is_class", "tag_of"]

SCALARS: dict[str, str] = {
    "null": "None",
    "boolean": "bool",
    "integer": "int",
    "number": "float",
    "decimal": "decimal.Decimal",
    "text": "str",
    "bytes": "bytes",
    "date": "datetime.date",
    "time": "datetime.time",
    "datetime": "datetime.datetime",
    "duration": "datetime.timedelta",
    "uuid": "uuid.UUID",
    "any": "Any",
}
#: Python reads no deeper brackets, and no longer chains of alternatives.
_DEPTH_MAX = 50
_OPTIONS_MAX = 500
#: What msgspec takes as a whole number in limits, symbols and tags.
_INT64 = range(-(2**63), 2**63)
_RANGE = ("ge", "gt", "le", "lt", "multiple_of")
_LENGTH = ("min_length", "max_length")
#: The limits that msgspec takes with a kind; others have no place there.
_LIMITS: dict[str, tuple[str, ...]] = {
    "integer": _RANGE,
    "number": _RANGE,
    "text": (*_LENGTH, "pattern"),
    "bytes": _LENGTH,
}
#: Kinds that are written as themselves; the others as text.
_OWN_SHAPE = frozenset({"null", "boolean", "integer", "number", "any"})

_Limit: TypeAlias = int | float | str


def is_class(found: Definition) -> bool:
    """Whether a definition can be a class: an enumeration of texts, or of 64-bit integers, or any record."""
    if isinstance(found, Record):
        return True
    symbols = found.symbols
    return bool(symbols) and (
        all(isinstance(each, str) for each in symbols)
        or all(isinstance(each, int) and each in _INT64 for each in symbols)
    )


def tag_of(record: Record) -> tuple[str, str | int] | None:
    """A record's tag field and tag, if a class can have them: no field of its own has that name."""
    usable = isinstance(record.tag, str) or record.tag in _INT64
    names = {field.name for field in record.fields}
    return (record.tag_field, record.tag) if record.tag_field and usable and record.tag_field not in names else None


class Hints:
    """Annotations for one schema's types; `name_of` says how a class is called, `leave_out` hears what is lost."""

    def __init__(self, schema: Schema, name_of: Callable[[str], str], leave_out: Callable[[str], None]) -> None:
        self._schema, self._name_of, self._leave_out = schema, name_of, leave_out
        self._depth = 0

    def of(self, part: Type) -> str:
        """The annotation for a type."""
        if self._depth > _DEPTH_MAX:
            self._leave_out("Any, for it nests too deeply.")
            return "Any"
        self._depth += 1
        made = self._of(part)
        self._depth -= 1
        return made

    def _of(self, part: Type) -> str:
        match part:
            case Scalar():
                return self._limited(SCALARS[part.kind], part.limits, _LIMITS.get(part.kind, ()), part.kind)
            case ListOf():
                name = "set" if part.unique and self._is_hashable(part.items) else "list"
                return self._limited(f"{name}[{self.of(part.items)}]", part.limits, _LENGTH)
            case TupleOf():
                return f"tuple[{', '.join(map(self.of, part.items)) or '()'}]"
            case MapOf():
                keys = self.of(part.keys if self._is_hashable(part.keys) else TEXT)
                return self._limited(f"dict[{keys}, {self.of(part.values)}]", part.limits, _LENGTH)
            case UnionOf():
                return self._union(part)
            case Reference():
                return self._definition(part.name)

    def takes_none(self, part: Type) -> bool:
        """Whether None is a value of it, or anything is."""
        options = part.options if isinstance(part, UnionOf) else (part,)
        return any(isinstance(each, Scalar) and each.kind in {"null", "any"} for each in options)

    def _definition(self, name: str) -> str:
        found = self._schema.definitions[name]
        if isinstance(found, Record) or is_class(found):
            return self._name_of(name)
        self._leave_out(f"One of {literal(list(found.symbols))}.")
        return "Any"

    def _union(self, part: UnionOf) -> str:
        if self._can_be_told_apart(part.options):
            return " | ".join(self.of(self._without_limits(each, part.options)) for each in part.options)
        silent = Hints(self._schema, self._name_of, lambda said: None)
        names = [silent._option(each) for each in part.options[:_OPTIONS_MAX]]
        self._leave_out(f"Any of {', '.join(names)}, which msgspec can't tell apart.")
        return "Any"

    def _without_limits(self, part: Type, options: tuple[Type, ...]) -> Type:
        """An option without the limits with which a union would end the process (msgspec 0.22 frees wrong memory).

        That are all limits beside a tuple, and a pattern beside a list or a map.
        """
        if not isinstance(part, Scalar | ListOf | MapOf) or part.limits == NO_LIMITS:
            return part
        kept = part.limits
        if any(isinstance(each, TupleOf) for each in options):
            kept = NO_LIMITS
        elif any(isinstance(each, ListOf | MapOf) for each in options):
            kept = msgspec.structs.replace(kept, pattern=None)
        if kept != part.limits:
            self._leave_out("Without limits that msgspec can't have in this union.")
        return msgspec.structs.replace(part, limits=kept)

    def _option(self, part: Type) -> str:
        return part.name if isinstance(part, Reference) else self.of(part)

    # -- limits -------------------------------------------------------------------------------

    def _limited(self, hint: str, limits: Limits, names: tuple[str, ...], kind: str = "") -> str:
        said: dict[str, _Limit] = {}
        without = []
        for name in (name for name in Limits.__struct_fields__ if getattr(limits, name) is not None):
            value = _usable(name, getattr(limits, name), kind) if name in names else None
            if value is None:
                without.append(f"{name}={literal(getattr(limits, name))}")
            else:
                said[name] = value
        if without:
            self._leave_out(f"Without {', '.join(without)}.")
        # msgspec takes one bound on each side.
        for bound, other, narrower in (("ge", "gt", max), ("le", "lt", min)):
            if bound in said and other in said:
                said.pop(bound if narrower(said[bound], said[other]) == said[other] else other)
        if not said:
            return hint
        return f"Annotated[{hint}, Meta({', '.join(f'{name}={literal(value)}' for name, value in said.items())})]"

    # -- what msgspec takes -------------------------------------------------------------------

    def _is_hashable(self, part: Type) -> bool:
        """Whether it can stand in a set, or be a key."""
        match part:
            case Scalar(kind=kind):
                return kind not in {"any", "null"}
            case Reference():
                found = self._schema.resolve(part)
                return isinstance(found, Enumeration) and is_class(found)
        return False

    def _can_be_told_apart(self, options: tuple[Type, ...]) -> bool:
        """Whether msgspec takes them as one union (its documentation, "Union restrictions")."""
        shapes = [self._shape(each) for each in options]
        tags = [tag for each in options if (tag := self._tag(each)) is not None]
        records = [each for each in options if isinstance(self._schema.resolve(each), Record)]
        # Records with tags count once, if they say the same in the same way; any other shape may be there once.
        as_one = {"array" if positional else "object" for positional, _, _ in tags}
        counts = Counter(shape for shape, each in zip(shapes, options, strict=True) if self._tag(each) is None)
        counts.update(as_one)
        return (
            len(options) <= _OPTIONS_MAX
            and max(counts.values()) == 1
            and (len(records) == len(tags) or len(records) == 1)
            and len({(positional, name, type(tag)) for positional, name, tag in tags}) <= 1
            and len({tag for _, _, tag in tags}) == len(tags)
        )

    def _tag(self, part: Type) -> tuple[bool, str, str | int] | None:
        found = self._schema.resolve(part)
        tag = tag_of(found) if isinstance(found, Record) else None
        return (found.positional, *tag) if isinstance(found, Record) and tag else None

    def _shape(self, part: Type) -> str:
        match found := self._schema.resolve(part):
            case Scalar(kind=kind):
                return kind if kind in _OWN_SHAPE else "text"
            case ListOf() | TupleOf() | Record(positional=True):
                return "array"
            case MapOf() | Record():
                return "object"
            case Enumeration() if is_class(found):
                return "text" if isinstance(found.symbols[0], str) else "integer"
        return "any"


def _usable(name: str, value: _Limit, kind: str) -> _Limit | None:
    """A limit as msgspec takes it; None if it can't."""
    if isinstance(value, str):
        try:
            re.compile(value)
        except (re.error, OverflowError, RecursionError):
            return None
        return value
    # Floating-point remainders of decimal fractions are not zero: 19.99 would be no multiple of 0.01.
    if name == "multiple_of" and (value <= 0 or Fraction(str(value)) != Fraction(value)):
        return None
    if kind == "integer" and isinstance(value, float):
        value = _whole(name, value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value in _INT64 and (name not in _LENGTH or value >= 0) else None


def _whole(name: str, value: float) -> int | float:
    """The same limit for whole numbers; a fraction's multiples stay, to be left out."""
    if not math.isfinite(value) or value.is_integer():
        return int(value) if math.isfinite(value) else value
    return {"ge": math.ceil, "gt": math.floor, "le": math.floor, "lt": math.ceil}.get(name, lambda same: math.inf)(
        value
    )
