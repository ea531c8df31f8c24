"""Random message classes with values of them, for properties of formats."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from hypothesis import strategies as st

from tests.unit.contracts.protobuf_samples import Card, Cash, Level, Point, State

__all__ = ["structs"]


class Sort(NamedTuple):
    """A type, and values of it."""

    annotation: Any
    values: st.SearchStrategy[Any]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
SCALARS = [
    Sort(str, TEXTS),
    Sort(int, st.integers(-(2**63), 2**63 - 1)),
    Sort(bool, st.booleans()),
    Sort(float, st.floats(allow_nan=False)),
    Sort(bytes, st.binary(max_size=6)),
    Sort(Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    Sort(UUID, st.uuids()),
    Sort(date, st.dates()),
    Sort(time, st.times()),
    Sort(datetime, st.datetimes(timezones=st.just(UTC))),
    Sort(timedelta, st.timedeltas(timedelta(days=-3_000_000), timedelta(days=3_000_000))),
    Sort(State, st.sampled_from(State)),
    Sort(Level, st.sampled_from(Level)),
    Sort(Point, st.builds(Point, x=st.floats(allow_nan=False), label=st.none() | TEXTS)),
    Sort(Card | Cash, st.builds(Card, TEXTS) | st.builds(Cash, st.just(Decimal("1.0")))),
    Sort(int | str | None, st.none() | st.integers(-9, 9) | TEXTS),
    Sort(Any, st.none() | st.booleans() | TEXTS | st.lists(st.integers(-9, 9), max_size=2)),
]


def around(each: Sort) -> Iterator[Sort]:
    """Types that contain one."""
    of: Any = each.annotation
    values = each.values
    yield Sort(list.__class_getitem__(of), st.lists(values, max_size=2))
    yield Sort(dict.__class_getitem__((str, of)), st.dictionaries(TEXTS, values, max_size=2))
    yield Sort(dict.__class_getitem__((int, of)), st.dictionaries(st.integers(0, 9), values, max_size=2))
    yield Sort(tuple.__class_getitem__((int, of)), st.tuples(st.integers(0, 9), values))
    yield Sort(of | None, st.none() | values)


SORTS = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: inner.flatmap(lambda each: st.sampled_from(list(around(each)))),
    max_leaves=4,
)


@st.composite
def structs(draw: st.DrawFn) -> tuple[Any, Any]:
    """A random message class, and a value of it."""
    sorts = draw(st.lists(SORTS, min_size=1, max_size=4))
    cls = msgspec.defstruct(
        "Random", [(f"field_{number}", each.annotation) for number, each in enumerate(sorts)], rename="kebab"
    )
    return cls, cls(*(draw(each.values) for each in sorts))
