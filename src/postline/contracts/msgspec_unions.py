"""Unions that msgspec 0.22 must not see: it frees their decoders wrongly, which ends the process at any later moment.

Its nodes keep limits between the types that a union has, and its garbage collection takes them for pointers: any limit
with a place of its own beside a tuple of fixed length, a pattern beside a list, a set or a map. Building the decoder
is enough, so classes are gone through before one is built.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec

from postline.errors import ContractError

__all__ = ["refuse_unsafe_unions"]

#: Limits that take a place in a node; whether a time has a zone takes none.
_LIMITS = ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length")
_CONTAINERS = frozenset({"list", "set", "frozenset", "dict", "Sequence", "MutableSequence", "Collection"}) | {
    *("Set", "MutableSet", "Mapping", "MutableMapping", "defaultdict")
}
_Bound: typing.TypeAlias = Mapping[Any, Any]


def refuse_unsafe_unions(cls: Any, name: str) -> None:
    """Raises ContractError, with the path, for a class with such a union anywhere in its fields."""
    for path, said in _faults(cls, name, {}, set()):
        raise ContractError(
            f"{path} has {said} in one union, which msgspec {msgspec.__version__} can't hold in memory safely.",
            remedy="Take the limit off there, or put one of the two into a class of its own.",
        )


def _faults(hint: Any, path: str, bound: _Bound, seen: set[Any]) -> Iterator[tuple[str, str]]:
    hint, _ = _bare(hint, bound)
    origin, arguments = get_origin(hint), get_args(hint)
    if _is_union(hint):
        options = [_bare(each, bound) for each in _options(hint, bound)]
        if said := _fault(options):
            yield path, said
        for each, _ in options:
            yield from _faults(each, path, bound, seen)
        return
    cls = origin or hint
    for each in arguments if origin is not typing.Literal else ():
        yield from _faults(each, path, bound, seen)
    if not isinstance(cls, type) or not _has_fields(cls) or (hint in seen):
        return
    seen.add(hint)
    given = (bound.get(each, each) if isinstance(each, TypeVar) else each for each in arguments)
    known = dict(zip(getattr(cls, "__parameters__", ()), given, strict=False))
    for base in getattr(cls, "__orig_bases__", ()):
        if get_origin(base) is not typing.Generic:
            yield from _faults(base, path, known, seen)
    for field, each in _hints(cls).items():
        yield from _faults(each, f"{path}.{field}", known, seen)


def _fault(options: list[tuple[Any, list[msgspec.Meta]]]) -> str:
    """What of a union's alternatives must not stand together; "" if all may."""
    metas = [meta for _, found in options for meta in found]
    pattern = any(meta.pattern is not None for meta in metas)
    limits = any(getattr(meta, limit) is not None for meta in metas for limit in _LIMITS)
    if limits and any(_is_fixed_tuple(each) for each, _ in options):
        return "a tuple of fixed length and a limit"
    if pattern and any(_is_container(each) for each, _ in options):
        return "a list, a set or a map, and a text with a pattern,"
    return ""


def _bare(hint: Any, bound: _Bound) -> tuple[Any, list[msgspec.Meta]]:
    """A hint without what only names or annotates it, and the limits that stood around it."""
    metas: list[msgspec.Meta] = []
    while True:
        if get_origin(hint) is Annotated:
            metas += [each for each in hint.__metadata__ if isinstance(each, msgspec.Meta)]
            hint = hint.__origin__
        elif isinstance(hint, TypeVar):
            hint = bound.get(hint, hint.__bound__)
        elif hasattr(hint, "__supertype__"):
            hint = hint.__supertype__
        elif hasattr(hint, "__value__"):
            hint = hint.__value__
        elif get_origin(hint) in _TRANSPARENT:
            hint = get_args(hint)[0]
        else:
            return hint, metas


_TRANSPARENT = {typing.ClassVar, typing.Final, typing.Required, typing.NotRequired}


def _options(hint: Any, bound: _Bound) -> Iterator[Any]:
    for each in get_args(hint):
        bare, metas = _bare(each, bound)
        if _is_union(bare) and not metas:
            yield from _options(bare, bound)
        else:
            yield each


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in {Union, types.UnionType}


def _is_fixed_tuple(hint: Any) -> bool:
    return get_origin(hint) is tuple and hint is not typing.Tuple and Ellipsis not in get_args(hint)  # noqa: UP006


def _is_container(hint: Any) -> bool:
    """What is a list, a set or a map to msgspec, as a tuple of any length is."""
    cls = get_origin(hint) or hint
    return (cls is tuple and not _is_fixed_tuple(hint)) or getattr(cls, "__name__", "") in _CONTAINERS


def _has_fields(cls: type) -> bool:
    return issubclass(cls, msgspec.Struct) or dataclasses.is_dataclass(cls) or hasattr(cls, "__annotations__")


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except (NameError, TypeError, AttributeError):  # told by msgspec, in its own words
        return {}
