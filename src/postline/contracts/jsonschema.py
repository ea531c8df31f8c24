"""The type model as JSON Schema 2020-12, and JSON Schemas of others as the type model.

What we write carries the model itself, under `x-postline`, so that reading it back loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from postline.contracts.schema import (
    Definition,
    Enumeration,
    Field,
    Limits,
    ListOf,
    MapOf,
    Reference,
    Scalar,
    Schema,
    TupleOf,
    Type,
    UnionOf,
)
from postline.errors import ContractError

__all__ = ["MODEL", "document", "parse"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: Where the model stands in a document of ours.
MODEL = "x-postline"
_SENSITIVE = "x-sensitive"

_SCALARS: dict[str, dict[str, Any]] = {
    "null": {"type": "null"},
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "decimal": {"type": "string", "format": "decimal"},
    "text": {"type": "string"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "datetime": {"type": "string", "format": "date-time"},
    "duration": {"type": "string", "format": "duration"},
    "uuid": {"type": "string", "format": "uuid"},
    "any": {},
}
_OF_VALUES = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "min_length": "minLength",
    "max_length": "maxLength",
    "pattern": "pattern",
}
_OF_LISTS = {"min_length": "minItems", "max_length": "maxItems"}
_OF_MAPS = {"min_length": "minProperties", "max_length": "maxProperties"}


def document(schema: Schema) -> dict[str, Any]:
    """The schema as a JSON Schema document, with the model in it."""
    definitions = {name: _definition(each) for name, each in schema.definitions.items()}
    return {
        "$schema": _DIALECT,
        **_type(schema.root),
        **({"$defs": definitions} if definitions else {}),
        MODEL: msgspec.to_builtins(schema),
    }


def _type(part: Type) -> dict[str, Any]:
    match part:
        case Scalar():
            return _SCALARS[part.kind] | _limits(part.limits, _OF_VALUES)
        case ListOf():
            unique = {"uniqueItems": True} if part.unique else {}
            return {"type": "array", "items": _type(part.items), **unique, **_limits(part.limits, _OF_LISTS)}
        case TupleOf():
            size = len(part.items)
            return {
                "type": "array",
                "prefixItems": [_type(each) for each in part.items],
                "minItems": size,
                "maxItems": size,
            }
        case MapOf():
            return {"type": "object", "additionalProperties": _type(part.values), **_limits(part.limits, _OF_MAPS)}
        case UnionOf():
            return {"anyOf": [_type(each) for each in part.options]}
        case Reference():
            return {"$ref": f"#/$defs/{part.name}"}


def _limits(limits: Limits, names: Mapping[str, str]) -> dict[str, Any]:
    return {word: value for name, word in names.items() if (value := getattr(limits, name)) is not None}


def _definition(definition: Definition) -> dict[str, Any]:
    if isinstance(definition, Enumeration):
        return {"enum": list(definition.symbols)}
    if definition.positional:
        items = [_type(field.type) for field in definition.fields]
        return {"type": "array", "prefixItems": items, "minItems": sum(field.required for field in definition.fields)}
    properties = {field.name: _property(field) for field in definition.fields}
    required = [field.name for field in definition.fields if field.required]
    if definition.tag_field:
        properties = {definition.tag_field: {"const": definition.tag}, **properties}
        required = [definition.tag_field, *required]
    return {
        "type": "object",
        "title": definition.name,
        "properties": properties,
        **({"required": required} if required else {}),
        **({"additionalProperties": False} if definition.closed else {}),
    }


def _property(field: Field) -> dict[str, Any]:
    default = {} if field.default is msgspec.UNSET else {"default": field.default}
    return {**_type(field.type), **default, **({_SENSITIVE: True} if field.sensitive else {})}


def parse(document: Any) -> Schema:
    """The schema that a document is. Raises ContractError for what the model can't say."""
    if isinstance(document, dict) and MODEL in document:
        try:
            return msgspec.convert(document[MODEL], Schema)
        except msgspec.ValidationError as error:
            raise ContractError(
                f"{MODEL} can't be read: {error}.", remedy="A newer version may have written it."
            ) from error
    from postline.contracts.jsonschema_parsing import parse_foreign

    return parse_foreign(document)
