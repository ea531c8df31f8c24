"""Contracts as an OpenAPI document has them: each schema among its components, and what a class says of itself."""

from __future__ import annotations

import inspect
from typing import Any

from postline.contracts.jsonschema import MODEL
from postline.contracts.jsonschema import document as json_document
from postline.contracts.jsonschema_components import component, referring
from postline.contracts.reading import Reading

__all__ = ["explained", "placed"]


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
        schemas[names[name]] = referring(part, names)
    return referring(content, names)
