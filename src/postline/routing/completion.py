"""When an aggregate is complete: so many parts, all parts of a split message, a predicate, or a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

from postline.contracts import Rule
from postline.errors import UsageError

__all__ = ["After", "Completion", "Count", "Predicate", "Whole"]


@dataclass(frozen=True)
class Count:
    """Complete with so many parts, 1 or more."""

    parts: int

    def __post_init__(self) -> None:
        if self.parts < 1:
            raise UsageError(f"An aggregate can't be complete with {self.parts} parts.", remedy="Say 1 or more.")


@dataclass(frozen=True)
class Whole:
    """Complete when every part of a split message is there, each index once; they are given in their order.

    The key is the group of the split. A part without its headers becomes a dead letter.
    """


@dataclass(frozen=True)
class Predicate:
    """Complete when `test` says so: a rule that the newest part satisfies, or a function of all parts, oldest first.

    A function is called with every part again as each arrives, so it is for small aggregates.
    """

    test: Rule | Callable[[list[Any]], bool]


@dataclass(frozen=True)
class After:
    """Complete so long after its first part, with the parts that are there, whatever their number."""

    time: timedelta

    def __post_init__(self) -> None:
        if self.time <= timedelta():
            raise UsageError(f"An aggregate can't be complete after {self.time!r}.", remedy="Give a timedelta above 0.")


Completion: TypeAlias = Count | Whole | Predicate | After
