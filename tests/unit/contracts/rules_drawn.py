"""Hypothesis strategies for rules, and for messages that make the difference between them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import strategies as st
from msgspec import UNSET

from postline import Rule, field


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Grade(IntEnum):
    LOW = 1
    HIGH = 3


#: Few values and close together, so that rules and messages meet.
NUMBERS: list[Any] = [-1, 0, 1, 2, 3, 0.5, 1.0, 2.5, Decimal(1), Decimal("1.5"), Decimal("2.50"), 10**30]
TEXTS: list[Any] = ["", "a", "ab", "abc", "ac", "b", "red", "a\U0010ffff", "\U0010ffff"]
BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)  # the hour that comes twice
TIMES: list[Any] = [
    datetime(2026, 1, 1, tzinfo=UTC),
    datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
    NIGHT,
    NIGHT.replace(fold=1),
    datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
    datetime(2026, 10, 25, 1, 30, tzinfo=UTC),
]
OTHERS: list[Any] = [
    *(True, False, b"a", b"b", date(2026, 1, 1), date(2026, 1, 2), timedelta(1), timedelta(2)),
    *(UUID(int=1), UUID(int=2), datetime(2026, 1, 1)),  # noqa: DTZ001 - one without a zone
]
CONSTANTS = NUMBERS + TEXTS + TIMES + OTHERS
#: What rules can't be made of, and messages may hold.
STRANGE: list[Any] = [
    *(None, UNSET, float("nan"), float("inf"), Decimal("nan"), Decimal("snan"), Decimal("-inf"), [], {}, object()),
    *(Colour.RED, Grade.LOW, datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))),
]
PATHS = ["x", "y", "z.x"]
ORDERED = ["__lt__", "__le__", "__gt__", "__ge__"]


@st.composite
def comparisons(draw: st.DrawFn) -> Rule:
    """One comparison, of any kind."""
    named = field(draw(st.sampled_from(PATHS)))
    how = draw(st.sampled_from(["eq", "ne", "order", "order", "in", "starts", "exists"]))
    if how == "exists":
        return named.exists()
    if how == "starts":
        return named.startswith(draw(st.sampled_from(TEXTS)))
    if how == "in":
        return named.is_in(*draw(st.lists(st.sampled_from(draw(st.sampled_from([NUMBERS, TEXTS, TIMES]))), max_size=3)))
    if how == "order":
        constant = draw(st.sampled_from([*NUMBERS, *TEXTS, *TIMES, timedelta(1), date(2026, 1, 1), b"a"]))
        return getattr(named, draw(st.sampled_from(ORDERED)))(constant)
    constant = draw(st.sampled_from(CONSTANTS))
    return named == constant if how == "eq" else named != constant


def rules(leaves: int = 8) -> st.SearchStrategy[Rule]:
    """Rules of up to about so many comparisons."""
    return st.recursive(
        comparisons(),
        lambda inner: st.one_of(
            st.builds(lambda a, b: a & b, inner, inner),
            st.builds(lambda a, b: a | b, inner, inner),
            st.builds(lambda a: ~a, inner),
        ),
        max_leaves=leaves,
    )


def messages() -> st.SearchStrategy[dict[str, Any]]:
    """Messages with some of the fields."""
    values = st.sampled_from(CONSTANTS + STRANGE)
    inner = st.one_of(values, st.fixed_dictionaries({}, optional={"x": values}))
    return st.fixed_dictionaries({}, optional={"x": values, "y": values, "z": inner})
