"""Schemas of message classes: Structs, dataclasses and pydantic models."""

from __future__ import annotations

from typing import Any

from msgspec import inspect

from postline.contracts.msgspec_unions import refuse_unsafe_unions
from postline.contracts.reflection_types import Definitions, Reflection
from postline.contracts.schema import Schema
from postline.errors import ContractError

__all__ = ["schema_of"]


def schema_of(cls: Any, *, name: str | None = None) -> Schema:
    """The schema of a message class; its root refers to its record, named `name` or as the class is.

    Raises ContractError, with the field's path, for what the model can't say.
    """
    if hasattr(cls, "__pydantic_validator__"):
        from postline.contracts.reflection_pydantic import pydantic_schema

        return pydantic_schema(cls, name)
    refuse_unsafe_unions(cls, name or str(getattr(cls, "__qualname__", cls)))
    info = inspect.type_info(cls)
    if not hasattr(info, "cls"):
        raise ContractError(
            f"{getattr(cls, '__qualname__', cls)} has no fields, and so no schema.",
            remedy="Make it a msgspec.Struct, a dataclass or a pydantic model.",
        )
    definitions = Definitions()
    root = Reflection(definitions).record(info, cls, "", name)
    return definitions.schema(root)
