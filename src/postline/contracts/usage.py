"""Which fields of a writer's contract a reader knows, so that an owner sees whom a deletion would concern."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from postline.contracts.schema import (
    PATHS_MAX,
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

__all__ = ["fields_read"]


def fields_read(reader: Schema, writer: Schema) -> frozenset[str]:
    """The writer's fields that the reader has, too, by dotted paths; `[]` stands for items and values.

    Of a record that is held on many ways there are as many paths; the first 10,000 of all are told.
    """
    return frozenset(islice(_Pairs(reader, writer).types(reader.root, writer.root, ""), PATHS_MAX))


class _Pairs:
    """Two schemas side by side; a pair of records is walked once on each way into it."""

    def __init__(self, reader: Schema, writer: Schema) -> None:
        self._reader, self._writer = reader, writer
        self._under_way: set[tuple[str, str]] = set()

    def types(self, reader: Type, writer: Type, path: str) -> Iterator[str]:
        match reader, writer:
            case UnionOf(options=several), _:
                for each in several:
                    yield from self.types(each, writer, path)
            case _, UnionOf(options=several):
                for each in several:
                    yield from self.types(reader, each, path)
            case (ListOf(items=ours), ListOf(items=theirs)) | (MapOf(values=ours), MapOf(values=theirs)):
                yield from self.types(ours, theirs, path + "[]")
            case TupleOf(), TupleOf():
                for ours, theirs in zip(reader.items, writer.items, strict=False):
                    yield from self.types(ours, theirs, path)
            case Reference(name=ours), Reference(name=theirs) if (ours, theirs) not in self._under_way:
                self._under_way.add((ours, theirs))
                yield from self._definitions(ours, theirs, path)
                self._under_way.discard((ours, theirs))

    def _definitions(self, ours: str, theirs: str, path: str) -> Iterator[str]:
        reader, writer = self._reader.definitions[ours], self._writer.definitions[theirs]
        if not isinstance(reader, Record) or not isinstance(writer, Record):
            return
        for field, mine in _taken(reader, writer):
            here = f"{path}.{field.name}" if path else field.name
            yield here
            yield from self.types(mine.type, field.type, here)


def _taken(reader: Record, writer: Record) -> Iterator[tuple[Field, Field]]:
    """Each field of the writer that the reader takes, with the reader's own for it."""
    return ((theirs, ours) for ours, theirs in paired(reader, writer))
