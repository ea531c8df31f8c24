"""What msgspec says of Structs, dataclasses and all types in them, as the type model has it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, inspect

from postline.contracts.marks import marks_of
from postline.contracts.renaming import Renaming, former_names, renaming_of
from postline.contracts.schema import (
    NO_LIMITS,
    Definition,
    Enumeration,
    Field,
    Limits,
    ListOf,
    MapOf,
    Record,
    Reference,
    Scalar,
    ScalarKind,
    Schema,
    TupleOf,
    Type,
    UnionOf,
)
from postline.errors import ContractError

__all__ = ["Definitions", "Reflection", "default_of", "enumeration_of", "union_of"]

_SCALARS: dict[type, ScalarKind] = {
    inspect.AnyType: "any",
    inspect.RawType: "any",
    inspect.NoneType: "null",
    inspect.BoolType: "boolean",
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.DecimalType: "decimal",
    inspect.StrType: "text",
    inspect.BytesType: "bytes",
    inspect.ByteArrayType: "bytes",
    inspect.MemoryViewType: "bytes",
    inspect.DateType: "date",
    inspect.TimeType: "time",
    inspect.DateTimeType: "datetime",
    inspect.TimeDeltaType: "duration",
    inspect.UUIDType: "uuid",
}
_LIMITS = ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern")
_RECORDS = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType, inspect.NamedTupleType)
_LISTS = (
    inspect.ListType,
    inspect.SetType,
    inspect.FrozenSetType,
    inspect.VarTupleType,
    inspect.CollectionType,
)
_SETS = (inspect.SetType, inspect.FrozenSetType)
#: What no class that msgspec knows can be, and no enumeration either.
_UNHEARD_OF = "\x00 no such symbol"

_Info: TypeAlias = inspect.Type


class Definitions:
    """Records and enumerations of one schema, each under a name of its own."""

    def __init__(self) -> None:
        self._names: dict[object, str] = {}
        self._found: dict[str, Definition] = {}

    def reference(self, identity: object, name: str, make: Callable[[str], Definition]) -> Reference:
        """Refer to what `identity` stands for; `make` is called at the first time, with its name in the schema."""
        if identity not in self._names:
            free = next(each for each in (name, *(f"{name}{n}" for n in range(2, 10_000))) if each not in self._taken)
            self._names[identity] = free
            self._found[free] = make(free)
        return Reference(name=self._names[identity])

    @property
    def _taken(self) -> set[str]:
        return set(self._names.values())

    def schema(self, root: Type) -> Schema:
        """The schema, once all is found."""
        return Schema(root=root, definitions=dict(sorted(self._found.items())))


class Reflection:
    """What msgspec says of types, as the model has them."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions

    def part(self, info: _Info, path: str) -> Type:
        """The model's type. Raises ContractError for one that it can't say."""
        kind = _SCALARS.get(type(info))
        if kind is not None:
            return Scalar(kind=kind, limits=_limits_of(info))
        match info:
            case inspect.Metadata():
                return self.part(info.type, path)
            case inspect.UnionType():
                return union_of([self.part(each, path) for each in info.types])
            case inspect.LiteralType():
                return self._literal(info, path)
            case inspect.EnumType():
                return self._definitions.reference(
                    info.cls, info.cls.__name__, lambda name: enumeration_of(info.cls, name)
                )
            case inspect.TupleType():
                return TupleOf(items=tuple(self.part(each, path) for each in info.item_types))
            case inspect.DictType():
                return MapOf(
                    keys=self.part(info.key_type, path),
                    values=self.part(info.value_type, path + "[]"),
                    limits=_limits_of(info),
                )
        if isinstance(info, _LISTS):
            items = self.part(info.item_type, path + "[]")
            return ListOf(items=items, limits=_limits_of(info), unique=isinstance(info, _SETS))
        if isinstance(info, _RECORDS):
            return self.record(info, info.cls, path, None)
        raise ContractError(
            f"{path or 'The message'} is of a type that contracts can't say: {info!r}.",
            remedy="Use a Struct, a dataclass, or one of the types that JSON carries.",
        )

    def _literal(self, info: inspect.LiteralType, path: str) -> Type:
        symbols = tuple(each for each in info.values if each is not None)
        name = "".join(part.capitalize() for part in path.replace("[]", "").split(".")) or "Literal"
        found: Type = self._definitions.reference(
            ("literal", path, symbols), name, lambda free: Enumeration(name=free, symbols=symbols)
        )
        nothing = Scalar(kind="null")
        return union_of([found, nothing]) if None in info.values else found

    def record(self, info: Any, cls: Any, path: str, name: str | None) -> Type:
        """A reference to the record of a class."""
        # Generic classes are told apart by their arguments, which msgspec keeps in the type that it gives.
        identity = info.cls if not getattr(info.cls, "__parameters__", ()) else info
        return self._definitions.reference(identity, name or _name_of(cls), lambda free: self._made(info, free, path))

    def _made(self, info: Any, name: str, path: str) -> Record:
        renaming = renaming_of({each.name: each.encode_name for each in info.fields})
        return Record(
            name=name,
            fields=tuple(self._field(each, path, renaming) for each in info.fields),
            aliases=tuple(getattr(info.cls, "__was__", ())),
            tag_field=getattr(info, "tag_field", None) or "",
            tag=_tag_of(info),
            closed=getattr(info, "forbid_unknown_fields", False),
            positional=getattr(info, "array_like", False) or isinstance(info, inspect.NamedTupleType),
        )

    def _field(self, field: inspect.Field, path: str, renaming: Renaming | None) -> Field:
        here = f"{path}.{field.encode_name}" if path else field.encode_name
        marks = _marks_in(field.type)
        default: Any = UNSET if field.required else default_of(field.default, field.default_factory)
        return Field(
            name=field.encode_name,
            type=self.part(field.type, here),
            required=field.required,
            default=default,
            aliases=former_names(marks.get("was", ()), renaming),
            sensitive=bool(marks.get("sensitive", False)),
            number=int(marks.get("number", 0)),
        )


def union_of(options: list[Type]) -> Type:
    """The union of these types, flat and without repetitions; the type itself if it is one."""
    flat: list[Type] = []
    for each in options:
        for option in each.options if isinstance(each, UnionOf) else (each,):
            if option not in flat:
                flat.append(option)
    return flat[0] if len(flat) == 1 else UnionOf(options=tuple(flat))


def enumeration_of(cls: type[enum.Enum], name: str) -> Enumeration:
    """An enumeration's values; its default is what its `_missing_` makes of a value that it does not know."""
    symbols = tuple(member.value for member in cls)
    default = None
    try:
        default = cls(_UNHEARD_OF if all(isinstance(each, str) for each in symbols) else -(2**62) + 1).value
    except (ValueError, TypeError):  # it refuses what it does not know
        default = None
    return Enumeration(name=name, symbols=symbols, default=default, aliases=tuple(getattr(cls, "__was__", ())))


def default_of(default: Any, factory: Any) -> Any:
    """The default as JSON has it; UNSET where only the class can make it, as one that differs each time."""
    try:
        if default is not msgspec.NODEFAULT:
            return _as_json(default)
        first, second = _as_json(factory()), _as_json(factory())
    except (TypeError, ValueError, NotImplementedError):
        return UNSET
    return first if first == second else UNSET


def _as_json(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def _marks_in(info: _Info) -> dict[str, Any]:
    """What a field's metadata says; msgspec has merged several pieces into one."""
    return {**_marks_in(info.type), **marks_of(info)} if isinstance(info, inspect.Metadata) else {}


def _limits_of(info: Any) -> Limits:
    said = {name: value for name in _LIMITS if (value := getattr(info, name, None)) is not None}
    return Limits(**said) if said else NO_LIMITS


def _tag_of(info: Any) -> str | int:
    tag = getattr(info, "tag", None)
    return "" if tag is None else tag


def _name_of(cls: Any) -> str:
    return str(getattr(cls, "__name__", None) or getattr(cls, "__qualname__", cls))
