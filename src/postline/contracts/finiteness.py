"""Readers that refuse decimals that are no numbers ("NaN", "-inf"), by checks that are compiled for a class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import inspect

from postline.contracts.json_faults import no_number_in

__all__ = ["finite_reader", "types_in"]

#: Whether all decimals in a value are numbers.
_Check = Callable[[Any], bool]

_SEVERAL = inspect.ListType | inspect.SetType | inspect.FrozenSetType | inspect.VarTupleType
#: Of what types values are, by which the check of a union is found.
_RUNTIME = {
    inspect.DecimalType: Decimal,
    inspect.ListType: list,
    inspect.SetType: set,
    inspect.FrozenSetType: frozenset,
    inspect.VarTupleType: tuple,
    inspect.TupleType: tuple,
    inspect.DictType: dict,
}


def finite_reader(cls: Any, read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """As `read`, which gives values of that class, no pydantic model; raises ValidationError for what is no number.

    Nobody may write such a decimal either; in a handler it makes comparisons raise, and sums that are no numbers.
    """
    check = _Checks().of(inspect.type_info(cls))
    if check is None:
        return read

    def read_finite(data: bytes) -> Any:
        value = read(data)
        if not check(value):
            raise msgspec.ValidationError(no_number_in(value))
        return value

    return read_finite


def types_in(node: object, seen: set[int] | None = None) -> Iterator[inspect.Type]:
    """Every type in a type."""
    seen = set() if seen is None else seen
    if isinstance(node, tuple):
        for each in node:
            yield from types_in(each, seen)
    elif isinstance(node, inspect.Type | inspect.Field) and id(node) not in seen:
        seen.add(id(node))  # types may contain themselves
        if isinstance(node, inspect.Type):
            yield node
        for name in node.__struct_fields__:
            yield from types_in(getattr(node, name), seen)


class _Checks:
    """The checks of one class and of what is in it; None for what has no decimals."""

    def __init__(self) -> None:
        self._of_classes: dict[type, _Check] = {}

    def of(self, node: inspect.Type) -> _Check | None:
        if not any(isinstance(each, inspect.DecimalType) for each in types_in(node)):
            return None
        match node:
            case inspect.DecimalType():
                return Decimal.is_finite
            case inspect.StructType() | inspect.DataclassType():
                return self._of_class(node)
            case inspect.DictType():
                return _of_dict(self.of(node.key_type), self.of(node.value_type))
            case inspect.UnionType():
                return self._of_union(node)
        if isinstance(node, _SEVERAL) and (check := self.of(node.item_type)) is not None:
            return lambda value: all(map(check, value))
        return _looked_through

    def _of_class(self, node: inspect.StructType | inspect.DataclassType) -> _Check:
        cls, made = node.cls, self._of_classes
        if cls in made:
            return made[cls]
        made[cls] = _looked_through  # of one that contains itself, the inner ones
        checks = [(attrgetter(each.name), check) for each in node.fields if (check := self.of(each.type)) is not None]
        if len(checks) == 1:
            ((only, check),) = checks
            made[cls] = lambda value: check(only(value))
        else:
            made[cls] = lambda value: all(check(part(value)) for part, check in checks)
        return made[cls]

    def _of_union(self, node: inspect.UnionType) -> _Check:
        checks: dict[type, _Check] = {}
        for each in node.types:
            if (check := self.of(each)) is not None:
                kind = _RUNTIME.get(type(each)) or getattr(each, "cls", None)
                if kind is None or kind in checks:
                    return _looked_through
                checks[kind] = check

        def finite(value: Any) -> bool:
            check = checks.get(type(value))
            return check is None or check(value)

        return finite


def _of_dict(of_keys: _Check | None, of_values: _Check | None) -> _Check:
    if of_keys is None and of_values is not None:
        return lambda value: all(map(of_values, value.values()))
    return _looked_through


def _looked_through(value: Any) -> bool:
    return not no_number_in(value)
