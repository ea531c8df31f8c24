"""Kinds of message classes: msgspec Structs, dataclasses and pydantic models, written and read as JSON."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from postline.errors import ContractError, DecodeError, EncodeError

__all__ = ["Kind"]

_ENCODER = msgspec.json.Encoder()


class Kind:
    """How values of one class become JSON bytes and back.

    `encode` raises EncodeError for a value whose fields don't have their declared types: msgspec
    and dataclasses don't check when a value is made, so the bytes are read back once (0.4 µs).
    `decode` raises DecodeError; unknown fields are ignored.
    """

    def __init__(self, cls: Any, *, name: str | None = None) -> None:
        self.cls = cls
        self.name = name or str(getattr(cls, "__qualname__", cls))
        if _is_pydantic(cls):
            self._write: Callable[[Any], bytes] = _pydantic_writer(cls)
            self.decode: Callable[[bytes], Any] = _pydantic_reader(cls, self.name)
        else:
            decoder = _decoder(cls, self.name)
            #: Reads bytes; raises msgspec's errors, which callers in hot loops translate.
            self.decode = decoder.decode
            self._write = _checked_writer(decoder)

    def encode(self, value: Any) -> bytes:
        """The value as JSON; raises EncodeError for a field of another type than declared."""
        try:
            return self._write(value)
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            raise EncodeError(
                f"A {self.name} can't be written: {error}.",
                remedy=f"Give every field of {self.name} a value of its declared type.",
            ) from error

    def read(self, data: bytes) -> Any:
        """As `decode`, with every failure as DecodeError."""
        try:
            return self.decode(data)
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            raise DecodeError(
                f"Bytes can't be read as {self.name}: {error}", remedy="Mend the contract, or the producer."
            ) from error


def _decoder(cls: Any, name: str) -> msgspec.json.Decoder[Any]:
    if isinstance(cls, type) and not (issubclass(cls, msgspec.Struct) or dataclasses.is_dataclass(cls)):
        allowed = cls in (int, float, str, bytes, bool, dict, list) or hasattr(cls, "__required_keys__")
        if not allowed:
            raise ContractError(
                f"{name} is no kind of message that Postline can write.",
                remedy="Make it a msgspec.Struct, a dataclass or a pydantic model.",
            )
    try:
        return msgspec.json.Decoder(cls)
    except TypeError as error:
        raise ContractError(
            f"{name} has a field that JSON can't carry: {error}", remedy="Use a type that msgspec supports."
        ) from error


def _checked_writer(decoder: msgspec.json.Decoder[Any]) -> Callable[[Any], bytes]:
    encode, decode = _ENCODER.encode, decoder.decode

    def write(value: Any) -> bytes:
        data = encode(value)
        decode(data)
        return data

    return write


def _is_pydantic(cls: Any) -> bool:
    """Whether `cls` is a pydantic model; asks only if its program imported pydantic itself."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(cls, type) and issubclass(cls, pydantic.BaseModel)


def _pydantic_writer(cls: Any) -> Callable[[Any], bytes]:
    def write(value: Any) -> bytes:
        data: bytes = value.__pydantic_serializer__.to_json(value, warnings="none")
        cls.model_validate_json(data)
        return data

    return write


def _pydantic_reader(cls: Any, name: str) -> Callable[[bytes], Any]:
    validate = cls.__pydantic_validator__.validate_json

    def read(data: bytes) -> Any:
        try:
            return validate(data)
        except ValueError as error:
            raise DecodeError(
                f"Bytes can't be read as {name}: {error}", remedy="Mend the contract, or the producer."
            ) from error

    return read
