"""Values of message classes as Protobuf messages, which are made at run time from the schema, without generated code.

A value goes by way of plain dicts and lists: msgspec or pydantic make and check them, Protobuf's own library writes and
reads them. Bytes are read by the schema that wrote them, and fields go to the reader's by name and alias, so that
numbers need not agree.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from postline.contracts.discretion import Telling, discreet_place, telling_of
from postline.contracts.json_paths import with_keys_of
from postline.contracts.plain_values import PlainValues, plain_values
from postline.contracts.protobuf_faults import fault_in
from postline.contracts.protobuf_layout import GOOGLE, Layout
from postline.contracts.protobuf_reading import record_reader
from postline.contracts.protobuf_writing import RecordWriter
from postline.contracts.pydantic_unions import keeping_types
from postline.contracts.schema import Record, Schema
from postline.errors import ContractError, DecodeError, EncodeError

__all__ = ["codec", "decoder"]

#: What stays as it is between a class and a message; all else becomes text, numbers, lists and dicts.
_NATIVE = (bytes, datetime, timedelta)


def codec(cls: Any, name: str, schema: Schema) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """How values of a class are written and read in one version of its schema; made once, thread-safe.

    The writer raises EncodeError for a value that isn't of the declared types or that its class could not read again,
    the reader DecodeError; both name the field. Raises ContractError for a schema that Protobuf can't say.
    """
    layout = Layout(schema)
    messages, plain = _message_classes(layout), plain_values(cls, _NATIVE)
    decode = _decoder(name, layout, messages, plain, schema)
    return keeping_types(cls, name, schema, _encoder(name, layout, messages, plain), decode), decode


def decoder(cls: Any, name: str, reader: Schema, writer: Schema) -> Callable[[bytes], Any]:
    """What reads bytes of the writer's version as values of the class, whose schema is `reader`. Raises as `codec`."""
    layout = Layout(writer)
    return _decoder(name, layout, _message_classes(layout), plain_values(cls, _NATIVE), reader)


def _encoder(name: str, layout: Layout, messages: Mapping[str, Any], plain: PlainValues) -> Callable[[Any], bytes]:
    writer = RecordWriter(layout.schema, messages)
    dump, load, write = plain.dump, plain.load, writer.root
    message_class = messages[layout.root_name]
    parse = message_class.FromString
    telling = telling_of(layout.schema)

    def encode(value: Any) -> bytes:
        found = None
        try:
            found = dump(value)
            load(found)  # as every format: what is written can be read by its own class
            data: bytes = message_class(**write(found)).SerializeToString(deterministic=True)
            parse(data)
        except Exception as error:  # noqa: BLE001 - whatever a user's own __post_init__ raises is a refusal too
            path = writer.fault_in(found)
            if telling:
                said = _placed(telling, error, path)
            else:
                said = f"{path + ': ' if path else ''}{with_keys_of(str(error), found, load)}"
            raise EncodeError(
                f"A {name} can't be written: {said}.",
                remedy=f"Give every field of {name} a value of its declared type, in the range of its kind.",
            ) from (None if telling else error)
        return data

    return encode


def _decoder(
    name: str, layout: Layout, messages: Mapping[str, Any], plain: PlainValues, reader: Schema
) -> Callable[[bytes], Any]:
    message_class, load = messages[layout.root_name], plain.load
    parse = message_class.FromString
    read = record_reader(reader, layout.schema)
    telling = telling_of(reader, layout.schema)

    def decode(data: bytes) -> Any:
        content = None
        try:
            content = read(parse(data))
            return load(content)
        except Exception as error:  # noqa: BLE001 - becomes a refusal, without the cause where that tells values
            told = telling(error) if telling else with_keys_of(str(error), content, load)
            said = fault_in(message_class.DESCRIPTOR, data) or told
            raise DecodeError(
                f"Bytes can't be read as {name}: {said}.", remedy="Mend the contract, or the producer."
            ) from (None if telling else error)

    return decode


def _placed(telling: Telling, error: Exception, path: str) -> str:
    """An error without values, with the path that is known of it."""
    if path and not hasattr(error, "errors") and not isinstance(error, msgspec.ValidationError):
        return discreet_place(path, telling)
    return telling(error)


def _message_classes(layout: Layout) -> dict[str, Any]:
    """The class of messages for each record by its name in the schema, and for Google's that hold anything."""
    from google.protobuf import descriptor_pool, message_factory  # type: ignore[import-untyped]

    pool = descriptor_pool.DescriptorPool()
    for path in layout.file.dependency:
        module = importlib.import_module(path.replace("/", ".").removesuffix(".proto") + "_pb2")
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    try:
        pool.AddSerializedFile(layout.file.SerializeToString())
    except TypeError as error:
        raise ContractError(
            f"{layout.root} can't be said in Protobuf: {error}.", remedy="Rename what has the same name there."
        ) from error
    names = {name: layout.names[name] for name, part in layout.schema.definitions.items() if isinstance(part, Record)}
    if "google/protobuf/struct.proto" in layout.file.dependency:
        names |= {GOOGLE + name: GOOGLE + name for name in ("Value", "Struct", "ListValue")}
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(full)) for name, full in names.items()}
