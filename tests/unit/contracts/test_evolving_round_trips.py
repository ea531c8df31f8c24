"""Random versions of random types, with random values: old to new and new to old, in every format."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass, make_dataclass
from dataclasses import field as data_field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from postline.contracts.compatibility import breaks
from postline.contracts.formats import FormatName, format_named
from postline.contracts.marks import was
from postline.contracts.reading import Reading
from tests.unit.contracts.classes_drawn import SORTS, TEXTS

#: What is exact as a float, too.
_EXACT = st.integers(-(2**53), 2**53)
_HALVES = st.integers(-(2**30), 2**30).map(lambda value: value + 0.5)
_NO_DEFAULT: Any = MISSING


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"

    @classmethod
    def _missing_(cls, value: object) -> Colour:
        return cls.RED


class MoreColour(enum.Enum):
    RED = "red"
    BLUE = "blue"
    GREEN = "green"

    @classmethod
    def _missing_(cls, value: object) -> MoreColour:
        return cls.RED


for _each in (Colour, MoreColour):
    _each.__name__ = _each.__qualname__ = "Colour"  # two versions of one class

#: Types with a default, and values of them.
_WITH_DEFAULTS: list[tuple[Any, Any, st.SearchStrategy[Any]]] = [
    (int, 7, st.integers(-(2**63), 2**63 - 1)),
    (str, "d", TEXTS),
    (float, 0.5, st.floats(allow_nan=False, allow_infinity=False)),
    (bool, True, st.booleans()),
    (bytes, b"\xff", st.binary(max_size=4)),
    (Decimal, Decimal("1.50"), st.decimals(allow_nan=False, allow_infinity=False)),
    (date, date(2020, 1, 2), st.dates()),
    (datetime, datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=UTC), st.datetimes(timezones=st.just(UTC))),
    (timedelta, timedelta(milliseconds=1500), st.timedeltas(timedelta(days=-9), timedelta(days=9))),
    (UUID, UUID(int=7), st.uuids()),
    (int | None, None, st.none() | st.integers(0, 9)),
    (tuple[int, str], (1, "a"), st.tuples(st.integers(0, 9), TEXTS)),
    (list[int], [], st.lists(st.integers(0, 9), max_size=3)),
    (dict[str, int], {}, st.dictionaries(TEXTS, st.integers(0, 9), max_size=2)),
    (Colour, Colour.BLUE, st.sampled_from(Colour)),
]


class Ways(NamedTuple):
    """A value of one version, and what the other version reads of it."""

    written: Any
    read: Any


class Evolved(NamedTuple):
    """A type in both versions, with values of each."""

    old: Any
    new: Any
    forth: st.SearchStrategy[Ways]
    back: st.SearchStrategy[Ways]


class Slot(NamedTuple):
    """A field in both versions: its name there, "" for none, and its default."""

    old: str
    new: str
    type: Evolved
    default: Any = _NO_DEFAULT


def _same(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Ways]:
    return values.map(lambda value: Ways(value, value))


_ENUMERATION = Evolved(
    Colour,
    MoreColour,
    st.sampled_from(Colour).map(lambda value: Ways(value, MoreColour(value.value))),
    st.sampled_from(MoreColour).map(lambda value: Ways(value, Colour(value.value))),
)
_PROMOTED = [
    Evolved(int, float, _EXACT.map(lambda value: Ways(value, float(value))), st.nothing()),
    Evolved(float, Decimal, _HALVES.map(lambda value: Ways(value, Decimal(str(value)))), st.nothing()),
    Evolved(UUID, str, st.uuids().map(lambda value: Ways(value, str(value))), st.nothing()),
    Evolved(date, str, st.dates().map(lambda value: Ways(value, str(value))), st.nothing()),
    Evolved(int, Decimal, _EXACT.map(lambda value: Ways(value, Decimal(value))), st.nothing()),
]


class _Drawing:
    """Draws one contract in two versions; `both_ways` says whether the old one reads the new one, too."""

    def __init__(self, draw: st.DrawFn, both_ways: bool) -> None:
        self._draw, self._both_ways, self._number = draw, both_ways, 0

    def _of(self, *choices: Any) -> Any:
        return self._draw(st.sampled_from(choices))

    def type(self, depth: int) -> Evolved:
        kinds = ["same", "enumeration"] + ["record", "around", "union"] * (depth > 0)
        match self._of(*kinds, *(["promoted"] if not self._both_ways else [])):
            case "same":
                sort = self._draw(SORTS)
                return Evolved(sort.annotation, sort.annotation, _same(sort.values), _same(sort.values))
            case "enumeration":
                return _ENUMERATION
            case "promoted":
                promoted: Evolved = self._of(*_PROMOTED)
                return promoted
            case "record":
                return self.record(depth - 1)
            case "union":
                one, other = self.record(depth - 1, tagged=True), self.record(depth - 1, tagged=True)
                return Evolved(one.old | other.old, one.new | other.new, one.forth | other.forth, one.back | other.back)
        return self._around(self.type(depth - 1))

    def _around(self, inner: Evolved) -> Evolved:
        match self._of("list", "map", "optional"):
            case "list":
                return _contained(list.__class_getitem__, inner, lambda each: st.lists(each, max_size=2), _in_list)
            case "map":
                hint: Callable[[Any], Any] = lambda each: dict.__class_getitem__((str, each))  # noqa: E731
                return _contained(hint, inner, lambda each: st.dictionaries(TEXTS, each, max_size=2), _in_map)
        nothing = st.just(Ways(None, None))
        return Evolved(inner.old | None, inner.new | None, nothing | inner.forth, nothing | inner.back)

    def record(self, depth: int, *, tagged: bool = False) -> Evolved:
        """A record whose fields are kept, renamed, promoted, added, dropped and put in another order."""
        self._number += 1
        name = f"Record{self._number}"
        slots = [self._slot(number, depth) for number in range(self._of(1, 2, 3, 4))]
        old = self._made(name, [(s.old, s.type.old, s.default) for s in slots if s.old], tagged)
        news = [(s.new, _marked(s), s.default) for s in slots if s.new]
        new = self._made(name, self._draw(st.permutations(news)), tagged)
        return Evolved(old, new, _values(old, new, slots, forth=True), _values(new, old, slots, forth=False))

    def _slot(self, number: int, depth: int) -> Slot:
        name = f"field_{number}"
        change = self._of("kept", "added", "dropped", *([] if self._both_ways else ["renamed"]))
        if change in {"added", "dropped"}:
            annotation, default, values = self._of(*_WITH_DEFAULTS)
            kept = Evolved(annotation, annotation, _same(values), _same(values))
            return Slot("" if change == "added" else name, "" if change == "dropped" else name, kept, default)
        return Slot(name, f"new_{name}" if change == "renamed" else name, self.type(depth))

    def _made(self, name: str, slots: list[tuple[str, Any, Any]], tagged: bool) -> Any:
        if tagged or self._of(True, False):
            given = [each[:2] if each[2] is _NO_DEFAULT else each for each in slots]
            return msgspec.defstruct(name, given, tag=name if tagged else None, kw_only=True)
        declared = [(each, hint, _as_data(value)) for each, hint, value in slots]
        return make_dataclass(name, declared, kw_only=True)


def _as_data(default: Any) -> Any:
    if isinstance(default, list | dict):
        return data_field(default_factory=type(default))
    return data_field(default=default)


def _marked(slot: Slot) -> Any:
    return slot.type.new if slot.new == slot.old or not slot.old else Annotated[slot.type.new, was(slot.old)]


def _contained(hint: Any, inner: Evolved, around: Any, taken: Any) -> Evolved:
    return Evolved(hint(inner.old), hint(inner.new), around(inner.forth).map(taken), around(inner.back).map(taken))


def _in_list(values: list[Ways]) -> Ways:
    return Ways([each.written for each in values], [each.read for each in values])


def _in_map(values: dict[str, Ways]) -> Ways:
    return Ways({key: each.written for key, each in values.items()}, {key: each.read for key, each in values.items()})


def _values(writer: Any, reader: Any, slots: list[Slot], *, forth: bool) -> st.SearchStrategy[Ways]:
    names = [(s.old, s.new) if forth else (s.new, s.old) for s in slots]

    def made(values: tuple[Ways, ...]) -> Ways:
        pairs = list(zip(names, values, strict=True))
        return Ways(
            writer(**{written: each.written for (written, _), each in pairs if written}),
            reader(**{read: each.read for (written, read), each in pairs if written and read}),
        )

    return st.tuples(*(s.type.forth if forth else s.type.back for s in slots)).map(made)


@st.composite
def evolved(draw: st.DrawFn, both_ways: bool) -> tuple[Evolved, Ways, Ways | None]:
    """A contract in two versions, a value for the way forth, and one for the way back if there is one."""
    found = _Drawing(draw, both_ways).record(2)
    return found, draw(found.forth), draw(found.back) if both_ways else None


def _assert_read(format: FormatName, reader: Any, writer: Any, ways: Ways) -> None:
    named = format_named(format)
    writes, reads = Reading(writer, "shop.Order", named), Reading(reader, "shop.Order", named)
    registered = named.parse(named.document(writes.schema))
    assert not breaks(reads.schema, registered, whole=named.whole)
    assume(format != "json" or "inf" not in repr(ways.written))  # JSON has no infinities, and refuses them
    data = writes.codec.encode(ways.written)
    assert writes.decode(data) == ways.written
    found = reads.decoder(registered)(data)
    assert found == ways.read
    assert _typed(found) == _typed(ways.read)


def _typed(value: Any) -> Any:
    """With its numbers' types, whatever the order of its maps."""
    match value:
        case dict():
            return sorted((repr(key), _typed(each)) for key, each in value.items())
        case list() | tuple():
            return [_typed(each) for each in value]
        case msgspec.Struct():
            return [_typed(getattr(value, name)) for name in value.__struct_fields__]
    if is_dataclass(value):
        return [_typed(getattr(value, each.name)) for each in fields(value)]
    return repr(value).replace(", fold=1", "")


@pytest.mark.parametrize("format", ["json", "avro", "protobuf"])
@settings(max_examples=60, deadline=None)
@given(evolved(both_ways=True))
def test_versions_that_may_live_together_read_each_other(format: FormatName, drawn: tuple[Evolved, Ways, Ways]) -> None:
    versions, forth, back = drawn
    _assert_read(format, versions.new, versions.old, forth)
    _assert_read(format, versions.old, versions.new, back)


@pytest.mark.parametrize("format", ["json", "avro", "protobuf"])
@settings(max_examples=60, deadline=None)
@given(evolved(both_ways=False))
def test_a_new_version_reads_what_was_renamed_and_promoted(
    format: FormatName, drawn: tuple[Evolved, Ways, None]
) -> None:
    versions, forth, _ = drawn
    _assert_read(format, versions.new, versions.old, forth)
