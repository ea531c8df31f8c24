"""Which records of two schemas are read as each other, and which of them plain decoding would misread.

Plain decoding skips what it does not know, fills in what is missing, and takes whole numbers for others. What is left
are names: of fields, and tags of unions, that the writer called otherwise; and what the writer's defaults were, where
it may have left them out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET

from postline.contracts.compatibility import breaks
from postline.contracts.fitting import fits
from postline.contracts.schema import (
    Enumeration,
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

__all__ = ["FieldPair", "Names", "Pairs"]

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

    def defaults(self, names: Names) -> dict[str, Any]:
        """By our fields' names, what a value that the writer left out means to it, where that is not our default.

        What our field would not take is left out, and so is what has records in it, which may have other names.
        """
        found = {}
        for ours, theirs in self.fields(names) if not self.records(names)[0].positional else ():
            if theirs.required or theirs.default is UNSET or ours.required or theirs.default == ours.default:
                continue
            if self._takes(ours.type, theirs.default) and not any(self._records_in(ours.type, theirs.type)):
                found[ours.name] = theirs.default
        return found

    def _takes(self, ours: Type, default: Any) -> bool:
        found = self.reader.resolve(ours)
        is_open = isinstance(found, Enumeration) and found.default is not None and isinstance(default, str | int)
        return is_open or fits(self.reader, ours, default)

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
        for each in sorted(reader.options, key=lambda each: theirs is None or _tag_of(self.reader, each) != theirs):
            if not breaks(_part(self.reader, each), _part(self.writer, writer)):
                return each
        return None

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
        if self.has_other_tag(names) or self.defaults(names):
            return True
        positional = self.records(names)[0].positional
        return not positional and any(ours.name != theirs.name for ours, theirs in self.fields(names))


def _tag_of(schema: Schema, part: Type) -> tuple[str, str | int] | None:
    found = schema.resolve(part)
    return (found.tag_field, found.tag) if isinstance(found, Record) and found.tag_field else None


def _part(schema: Schema, part: Type) -> Schema:
    return msgspec.structs.replace(schema, root=part)
