"""What rules are made of, as immutable data, and how it becomes one function of a message."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET

from postline.contracts.rules_values import EXACT, ValueKind, plain
from postline.errors import ContractError

__all__ = ["AllOf", "AnyOf", "Comparison", "NoneOf", "Term", "Test", "comparisons", "compiled", "joined"]

#: A rule compiled: of a message, whether it satisfies the rule.
Test: TypeAlias = Callable[[Any], bool]

#: Most comparisons and connectives in a rule, and how deep they may be nested.
NODES_MAX = 1_000
DEPTH_MAX = 20


class Comparison(msgspec.Struct, frozen=True):
    """A field compared with a constant: `operator` is `eq ne lt le gt ge in starts_with` or `exists`.

    For `in` the constant is a tuple without repetitions, for `exists` None.
    """

    path: str
    operator: str
    constant: Any = None
    #: What the constant is; None for `exists` and for an empty `in`.
    kind: ValueKind | None = None

    nodes = 1
    depth = 1


class _Joined(msgspec.Struct, frozen=True):
    terms: tuple[Term, ...]
    nodes: int = 0
    depth: int = 0

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "nodes", 1 + sum(each.nodes for each in self.terms))
        msgspec.structs.force_setattr(self, "depth", 1 + max((each.depth for each in self.terms), default=0))
        if self.nodes > NODES_MAX or self.depth > DEPTH_MAX:
            raise ContractError(
                f"A rule of {self.nodes} parts, {self.depth} deep.",
                remedy=f"Use up to {NODES_MAX:,} parts and {DEPTH_MAX} levels; `is_in` is one part for many values.",
            )


class AllOf(_Joined, frozen=True):
    """Every one of these; of none, always."""


class AnyOf(_Joined, frozen=True):
    """At least one of these; of none, never."""


class NoneOf(_Joined, frozen=True):
    """None of these; rules have one at a time."""


Term: TypeAlias = Comparison | AllOf | AnyOf | NoneOf


def joined(kind: type[AllOf] | type[AnyOf], *terms: Term) -> Term:
    """These under one connective, those that are of the same laid flat."""
    flat: list[Term] = []
    for term in terms:
        flat += term.terms if type(term) is kind else (term,)
    return kind(tuple(flat))


def comparisons(term: Term) -> Iterator[Comparison]:
    """Every comparison in it."""
    if isinstance(term, Comparison):
        yield term
    else:
        for each in term.terms:
            yield from comparisons(each)


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "in": lambda value, constants: value in constants,
    "starts_with": str.startswith,
}


def compiled(term: Term) -> Test:
    """The term as one function of a message; made once."""
    if isinstance(term, Comparison):
        return _compared(term)
    tests = tuple(compiled(each) for each in term.terms)
    if isinstance(term, AllOf):
        return _all_of(tests)
    return _any_of(tests) if isinstance(term, AnyOf) else _none_of(tests)


def _all_of(tests: tuple[Test, ...]) -> Test:
    def test(message: Any) -> bool:
        for each in tests:  # noqa: SIM110 - a generator would take twice as long
            if not each(message):
                return False
        return True

    return test


def _any_of(tests: tuple[Test, ...]) -> Test:
    def test(message: Any) -> bool:
        for each in tests:  # noqa: SIM110 - a generator would take twice as long
            if each(message):
                return True
        return False

    return test


def _none_of(tests: tuple[Test, ...]) -> Test:
    met = _any_of(tests)
    return lambda message: not met(message)


def _compared(term: Comparison) -> Test:
    read, kind = _reader(tuple(term.path.split("."))), term.kind
    if term.operator == "exists":
        return lambda message: read(message) is not None
    if kind is None:  # `in` nothing
        return lambda message: False
    compare = _COMPARE[term.operator]
    constant = frozenset(term.constant) if term.operator == "in" else term.constant

    def test(message: Any) -> bool:
        value = read(message)
        found = EXACT.get(type(value))
        if found is None:
            found, value = plain(value)
        return found is kind and compare(value, constant)

    return test


def _reader(names: tuple[str, ...]) -> Callable[[Any], Any]:
    """What finds the field's value; None where there is none on the way."""
    if len(names) == 1:
        (only,) = names

        def read_one(message: Any) -> Any:
            value = message.get(only) if isinstance(message, dict) else getattr(message, only, None)
            return None if value is UNSET else value

        return read_one

    def read(message: Any) -> Any:
        value = message
        for name in names:
            value = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
            if value is None or value is UNSET:
                return None
        return value

    return read
