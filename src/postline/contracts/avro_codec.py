"""Values of message classes as Avro, by fastavro.

A value goes by way of plain dicts and lists: msgspec or pydantic make and check them, fastavro writes and reads them.
Bytes are read by the schema that wrote them, and fields go to the reader's by name and alias.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from postline.contracts.avro_layout import Layout
from postline.contracts.avro_reading import reader_of
from postline.contracts.avro_writing import NATIVE, Misfit, writer_of
from postline.contracts.plain_values import PlainValues, plain_values
from postline.contracts.schema import Schema
from postline.errors import DecodeError, EncodeError, SettingsError

__all__ = ["codec", "decoder"]


def codec(cls: Any, name: str, schema: Schema) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """How values of a class are written and read in one version of its schema; made once, thread-safe.

    The writer raises EncodeError for a value that isn't of the declared types or that its class could not read again,
    the reader DecodeError; both name the field. Raises ContractError for a schema that Avro can't say.
    """
    layout, plain = Layout(schema), plain_values(cls, NATIVE)
    return _encoder(name, layout, plain), _decoder(name, layout, plain, schema)


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
    parsed, write = _parsed(layout), writer_of(layout)
    from fastavro import schemaless_writer

    def encode(value: Any) -> bytes:
        try:
            found = plain.dump(value)
            plain.load(found)  # as every format: what is written can be read by its own class
            file = io.BytesIO()
            schemaless_writer(file, parsed, write(found), strict_allow_default=True)
            return file.getvalue()
        except Exception as error:
            # Whatever a user's own __post_init__ or validator raises is a refusal too.
            path = f"{error.path}: " if isinstance(error, Misfit) and error.path else ""
            raise EncodeError(
                f"A {name} can't be written: {path}{error}.",
                remedy=f"Give every field of {name} a value of its declared type, in the range of its kind.",
            ) from error

    return encode


def _decoder(name: str, layout: Layout, plain: PlainValues, reader: Schema) -> Callable[[bytes], Any]:
    parsed, read, load = _parsed(layout), reader_of(reader, layout), plain.load
    from fastavro import schemaless_reader

    def decode(data: bytes) -> Any:
        file = io.BytesIO(data)
        try:
            found = schemaless_reader(file, parsed, None, return_record_name=True)
            if file.read(1):
                raise ValueError("bytes are left over")
            return load(read(found))
        except Exception as error:
            said = str(error) or type(error).__name__
            raise DecodeError(
                f"Bytes can't be read as {name}: {said}.", remedy="Mend the contract, or the producer."
            ) from error

    return decode
