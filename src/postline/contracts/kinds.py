"""Kinds of message classes: msgspec Structs, dataclasses and pydantic models, written and read as JSON."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from postline.contracts.discretion import Telling, discreet_place, telling_of
from postline.contracts.finiteness import finite_reader, types_in
from postline.contracts.json_faults import loss_in, no_number_in, reading_fault, text_fault, zoneless_in
from postline.contracts.json_paths import with_keys
from postline.contracts.msgspec_unions import refuse_unsafe_unions
from postline.contracts.pydantic_faults import without_values
from postline.contracts.pydantic_unions import retyped_in
from postline.contracts.schema import Schema
from postline.errors import ContractError, DecodeError, EncodeError

__all__ = ["Kind", "is_message_class"]

_ENCODER = msgspec.json.Encoder()

_PLAIN = (int, float, str, bytes, bool, dict, list)

#: A time in JSON that ends without a zone.
_ZONELESS = re.compile(rb'T\d\d:\d\d:\d\d(?:\.\d+)?"')

_Writer = Callable[[Any], bytes]
_Reader = Callable[[bytes], Any]
#: Of a value, what was read back of it, and its bytes: whether something may have become another value.
_LooksLost = Callable[[Any, Any, bytes], bool]


class Kind:
    """How values of one class become JSON bytes and back; made once per class. Thread-safe.

    A value is written only if its own class can read it again: Structs, dataclasses and assigned
    fields of pydantic models aren't checked when they are made, so the bytes are read back once
    (0.4 µs for a Struct). Where a class has room for what JSON would change in silence (NaN to nothing, a float to a
    Decimal), what was read is compared, too. What is read keeps the class's own rules; unknown fields are ignored.
    """

    #: The value as JSON; raises EncodeError for a field of another type than declared.
    encode: _Writer
    #: The value of JSON bytes; raises what the format's library raises, for hot loops.
    decode: _Reader

    def __init__(self, cls: Any, *, name: str | None = None, schema: Callable[[], Schema] | None = None) -> None:
        """`schema` is asked when something failed: values of which some are sensitive are not quoted then."""
        self.cls, self._schema = cls, schema
        self.name = name or str(getattr(cls, "__qualname__", cls))
        write, self.decode, looks_lost = _pydantic(cls, self.name) if _is_pydantic(cls) else _msgspec(cls, self.name)
        # By contract a time is a moment; what is kept for oneself may be of one's own clock.
        self._wants_zones = schema is not None and _has_moments(cls)
        if self._wants_zones:
            looks_lost = _or_zoneless(looks_lost)
        self.encode = self._checked(write, self.decode, looks_lost)

    def read(self, data: bytes) -> Any:
        """As `decode`, with every failure as DecodeError."""
        try:
            return self.decode(data)
        except Exception as error:  # noqa: BLE001 - becomes a refusal, without the cause where that tells values
            telling = self._telling()
            said = telling(error) if telling else reading_fault(error, data, self.decode)[0]
            raise DecodeError(
                f"Bytes can't be read as {self.name}: {said}.",
                remedy="Mend the contract, or the producer.",
            ) from (None if telling else error)

    def _checked(self, write: _Writer, read: _Reader, looks_lost: _LooksLost | None) -> _Writer:
        def encode(value: Any) -> bytes:
            data = b""
            try:
                data = write(value)
                back = read(data)
                lost = self._lost(value, back) if looks_lost is not None and looks_lost(value, back, data) else ""
            except Exception as error:
                # Whatever a user's own __post_init__ or validator raises is a refusal too.
                said = _writing_fault(error, value)
                if telling := self._telling():
                    place = said.rpartition(" - at ")[2]
                    raise self._refusal(discreet_place(place, telling) if place else telling(error)) from None
                raise self._refusal(said or with_keys(str(error), data, read)) from error
            if lost:
                telling = self._telling()
                raise self._refusal(discreet_place(lost.rpartition(" - at ")[2], telling) if telling else lost)
            return data

        return encode

    def _lost(self, value: Any, back: Any) -> str:
        zoneless = zoneless_in(value) if self._wants_zones else ""
        return zoneless or loss_in(value, back) or (retyped_in(value, back) if _is_pydantic(type(value)) else "")

    def _telling(self) -> Telling | None:
        """How to tell errors without values; None where they may be told."""
        if self._schema is None:
            return None
        try:
            return telling_of(self._schema())
        except ContractError:
            return None  # what has no schema marks nothing

    def _refusal(self, said: str) -> EncodeError:
        return EncodeError(
            f"A {self.name} can't be written: {said}.",
            remedy=f"Give every field of {self.name} a value of its declared type.",
        )


def is_message_class(cls: Any) -> bool:
    """Whether values of `cls` can be messages: a Struct, a dataclass or a pydantic model."""
    return isinstance(cls, type) and (
        issubclass(cls, msgspec.Struct) or dataclasses.is_dataclass(cls) or _is_pydantic(cls)
    )


def _is_pydantic(cls: Any) -> bool:
    """A pydantic model or pydantic's own dataclass, told without importing pydantic."""
    return isinstance(cls, type) and hasattr(cls, "__pydantic_validator__")


def _msgspec(cls: Any, name: str) -> tuple[_Writer, _Reader, _LooksLost | None]:
    # Keyed state may be of a plain type; messages may not (a topic asks `is_message_class`).
    is_plain = cls in _PLAIN or hasattr(cls, "__required_keys__")
    if isinstance(cls, type) and not is_plain and not is_message_class(cls):
        raise ContractError(
            f"{name} is no kind of message that Postline can write.",
            remedy="Make it a msgspec.Struct, a dataclass or a pydantic model.",
        )
    refuse_unsafe_unions(cls, name)
    try:
        decoder = msgspec.json.Decoder(cls)
        nodes = list(types_in(msgspec.inspect.type_info(cls)))
    except NameError as error:
        raise ContractError(
            f"{name} has a field of a type that isn't defined there: {error}.",
            remedy="Define the types of its fields before it, at the top of a module.",
        ) from error
    except TypeError as error:
        raise ContractError(
            f"{name} has a field that JSON can't carry: {error}.", remedy="Use a type that msgspec supports."
        ) from error
    # Classes that msgspec would leave to a hook: without one they fail at the first message.
    foreign = next((each.cls for each in nodes if isinstance(each, msgspec.inspect.CustomType)), None)
    if foreign is not None:
        raise ContractError(
            f"{name} has a field of type {foreign.__qualname__}, which can't be written inside it.",
            remedy="Use a Struct or a dataclass there, or make the whole message a pydantic model.",
        )
    return _ENCODER.encode, finite_reader(cls, decoder.decode), _losing(nodes)


def _losing(nodes: list[msgspec.inspect.Type]) -> _LooksLost | None:
    """For a class with these types in it; None for one that reading back alone is enough for."""
    has_decimals = any(isinstance(each, msgspec.inspect.DecimalType) for each in nodes)
    has_room = any(_has_room(each) for each in nodes)
    if has_decimals and has_room:
        return lambda value, back, data: _ENCODER.encode(back) != data or back != value or _may_be_infinite(data)
    if has_decimals:
        return lambda value, back, data: _ENCODER.encode(back) != data or _may_be_infinite(data)
    return _differs if has_room else None


def _has_room(node: msgspec.inspect.Type) -> bool:
    """Whether it takes what JSON can't have: NaN, where nothing may stand too, or two keys of one text."""
    if isinstance(node, msgspec.inspect.UnionType):
        return node.includes_none and any(isinstance(each, msgspec.inspect.FloatType) for each in node.types)
    return isinstance(node, msgspec.inspect.AnyType | msgspec.inspect.DictType)


def _differs(value: Any, back: Any, data: bytes) -> bool:
    return bool(back != value)


def _may_be_infinite(data: bytes) -> bool:
    """Whether a decimal in it may be no number; text that says so makes for one more look."""
    return b"NaN" in data or b"Infinity" in data


def _has_moments(cls: Any) -> bool:
    """Whether it has times that need a zone, and none that by its own words has none."""
    if _is_pydantic(cls):
        from postline.contracts.resolution_pydantic import parts_of

        zones = [part.get("tz_constraint") for part in parts_of(cls.__pydantic_core_schema__) if _is_datetime(part)]
        return bool(zones) and "naive" not in zones
    nodes = types_in(msgspec.inspect.type_info(cls))
    told = [each.tz for each in nodes if isinstance(each, msgspec.inspect.DateTimeType)]
    return bool(told) and False not in told


def _is_datetime(part: Mapping[str, Any]) -> bool:
    return bool(part["type"] == "datetime")


def _or_zoneless(looks_lost: _LooksLost | None) -> _LooksLost:
    if looks_lost is None:
        return lambda value, back, data: _ZONELESS.search(data) is not None
    return lambda value, back, data: _ZONELESS.search(data) is not None or bool(looks_lost(value, back, data))


def _writing_fault(error: Exception, value: Any) -> str:
    """What is wrong, where the error doesn't say it and the value does; "" for nothing."""
    try:
        if not isinstance(error, UnicodeEncodeError) and "UnicodeEncodeError" not in str(error):
            return no_number_in(value)
        plain = value.model_dump() if hasattr(value, "model_dump") else msgspec.to_builtins(value, str_keys=True)
        return f"{error} - {text_fault(plain)}"
    except Exception:  # noqa: BLE001 - what can't be gone through has no path
        return ""


def _pydantic(cls: Any, name: str) -> tuple[_Writer, _Reader, _LooksLost]:
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
    read = _strictly(without_values(cls.__pydantic_validator__.validate_json))
    return without_values(write), read, lambda value, back, data: back != value or _may_be_infinite(data)


def _strictly(read: _Reader) -> _Reader:
    """As `read`, without the words that pydantic takes for numbers and that JSON doesn't have."""

    def read_json(data: bytes) -> Any:
        if b"NaN" in data or b"Infinity" in data:
            msgspec.json.decode(data)
        return read(data)

    return read_json
