"""Proofs that two rules exclude each other: sets of values by field, over the ways in which both could hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

from postline.contracts.rules_terms import AllOf, Comparison, NoneOf, Term
from postline.contracts.rules_values import ValueKind

__all__ = ["excluded"]

#: Ways to satisfy a rule, and spans of values compared, beyond which nothing is proven.
_WAYS_MAX = 512
_WORK_MAX = 200_000


class Cut(NamedTuple):
    """A place between values: just before `value`, or just behind it. None, at the low end, is before all."""

    value: Any
    behind: bool

    def precedes(self, other: Cut) -> bool:
        """Whether it lies before the other cut."""
        if self.value == other.value:
            return self.behind < other.behind
        return bool(self.value < other.value)


#: Values from one cut to another; None leaves an end open.
Span: TypeAlias = tuple[Cut | None, Cut | None]
Spans: TypeAlias = tuple[Span, ...]
_EVERYTHING: Spans = ((None, None),)


class Values(NamedTuple):
    """What a field may hold: nothing at all, values of other kinds than named, and spans of those named."""

    absent: bool
    others: bool
    kinds: dict[ValueKind, Spans]

    @property
    def empty(self) -> bool:
        """Whether nothing is left."""
        return not (self.absent or self.others or any(self.kinds.values()))

    def of(self, kind: ValueKind) -> Spans:
        """The values of a kind."""
        return self.kinds.get(kind, _EVERYTHING if self.others else ())


#: What each field may hold, in one of the ways to satisfy a rule.
Way: TypeAlias = dict[str, Values]


class _TooMuch(Exception):
    """The proof is given up."""


def excluded(holding: Iterable[Term], failing: Iterable[Term] = ()) -> bool:
    """Whether all of the first and none of the others can never hold together; False where it is not shown."""
    proof = _Proof()
    terms = [*((each, True) for each in holding), *((each, False) for each in failing)]
    try:
        return not proof.all_of(terms)
    except _TooMuch:
        return False


class _Proof:
    def __init__(self) -> None:
        self._work = 0

    def ways(self, term: Term, *, holds: bool) -> list[Way]:
        """The ways in which a term holds, or doesn't; those that contradict themselves are left out."""
        if isinstance(term, Comparison):
            found = _satisfying(term)
            values = found if holds else _but(found)
            return [] if values.empty else [{term.path: values}]
        if isinstance(term, NoneOf):
            every, each_holds = holds, not holds
        else:
            every, each_holds = isinstance(term, AllOf) == holds, holds
        terms = [(each, each_holds) for each in term.terms]
        return self.all_of(terms) if every else self._any_of(terms)

    def _any_of(self, terms: list[tuple[Term, bool]]) -> list[Way]:
        return self._bounded([way for term, holds in terms for way in self.ways(term, holds=holds)])

    def all_of(self, terms: list[tuple[Term, bool]]) -> list[Way]:
        """The ways in which each term holds, or doesn't, as is said beside it."""
        found: list[Way] = [{}]
        for term, holds in terms:
            more = self.ways(term, holds=holds)
            merged = (self._both(one, other) for one in found for other in more)
            found = self._bounded([way for way in merged if way is not None])
        return found

    def _bounded(self, ways: list[Way]) -> list[Way]:
        if len(ways) > _WAYS_MAX:
            raise _TooMuch
        return ways

    def _both(self, one: Way, other: Way) -> Way | None:
        both = {**one, **other}
        self._work += 1 + len(both) // 16  # copying a field is cheap beside comparing spans
        for path in one.keys() & other.keys():
            both[path] = self._meeting(one[path], other[path])
            if both[path].empty:
                return None
        if self._work > _WORK_MAX:
            raise _TooMuch
        return both

    def _meeting(self, one: Values, other: Values) -> Values:
        kinds = {kind: _overlap(one.of(kind), other.of(kind)) for kind in {**one.kinds, **other.kinds}}
        self._work += sum(map(len, [*one.kinds.values(), *other.kinds.values()]))
        return Values(one.absent and other.absent, one.others and other.others, kinds)


def _satisfying(term: Comparison) -> Values:
    """The values that a comparison is true of."""
    if term.operator == "exists":
        return Values(False, True, {})
    if term.kind is None:  # `in` nothing
        return Values(False, False, {})
    return Values(False, False, {term.kind: _spans(term)})


def _but(values: Values) -> Values:
    return Values(
        not values.absent, not values.others, {kind: _rest(kind, spans) for kind, spans in values.kinds.items()}
    )


def _spans(term: Comparison) -> Spans:
    constant = term.constant
    if term.operator == "in":
        return tuple(_point(each) for each in sorted(constant))
    if term.operator == "ne":
        assert term.kind is not None, "what is compared with has a kind"
        return _rest(term.kind, (_point(constant),))
    return _SPANS[term.operator](constant)


def _point(value: Any) -> Span:
    return Cut(value, False), Cut(value, True)


def _prefixed(prefix: str) -> Spans:
    # Text is ordered by code points: what begins with "ab" lies from "ab" up to "ac".
    stem = prefix.rstrip("\U0010ffff")
    end = Cut(stem[:-1] + chr(ord(stem[-1]) + 1), False) if stem else None
    return ((Cut(prefix, False), end),)


_SPANS: dict[str, Callable[[Any], Spans]] = {
    "eq": lambda value: (_point(value),),
    "lt": lambda value: ((None, Cut(value, False)),),
    "le": lambda value: ((None, Cut(value, True)),),
    "gt": lambda value: ((Cut(value, True), None),),
    "ge": lambda value: ((Cut(value, False), None),),
    "starts_with": _prefixed,
}


def _rest(kind: ValueKind, spans: Spans) -> Spans:
    """The values of a kind outside of these spans, which are in order and don't touch."""
    if kind is ValueKind.BOOLEAN:
        return tuple(_point(each) for each in (False, True) if _point(each) not in spans)
    left: list[Span] = []
    low: Cut | None = None
    open_end = True
    for start, end in spans:
        if start is not None:
            left.append((low, start))
        low, open_end = end, end is not None
    return (*left, (low, None)) if open_end else tuple(left)


def _overlap(one: Spans, other: Spans) -> Spans:
    found: list[Span] = []
    i = j = 0
    while i < len(one) and j < len(other):
        low, high = _later(one[i][0], other[j][0]), _earlier(one[i][1], other[j][1])
        if low is None or high is None or low.precedes(high):
            found.append((low, high))
        if high == one[i][1]:
            i += 1
        else:
            j += 1
    return tuple(found)


def _later(one: Cut | None, other: Cut | None) -> Cut | None:
    if one is None or other is None:
        return one or other
    return other if one.precedes(other) else one


def _earlier(one: Cut | None, other: Cut | None) -> Cut | None:
    if one is None or other is None:
        return one or other
    return one if one.precedes(other) else other
