"""Which records of two schemas are read as each other, and which of them plain decoding would misread.

Plain decoding skips what it does not know, fills in what is missing, and takes whole numbers for others. What is left
are names: of fields, and tags of unions, that the writer called otherwise; and fields that the writer left out because
they had their default, which is another one now.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET

from postline.contracts.readability import Readable
from postline.contracts.schema import (
    Field,
    ListOf,
    MapOf,
    Record,
    Reference,
    Schema,
    TupleOf,
    Type,
    UnionOf,
    paired,
)

__all__ = ["FieldPair", "Names", "Pairs", "absent_value"]

#: The names of a reader's and a writer's record.
Names: TypeAlias = tuple[str, str]


class FieldPair(NamedTuple):
    """A field of the reader, and the writer's field that it is read from."""

    ours: Field
    theirs: Field


class Pairs:
    """Two schemas side by side, of which the reader's can read whatever the writer's says (`compatibility.breaks`)."""

    def __init__(self, reader: Schema, writer: Schema) -> None:
        self.reader, self.writer = reader, writer
        self._readable = Readable(reader, writer)
        #: All pairs of records that are read within a message, each with those in its fields.
        self._within: dict[Names, set[Names]] = {}
        self._collect(set(self._records_in(reader.root, writer.root)))
        #: Pairs of records whose values plain decoding would misread, here or deeper.
        self.changed = self._all_changed()

    def __iter__(self) -> Iterator[Names]:
        """Every pair of records."""
        return iter(self._within)

    @property
    def differ(self) -> bool:
        """Whether plain decoding misreads any message."""
        return self.differs(self.reader.root, self.writer.root)

    def differs(self, ours: Type, theirs: Type) -> bool:
        """Whether plain decoding of a type misreads what is written as the other."""
        return any(pair in self.changed for pair in self._records_in(ours, theirs))

    def records(self, names: Names) -> tuple[Record, Record]:
        """The reader's record and the writer's."""
        ours, theirs = self.reader.definitions[names[0]], self.writer.definitions[names[1]]
        assert isinstance(ours, Record)
        assert isinstance(theirs, Record)
        return ours, theirs

    def fields(self, names: Names) -> list[FieldPair]:
        """The reader's fields that the writer writes: under the same name, or an alias; or in the same place."""
        return [FieldPair(*pair) for pair in paired(*self.records(names))]

    def has_other_tag(self, names: Names) -> bool:
        """Whether the writer's tag is in the way of plain decoding."""
        ours, theirs = self.records(names)
        if (ours.tag_field, ours.tag) == (theirs.tag_field, theirs.tag):
            return False
        # Who has no tag skips the writer's; not where unknown fields are refused, or a place is counted.
        return bool(ours.tag_field) or ours.closed or ours.positional

    def option(self, reader: UnionOf, writer: Type) -> Type | None:
        """The reader's option that reads what the writer writes, one of the same tag if there is one; None for none."""
        theirs = _tag_of(self.writer, writer)
        options = sorted(reader.options, key=lambda each: theirs is None or _tag_of(self.reader, each) != theirs)
        return next((each for each in options if self._readable.reads(each, writer)), None)

    def _records_in(self, ours: Type, theirs: Type) -> Iterator[Names]:
        """Pairs of records in two types, without those in their fields."""
        match ours, theirs:
            case _, UnionOf(options=options):
                for each in options:
                    yield from self._records_in(ours, each)
            case UnionOf(), _:
                if (option := self.option(ours, theirs)) is not None:
                    yield from self._records_in(option, theirs)
            case Reference(), Reference():
                if isinstance(self.reader.resolve(ours), Record) and isinstance(self.writer.resolve(theirs), Record):
                    yield ours.name, theirs.name
            case ListOf(), ListOf():
                yield from self._records_in(ours.items, theirs.items)
            case MapOf(), MapOf():
                yield from self._records_in(ours.values, theirs.values)
            case TupleOf(), TupleOf():
                for one, other in zip(ours.items, theirs.items, strict=True):
                    yield from self._records_in(one, other)

    def _collect(self, found: set[Names]) -> None:
        while found:
            names = found.pop()
            inner = {pair for one, other in self.fields(names) for pair in self._records_in(one.type, other.type)}
            self._within[names] = inner
            found |= inner - self._within.keys()

    def _all_changed(self) -> set[Names]:
        changed = {names for names in self if self._is_renamed(names)}
        before = -1
        while before != len(changed):
            before = len(changed)
            changed |= {names for names, inner in self._within.items() if inner & changed}
        return changed

    def _is_renamed(self, names: Names) -> bool:
        if self.has_other_tag(names):
            return True
        positional = self.records(names)[0].positional
        return not positional and any(
            pair.ours.name != pair.theirs.name or absent_value(*pair) is not UNSET for pair in self.fields(names)
        )


def absent_value(ours: Field, theirs: Field) -> Any:
    """What the absence of the writer's field means, as JSON has it, where its reader would take it for another value.

    Who wrote it left out its own default. UNSET where nothing has to be said: the field is always there, or both have
    the same default, or only the writer's class can make it.
    """
    if theirs.required or theirs.default is UNSET:
        return UNSET
    return UNSET if not ours.required and _same(ours.default, theirs.default) else theirs.default


def _same(one: Any, other: Any) -> bool:
    # As JSON, where 1 is not True.
    return one is not UNSET and msgspec.json.encode(one) == msgspec.json.encode(other)


def _tag_of(schema: Schema, part: Type) -> tuple[str, str | int] | None:
    found = schema.resolve(part)
    return (found.tag_field, found.tag) if isinstance(found, Record) and found.tag_field else None
