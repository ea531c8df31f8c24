"""Rules as plain JSON data, and back from what others wrote."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any

from postline.contracts.rules_terms import DEPTH_MAX, NODES_MAX, AllOf, AnyOf, Comparison, NoneOf, Term
from postline.contracts.rules_values import constant_from_data, constant_of, constant_to_data
from postline.errors import ContractError

__all__ = ["IN_MAX", "OPERATORS", "compare", "term_from_data", "term_to_data"]

OPERATORS = ("eq", "ne", "lt", "le", "gt", "ge", "in", "starts_with", "exists")
#: Most values of one `in`.
IN_MAX = 1_000
_PATH_MAX = 200
_JOINED: dict[str, type[AllOf] | type[AnyOf]] = {"all": AllOf, "any": AnyOf}


def compare(path: str, operator: str, constant: Any = None) -> Comparison:
    """A checked comparison. Raises ContractError for a path, operator or constant that can't be."""
    names = path.split(".") if len(path) <= _PATH_MAX else [""]
    if not all(names) or any(name.startswith("__") for name in names):
        raise ContractError(
            f"{path!r:.80} can't be a field of a rule.",
            remedy='Name one, or the way to it: field("total"), field("address.country").',
        )
    place = f"field({path!r})"
    if operator == "exists":
        return Comparison(path, operator)
    if operator == "in":
        return _within(path, constant, place)
    kind, value = constant_of(constant, place)
    if operator == "starts_with" and not isinstance(value, str):
        raise ContractError(f"{place}: only text starts with something, not {constant!r:.80}.", remedy="Give text.")
    if operator in {"lt", "le", "gt", "ge"} and not kind.ordered:
        raise ContractError(
            f"{place}: {kind} has no order to compare {constant!r:.80} by.", remedy="Use == or !=, or is_in."
        )
    return Comparison(path, operator, value, kind)


def _within(path: str, constants: Any, place: str) -> Comparison:
    if not isinstance(constants, list | tuple | set | frozenset) or len(constants) > IN_MAX:
        raise ContractError(f"{place}: `in` takes a list of values.", remedy=f"Give up to {IN_MAX:,} of one kind.")
    found = [constant_of(each, place) for each in constants]
    kinds = {kind for kind, _ in found}
    if len(kinds) > 1:
        raise ContractError(
            f"{place}: `in` was given {' and '.join(sorted(kinds))}.",
            remedy="Give values of one kind, and join several with |.",
        )
    return Comparison(path, "in", tuple(dict.fromkeys(value for _, value in found)), next(iter(kinds), None))


def term_to_data(term: Term) -> dict[str, Any]:
    """A term as JSON data: `{"field": …, <operator>: …}`, `{"all": […]}`, `{"any": […]}` or `{"not": …}`."""
    if isinstance(term, Comparison):
        if term.operator == "exists":
            said: Any = True
        elif term.operator == "in":
            said = [constant_to_data(each) for each in term.constant]
        else:
            said = constant_to_data(term.constant)
        return {"field": term.path, term.operator: said}
    if isinstance(term, NoneOf):
        return {"not": term_to_data(term.terms[0])}
    return {"all" if isinstance(term, AllOf) else "any": [term_to_data(each) for each in term.terms]}


def term_from_data(data: Any) -> Term:
    """The term of JSON data. Raises ContractError, with the place in it, for what is no rule or is too large."""
    budget = [NODES_MAX]

    def spend(place: str, depth: int) -> None:
        budget[0] -= 1
        if budget[0] < 0 or depth > DEPTH_MAX:
            raise ContractError(
                f"The rule is too large{place}.", remedy=f"Use up to {NODES_MAX:,} parts and {DEPTH_MAX} levels."
            )

    return _term(data, "", 1, spend)


def _term(data: Any, place: str, depth: int, spend: Callable[[str, int], None]) -> Term:
    spend(_at(place), depth)
    if not isinstance(data, dict) or not all(isinstance(name, str) for name in data):
        raise ContractError(
            f"The rule has {reprlib.repr(data)}{_at(place)}, which is no part of a rule.", remedy=_SHAPES
        )
    if "field" in data:
        return _comparison(data, place)
    ((name, inner),) = data.items() if len(data) == 1 else (("", None),)
    if name == "not":
        return NoneOf((_term(inner, f"{place}.not", depth + 1, spend),))
    if name not in _JOINED or not isinstance(inner, list):
        raise ContractError(f"The rule has {_names(data)}{_at(place)}, which is no part of a rule.", remedy=_SHAPES)
    terms = [_term(each, f"{place}.{name}[{number}]", depth + 1, spend) for number, each in enumerate(inner)]
    return _JOINED[name](tuple(terms))


def _comparison(data: dict[str, Any], place: str) -> Comparison:
    said = [name for name in data if name != "field"]
    if len(said) != 1 or said[0] not in OPERATORS:
        raise ContractError(
            f"The rule compares by {', '.join(said[:5]) or 'nothing':.80}{_at(place)}.",
            remedy=f"Say one of {', '.join(OPERATORS)} beside the field; join several by all.",
        )
    (operator,) = said
    if not isinstance(data["field"], str):
        raise ContractError(
            f"The rule has a field {reprlib.repr(data['field'])}{_at(place)}.", remedy="Name it by text."
        )
    constant = data[operator]
    if operator == "exists":
        if constant is not True:
            raise ContractError(
                f"The rule has exists: {reprlib.repr(constant)}{_at(place)}.",
                remedy='Say true; put absence under "not".',
            )
        return compare(data["field"], operator)
    where = f"The rule{_at(place)}"
    if operator == "in" and isinstance(constant, list):
        return compare(data["field"], operator, [constant_from_data(each, where) for each in constant[: IN_MAX + 1]])
    return compare(data["field"], operator, constant_from_data(constant, where))


_SHAPES = 'Write {"field": "total", "gt": 100}, {"all": […]}, {"any": […]} or {"not": …}.'


def _at(place: str) -> str:
    return f" at {place.removeprefix('.')}" if place else ""


def _names(data: dict[str, Any]) -> str:
    return f"an object with {', '.join(sorted(data)[:5]) or 'nothing'}"[:80]
