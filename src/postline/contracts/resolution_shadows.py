"""Shadows of classes: types that msgspec decodes under a writer's names, and whose values become the class's at once.

A Struct's shadow is a subclass with the same fields, each under the name that the writer gave it. Its values are laid
out as the class's are, so that the last step of decoding one is to tell it its class. That is why a record so read
costs a tenth of a microsecond more than one read plainly, wherever in a message it stands, and is converted, checked
and refused by the same code, with the writer's names in the error.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET

from postline.contracts.resolution_pairs import Names, Pairs, absent_value
from postline.contracts.schema import ListOf, MapOf, Record, Reference, TupleOf, Type, UnionOf

__all__ = ["shadow_decoder"]


def shadow_decoder(cls: Any, pairs: Pairs) -> Callable[[bytes], Any] | None:
    """What decodes the writer's JSON into the class; None if some class in it can have no shadow.

    Those are generic classes, dataclasses with slots, typed dicts and named tuples, classes that act on being
    inherited from, and those of which two fields are read from one.
    """
    shadows = _Shadows(pairs)
    try:
        return msgspec.json.Decoder(shadows.of_type(cls, pairs.reader.root, pairs.writer.root)).decode
    except (_NoShadow, TypeError, ValueError):
        # msgspec and dataclasses refuse two fields of one name, or options of a union that can't be told apart.
        return None


class _NoShadow(Exception):
    """Some class can't have one."""


class _Shadows:
    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self._made: dict[tuple[type, Names], type] = {}

    def of_type(self, hint: Any, ours: Type, theirs: Type) -> Any:
        """An annotation, with shadows for what is read otherwise than it is written. Raises _NoShadow."""
        if not self._pairs.differs(ours, theirs):
            return hint
        if get_origin(hint) is Annotated:
            inner, *metadata = get_args(hint)
            return Annotated[(self.of_type(inner, ours, theirs), *metadata)]
        if isinstance(ours, UnionOf) or isinstance(theirs, UnionOf):
            return self._union(hint, ours, theirs)
        arguments = get_args(hint)
        match ours, theirs:
            case Reference(), Reference():
                return self._class(hint, (ours.name, theirs.name))
            case ListOf(), ListOf() if arguments:
                inner = self.of_type(arguments[0], ours.items, theirs.items)
                return _generic(hint)[(inner, *arguments[1:])]
            case MapOf(), MapOf() if len(arguments) == 2:
                return _generic(hint)[arguments[0], self.of_type(arguments[1], ours.values, theirs.values)]
            case TupleOf(), TupleOf() if len(arguments) == len(ours.items):
                places = zip(arguments, ours.items, theirs.items, strict=True)
                return _generic(hint)[tuple(self.of_type(*each) for each in places)]
        raise _NoShadow

    def _union(self, hint: Any, ours: Type, theirs: Type) -> Any:
        options = list(get_args(hint)) if _is_union(hint) else [hint]
        found, replaced, kept = [], [], []
        for each in theirs.options if isinstance(theirs, UnionOf) else (theirs,):
            part = self._pairs.option(ours, each) if isinstance(ours, UnionOf) else ours
            if part is None:
                raise _NoShadow
            option = self._option(options, part)
            if self._pairs.differs(part, each):
                replaced.append(option)
                found.append(self.of_type(option, part, each))
            else:
                kept.append(option)
        found += [each for each in options if each in kept or each not in replaced]
        return functools.reduce(operator.or_, found)

    def _option(self, options: Sequence[Any], part: Type) -> Any:
        """The annotation, of several, that a part of the reader's schema was made from; None for a scalar's."""
        fitting = [each for each in options if self._fits(_bare(each), part)]
        if isinstance(part, Reference | ListOf | MapOf | TupleOf) and len(fitting) != 1:
            raise _NoShadow
        return fitting[0] if fitting else None

    def _fits(self, hint: Any, part: Type) -> bool:
        origin = get_origin(hint)
        match part:
            case ListOf() | TupleOf() | MapOf() if isinstance(origin, type) and not _is_union(hint):
                return issubclass(origin, Mapping) == isinstance(part, MapOf)
            case Reference():
                record = self._pairs.reader.resolve(part)
                return isinstance(record, Record) and isinstance(hint, type) and _is_of(hint, record)
        return False

    # -- classes ------------------------------------------------------------------------------

    def _class(self, cls: Any, names: Names) -> type:
        if (known := self._made.get((cls, names))) is not None:
            return known
        if not isinstance(cls, type) or get_args(cls) or hasattr(cls.__init_subclass__, "__func__"):
            raise _NoShadow
        wire = {ours.name: theirs.name for ours, theirs in self._pairs.fields(names)}
        absent = {pair.ours.name: absent_value(*pair) for pair in self._pairs.fields(names)}
        if issubclass(cls, msgspec.Struct):
            hints = {field.encode_name: (field.name, field.type) for field in msgspec.structs.fields(cls)}
            defaults = {name: _default(hints[name][1], value) for name, value in absent.items() if value is not UNSET}
            shadow = _struct(cls, wire, self._pairs.records(names)[1], defaults)
        elif dataclasses.is_dataclass(cls):
            declared = get_type_hints(cls, include_extras=True)
            hints = {name: (wire.get(name, name), hint) for name, hint in declared.items()}
            defaults = {name: _default(hints[name][1], value) for name, value in absent.items() if value is not UNSET}
            shadow = _dataclass(cls, wire, defaults)
        else:
            raise _NoShadow
        self._made[cls, names] = shadow
        annotations = shadow.__annotations__
        annotations.update((attribute, hint) for attribute, hint in hints.values() if attribute in annotations)
        # The types only now, for some may contain this one.
        for ours, theirs in self._pairs.fields(names):
            attribute, hint = hints[ours.name]
            annotations[attribute] = self.of_type(hint, ours.type, theirs.type)
        return shadow


def _default(hint: Any, value: Any) -> dict[str, Any]:
    """A default of the writer's, as arguments for a field. Raises _NoShadow for one that is not a single value."""
    if isinstance(value, list | dict):
        raise _NoShadow
    try:
        found = msgspec.json.decode(msgspec.json.encode(value), type=hint)
    except msgspec.ValidationError:
        raise _NoShadow from None
    # As a factory: a dataclass keeps a plain default in its class, and the value's class becomes another one.
    return {"default_factory": lambda: found}


def _struct(cls: Any, wire: dict[str, str], writer: Record, defaults: Mapping[str, dict[str, Any]]) -> type:
    """A subclass whose fields have the writer's names, and defaults; their types are filled in later."""
    fields = msgspec.structs.fields(cls)
    positional = cls.__struct_config__.array_like
    own = getattr(cls, "__post_init__", None)

    def become(self: Any) -> None:
        self.__class__ = cls

    def become_and_go_on(self: Any) -> None:
        self.__class__ = cls
        own(self)  # type: ignore[misc]

    namespace: dict[str, Any] = {
        field.name: msgspec.field(
            name=field.encode_name if positional else wire.get(field.encode_name, field.encode_name),
            **(defaults.get(field.encode_name) or _default_of(field, msgspec.NODEFAULT)),
        )
        for field in fields
    }
    namespace |= {
        "__annotations__": {field.name: Any for field in fields},
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__post_init__": become if own is None else become_and_go_on,
    }
    tag = {"tag": writer.tag, "tag_field": writer.tag_field} if writer.tag_field else {}
    # Not frozen, or its class could not be told; the values are, once it was.
    made: type = type(cls)(cls.__name__, (cls,), namespace, kw_only=True, frozen=False, **tag)
    return made


def _dataclass(cls: Any, wire: dict[str, str], defaults: Mapping[str, dict[str, Any]]) -> type:
    """A dataclass of the writer's names, and defaults; types are filled in later.

    Raises TypeError if it can't become `cls`.
    """
    own = getattr(cls, "__post_init__", None)
    moved = {theirs: ours for ours, theirs in wire.items() if ours != theirs}

    def become(self: Any) -> None:
        content = self.__dict__
        values = [content.pop(theirs) for theirs in moved]
        content.update(zip(moved.values(), values, strict=True))
        self.__class__ = cls
        if own is not None:
            own(self)

    fields: list[Any] = [
        (
            wire.get(each.name, each.name),
            Any,
            dataclasses.field(**(defaults.get(each.name) or _default_of(each, dataclasses.MISSING))),
        )
        for each in dataclasses.fields(cls)
    ]
    shadow = dataclasses.make_dataclass(cls.__name__, fields, namespace={"__post_init__": become}, kw_only=True)
    object.__new__(shadow).__class__ = cls
    return shadow


def _default_of(field: Any, nothing: Any) -> dict[str, Any]:
    """A field's default as arguments for another one's."""
    found = {"default": field.default, "default_factory": field.default_factory}
    return {name: value for name, value in found.items() if value is not nothing}


# -- annotations ------------------------------------------------------------------------------


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _generic(hint: Any) -> Any:
    return get_origin(hint)


def _bare(hint: Any) -> Any:
    return _bare(get_args(hint)[0]) if get_origin(hint) is Annotated else hint


def _is_of(cls: type, record: Record) -> bool:
    """Whether it is the class of a record, among the options of a union that msgspec can tell apart."""
    config = getattr(cls, "__struct_config__", None)
    if config is None:
        return dataclasses.is_dataclass(cls) and not record.tag_field
    tag = "" if config.tag is None else config.tag
    return (config.tag_field or "", tag) == (record.tag_field, record.tag)
