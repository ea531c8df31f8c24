"""Whether a rule can be asked of a class's messages: its fields are there, and hold what they are compared with."""

from __future__ import annotations

import types
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from postline.contracts.rules_terms import Comparison, Term, comparisons
from postline.contracts.rules_values import ValueKind, kind_of_type, plain

__all__ = ["problems_of"]


def problems_of(term: Term, cls: type) -> list[str]:
    """What stands against asking it of the class's messages, in sentences; [] if nothing does."""
    return list(dict.fromkeys(said for each in comparisons(term) if (said := _problem(each, cls))))


def _problem(term: Comparison, cls: type) -> str:
    declared: list[Any] = [cls]
    way: list[str] = []
    for name in term.path.split("."):
        found = [each for owner in declared for each in _field(owner, name)]
        if not found:
            return _unknown(cls, way, name, declared)
        declared = _options(found)
        way.append(name)
    return "" if term.kind is None else _incomparable(term, declared)


def _unknown(cls: type, way: list[str], name: str, owners: list[Any]) -> str:
    known = sorted({each for owner in owners for each in _hints(owner) or ()})
    where = f"{cls.__qualname__}.{'.'.join(way)}" if way else cls.__qualname__
    named = ", ".join(each for each in known if not each.startswith("_"))
    return f"{'.'.join([*way, name])!r}: {where} has no field {name!r} (it has {named or 'none'})."


def _incomparable(term: Comparison, declared: list[Any]) -> str:
    if any(_says_nothing(each) for each in declared):
        return ""
    kinds = {kind for each in declared for kind in _kinds(each)}
    if term.kind not in kinds and not (term.kind is ValueKind.LOCAL_DATETIME and ValueKind.DATETIME in kinds):
        held = " or ".join(sorted(kinds)) or "what can't be compared"
        return f"{term.path!r} holds {held}, and is compared with {term.kind}: {term.constant!r:.80}."
    if kinds == {ValueKind.NUMBER} and declared == [Decimal]:
        constants = term.constant if isinstance(term.constant, tuple) else (term.constant,)
        for each in constants:
            # 0.1 as a binary float is no Decimal("0.1"), so that == would never hold.
            if isinstance(each, float) and Decimal(each) != Decimal(repr(each)):
                return (
                    f"{term.path!r} is a Decimal, and {each!r} as a float is not: write Decimal({repr(each)!r}), "
                    f'in JSON {{"decimal": "{each!r}"}}.'
                )
    return ""


def _field(owner: Any, name: str) -> list[Any]:
    """The declared types of a field of the owner: one, none, or Any where the owner does not say."""
    if _says_nothing(owner):
        return [Any]
    origin = get_origin(owner) or owner
    if isinstance(origin, type) and issubclass(origin, Mapping) and not hasattr(origin, "__required_keys__"):
        arguments = get_args(owner)
        return [arguments[1] if len(arguments) == 2 else Any]
    hints = _hints(owner)
    if hints is None:
        return [Any]
    return [hints[name]] if name in hints else []


def _hints(owner: Any) -> dict[str, Any] | None:
    """The annotations of a class that has fields; {} of any other, None where they can't be resolved."""
    origin = get_origin(owner) or owner
    if not isinstance(origin, type) or kind_of_type(origin) is not None or issubclass(origin, Enum):
        return {}
    try:
        return get_type_hints(origin)
    except Exception:  # noqa: BLE001 - annotations that only their own library can resolve say nothing here
        return None


def _options(declared: list[Any]) -> list[Any]:
    """Each type that a value may have, None aside, wrappings taken off."""
    found: list[Any] = []
    for each in declared:
        origin = get_origin(each)
        if origin in (Union, types.UnionType):
            found += _options(list(get_args(each)))
        elif origin is Annotated:
            found += _options([get_args(each)[0]])
        elif hasattr(each, "__supertype__"):
            found += _options([each.__supertype__])
        elif hasattr(each, "__value__"):
            found += _options([each.__value__])
        elif each is not type(None):
            found.append(each)
    return found


def _says_nothing(declared: Any) -> bool:
    return declared in (Any, object) or isinstance(declared, TypeVar)


def _kinds(declared: Any) -> set[ValueKind]:
    """The kinds of a type's values; none for what is never compared."""
    if get_origin(declared) is Literal:
        return {kind for each in get_args(declared) if (kind := plain(each)[0])}
    if not isinstance(declared, type):
        return set()
    if issubclass(declared, Enum):
        return {kind for each in declared if (kind := plain(each)[0])}
    kind = kind_of_type(declared)
    return set() if kind is None else {kind}
