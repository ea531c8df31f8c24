"""From a message of one contract to one of another: by the names of their fields, checked when it is declared."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec

from postline.contracts.kinds import is_message_class
from postline.errors import ContractError

__all__ = ["Transform", "by_field_names"]

#: Of a message, one of another class.
Transform = Callable[[Any], Any]


class _Field(NamedTuple):
    type: Any
    required: bool
    #: What the class is called with.
    keyword: str


def by_field_names(source: type, target: type) -> Transform:
    """What makes a `target` of a `source` by giving each field the value of the same name; nested classes alike.

    Fields that only the source has are left out, fields that only the target has need a default. Raises ContractError
    with the path of every field that can't be filled so: missing, possibly None, or of a type that need not fit (an
    integer fits a float).
    """
    problems: list[str] = []
    made = _made(source, target, "", problems, ())
    if problems:
        raise ContractError(
            f"{target.__qualname__} can't be made of {source.__qualname__} by field names: {' '.join(problems)}",
            remedy="Give a function that makes it.",
        )
    return made


def _made(source: Any, target: Any, path: str, problems: list[str], within: tuple[Any, ...]) -> Transform:
    if target in within:
        problems.append(f"{path.rstrip('.')}: {target.__qualname__} contains itself.")
        return _as_it_is
    there = _fields(source)
    steps: list[tuple[str, str, Transform | None]] = []
    for name, field in _fields(target).items():
        if name in there:
            step = _step(there[name].type, field.type, path + name, problems, (*within, target))
            steps.append((field.keyword, name, None if step is _as_it_is else step))
        elif field.required:
            problems.append(f"{path}{name}: {source.__qualname__} has no such field.")
    return _making(target, steps)


def _making(target: Any, steps: list[tuple[str, str, Transform | None]]) -> Transform:
    def make(value: Any) -> Any:
        found = {}
        for keyword, name, step in steps:
            each = getattr(value, name)
            found[keyword] = each if step is None else step(each)
        return target(**found)

    return make


def _as_it_is(value: Any) -> Any:
    return value


def _step(source: Any, target: Any, path: str, problems: list[str], within: tuple[Any, ...]) -> Transform:
    """What fills a field of one declared type from one of another."""
    given, taken = _options(source), _options(target)
    missing = [each for each in given if not _takes(taken, each)]
    if not missing:
        return _as_it_is
    classes = [each for each in taken if is_message_class(each)]
    if len(missing) == 1 and len(classes) == 1 and is_message_class(missing[0]):
        make = _made(missing[0], classes[0], path + ".", problems, within)
        return lambda value: make(value) if isinstance(value, missing[0]) else value
    problems.append(f"{path}: it is {_shown(source)} there and {_shown(target)} here.")
    return _as_it_is


def _takes(taken: list[Any], given: Any) -> bool:
    return any(each in (Any, object, given) or (each is float and given is int) for each in taken)


def _options(declared: Any) -> list[Any]:
    """The types that a value may have, wrappings taken off."""
    if get_origin(declared) in (Union, types.UnionType):
        return [option for each in get_args(declared) for option in _options(each)]
    return _options(get_args(declared)[0]) if get_origin(declared) is Annotated else [declared]


def _shown(declared: Any) -> str:
    return str(getattr(declared, "__qualname__", declared)) if get_origin(declared) is None else str(declared)


def _fields(cls: Any) -> dict[str, _Field]:
    if isinstance(cls, type) and issubclass(cls, msgspec.Struct):
        return {each.name: _Field(each.type, each.required, each.name) for each in msgspec.structs.fields(cls)}
    if hasattr(cls, "model_fields"):
        return {
            name: _Field(each.annotation, each.is_required(), _keyword(cls, name, each))
            for name, each in cls.model_fields.items()
        }
    hints = get_type_hints(cls, include_extras=True)
    nothing = dataclasses.MISSING
    return {
        each.name: _Field(hints[each.name], each.default is nothing and each.default_factory is nothing, each.name)
        for each in dataclasses.fields(cls)
        if each.init
    }


def _keyword(cls: Any, name: str, field: Any) -> str:
    """What a pydantic model takes a field by when it is called."""
    by_name = cls.model_config.get("populate_by_name") or cls.model_config.get("validate_by_name")
    return name if by_name or not isinstance(field.validation_alias, str) else field.validation_alias
