"""Schemas as the REST interface has them: how clients post them, which are one, and how they are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from postline.contracts.json_documents import json_document
from postline.contracts.jsonschema_places import WrongJsonSchema
from postline.errors import ContractError
from postline.message import UNREADABLE
from postline.registry.model import Document, Reference, Version, meaning_of
from postline.registry.referencing import why_unread
from postline.registry.rest_protobuf import as_descriptor, as_text, check_protobuf, same_protobuf

__all__ = ["TYPES", "as_posted", "checked", "described", "posted", "same_as"]

#: The schema types there are, by the interface's names.
TYPES = ("JSON", "AVRO", "PROTOBUF")
_DEFAULT_TYPE = "AVRO"
_SIZE_MAX = 1 << 20
_AVRO_NAMES = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}


class _Posted(msgspec.Struct):
    """A schema as clients post it."""

    schema: str
    schemaType: str | None = None  # noqa: N815 - the interface's name
    references: list[Reference] | None = None
    ruleSet: Any = None  # noqa: N815 - the interface's name
    metadata: Any = None


def posted(body: bytes) -> Document:
    """The document in a request's body. Raises ContractError for what is none."""
    if len(body) > _SIZE_MAX:
        # One loop serves everybody, and reading so much holds it for seconds.
        raise ContractError(f"The schema has {len(body):,} bytes, more than {_SIZE_MAX:,}.", remedy="Split it.")
    try:
        content = msgspec.json.decode(body, type=_Posted)
    except UNREADABLE as error:
        raise ContractError(str(error), remedy='Send {"schema": "…", "schemaType": "…"}.') from error
    for name, kept in (("ruleSet", content.ruleSet), ("metadata", content.metadata)):
        if kept:
            raise ContractError(f"This registry keeps no {name} beside a schema.", remedy="Leave it out.")
    kind: Any = content.schemaType or _DEFAULT_TYPE
    if kind not in TYPES:
        raise ContractError(f"There is no schema type {kind!r:.60}.", remedy=f"Use one of {', '.join(TYPES)}.")
    text = content.schema if kind == "PROTOBUF" else _compact(kind, content.schema)
    return Document(kind, text, tuple(content.references or ()))


def checked(document: Document, referenced: Mapping[str, Document]) -> None:
    """Refuse what its own format's rules refuse. Raises ContractError.

    JSON Schemas pass that the type model can't say, such as those that refer to documents elsewhere.
    """
    if document.schema_type == "PROTOBUF":
        check_protobuf(document.text, _texts(referenced))
    elif document.schema_type == "JSON":
        if document.text[:1] not in ("{", "t", "f"):
            raise ContractError("A JSON Schema is an object, or true or false.", remedy="Send one.")
        if isinstance(why := why_unread(document, referenced), WrongJsonSchema):
            raise why
    elif not document.references:
        meaning_of(document)


def same_as(document: Document, versions: Sequence[Version], referenced: Mapping[str, Document]) -> Version | None:
    """The version that is this document, the newest one first: as it is, or written in another way."""
    equal = next((each for each in reversed(versions) if each.document == document), None)
    return equal or next((each for each in reversed(versions) if _same(document, each.document, referenced)), None)


def _same(one: Document, other: Document, referenced: Mapping[str, Document]) -> bool:
    if (one.schema_type, one.references) != (other.schema_type, other.references):
        return False
    if one.schema_type == "PROTOBUF":
        return same_protobuf(one.text, other.text, _texts(referenced))
    return _sorted(one.text) == _sorted(other.text)


def described(document: Document, form: str = "", referenced: Mapping[str, Document] | None = None) -> dict[str, Any]:
    """A document for an answer, in the `form` that was asked for: "serialized" is Protobuf's descriptor."""
    text = document.text
    if document.schema_type == "PROTOBUF":
        text = as_descriptor(text, _texts(referenced or {})) if form == "serialized" else as_text(text)
    return as_posted(msgspec.structs.replace(document, text=text))


def as_posted(document: Document) -> dict[str, Any]:
    """A document for an answer, with its text as it is."""
    kind = {} if document.schema_type == _DEFAULT_TYPE else {"schemaType": document.schema_type}
    references = {"references": document.references} if document.references else {}
    return {"schema": document.text, **kind, **references}


def _texts(documents: Mapping[str, Document]) -> dict[str, str]:
    return {name: each.text for name, each in documents.items()}


def _compact(kind: str, text: str) -> str:
    """JSON without what does not count, so that one schema has one id."""
    if kind == "AVRO" and text.strip() in _AVRO_NAMES - {"null"}:
        return f'"{text.strip()}"'  # a primitive's bare name, as some clients send it
    return msgspec.json.encode(json_document(text)).decode()


def _sorted(text: str) -> bytes:
    try:
        return msgspec.json.encode(msgspec.json.decode(text), order="sorted")
    except UNREADABLE:  # not registered here, where it would have been refused
        return text.encode()
