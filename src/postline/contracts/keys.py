"""Keys: how a contract names them, and their canonical bytes (DESIGN §5.2)."""

from __future__ import annotations

import types
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from postline.errors import ContractError, EncodeError

__all__ = ["KeySpec", "Reader", "canonical_key", "compile_key", "describe_key", "reader_of"]

#: A field, a dotted path to one, or a function of the message.
KeySpec = str | Callable[[Any], Any]
Reader = Callable[[Any], Any]

#: Declared types that say nothing.
_ANYTHING = (object, Any)


def canonical_key(value: Any) -> bytes:
    """Text as UTF-8, integers in decimal, UUIDs in their canonical text, bytes as they are.

    Members of text and integer enums count as their values. Raises EncodeError for anything
    else, because other types have no one spelling, and for what is empty.
    """
    if isinstance(value, bytes):
        data = bytes(value)
    elif isinstance(value, str):
        data = _utf8(str.__str__(value))  # str() of an enum's member would give its name
    elif isinstance(value, int) and not isinstance(value, bool):
        data = int.__repr__(value).encode()
    elif isinstance(value, UUID):
        data = str(value).encode()
    else:
        raise EncodeError(
            f"A key can't be made of {type(value).__name__} {value!r}.",
            remedy="Use text, an integer, a UUID or bytes, or give a function that returns one.",
        )
    if not data:
        raise EncodeError("A key can't be empty.", remedy="Give it a value, or declare the topic without a key.")
    return data


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise EncodeError(f"A key can't be made of {text!r}: {error.reason}.", remedy="Use valid text.") from error


def reader_of(spec: KeySpec, cls: Any = None) -> Reader:
    """What reads the key's value from a message, of class `cls` if it is known.

    Raises ContractError for a path that the class doesn't have, or whose type has no key bytes.
    """
    if callable(spec):
        return spec
    if not spec or not all(part.isidentifier() for part in spec.split(".")):
        raise ContractError(f"{spec!r} can't be a key.", remedy="Name a field, a dotted path, or give a function.")
    read = attrgetter(spec)
    declared = None if cls is None else _declared_type(cls, spec)
    if declared is None:
        return read
    if issubclass(declared, bool) or not issubclass(declared, str | int | UUID | bytes):
        raise ContractError(
            f"{spec!r} of {cls.__qualname__} can't be a key: {declared.__qualname__} has no one spelling as bytes.",
            remedy="Use text, an integer, a UUID or bytes, or give a function that returns one.",
        )
    if declared is not UUID:
        return read
    # JSON can't tell a UUID from its text, in any case of letters: both must be one key.
    return lambda value: found if (found := read(value)) is None or isinstance(found, UUID) else UUID(found)


def _declared_type(cls: Any, path: str) -> type | None:
    """The class that annotations give for a dotted path; None where they don't say."""
    found = cls
    for part in path.split("."):
        owner = get_origin(found) or found
        if not isinstance(owner, type) or owner in _ANYTHING:
            return None
        hints = _hints(owner)
        if hints is None:
            return None
        if part not in hints:
            if hasattr(owner, part) or hasattr(owner, "__getattr__"):
                return None
            known = ", ".join(name for name in hints if not name.startswith("_")) or "none"
            raise ContractError(
                f"{path!r} can't be the key of {cls.__qualname__}: {owner.__qualname__} has no {part!r}.",
                remedy=f"Name one of its fields ({known}), or give a function.",
            )
        found = _without_none(hints[part])
    return found if isinstance(found, type) and found not in _ANYTHING and get_origin(found) is None else None


def _hints(cls: type) -> dict[str, Any] | None:
    try:
        return get_type_hints(cls)
    except Exception:  # noqa: BLE001 - annotations that only their own library can resolve say nothing here
        return None


def _without_none(kind: Any) -> Any:
    if get_origin(kind) not in (Union, types.UnionType):
        return kind
    others = [each for each in get_args(kind) if each is not type(None)]
    return others[0] if len(others) == 1 else Any


def compile_key(spec: KeySpec, cls: Any, topic: str, type_name: str, what: str = "key") -> Callable[[Any], bytes]:
    """What gives the key bytes of a message, made once per type.

    It raises EncodeError, naming topic, type and field, where the key is missing, empty or of a
    type that has no bytes, and for whatever a key function raises.
    """
    read = reader_of(spec, cls)

    def key_of(value: Any) -> bytes:
        try:
            found = read(value)
            if type(found) is str and found:
                return found.encode()
            return canonical_key(found)
        except Exception as error:
            why = error.message if isinstance(error, EncodeError) else f"{type(error).__name__}: {error}"
            raise EncodeError(
                f"A {type_name} for topic {topic!r} has no usable {what} ({describe_key(spec)}): {why}",
                remedy="Set it before publishing: order and state belong to the key.",
            ) from error

    return key_of


def describe_key(spec: KeySpec | None) -> str:
    """The declared key as text that the log keeps and compares: "" for none."""
    if spec is None:
        return ""
    return spec if isinstance(spec, str) else f"{getattr(spec, '__qualname__', 'function')}()"
