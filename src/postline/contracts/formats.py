"""The formats that values can be written in: JSON, Avro, Protobuf, each loaded when a topic asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from postline.contracts.json_documents import json_document
from postline.contracts.kinds import Kind
from postline.contracts.schema import Schema
from postline.errors import ContractError, SettingsError
from postline.message import JSON_CONTENT_TYPE

__all__ = [
    "JSON",
    "WHOLE_JSON",
    "Codec",
    "Format",
    "FormatName",
    "SchemaType",
    "format_named",
    "format_of_content",
    "format_of_type",
]

FormatName: TypeAlias = Literal["json", "avro", "protobuf"]

#: What registries call a format.
SchemaType: TypeAlias = Literal["JSON", "AVRO", "PROTOBUF"]


class Codec(NamedTuple):
    """How values of one class become bytes and back."""

    #: Raises EncodeError for a value that isn't of the declared types.
    encode: Callable[[Any], bytes]
    #: Raises what the format's library raises, for hot loops.
    decode: Callable[[bytes], Any]


class Format(Protocol):
    """One way to write values of a schema, and the schema itself."""

    name: FormatName
    schema_type: SchemaType
    content_type: str
    #: Whether every field is written, or has its place, whatever its value.
    whole: bool

    def codec(self, cls: Any, name: str, schema: Callable[[], Schema]) -> Codec:
        """How values of a class are written; `schema` is asked only by formats that need it."""

    def decoder(self, cls: Any, name: str, reader: Schema, writer: Schema) -> Callable[[bytes], Any]:
        """What reads another version's bytes as values of the class; the reader can read them (`compatibility`)."""

    def plain(self, schema: Schema) -> Callable[[bytes], Any]:
        """What reads values as JSON has them, for people; it raises as `Codec.decode` does."""

    def document(self, schema: Schema) -> str:
        """The schema in the format's own words."""

    def parse(self, text: str) -> Schema:
        """The schema of a document. Raises ContractError for what is none, or can't be said in the model."""


class _Json:
    name: FormatName = "json"
    schema_type: SchemaType = "JSON"
    content_type = JSON_CONTENT_TYPE

    def __init__(self, *, whole: bool = False) -> None:
        self.whole = whole

    def codec(self, cls: Any, name: str, schema: Callable[[], Schema]) -> Codec:
        kind = Kind(cls, name=name, schema=schema)
        return Codec(kind.encode, kind.decode)

    def decoder(self, cls: Any, name: str, reader: Schema, writer: Schema) -> Callable[[bytes], Any]:
        from postline.contracts.resolution import needs_resolution, resolver

        if needs_resolution(reader, writer):
            return resolver(cls, name, reader, writer)
        return Kind(cls, name=name).decode

    def plain(self, schema: Schema) -> Callable[[bytes], Any]:
        return msgspec.json.decode

    def document(self, schema: Schema) -> str:
        from postline.contracts.jsonschema import document

        return _text(document(schema))

    def parse(self, text: str) -> Schema:
        from postline.contracts.jsonschema import parse

        return parse(json_document(text))


class _Codecs(Protocol):
    """A module that writes and reads values of a format by their schemas."""

    def codec(self, cls: Any, name: str, schema: Schema) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
        """See `Format.codec`."""

    def decoder(self, cls: Any, name: str, reader: Schema, writer: Schema) -> Callable[[bytes], Any]:
        """See `Format.decoder`."""


class _BySchema:
    """What formats have in common whose values say nothing without their schema."""

    whole = True

    def __init__(self, name: FormatName, schema_type: SchemaType, codecs: Callable[[], _Codecs]) -> None:
        self.name, self.schema_type, self.content_type = name, schema_type, f"application/{name}"
        self._codecs = codecs

    def codec(self, cls: Any, name: str, schema: Callable[[], Schema]) -> Codec:
        return Codec(*self._codecs().codec(cls, name, schema()))

    def decoder(self, cls: Any, name: str, reader: Schema, writer: Schema) -> Callable[[bytes], Any]:
        return self._codecs().decoder(cls, name, reader, writer)

    def plain(self, schema: Schema) -> Callable[[bytes], Any]:
        return self.decoder(Any, _ANY, schema, schema)


class _Avro(_BySchema):
    def document(self, schema: Schema) -> str:
        from postline.contracts.avro import document

        return _text(document(schema))

    def parse(self, text: str) -> Schema:
        from postline.contracts.avro import parse

        return parse(json_document(text))


class _Protobuf(_BySchema):
    def document(self, schema: Schema) -> str:
        from postline.contracts.protobuf import document

        return document(schema)

    def parse(self, text: str) -> Schema:
        from postline.contracts.protobuf import parse

        # Whoever registers one has it already; only own classes can avoid what proto2 requires.
        return parse(text, foreign=True)


def _avro_codecs() -> _Codecs:
    import postline.contracts.avro_codec as codecs

    return codecs


def _protobuf_codecs() -> _Codecs:
    import postline.contracts.protobuf_codec as codecs

    return codecs


#: Stands for the class in errors about values that are read without one.
_ANY = "value"
JSON: Format = _Json()
#: Where every field is written, as in JSON that is made of another format's values.
WHOLE_JSON: Format = _Json(whole=True)
_FORMATS: dict[str, Format] = {
    "json": JSON,
    "avro": _Avro("avro", "AVRO", _avro_codecs),
    "protobuf": _Protobuf("protobuf", "PROTOBUF", _protobuf_codecs),
}


def format_named(name: str) -> Format:
    """The format of that name. Raises SettingsError."""
    if (found := _FORMATS.get(name)) is None:
        raise SettingsError(f"There is no format {name!r}.", remedy=f"Use one of {', '.join(_FORMATS)}.")
    return found


def format_of_type(schema_type: str) -> Format:
    """The format that registries call so. Raises ContractError."""
    for each in _FORMATS.values():
        if each.schema_type == schema_type:
            return each
    raise ContractError(f"There is no schema type {schema_type!r}.", remedy="Use JSON, AVRO or PROTOBUF.")


def format_of_content(content_type: str) -> Format | None:
    """The format that values of a media type are in; None for one that is none of these."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type.endswith("+json"):
        return JSON
    return next((each for each in _FORMATS.values() if each.content_type == media_type), None)


def _text(document: Any) -> str:
    return msgspec.json.encode(document, order="sorted").decode()
