"""What is wrong with an AsyncAPI 3 document in ways that the official parser does not see.

Source: AsyncAPI 3.0.0: "Reference Object", "Operation Reply Object" (a channel's address MUST be null or absent where
the reply has an address), "Multi Format Schema Object"; Avro's own specification.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from postline.errors import ContractError

__all__ = ["problems"]

#: What stands under these words is data, unless the word is a name that somebody gave.
_DATA = frozenset({"examples", "default", "const", "enum"})
#: Under these words stand names.
_NAMED = frozenset(
    {
        *("channels", "messages", "operations", "servers", "schemas", "replies", "replyAddresses", "parameters"),
        *(
            "correlationIds",
            "operationTraits",
            "messageTraits",
            "securitySchemes",
            "serverVariables",
            "variables",
            "tags",
        ),
        *("externalDocs", "serverBindings", "channelBindings", "operationBindings", "messageBindings"),
        *("properties", "patternProperties", "definitions", "$defs", "dependencies"),
    }
)
_MISSING = object()
_HOPS_MAX = 50


def problems(document: Any) -> list[str]:
    """Everything found, in sentences; [] if nothing is.

    References to nothing in the document (other files are not looked for), reply channels with an address of their own
    beside the reply's, and Avro schemas that are none.
    """
    found = [
        f"{at}: {named} is not there." for at, named in _references(document, "#") if _at(document, named) is _MISSING
    ]
    for at, operation in _each(document, "operations"):
        found += _wrong_reply(document, at, operation)
    for at, message in _messages(document):
        found += [f"{at}: {said}" for said in _wrong_avro(document, message)]
    return found


# -- the checks ---------------------------------------------------------------------------------------


def _wrong_reply(document: Any, at: str, operation: Any) -> Iterator[str]:
    reply = _part(document, operation, "reply")
    channel = _part(document, reply, "channel")
    address = channel.get("address") if isinstance(channel, dict) else None
    if isinstance(reply, dict) and reply.get("address") is not None and address is not None:
        yield f"{at}: The reply's address comes from the message, but its channel has one, too: {address!r}."


def _messages(document: Any) -> Iterator[tuple[str, Any]]:
    yield from _each(document, "messages")
    for at, channel in _each(document, "channels"):
        messages = channel.get("messages") if isinstance(channel, dict) else None
        for name, message in messages.items() if isinstance(messages, dict) else ():
            if isinstance(message, dict) and "$ref" not in message:
                yield f"{at}/messages/{name}", message


def _wrong_avro(document: Any, message: Any) -> Iterator[str]:
    from postline.contracts.avro import parse

    for word in ("payload", "headers"):
        part = _part(document, message, word)
        if not isinstance(part, dict) or "avro" not in str(part.get("schemaFormat", "")):
            continue
        schema = _part(document, part, "schema")
        if isinstance(schema, dict) and "$ref" in schema:
            continue  # of another file
        try:
            parse(schema)
        except ContractError as error:
            yield f"The {word}'s Avro schema is none: {error.message}"


# -- finding things -----------------------------------------------------------------------------------


def _each(document: Any, word: str) -> Iterator[tuple[str, Any]]:
    """The operations, messages or channels of a document, its components' among them; with their places."""
    components = document.get("components") if isinstance(document, dict) else None
    for at, holder in (("#", document), ("#/components", components)):
        found = holder.get(word) if isinstance(holder, dict) else None
        for name, each in found.items() if isinstance(found, dict) else ():
            yield f"{at}/{word}/{name}", each


def _part(document: Any, holder: Any, word: str) -> Any:
    """What stands under a word, or what a reference there leads to."""
    part = holder.get(word) if isinstance(holder, dict) else None
    for _ in range(_HOPS_MAX):
        reference = part.get("$ref") if isinstance(part, dict) else None
        if not isinstance(reference, str) or (found := _at(document, reference)) is _MISSING or found is None:
            return part
        part = found
    return None


def _references(part: Any, at: str, *, names: bool = False) -> Iterator[tuple[str, str]]:
    """References with their places; `names` says that the part's keys are names, and no words of AsyncAPI's."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref" and isinstance(value, str):
                yield at, value
            elif names or key not in _DATA:
                yield from _references(value, f"{at}/{key}", names=not names and key in _NAMED)
    elif isinstance(part, list):
        for number, value in enumerate(part):
            yield from _references(value, f"{at}/{number}")


def _at(document: Any, reference: str) -> Any:
    """What a JSON pointer leads to; None for one into another file, _MISSING for nothing. Source: RFC 6901."""
    if not reference.startswith("#"):
        return None
    part = document
    for step in unquote(reference[1:]).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(part, dict):
            part = part.get(name, _MISSING)
        elif isinstance(part, list) and name.isdecimal() and int(name) < len(part):
            part = part[int(name)]
        else:
            return _MISSING
    return part
