"""Whether a reader's schema reads whatever a writer's may write, by Avro's rules over the type model.

Source: Apache Avro 1.12, "Schema Resolution". Differences, because values may be JSON: a record's name never reaches
the wire, so only its tag in a union counts; a date, a time, a UUID or a decimal is text there, so that a reader of text
reads it; a field that has a default may be left out by whoever writes it, unless values are written whole, as Avro's
are; a reader that limits a value more than its writer did breaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, TypeAlias

import msgspec

from postline.contracts.difference import words_of
from postline.contracts.fitting import fits
from postline.contracts.remedies import for_readers, for_writers
from postline.contracts.schema import (
    NO_LIMITS,
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
    paired,
)
from postline.errors import ContractError

__all__ = ["Break", "Found", "Readable", "found_between"]

_DEPTH_MAX = 200
_UNBOUNDED_BITS = 65
#: Of what keeps one option of a union from being read, so much is looked for.
_TOLD_MAX = 20
#: A place behind all pairs that are under way.
_NOTHING = 1 << 62
#: What a reader of a kind takes besides it. What text stands for in JSON is text to whoever asks for text.
_TAKES: dict[str, frozenset[str]] = {
    "number": frozenset({"integer"}),
    "decimal": frozenset({"integer", "number"}),
    "text": frozenset({"decimal", "date", "time", "datetime", "duration", "uuid", "bytes"}),
}
_LOWER, _UPPER = ("ge", "gt", "min_length"), ("le", "lt", "max_length")


class Break(msgspec.Struct, frozen=True):
    """Why a reader can't read what a writer writes: where, by which rule, what both say, and what to do."""

    path: str
    rule: str
    said: str
    remedy: str
    #: Consumers that read the field, where somebody said who does.
    read_by: tuple[str, ...] = ()


class Found(NamedTuple):
    """A break, without what to do: that depends on who asks."""

    path: str
    rule: str
    said: str

    def for_readers(self) -> Break:
        """With what whoever reads can do."""
        return Break(self.path, self.rule, self.said, for_readers(self.rule, self.path))

    def for_writers(self) -> Break:
        """With what whoever writes can do."""
        return Break(self.path, self.rule, self.said, for_writers(self.rule, self.path))

    def within(self, path: str) -> Found:
        """The same, seen from that place in it."""
        return self._replace(path=self.path[len(path) :].removeprefix("."))

    def under(self, path: str) -> Found:
        """The same, seen from outside of that place."""
        return self._replace(path=_under(path, self.path))


#: The names of a reader's and a writer's definition.
_Names: TypeAlias = tuple[str, str]


class Readable:
    """Which parts of a reader's schema read which of a writer's; what was found once is remembered."""

    def __init__(self, reader: Schema, writer: Schema, *, whole: bool = False) -> None:
        self._pair = _Pair(reader, writer, whole, told_max=1)
        self._known: dict[tuple[Type, Type], bool] = {}

    def reads(self, ours: Type, theirs: Type) -> bool:
        """Whether the reader's part reads whatever the writer's may be."""
        if (found := self._known.get((ours, theirs))) is None:
            found = self._known[ours, theirs] = not self._pair.tried(ours, theirs, "", 0)
        return found


class _Pair:
    """A reader's and a writer's schema side by side.

    A pair of definitions that is under way is taken for readable where it stands within itself. What was found by that
    holds as long as it does: `_readable` says on which pair, by its place among those under way, and is cut back when
    one of them breaks.
    """

    def __init__(self, reader: Schema, writer: Schema, whole: bool, told_max: int = _TOLD_MAX) -> None:
        self._reader, self._writer, self._whole, self._told_max = reader, writer, whole, told_max
        self._under_way: dict[_Names, int] = {}
        #: The lowest place among those under way that what is looked at now relies on.
        self._lowest = _NOTHING
        self._readable: dict[_Names, int] = {}
        self._broken: dict[_Names, list[Found]] = {}
        #: What breaks is told in full at its first place, and in a sentence at each other.
        self._told: set[_Names] = set()
        self._trials = 0

    def tried(self, reader: Type, writer: Type, path: str, depth: int) -> list[Found]:
        """What keeps one from reading the other, as far as it has to be told; [] if nothing does."""
        self._trials += 1
        try:
            return list(islice(self.types(reader, writer, path, depth), self._told_max))
        finally:
            self._trials -= 1

    def types(self, reader: Type, writer: Type, path: str, depth: int) -> Iterator[Found]:
        if depth > _DEPTH_MAX:
            raise ContractError(f"{path} nests types deeper than {_DEPTH_MAX}.", remedy="Flatten the contract.")
        if isinstance(reader, Scalar) and reader.kind == "any":
            return
        if isinstance(writer, UnionOf):
            for each in writer.options:
                yield from self.types(reader, each, path, depth + 1)
            return
        if isinstance(reader, UnionOf):
            yield from self._branches(reader, writer, path, depth)
            return
        match reader, writer:
            case Reference(), Reference():
                yield from self._definitions(reader.name, writer.name, path, depth)
            case Scalar(), Scalar():
                yield from self._scalars(reader, writer, path)
            case ListOf(), ListOf():
                yield from _tighter(reader.limits, writer.limits, path)
                if reader.unique and not writer.unique:
                    yield Found(path, "set", "the reader wants each item once, the writer repeats them")
                if reader.unique and _are_rounded(reader.items, writer.items):
                    yield _merged(path + "[]", "items")
                yield from self.types(reader.items, writer.items, path + "[]", depth + 1)
            case MapOf(), MapOf():
                yield from _tighter(reader.limits, writer.limits, path)
                yield from self.types(reader.keys, writer.keys, path + "[key]", depth + 1)
                if _are_rounded(reader.keys, writer.keys) or self._are_defaulted(reader.keys, writer.keys):
                    yield _merged(path + "[key]", "keys")
                yield from self.types(reader.values, writer.values, path + "[]", depth + 1)
            case TupleOf(), TupleOf() if len(reader.items) == len(writer.items):
                for ours, theirs in zip(reader.items, writer.items, strict=True):
                    yield from self.types(ours, theirs, path, depth + 1)
            case Scalar(kind="text"), Reference() if self._is_text(writer):
                yield from self._symbols_as_text(reader, writer, path)
            case _:
                yield self._other_type(reader, writer, path)

    def _is_text(self, writer: Reference) -> bool:
        """Whether every symbol is text, which a reader of text takes."""
        found = self._writer.definitions[writer.name]
        return isinstance(found, Enumeration) and all(isinstance(each, str) for each in found.symbols)

    def _symbols_as_text(self, reader: Scalar, writer: Reference, path: str) -> Iterator[Found]:
        found = self._writer.definitions[writer.name]
        assert isinstance(found, Enumeration)
        if refused := [symbol for symbol in found.symbols if not fits(self._writer, reader, symbol)]:
            named = ", ".join(repr(symbol) for symbol in refused)
            yield Found(path, "limit", f"the reader's limits exclude {named}, which the writer may write")

    def _are_defaulted(self, reader: Type, writer: Type) -> bool:
        """Whether two symbols that the writer tells apart become one."""
        ours, theirs = self._reader.resolve(reader), self._writer.resolve(writer)
        return (
            isinstance(ours, Enumeration)
            and isinstance(theirs, Enumeration)
            and ours.default is not None
            and not set(theirs.symbols) <= set(ours.symbols)
        )

    def _other_type(self, reader: Type, writer: Type, path: str) -> Found:
        said = f"the reader wants {words_of(self._reader, reader)}, the writer writes {words_of(self._writer, writer)}"
        return Found(path, "type", said)

    def _branches(self, reader: UnionOf, writer: Type, path: str, depth: int) -> Iterator[Found]:
        """A writer's type is readable if one of the reader's options reads it; the nearest one says why not."""
        nearest: list[Found] | None = None
        # The likeliest first: of many records each would else be compared with all.
        for option in sorted(reader.options, key=lambda option: option != writer):
            if not (found := self.tried(option, writer, path, depth + 1)):
                return
            alike = isinstance(option, Reference) == isinstance(writer, Reference)
            if isinstance(option, Scalar):
                alike = isinstance(writer, Scalar) and option.kind == writer.kind
            if alike and (nearest is None or len(found) < len(nearest)):
                nearest = found
        yield from nearest or [self._other_type(reader, writer, path)]

    # -- definitions --------------------------------------------------------------------------

    def _definitions(self, reader: str, writer: str, path: str, depth: int) -> Iterator[Found]:
        names = reader, writer
        if names in self._under_way:
            self._lowest = min(self._lowest, self._under_way[names])
        elif names in self._readable:
            self._lowest = min(self._lowest, self._readable[names])
        else:
            if names not in self._broken:
                self._look(names, depth)
            told = 1 if names in self._told and not self._trials else None
            yield from (each.under(path) for each in self._broken.get(names, ())[:told])
            if not self._trials:
                self._told.add(names)

    def _look(self, names: _Names, depth: int) -> None:
        """Settle a pair that nothing is known about."""
        outer, self._lowest = self._lowest, _NOTHING
        place = self._under_way[names] = len(self._under_way)
        before = len(self._readable)
        found = list(islice(self._definition(*names, depth), self._told_max if self._trials else None))
        del self._under_way[names]
        if found:
            self._broken[names] = found
        if found or self._lowest >= place:
            # What was found since it began may rely on it: that holds now, or does not.
            for each in list(self._readable)[before:]:
                relied = self._readable.pop(each)
                if not found or relied == _NOTHING:
                    self._readable[each] = _NOTHING
        if not found:
            self._readable[names] = self._lowest if self._lowest < place else _NOTHING
        self._lowest = min(outer, self._lowest if self._lowest < place else _NOTHING)

    def _definition(self, reader: str, writer: str, depth: int) -> Iterator[Found]:
        ours, theirs = self._reader.definitions[reader], self._writer.definitions[writer]
        match ours, theirs:
            case Record(), Record():
                yield from self._records(ours, theirs, "", depth)
            case Enumeration(), Enumeration():
                yield from _symbols(ours, theirs, "")
            case _:
                yield self._other_type(Reference(name=reader), Reference(name=writer), "")

    def _records(self, reader: Record, writer: Record, path: str, depth: int) -> Iterator[Found]:
        if reader.positional != writer.positional:
            how = "by position" if reader.positional else "by name"
            yield Found(path, "layout", f"the reader takes fields {how}, the writer does not")
            return
        if not _same_tag(reader, writer):
            said = f"the reader wants {reader.tag_field}={reader.tag!r}, the writer writes {writer.tag!r}"
            yield Found(path, "tag", said)
            return
        if reader.positional:
            yield from self._positions(reader, writer, path, depth)
            return
        yield from self._fields(reader, writer, path, depth)

    def _positions(self, reader: Record, writer: Record, path: str, depth: int) -> Iterator[Found]:
        for at, field in enumerate(reader.fields):
            here = _under(path, field.name)
            if at < len(writer.fields):
                other = writer.fields[at].name
                if other not in (field.name, *field.aliases):
                    yield Found(here, "place", f"the reader has it where the writer has {other}")
                    continue
                yield from self.types(field.type, writer.fields[at].type, here, depth + 1)
            elif field.required:
                yield _missing(here)
        if reader.closed and len(writer.fields) > len(reader.fields):
            yield Found(path, "closed", "the writer writes more values than the reader takes")

    def _fields(self, reader: Record, writer: Record, path: str, depth: int) -> Iterator[Found]:
        theirs = {ours.name: other for ours, other in paired(reader, writer)}
        taken = {reader.tag_field, writer.tag_field, *(each.name for each in theirs.values())}
        for field in reader.fields:
            here = _under(path, field.name)
            if (other := theirs.get(field.name)) is None:
                if field.required:
                    yield _missing(here)
                continue
            yield from self.types(field.type, other.type, here, depth + 1)
            if field.required and not other.required and not self._whole:
                yield _may_be_absent(here)
        if reader.closed:
            for name in {each.name for each in writer.fields} - taken:
                said = f"the writer writes {name}, which the reader forbids"
                yield Found(_under(path, name), "closed", said)

    # -- scalars ------------------------------------------------------------------------------

    def _scalars(self, reader: Scalar, writer: Scalar, path: str) -> Iterator[Found]:
        if reader.kind != writer.kind and writer.kind not in _TAKES.get(reader.kind, ()):
            yield self._other_type(reader, writer, path)
            return
        if reader.kind == "text" != writer.kind and reader.limits != NO_LIMITS:
            # Of the text that stands for another kind, no limit of that kind says anything.
            said = f"the reader limits its text, and the writer writes {words_of(self._writer, writer)} as text"
            yield Found(path, "limit", said)
            return
        yield from _tighter(reader.limits, writer.limits, path)
        if _narrower(reader, writer):
            yield self._other_type(reader, writer, path)


def _same_tag(reader: Record, writer: Record) -> bool:
    if not reader.tag_field or (reader.tag_field, reader.tag) == (writer.tag_field, writer.tag):
        return True
    return bool(writer.tag_field) and writer.tag in reader.aliases


def _narrower(reader: Scalar, writer: Scalar) -> bool:
    """Whether a format fixed the reader's values to less than the writer's."""
    same_kind = reader.kind == writer.kind
    if reader.bits and same_kind and (writer.bits or _UNBOUNDED_BITS) > reader.bits:
        return True
    if reader.precision and same_kind:
        return reader.scale != writer.scale or not 0 < writer.precision <= reader.precision
    return bool(reader.size) and reader.size != writer.size


def _under(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name and not name.startswith("[") else path + name


def _are_rounded(reader: Type, writer: Type) -> bool:
    """Whether integers become floats that some of them share."""
    return (
        isinstance(reader, Scalar)
        and isinstance(writer, Scalar)
        and (reader.kind, writer.kind) == ("number", "integer")
        and writer.bits != 32
    )


def _merged(path: str, what: str) -> Found:
    return Found(path, "merged", f"{what} that differ for the writer would be one for the reader")


def _missing(path: str) -> Found:
    return Found(
        path,
        "field-without-default",
        "the reader wants it, the writer does not write it",
    )


def _may_be_absent(path: str) -> Found:
    return Found(
        path,
        "field-may-be-absent",
        "the reader requires it, the writer may leave it out",
    )


def _symbols(reader: Enumeration, writer: Enumeration, path: str) -> Iterator[Found]:
    unknown = [symbol for symbol in writer.symbols if symbol not in reader.symbols]
    if unknown and reader.default is None:
        named = ", ".join(repr(symbol) for symbol in unknown)
        yield Found(
            path,
            "unknown-symbol",
            f"the writer may write {named}, which the reader does not know",
        )


def _tighter(reader: Limits, writer: Limits, path: str) -> Iterator[Found]:
    """Where a reader takes less than the writer may write."""
    for name in Limits.__struct_fields__:
        ours, theirs = getattr(reader, name), getattr(writer, name)
        if ours is None or ours == theirs or (theirs is not None and _implied(name, ours, theirs)):
            continue
        if _bounded_otherwise(name, ours, writer):
            continue
        written = "has no such limit" if theirs is None else f"has {theirs!r}"
        yield Found(path, "limit", f"the reader's limit {name} is {ours!r}, the writer {written}")


def _implied(name: str, ours: float | str, theirs: float | str) -> bool:
    """Whether what the writer keeps to is within what the reader takes."""
    if name == "pattern":
        return False
    assert not isinstance(ours, str)
    assert not isinstance(theirs, str)
    if name == "multiple_of":
        return theirs % ours == 0
    return theirs >= ours if name in _LOWER else theirs <= ours


def _bounded_otherwise(name: str, ours: float, writer: Limits) -> bool:
    """Whether the writer's other bound on that side (gt for ge, say) is as tight."""
    match name:
        case "ge":
            return writer.gt is not None and writer.gt >= ours
        case "gt":
            return writer.ge is not None and writer.ge > ours
        case "le":
            return writer.lt is not None and writer.lt <= ours
        case "lt":
            return writer.le is not None and writer.le < ours
    return False


def found_between(reader: Schema, writer: Schema, *, whole: bool) -> Iterable[Found]:
    """As `breaks`, without remedies."""
    return () if reader == writer else _Pair(reader, writer, whole).types(reader.root, writer.root, "", 0)
