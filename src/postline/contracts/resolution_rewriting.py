"""Writing a value of another version anew, in the reader's names: for whatever class, and slower than reading it so.

Only records on the way to a difference are taken apart, and everything else is copied as it was written: no number
loses a digit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, Raw

from postline.contracts.resolution_pairs import FieldPair, Names, Pairs, absent_value
from postline.contracts.schema import ListOf, MapOf, Record, Reference, TupleOf, Type, UnionOf

__all__ = ["Rewrite", "rewriter"]

#: From a JSON value of the writer's to the reader's.
Rewrite: TypeAlias = Callable[[Raw], Raw]

_parts = msgspec.json.Decoder(dict[str, Raw]).decode
_items = msgspec.json.Decoder(list[Raw]).decode
_value = msgspec.json.Decoder().decode


def rewriter(pairs: Pairs) -> Rewrite:
    """What writes messages of the writer's as the reader has them.

    What is no value of the writer's is left as it is, for the reader's class to refuse it. Raises msgspec.DecodeError
    for what is no JSON, RecursionError for what nests too deeply.
    """
    return _Rewriting(pairs).of_type(pairs.reader.root, pairs.writer.root) or _same


def _same(value: Raw) -> Raw:
    return value


class _Rewriting:
    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self._made: dict[Names, Rewrite] = {}

    def of_type(self, ours: Type, theirs: Type) -> Rewrite | None:
        """The rewriting of a type; None if it is read as it is written."""
        if not self._pairs.differs(ours, theirs):
            return None
        match ours, theirs:
            case _, UnionOf():
                return self._from_union(ours, theirs)
            case UnionOf(), _:
                option = self._pairs.option(ours, theirs)
                return None if option is None else self.of_type(option, theirs)
            case Reference(), Reference():
                return self._record_by_name((ours.name, theirs.name))
            case ListOf(), ListOf():
                each = self.of_type(ours.items, theirs.items)
                return _list([], each)
            case MapOf(), MapOf():
                return _map(self.of_type(ours.values, theirs.values))
            case TupleOf(), TupleOf():
                places = zip(ours.items, theirs.items, strict=True)
                return _list([self.of_type(*place) for place in places])
        return None

    def _from_union(self, ours: Type, theirs: UnionOf) -> Rewrite:
        """Each of the writer's options has its rewriting; a value tells which one it is of."""
        changes = [(_test_of(self._pairs, each), self.of_type(ours, each)) for each in theirs.options]

        def rewrite(value: Raw) -> Raw:
            change = next((change for matches, change in changes if matches(value)), None)
            return value if change is None else change(value)

        return rewrite

    def _record_by_name(self, names: Names) -> Rewrite:
        """The rewriting of a record, which may contain itself: looked up when it is needed."""
        if names not in self._made:
            self._made[names] = _same
            self._made[names] = self._record(names)
        return lambda value: self._made[names](value)  # noqa: PLW0108 - it may still be under way

    def _record(self, names: Names) -> Rewrite:
        ours, theirs = self._pairs.records(names)
        fields = self._pairs.fields(names)
        changes = [self.of_type(one.type, other.type) for one, other in fields]
        if ours.positional:
            tag = _raw(ours.tag) if self._pairs.has_other_tag(names) else None
            return _positional(changes, tag, bool(ours.tag_field), bool(theirs.tag_field))
        moves = [
            (pair.ours.name, pair.theirs.name, change, _absent(pair))
            for pair, change in zip(fields, changes, strict=True)
        ]
        return _named(moves, ours, theirs)


def _absent(pair: FieldPair) -> Raw | None:
    """What the writer's field is where it was left out; None for what its reader makes of that."""
    value = absent_value(*pair)
    return None if value is UNSET else _raw(value)


def _named(moves: list[tuple[str, str, Rewrite | None, Raw | None]], ours: Record, theirs: Record) -> Rewrite:
    #: Names that mean what they mean through the writer's schema alone.
    settled = {name for one, other, *_ in moves for name in (one, other)} | {theirs.tag_field}

    def rewrite(value: Raw) -> Raw:
        if not _begins(value, b"{"):
            return value
        content = _parts(value)
        found = {name: each for name, each in content.items() if name not in settled}
        for one, other, change, absent in moves:
            if (each := content.get(other, absent)) is not None:
                found[one] = each if change is None else change(each)
        if ours.tag_field:
            found[ours.tag_field] = _raw(ours.tag)
        return _raw(found)

    return rewrite


def _positional(changes: list[Rewrite | None], tag: Raw | None, tagged: bool, was_tagged: bool) -> Rewrite:
    inner = _list([*([None] if tagged else []), *changes])

    def rewrite(value: Raw) -> Raw:
        if not _begins(value, b"["):
            return value
        if tag is not None:
            before = [tag] if tagged else []
            value = _raw([*before, *_items(value)[int(was_tagged) :]])
        return inner(value)

    return rewrite


def _list(places: Sequence[Rewrite | None], others: Rewrite | None = None) -> Rewrite:
    """Rewrite items: some by their places, and all others."""

    def rewrite(value: Raw) -> Raw:
        if not _begins(value, b"["):
            return value
        found = _items(value)
        for at, each in enumerate(found):
            if (change := places[at] if at < len(places) else others) is not None:
                found[at] = change(each)
        return _raw(found)

    return rewrite


def _map(change: Rewrite | None) -> Rewrite:
    def rewrite(value: Raw) -> Raw:
        if change is None or not _begins(value, b"{"):
            return value
        return _raw({name: change(each) for name, each in _parts(value).items()})

    return rewrite


def _raw(value: Any) -> Raw:
    return Raw(msgspec.json.encode(value))


def _begins(value: Raw, mark: bytes) -> bool:
    return bytes(value).lstrip()[:1] == mark


def _test_of(pairs: Pairs, option: Type) -> Callable[[Raw], bool]:
    """Whether a value is of an option of the writer's: records by their tag, or by the fields that they must have."""
    found = pairs.writer.resolve(option)
    match found:
        case Record(positional=True, tag_field=field, tag=tag) if field:
            return lambda value: _begins(value, b"[") and (items := _items(value))[:1] != [] and _value(items[0]) == tag
        case Record(tag_field=field, tag=tag) if field:
            return lambda value: _begins(value, b"{") and _value(_parts(value).get(field, b"null")) == tag
        case Record(positional=True) | ListOf() | TupleOf():
            return lambda value: _begins(value, b"[")
        case Record(fields=fields):
            needed = {each.name for each in fields if each.required}
            return lambda value: _begins(value, b"{") and needed <= _parts(value).keys()
        case MapOf():
            return lambda value: _begins(value, b"{")
    return lambda value: not _begins(value, b"{") and not _begins(value, b"[")
