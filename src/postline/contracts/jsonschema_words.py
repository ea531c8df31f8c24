"""What single keywords of JSON Schema say: kinds, limits, formats, titles; and two schemas that both hold."""

from __future__ import annotations

import re
from typing import Any

from postline.contracts.jsonschema_places import wrong
from postline.contracts.schema import NO_LIMITS, TEXT, Limits, Scalar, Type, UnionOf

__all__ = [
    "capital",
    "joined",
    "kind_by_words",
    "limits_of",
    "of_value",
    "range_of",
    "text_of",
    "title_of",
    "united",
]

_ANY = Scalar(kind="any")
_FORMATS: dict[str, Type] = {
    "date": Scalar(kind="date"),
    "time": Scalar(kind="time"),
    "date-time": Scalar(kind="datetime"),
    "duration": Scalar(kind="duration"),
    "uuid": Scalar(kind="uuid"),
    "decimal": Scalar(kind="decimal"),
}
_BY_WORDS = (
    ("object", {"properties", "required", "additionalProperties", "patternProperties", "maxProperties"}),
    ("array", {"items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"}),
    ("string", {"pattern", "minLength", "maxLength", "format", "contentEncoding"}),
    ("number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
)
_NAME_MAX = 100


def title_of(part: Any, otherwise: str) -> str:
    """A name for a type: its title in capitalised words, or a dotted name as it is."""
    title = part.get("title") if isinstance(part, dict) else None
    for said in (title, otherwise):
        if isinstance(said, str) and (name := _name(said)):
            return name
    return "Value"


def _name(said: str) -> str:
    if re.fullmatch(r"[A-Za-z]\w*(\.\w+)+", said, re.ASCII):
        return said[:_NAME_MAX].rstrip("._")
    words = re.findall(r"[A-Za-z0-9]+", said)
    name = "".join(word[:1].upper() + word[1:] for word in words)[:_NAME_MAX]
    return f"Type{name}" if name[:1].isdigit() else name


def capital(word: str) -> str:
    """A name for the type of a property."""
    return _name(word) or "Value"


def kind_by_words(part: dict[str, Any]) -> str:
    """The type that keywords imply where none is said."""
    return next((kind for kind, words in _BY_WORDS if words & part.keys()), "any")


def refuse_misshapen(part: dict[str, Any], at: str) -> None:
    """Raises ContractError for keywords whose value is of a shape that they never have, which would say nothing."""
    for word in ("properties", "patternProperties", "$defs", "definitions"):
        if not isinstance(part.get(word) or {}, dict) or part.get(word) == []:
            raise wrong(at, f"its {word} are no object")
    required = part.get("required") or []
    if not isinstance(required, bool) and not _is_list_of_names(required):
        raise wrong(at, "its required is no list of names")
    for word in ("additionalProperties", "unevaluatedProperties", "additionalItems", "unevaluatedItems"):
        if not isinstance(part.get(word), bool | dict | None):
            raise wrong(at, f"{part[word]!r:.60} is no schema for its {word}")
    if part.get("type") == []:
        raise wrong(at, "it has a list of no types")


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def united(options: list[Type]) -> Type:
    """One of these types: flat, each once; anything if one is anything."""
    flat: dict[Type, None] = {}
    for each in options:
        flat |= dict.fromkeys(each.options if isinstance(each, UnionOf) else (each,))
    if _ANY in flat or not flat:
        return _ANY
    return next(iter(flat)) if len(flat) == 1 else UnionOf(options=tuple(flat))


def of_value(value: Any) -> Type:
    """The type of a constant."""
    match value:
        case None:
            return Scalar(kind="null")
        case bool():
            return Scalar(kind="boolean")
        case int():
            return Scalar(kind="integer")
        case float():
            return Scalar(kind="number")
        case str():
            return TEXT
    return _ANY


def text_of(part: dict[str, Any], at: str) -> Type:
    """The type of a string."""
    if part.get("contentEncoding") == "base64":
        return Scalar(kind="bytes")
    known = _FORMATS.get(str(part.get("format")))
    if known is not None:
        return known
    return Scalar(
        kind="text",
        limits=limits_of(part, at, {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"}),
    )


def range_of(part: dict[str, Any], at: str) -> Limits:
    """The limits of a number."""
    said = dict(part)
    for inclusive, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        # Draft 4 says of the inclusive one that it is exclusive.
        if isinstance(said.get(exclusive), bool) and said.pop(exclusive) and inclusive in said:
            said[exclusive] = said.pop(inclusive)
    names = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
    return limits_of(said, at, names | {"multiple_of": "multipleOf"})


def limits_of(part: dict[str, Any], at: str, names: dict[str, str]) -> Limits:
    """The limits that keywords say, by their names in the model. Raises ContractError for one of a wrong type."""
    said: dict[str, Any] = {}
    for name, word in names.items():
        value = part.get(word)
        if value is None:
            continue
        if not _is_limit(name, value):
            raise wrong(at, f"{word} is {value!r:.60}")
        said[name] = int(value) if name.endswith("length") else value
    return Limits(**said) if said else NO_LIMITS


def _is_limit(name: str, value: Any) -> bool:
    if name == "pattern":
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if name == "multiple_of":
        return value > 0
    return not name.endswith("length") or (value >= 0 and value == int(value))


def joined(one: dict[str, Any], other: dict[str, Any], at: str) -> dict[str, Any]:
    """Two schemas that both hold, as one; of limits that both say, the first stays."""
    made = {**other, **one}
    if "properties" in one and "properties" in other:
        made["properties"] = _joined_properties(one["properties"], other["properties"], at)
    if isinstance(one.get("required"), list) and isinstance(other.get("required"), list):
        made["required"] = [*one["required"], *(each for each in other["required"] if each not in one["required"])]
    return made


def _joined_properties(one: Any, other: Any, at: str) -> dict[str, Any]:
    if not isinstance(one, dict) or not isinstance(other, dict):
        raise wrong(at, "its properties are no object")
    both = {name: {"allOf": [one[name], other[name]]} for name in one.keys() & other.keys() if one[name] != other[name]}
    return {**other, **one, **both}
