"""Documents that refer to others: what they say together, in the type model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from postline.contracts.json_documents import json_document
from postline.contracts.schema import Schema
from postline.errors import ContractError
from postline.registry.model import Document, meaning_of

__all__ = ["meaning_with", "readable", "why_unread"]

_NAMED = {"record", "error", "enum", "fixed"}
_REFERENCES_MAX = 1_000
#: Anybody may have registered anything: a gap in a parser must not keep everybody from reading the registry.
_UNSAID = (ContractError, RecursionError, TypeError, ValueError, LookupError, AttributeError)


def readable(document: Document, referenced: Mapping[str, Document]) -> Schema | None:
    """See `meaning_with`; None for what can't be said in the type model, such as many JSON Schemas of others."""
    try:
        return meaning_with(document, referenced)
    except _UNSAID:
        return None


def why_unread(document: Document, referenced: Mapping[str, Document]) -> Exception | None:
    """Why it is not `readable`; None if it is."""
    try:
        meaning_with(document, referenced)
    except _UNSAID as error:
        return error
    return None


def meaning_with(document: Document, referenced: Mapping[str, Document]) -> Schema:
    """What a document says with those that it refers to, and that they refer to, by the names it has for them.

    Raises ContractError for one that can't be read.
    """
    if not document.references:
        return meaning_of(document)
    if len(referenced) > _REFERENCES_MAX:
        raise ContractError(f"The schema refers to {len(referenced):,} others.", remedy="Split it.")
    match document.schema_type:
        case "PROTOBUF":
            from postline.contracts.protobuf import parse

            return parse(document.text, imports={name: each.text for name, each in referenced.items()}, foreign=True)
        case "AVRO":
            contents = {name: json_document(each.text) for name, each in referenced.items()}
            return _meaning("AVRO", _Inlined(contents).type(json_document(document.text), ""))
        case _:
            contents = {name: json_document(each.text) for name, each in referenced.items()}
            return _meaning("JSON", _bundle(json_document(document.text), contents))


def _meaning(schema_type: Any, content: Any) -> Schema:
    return meaning_of(Document(schema_type, msgspec.json.encode(content).decode()))


class _Inlined:
    """An Avro schema with the types of others in place of the first mention of their names."""

    def __init__(self, others: Mapping[str, Any]) -> None:
        self._others = others
        self._defined: set[str] = set()

    def type(self, part: Any, namespace: str) -> Any:
        """A type, in the namespace around it."""
        match part:
            case str():
                return self._name(part, namespace)
            case list():
                return [self.type(each, namespace) for each in part]
            case {"type": kind, "name": str(name)} if isinstance(kind, str) and kind in _NAMED:
                return self._definition(part, name, namespace)
            case dict():
                inner = {key: self.type(part[key], namespace) for key in ("type", "items", "values") if key in part}
                named = inner.get("type")
                return named if isinstance(named, dict) else {**part, **inner}
        return part

    def _name(self, name: str, namespace: str) -> Any:
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        for known in (full, name):
            if known in self._defined:
                return name
            if (other := self._others.get(known)) is not None:
                # Its own names don't come from the namespace that it is put into.
                return self.type({"namespace": "", **other} if isinstance(other, dict) else other, "")
        return name

    def _definition(self, part: dict[str, Any], name: str, namespace: str) -> dict[str, Any]:
        own = name.rpartition(".")[0] if "." in name else part.get("namespace", namespace)
        self._defined.add(name if "." in name or not own else f"{own}.{name}")
        if not isinstance(fields := part.get("fields"), list):
            return part
        typed = [
            {**field, "type": self.type(field["type"], own)} if isinstance(field, dict) and "type" in field else field
            for field in fields
        ]
        return {**part, "fields": typed}


def _bundle(content: Any, others: Mapping[str, Any]) -> Any:
    """A JSON Schema with others among its definitions, and what refers to them referring there."""
    if not isinstance(content, dict):
        return content
    places = {name: f"#/$defs/other{index}" for index, name in enumerate(others)}
    definitions = {
        places[name].rpartition("/")[2]: _pointed(other, places, places[name]) for name, other in others.items()
    }
    root = _pointed(content, places, "#")
    own = root.get("$defs", {})
    if not isinstance(own, dict):
        raise ContractError("The JSON Schema's $defs are no object.", remedy="Correct it.")
    return {**root, "$defs": {**own, **definitions}}


def _pointed(part: Any, places: Mapping[str, str], here: str) -> Any:
    if isinstance(part, list):
        return [_pointed(each, places, here) for each in part]
    if not isinstance(part, dict):
        return part
    made = {key: _pointed(each, places, here) for key, each in part.items()}
    if isinstance(target := part.get("$ref"), str):
        name, _, inner = target.partition("#")
        made["$ref"] = f"{places.get(name, name or here)}{inner}"
    return made
