"""Kinds of message classes: msgspec Structs, dataclasses and pydantic models, written and read as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from postline.errors import ContractError, DecodeError, EncodeError

__all__ = ["Kind", "is_message_class"]

_ENCODER = msgspec.json.Encoder()

_PLAIN = (int, float, str, bytes, bool, dict, list)

_Writer = Callable[[Any], bytes]
_Reader = Callable[[bytes], Any]


class Kind:
    """How values of one class become JSON bytes and back; made once per class. Thread-safe.

    A value is written only if its own class can read it again: Structs, dataclasses and assigned
    fields of pydantic models aren't checked when they are made, so the bytes are read back once
    (0.4 µs for a Struct). What is read keeps the class's own rules; unknown fields are ignored.
    """

    #: The value as JSON; raises EncodeError for a field of another type than declared.
    encode: _Writer
    #: The value of JSON bytes; raises what the format's library raises, for hot loops.
    decode: _Reader

    def __init__(self, cls: Any, *, name: str | None = None) -> None:
        self.cls = cls
        self.name = name or str(getattr(cls, "__qualname__", cls))
        write, self.decode = _pydantic(cls, self.name) if _is_pydantic(cls) else _msgspec(cls, self.name)
        self.encode = self._checked(write, self.decode)

    def read(self, data: bytes) -> Any:
        """As `decode`, with every failure as DecodeError."""
        try:
            return self.decode(data)
        except Exception as error:
            raise DecodeError(
                f"Bytes can't be read as {self.name}: {error}.", remedy="Mend the contract, or the producer."
            ) from error

    def _checked(self, write: _Writer, read: _Reader) -> _Writer:
        def encode(value: Any) -> bytes:
            try:
                data = write(value)
                read(data)
            except Exception as error:
                # Whatever a user's own __post_init__ or validator raises is a refusal too.
                raise EncodeError(
                    f"A {self.name} can't be written: {error}.",
                    remedy=f"Give every field of {self.name} a value of its declared type.",
                ) from error
            return data

        return encode


def is_message_class(cls: Any) -> bool:
    """Whether values of `cls` can be messages: a Struct, a dataclass or a pydantic model."""
    return isinstance(cls, type) and (
        issubclass(cls, msgspec.Struct) or dataclasses.is_dataclass(cls) or _is_pydantic(cls)
    )


def _is_pydantic(cls: Any) -> bool:
    """A pydantic model or pydantic's own dataclass, told without importing pydantic."""
    return isinstance(cls, type) and hasattr(cls, "__pydantic_validator__")


def _msgspec(cls: Any, name: str) -> tuple[_Writer, _Reader]:
    # Keyed state may be of a plain type; messages may not (a topic asks `is_message_class`).
    is_plain = cls in _PLAIN or hasattr(cls, "__required_keys__")
    if isinstance(cls, type) and not is_plain and not is_message_class(cls):
        raise ContractError(
            f"{name} is no kind of message that Postline can write.",
            remedy="Make it a msgspec.Struct, a dataclass or a pydantic model.",
        )
    try:
        decoder = msgspec.json.Decoder(cls)
        foreign = next(_foreign_types(msgspec.inspect.type_info(cls), set()), None)
    except NameError as error:
        raise ContractError(
            f"{name} has a field of a type that isn't defined there: {error}.",
            remedy="Define the types of its fields before it, at the top of a module.",
        ) from error
    except TypeError as error:
        raise ContractError(
            f"{name} has a field that JSON can't carry: {error}.", remedy="Use a type that msgspec supports."
        ) from error
    if foreign is not None:
        raise ContractError(
            f"{name} has a field of type {foreign.__qualname__}, which can't be written inside it.",
            remedy="Use a Struct or a dataclass there, or make the whole message a pydantic model.",
        )
    return _ENCODER.encode, decoder.decode


def _foreign_types(node: object, seen: set[int]) -> Iterator[type]:
    """Classes that msgspec would leave to a hook: without one they fail at the first message."""
    if isinstance(node, tuple):
        for each in node:
            yield from _foreign_types(each, seen)
    elif isinstance(node, msgspec.inspect.CustomType):
        yield node.cls
    elif isinstance(node, msgspec.inspect.Type | msgspec.inspect.Field) and id(node) not in seen:
        seen.add(id(node))  # types may contain themselves
        for name in node.__struct_fields__:
            yield from _foreign_types(getattr(node, name), seen)


def _pydantic(cls: Any, name: str) -> tuple[_Writer, _Reader]:
    if not getattr(cls, "__pydantic_complete__", True) and hasattr(cls, "model_rebuild"):
        cls.model_rebuild(raise_errors=False)
    if not getattr(cls, "__pydantic_complete__", True):
        raise ContractError(
            f"{name} has a field of a type that isn't defined there.",
            remedy="Define the types of its fields before it, at the top of a module.",
        )
    # By alias and without computed fields, as the model itself reads it; and an assigned value of
    # another type than declared is an error, which its lax reading alone would let through.
    write = partial(cls.__pydantic_serializer__.to_json, by_alias=True, round_trip=True, warnings="error")
    return write, cls.__pydantic_validator__.validate_json
