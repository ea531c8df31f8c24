"""Schemas of pydantic models, from their fields; loaded for classes that are such."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec import UNSET, inspect

from postline.contracts.marks import marks_of
from postline.contracts.msgspec_unions import refuse_unsafe_unions
from postline.contracts.reflection_types import Definitions, Reflection, default_of, enumeration_of, union_of
from postline.contracts.renaming import Renaming, former_names, renaming_of
from postline.contracts.schema import NO_LIMITS, Field, Limits, ListOf, MapOf, Record, Scalar, Schema, TupleOf, Type
from postline.errors import ContractError

__all__ = ["pydantic_schema"]

_LIMITS = ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern")


def pydantic_schema(cls: Any, name: str | None) -> Schema:
    """The schema of a pydantic model or pydantic dataclass. Raises ContractError for what the model can't say."""
    definitions = Definitions()
    root = _Models(definitions).record(cls, "", name)
    return definitions.schema(root)


class _Models:
    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._plain = Reflection(definitions)

    def record(self, cls: Any, path: str, name: str | None) -> Type:
        return self._definitions.reference(cls, name or cls.__name__, lambda free: self._made(cls, free, path))

    def _made(self, cls: Any, name: str, path: str) -> Record:
        fields = getattr(cls, "model_fields", None) or cls.__pydantic_fields__
        config = getattr(cls, "model_config", None) or getattr(cls, "__pydantic_config__", None) or {}
        renaming = renaming_of({key: _wire_name(key, info) for key, info in fields.items()})
        return Record(
            name=name,
            fields=tuple(self._field(key, info, path, renaming) for key, info in fields.items()),
            aliases=tuple(getattr(cls, "__was__", ())),
            closed=config.get("extra") == "forbid",
        )

    def _field(self, key: str, info: Any, path: str, renaming: Renaming | None) -> Field:
        wire = _wire_name(key, info)
        here = f"{path}.{wire}" if path else wire
        marks: dict[str, Any] = {}
        for each in info.metadata:
            marks |= marks_of(each)
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        former = former_names(marks.get("was", ()), renaming)
        required = info.is_required()
        return Field(
            name=wire,
            type=_limited(self.part(info.annotation, here), info.metadata),
            required=required,
            default=UNSET if required else _default(info),
            aliases=(
                *former,
                *(each for each in _read_names(info) if each != wire),
            ),
            sensitive=bool(marks.get("sensitive") or extra.get("sensitive") or _is_secret(info.annotation)),
            number=int(marks.get("number", 0)),
        )

    def part(self, annotation: Any, path: str) -> Type:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return _limited(self.part(arguments[0], path), arguments[1:])
        if origin in (Union, UnionType):
            return union_of([self.part(each, path) for each in arguments])
        if annotation in (None, NoneType):
            return Scalar(kind="null")
        if _is_secret(annotation):
            return Scalar(kind="text")
        if isinstance(annotation, type) and hasattr(annotation, "__pydantic_validator__"):
            return self.record(annotation, path, None)
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            return self._definitions.reference(
                annotation, annotation.__name__, lambda free: enumeration_of(annotation, free)
            )
        if isinstance(origin, type) and arguments:
            return self._container(origin, arguments, path)
        return self._leaf(annotation, path)

    def _container(self, origin: type, arguments: tuple[Any, ...], path: str) -> Type:
        if issubclass(origin, tuple) and not (len(arguments) == 2 and arguments[1] is Ellipsis):
            return TupleOf(items=tuple(self.part(each, path) for each in arguments))
        if issubclass(origin, Mapping):
            return MapOf(keys=self.part(arguments[0], path), values=self.part(arguments[1], path + "[]"))
        if issubclass(origin, AbstractSet):
            return ListOf(items=self.part(arguments[0], path + "[]"), unique=True)
        if issubclass(origin, Sequence):
            return ListOf(items=self.part(arguments[0], path + "[]"))
        return self._leaf(origin[arguments], path)  # type: ignore[index]

    def _leaf(self, annotation: Any, path: str) -> Type:
        refuse_unsafe_unions(annotation, path)
        try:
            return self._plain.part(inspect.type_info(annotation), path)
        except (TypeError, NameError) as error:
            raise ContractError(
                f"{path} is of a type that contracts can't say: {annotation!r}.",
                remedy="Use a model, or one of the types that JSON carries.",
            ) from error


def _wire_name(key: str, info: Any) -> str:
    return str(info.serialization_alias or info.alias or key)


def _limited(part: Type, metadata: Sequence[Any]) -> Type:
    """The part with the constraints that metadata states, where it can have any."""
    said: dict[str, Any] = {}
    for each in metadata:
        pieces = [each, *getattr(each, "metadata", ())]
        for piece in pieces:
            said |= {name: value for name in _LIMITS if (value := _limit(piece, name)) is not None}
    if not said or not isinstance(part, Scalar | ListOf | MapOf):
        return part
    before = {name: value for name in _LIMITS if (value := getattr(part.limits, name)) is not None}
    return msgspec.structs.replace(part, limits=Limits(**before | said) if before | said else NO_LIMITS)


def _limit(metadata: Any, name: str) -> Any:
    value = getattr(metadata, name, None)
    value = getattr(value, "pattern", value) if name == "pattern" else value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        # A bound of another type, a date say, is the class's own affair.
        return None
    return value


def _default(info: Any) -> Any:
    if info.default_factory is not None:
        return default_of(msgspec.NODEFAULT, info.default_factory)
    value = info.default
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True)
    return default_of(value, None)


def _read_names(info: Any) -> list[str]:
    """Other names that the model reads the field under."""
    alias = info.validation_alias
    choices = getattr(alias, "choices", None) or ([alias] if isinstance(alias, str) else [])
    return [each for each in choices if isinstance(each, str)]


def _is_secret(annotation: Any) -> bool:
    return (
        isinstance(annotation, type)
        and annotation.__name__ in {"SecretStr", "SecretBytes"}
        and hasattr(annotation, "get_secret_value")
    )
