"""Values of message classes as Avro, by fastavro.

A value goes by way of plain dicts and lists: msgspec or pydantic make and check them, fastavro writes and reads them.
Bytes are read by the schema that wrote them, and fields go to the reader's by name and alias.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from postline.contracts.avro_guard import Guard
from postline.contracts.avro_layout import Layout
from postline.contracts.avro_reading import reader_of
from postline.contracts.avro_writing import NATIVE, Misfit, writer_of
from postline.contracts.discretion import telling_of
from postline.contracts.json_paths import with_keys_of
from postline.contracts.plain_values import PlainValues, plain_values
from postline.contracts.pydantic_unions import keeping_types
from postline.contracts.schema import Schema
from postline.errors import DecodeError, EncodeError, SettingsError

__all__ = ["codec", "decoder"]


def codec(cls: Any, name: str, schema: Schema) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """How values of a class are written and read in one version of its schema; made once, thread-safe.

    The writer raises EncodeError for a value that isn't of the declared types or that its class could not read again,
    the reader DecodeError; both name the field. Raises ContractError for a schema that Avro can't say.
    """
    layout, plain = Layout(schema), plain_values(cls, NATIVE)
    decode = _decoder(name, layout, plain, schema)
    return keeping_types(cls, name, schema, _encoder(name, layout, plain), decode), decode


def decoder(cls: Any, name: str, reader: Schema, writer: Schema) -> Callable[[bytes], Any]:
    """What reads bytes of the writer's version as values of the class, whose schema is `reader`. Raises as `codec`."""
    return _decoder(name, Layout(writer), plain_values(cls, NATIVE), reader)


def _parsed(layout: Layout) -> Any:
    try:
        from fastavro import parse_schema
    except ImportError as error:
        raise SettingsError("Avro needs fastavro.", remedy="pip install 'postline[avro]'") from error
    return parse_schema(layout.content)


def _encoder(name: str, layout: Layout, plain: PlainValues) -> Callable[[Any], bytes]:
    parsed, guard, write = _parsed(layout), Guard(layout.content), writer_of(layout)
    telling = telling_of(layout.schema)
    from fastavro import schemaless_writer

    def encode(value: Any) -> bytes:
        found = None
        try:
            found = plain.dump(value)
            plain.load(found)  # as every format: what is written can be read by its own class
            file = io.BytesIO()
            schemaless_writer(file, parsed, write(found), strict_allow_default=True)
            data = file.getvalue()
            guard.check(data)
            return data
        except Exception as error:  # noqa: BLE001 - whatever a user's own __post_init__ raises is a refusal too
            said = (_text_fault(found) if isinstance(error, UnicodeEncodeError) else None) or error
            told = telling(said) if telling else with_keys_of(_told(said), found, plain.load)
            raise EncodeError(
                f"A {name} can't be written: {told}.",
                remedy=f"Give every field of {name} a value of its declared type, in the range of its kind.",
            ) from (None if telling else error)

    return encode


def _decoder(name: str, layout: Layout, plain: PlainValues, reader: Schema) -> Callable[[bytes], Any]:
    parsed, guard, read, load = _parsed(layout), Guard(layout.content), reader_of(reader, layout), plain.load
    telling = telling_of(reader, layout.schema)
    from fastavro import schemaless_reader

    def decode(data: bytes) -> Any:
        file, content = io.BytesIO(data), None
        try:
            guard.check(data)
            found = schemaless_reader(file, parsed, None, return_record_name=True)
            if file.read(1):
                raise ValueError("bytes are left over")
            content = read(found)
            return load(content)
        except Exception as error:  # noqa: BLE001 - becomes a DecodeError
            said = error if isinstance(error, Misfit) else guard.fault_in(data) or error
            told = telling(said) if telling else with_keys_of(_told(said), content, load)
            raise DecodeError(
                f"Bytes can't be read as {name}: {told}.",
                remedy="Mend the contract, or the producer.",
            ) from (None if telling else error)

    return decode


def _told(error: Exception) -> str:
    path = f"{error.path}: " if isinstance(error, Misfit) and error.path else ""
    return f"{path}{error}" if str(error) else type(error).__name__


def _text_fault(plain: Any) -> Misfit | None:
    """The first text in a plain value that can't be written as UTF-8."""
    match plain:
        case str():
            try:
                plain.encode()
            except UnicodeEncodeError as error:
                return Misfit(str(error))
        case dict():
            for key, each in plain.items():
                if (fault := _text_fault(key) or _text_fault(each)) is not None:
                    return fault.under(f"{key!r}"[1:-1])
        case list() | tuple():
            for number, each in enumerate(plain):
                if (fault := _text_fault(each)) is not None:
                    return fault.under(f"[{number}]")
    return None
