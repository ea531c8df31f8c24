"""Keys: how a contract names them, and their canonical bytes (DESIGN §5.2)."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any
from uuid import UUID

from postline.errors import ContractError, EncodeError

__all__ = ["KeySpec", "Reader", "canonical_key", "describe_key", "reader_of"]

#: A field, a dotted path to one, or a function of the message.
KeySpec = str | Callable[[Any], Any]
Reader = Callable[[Any], Any]


def canonical_key(value: Any) -> bytes:
    """Text as UTF-8, integers in decimal, UUIDs in their canonical text, bytes as they are.

    Raises EncodeError for anything else: other types have no one spelling.
    """
    if type(value) is str:
        return value.encode()
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | UUID):
        raise EncodeError(
            f"A key can't be made of {type(value).__name__} {value!r}.",
            remedy="Use text, an integer, a UUID or bytes, or give a function that returns one.",
        )
    return str(value).encode()


def reader_of(spec: KeySpec) -> Reader:
    """What reads the key's value from a message."""
    if callable(spec):
        return spec
    if not spec or not all(part.isidentifier() for part in spec.split(".")):
        raise ContractError(f"{spec!r} can't be a key.", remedy="Name a field, a dotted path, or give a function.")
    return attrgetter(spec)


def describe_key(spec: KeySpec | None) -> str:
    """The declared key as text that the log keeps and compares: "" for none."""
    if spec is None:
        return ""
    return spec if isinstance(spec, str) else f"{getattr(spec, '__qualname__', 'function')}()"
