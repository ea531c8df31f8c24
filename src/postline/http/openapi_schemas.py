"""Contracts as an OpenAPI document has them: each schema among its components, and what a class says of itself."""

from __future__ import annotations

import inspect
from typing import Any

from postline.contracts.jsonschema import MODEL
from postline.contracts.jsonschema import document as json_document
from postline.contracts.reading import Reading

__all__ = ["component", "explained", "placed"]


def explained(cls: Any) -> dict[str, str]:
    """The summary and description of an operation, by the docstring of its class."""
    said = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    first, _, rest = said.partition("\n")
    if not first or first.startswith(f"{cls.__name__}("):
        return {}
    return {"summary": first, **({"description": said} if rest else {})}


def placed(reading: Reading, schemas: dict[str, Any]) -> dict[str, Any]:
    """A schema that refers to what it puts among the document's."""
    content = json_document(reading.schema)
    definitions: dict[str, Any] = content.pop("$defs", {})
    del content["$schema"], content[MODEL]
    names = {
        name: component(reading.name if name == reading.name else f"{reading.name}.{name}") for name in definitions
    }
    for name, part in definitions.items():
        schemas[names[name]] = _referring(part, names)
    return _referring(content, names)


def component(name: str) -> str:
    """A name as components may have it."""
    return "".join(each if each.isascii() and (each.isalnum() or each in "_.-") else "-" for each in name)


def _referring(part: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for word, value in part.items():
        match word, value:
            case "$ref", str():
                made[word] = f"#/components/schemas/{names[value.removeprefix('#/$defs/')]}"
            case "properties", dict():
                made[word] = {name: _referring(each, names) for name, each in value.items()}
            case "items" | "additionalProperties", dict():
                made[word] = _referring(value, names)
            case "anyOf" | "prefixItems", list():
                made[word] = [_referring(each, names) for each in value]
            case _:
                made[word] = value
    return made
