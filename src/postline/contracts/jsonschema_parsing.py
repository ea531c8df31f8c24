"""JSON Schemas of others as the type model: drafts 4 to 2020-12, as far as they say what type a value has.

Source: JSON Schema Core and Validation 2020-12; draft 4's `definitions` and boolean exclusive limits. Keywords that
only refuse some of a type's values (`not`, `if`, `dependencies`, …) are left out: a reader loses nothing by not
checking them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from msgspec import UNSET

from postline.contracts.schema import (
    NO_LIMITS,
    TEXT,
    Definition,
    Enumeration,
    Field,
    Limits,
    ListOf,
    MapOf,
    Record,
    Reference,
    Scalar,
    Schema,
    TupleOf,
    Type,
    UnionOf,
)
from postline.errors import ContractError

__all__ = ["parse_foreign"]

_DEPTH_MAX = 100
_ANY = Scalar(kind="any")
_NULL = Scalar(kind="null")
_FORMATS: dict[str, Type] = {
    "date": Scalar(kind="date"),
    "time": Scalar(kind="time"),
    "date-time": Scalar(kind="datetime"),
    "duration": Scalar(kind="duration"),
    "uuid": Scalar(kind="uuid"),
    "decimal": Scalar(kind="decimal"),
}
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_OF_OBJECTS = frozenset({"properties", "required", "additionalProperties", "patternProperties", "maxProperties"})
_OF_ARRAYS = frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"})
_OF_TEXT = frozenset({"pattern", "minLength", "maxLength", "format", "contentEncoding"})
_OF_NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})


def parse_foreign(document: Any) -> Schema:
    """The schema that a JSON Schema says. Raises ContractError, with a JSON pointer, for what is none or too deep."""
    parsing = _Parsing(document)
    root = parsing.type(document, "#", _title(document, "Value"), 0)
    return Schema(root=root, definitions=dict(sorted(parsing.definitions.items())))


class _Parsing:
    """One document; each object of it that is referred to, or has a name, becomes one definition."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self.definitions: dict[str, Definition] = {}
        #: What each pointer that a `$ref` named has become.
        self._at: dict[str, Type] = {}
        self._under_way: set[str] = set()

    def type(self, part: Any, at: str, name: str, depth: int) -> Type:
        """The type at a pointer; `name` is for the definition that it may become."""
        if depth > _DEPTH_MAX:
            raise _wrong(at, f"it nests types deeper than {_DEPTH_MAX}")
        if part is True or part == {}:
            return _ANY
        if not isinstance(part, dict):
            raise _wrong(at, f"{part!r:.60} is no schema")
        if "$ref" in part:
            return self._referred(part["$ref"], at, depth)
        if "allOf" in part:
            return self.type(self._merged(part, at, depth), at, name, depth + 1)
        if "const" in part or "enum" in part:
            return self._symbols([part["const"]] if "const" in part else part["enum"], at, name)
        for word in ("oneOf", "anyOf"):
            if word in part and not _OF_OBJECTS & part.keys() - {"required"}:
                return self._union(part[word], f"{at}/{word}", name, depth)
        kinds = part.get("type")
        if isinstance(kinds, list):
            each = [self._of_kind(kind, part, at, name, depth) for kind in kinds]
            return _united(each)
        return self._of_kind(kinds or _kind_by_words(part), part, at, name, depth)

    def _of_kind(self, kind: Any, part: dict[str, Any], at: str, name: str, depth: int) -> Type:
        match kind:
            case "object":
                return self._object(part, at, name, depth)
            case "array":
                return self._array(part, at, name, depth)
            case "string":
                return _text(part, at)
            case "integer" | "number":
                return Scalar(kind=kind, limits=_number_limits(part, at))
            case "boolean" | "null":
                return Scalar(kind=kind)
            case "any" | None:
                return _ANY
        raise _wrong(at, f"there is no type {kind!r}; JSON Schema has {', '.join(_TYPES)}")

    # -- references ---------------------------------------------------------------------------

    def _referred(self, reference: Any, at: str, depth: int) -> Type:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise _wrong(at, f"it refers to another document, {reference!r}; put that one into this")
        if (known := self._at.get(reference)) is not None:
            return known
        if reference in self._under_way:
            raise _wrong(at, f"{reference} refers to itself and never says a type")
        part = self._found(reference, at)
        name = _title(part, reference.rpartition("/")[2] or _title(self._document, "Value"))
        if isinstance(part, dict) and (part.get("type") == "object" or "properties" in part):
            # Known before it is read, since it may contain itself.
            self._at[reference] = Reference(name=self._free(name))
            made = self._record(part, reference, self._at[reference].name, depth)  # type: ignore[union-attr]
            if not isinstance(made, Reference):
                self._at[reference] = made
            return self._at[reference]
        self._under_way.add(reference)
        self._at[reference] = self.type(part, reference, name, depth + 1)
        self._under_way.discard(reference)
        return self._at[reference]

    def _found(self, reference: str, at: str) -> Any:
        part = self._document
        for step in reference.removeprefix("#").split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            try:
                part = part[int(key)] if isinstance(part, list) else part[key]
            except (KeyError, IndexError, ValueError, TypeError):
                raise _wrong(at, f"{reference} is not there") from None
        return part

    def _free(self, name: str) -> str:
        free = next(each for each in (name, *(f"{name}{n}" for n in range(2, 10_000))) if each not in self.definitions)
        self.definitions[free] = Record(name=free)
        return free

    # -- objects ------------------------------------------------------------------------------

    def _object(self, part: dict[str, Any], at: str, name: str, depth: int) -> Type:
        if at == "#" or part.get("properties"):
            return self._record(part, at, self._free(_title(part, name)), depth)
        more = part.get("additionalProperties", True)
        patterns = part.get("patternProperties")
        if isinstance(patterns, dict) and len(patterns) == 1 and more is False:
            more = next(iter(patterns.values()))
        if more is False:
            return self._record(part, at, self._free(_title(part, name)), depth)
        values = _ANY if more is True else self.type(more, f"{at}/additionalProperties", f"{name}Value", depth + 1)
        limits = _limits(part, at, {"min_length": "minProperties", "max_length": "maxProperties"})
        return MapOf(keys=TEXT, values=values, limits=limits)

    def _record(self, part: dict[str, Any], at: str, name: str, depth: int) -> Type:
        properties, required = part.get("properties") or {}, part.get("required") or []
        if not isinstance(properties, dict):
            raise _wrong(at, "its properties are no object")
        if isinstance(required, bool):  # draft 3 said it of the property
            required = []
        fields = [
            self._field(key, each, f"{at}/properties/{key}", key in required, depth) for key, each in properties.items()
        ]
        fields += [Field(name=key, type=_ANY) for key in required if key not in properties]
        closed = part.get("additionalProperties") is False
        self.definitions[name] = Record(name=name, fields=tuple(fields), closed=closed)
        return Reference(name=name)

    def _field(self, key: str, part: Any, at: str, required: bool, depth: int) -> Field:
        inner = self.type(part, at, _capital(key), depth + 1)
        said = part if isinstance(part, dict) else {}
        return Field(
            name=key,
            type=inner,
            required=required,
            default=UNSET if required else said.get("default", UNSET),
            sensitive=said.get("x-sensitive") is True,
        )

    def _merged(self, part: dict[str, Any], at: str, depth: int) -> dict[str, Any]:
        """The parts of an `allOf` as one schema: properties and requirements of all."""
        merged = {key: value for key, value in part.items() if key != "allOf"}
        for number, each in enumerate(part["allOf"]):
            found, here = each, f"{at}/allOf/{number}"
            for _ in range(_DEPTH_MAX):
                if not isinstance(found, dict) or "$ref" not in found:
                    break
                if not str(found["$ref"]).startswith("#"):
                    raise _wrong(here, f"it refers to another document, {found['$ref']!r}; put that one into this")
                found = self._found(found["$ref"], here)
            if not isinstance(found, dict):
                continue
            if "$ref" in found:
                raise _wrong(here, "its references never say a type")
            if "allOf" in found:
                if depth > _DEPTH_MAX:
                    raise _wrong(here, f"it nests types deeper than {_DEPTH_MAX}")
                found = self._merged(found, here, depth + 1)
            merged = _joined(merged, found)
        return merged

    # -- others -------------------------------------------------------------------------------

    def _array(self, part: dict[str, Any], at: str, name: str, depth: int) -> Type:
        items = part.get("items", True)
        listed = part.get("prefixItems", items if isinstance(items, list) else None)
        if listed and (part.get("maxItems") == len(listed) == part.get("minItems")):
            each = [self.type(item, f"{at}/{n}", f"{name}{n + 1}", depth + 1) for n, item in enumerate(listed)]
            return TupleOf(items=tuple(each))
        inner = _ANY if listed or items is True else self.type(items, f"{at}/items", f"{name}Item", depth + 1)
        limits = _limits(part, at, {"min_length": "minItems", "max_length": "maxItems"})
        return ListOf(items=inner, limits=limits, unique=part.get("uniqueItems") is True)

    def _symbols(self, values: Any, at: str, name: str) -> Type:
        if not isinstance(values, list) or not values:
            raise _wrong(at, "its enum is no list of values")
        plain = [each for each in values if each is not None]
        if not all(isinstance(each, str | int) and not isinstance(each, bool) for each in plain):
            return _united([_of_value(each) for each in values])
        options: list[Type] = []
        if plain:
            free = self._free(name)
            self.definitions[free] = Enumeration(name=free, symbols=tuple(dict.fromkeys(plain)))
            options.append(Reference(name=free))
        return _united([*options, *([_NULL] if None in values else [])])

    def _union(self, parts: Any, at: str, name: str, depth: int) -> Type:
        if not isinstance(parts, list) or not parts:
            raise _wrong(at, "it is no list of alternatives")
        return _united([self.type(each, f"{at}/{n}", name, depth + 1) for n, each in enumerate(parts)])


def _wrong(at: str, said: str) -> ContractError:
    return ContractError(f"The JSON Schema can't be read: {at}: {said}.", remedy="Correct it, or declare a class.")


def _title(part: Any, otherwise: str) -> str:
    """A name for a type."""
    title = part.get("title") if isinstance(part, dict) else None
    words = re.findall(r"[A-Za-z0-9_.]+", title if isinstance(title, str) else otherwise)
    name = "".join(_capital(word) for word in words)[:100]
    return name if name and not name[0].isdigit() else f"Type{name}"


def _capital(word: str) -> str:
    parts = [each for each in re.split(r"[^A-Za-z0-9]+", word) if each] if "." not in word else [word]
    return "".join(each[:1].upper() + each[1:] for each in parts) or "Value"


def _kind_by_words(part: dict[str, Any]) -> str:
    """The type that keywords imply where none is said."""
    for kind, words in (("object", _OF_OBJECTS), ("array", _OF_ARRAYS), ("string", _OF_TEXT), ("number", _OF_NUMBERS)):
        if words & part.keys():
            return kind
    return "any"


def _united(options: list[Type]) -> Type:
    flat: list[Type] = []
    for each in options:
        for option in each.options if isinstance(each, UnionOf) else (each,):
            if option not in flat:
                flat.append(option)
    if _ANY in flat:
        return _ANY
    return flat[0] if len(flat) == 1 else UnionOf(options=tuple(flat))


def _of_value(value: Any) -> Type:
    match value:
        case None:
            return _NULL
        case bool():
            return Scalar(kind="boolean")
        case int():
            return Scalar(kind="integer")
        case float():
            return Scalar(kind="number")
        case str():
            return TEXT
    return _ANY


def _text(part: dict[str, Any], at: str) -> Type:
    if part.get("contentEncoding") == "base64":
        return Scalar(kind="bytes")
    known = _FORMATS.get(str(part.get("format")))
    if known is not None:
        return known
    names = {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"}
    return Scalar(kind="text", limits=_limits(part, at, names))


def _number_limits(part: dict[str, Any], at: str) -> Limits:
    names = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
    said = dict(part)
    for inclusive, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        # Draft 4 says of the inclusive one that it is exclusive.
        if isinstance(said.get(exclusive), bool) and said.pop(exclusive) and inclusive in said:
            said[exclusive] = said.pop(inclusive)
    return _limits(said, at, names | {"multiple_of": "multipleOf"})


def _limits(part: dict[str, Any], at: str, names: dict[str, str]) -> Limits:
    said = {name: part[word] for name, word in names.items() if part.get(word) is not None}
    for name, value in said.items():
        wanted: Any = str if name == "pattern" else (int | float)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise _wrong(at, f"{names[name]} is {value!r:.60}")
    return Limits(**said) if said else NO_LIMITS


def _joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two schemas that both hold."""
    joined = {**other, **one}
    for word, value in _both(one, other):
        if word == "properties" and isinstance(value, dict):
            joined[word] = {**value, **one[word]}
        elif word == "required" and isinstance(value, list):
            joined[word] = [*one[word], *(each for each in value if each not in one[word])]
    return joined


def _both(one: dict[str, Any], other: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((word, other[word]) for word in one.keys() & other.keys())
