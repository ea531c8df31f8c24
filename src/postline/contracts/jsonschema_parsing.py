"""JSON Schemas of others as the type model: drafts 4 to 2020-12, as far as they say what type a value has.

Source: JSON Schema Core and Validation 2020-12; draft 4's `definitions` and boolean exclusive limits; OpenAPI 3's
`nullable` and `discriminator`. Keywords that only refuse some of a type's values (`not`, `if`, `dependencies`, …) are
left out, and noted: a reader loses nothing by not checking them.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from postline.contracts.fitting import fits
from postline.contracts.jsonschema_places import Places, step, wrong
from postline.contracts.jsonschema_words import (
    capital,
    joined,
    kind_by_words,
    limits_of,
    of_value,
    range_of,
    refuse_misshapen,
    text_of,
    title_of,
    united,
)
from postline.contracts.schema import (
    TEXT,
    Definition,
    Enumeration,
    Field,
    ListOf,
    MapOf,
    Record,
    Reference,
    Scalar,
    Schema,
    TupleOf,
    Type,
)

__all__ = ["ForeignSchema", "parse_foreign", "read_foreign"]

_DEPTH_MAX = 100
#: Types in all; a few lines of references to references can stand for more than any memory holds.
_PARTS_MAX = 200_000
_ANY = Scalar(kind="any")
_NULL = Scalar(kind="null")
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
#: What refuses values of a type without saying another; it is left out with a note.
_REFUSING = ("not", "if", "dependencies", "dependentSchemas", "dependentRequired", "propertyNames", "contains")
_SAYING = frozenset({"$ref", "type", "const", "enum", "allOf", "anyOf", "oneOf", "properties"})


class ForeignSchema(NamedTuple):
    """A schema of others, and what it does not say of their document: a sentence each, beginning with its place."""

    schema: Schema
    notes: tuple[str, ...]


def parse_foreign(document: Any) -> Schema:
    """The schema that a JSON Schema says. Raises ContractError, with a JSON pointer, for what is none or too deep."""
    return read_foreign(document).schema


def read_foreign(document: Any) -> ForeignSchema:
    """As `parse_foreign`, with notes of what was left out."""
    parsing = _Parsing(document)
    try:
        root = parsing.root()
    except RecursionError:
        raise wrong("#", "it nests types too deeply") from None
    schema = Schema(root=root, definitions=dict(sorted(parsing.definitions.items())))
    return ForeignSchema(_with_fitting_defaults(schema, parsing.notes), tuple(dict.fromkeys(parsing.notes)))


def _with_fitting_defaults(schema: Schema, notes: list[str]) -> Schema:
    """Without defaults that are of another type: a reader would hand them on."""
    definitions = dict(schema.definitions)
    for name, found in schema.definitions.items():
        if isinstance(found, Record):
            misfits = [f for f in found.fields if f.default is not UNSET and not fits(schema, f.type, f.default)]
            notes += [f"{name}.{each.name}: its default {each.default!r:.60} is not of its type" for each in misfits]
            fields = tuple(msgspec.structs.replace(f, default=UNSET) if f in misfits else f for f in found.fields)
            definitions[name] = msgspec.structs.replace(found, fields=fields)
    return Schema(root=schema.root, definitions=definitions)


class _Waiting(NamedTuple):
    """An object whose record has a name and gets its fields later, so that it may contain itself."""

    part: dict[str, Any]
    at: str
    name: str
    depth: int


class _Parsing:
    """One document; each object of it that has properties becomes one definition."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._places = Places(document)
        self.definitions: dict[str, Definition] = {}
        self.notes: list[str] = []
        self._enumerations: dict[tuple[str, tuple[str | int, ...]], str] = {}
        #: The last number behind each name.
        self._used: dict[str, int] = {}
        #: What each pointer became, and how many types that takes.
        self._at: dict[str, tuple[Type, int]] = {}
        #: References being followed, with the lists and maps around them.
        self._under_way: dict[str, int] = {}
        self._inside = 0
        self._parts = 0
        self._waiting: deque[_Waiting] = deque()

    def root(self) -> Type:
        """The type of the whole document; all definitions are complete after it."""
        root = self.type(self._document, "#", title_of(self._document, "Value"), 0)
        while self._waiting:
            self._fill(self._waiting.popleft())
        return root

    def type(self, part: Any, at: str, name: str, depth: int) -> Type:
        """The type at a pointer; `name` is for the definition that it may become."""
        if at in self._at:
            return self._again(at)
        before = self._parts
        self._count(at)
        if depth > _DEPTH_MAX:
            raise wrong(at, f"it nests types deeper than {_DEPTH_MAX}")
        found = self._read(part, at, name, depth)
        if isinstance(part, dict) and part.get("nullable") is True:
            found = united([found, _NULL])
        self._at[at] = found, self._parts - before
        return found

    def _again(self, at: str) -> Type:
        found, parts = self._at[at]
        self._count(at, parts)
        return found

    def _count(self, at: str, parts: int = 1) -> None:
        self._parts += parts
        if self._parts > _PARTS_MAX:
            raise wrong(at, f"it stands for more than {_PARTS_MAX:,} types")

    def _read(self, part: Any, at: str, name: str, depth: int) -> Type:
        if part is True or part == {}:
            return _ANY
        if not isinstance(part, dict):
            raise wrong(at, f"{part!r:.60} is no schema")
        self.notes += [f"{at}: {word} is not checked" for word in _REFUSING if word in part]
        if "$ref" in part:
            return self._referred(part["$ref"], at, depth)
        refuse_misshapen(part, at)
        if "allOf" in part:
            return self._all_of(part, at, name, depth)
        if "const" in part or "enum" in part:
            return self._symbols([part["const"]] if "const" in part else part["enum"], at, title_of(part, name))
        for word in ("oneOf", "anyOf"):
            if word in part:
                if not part.get("properties"):
                    return self._union(part, word, at, name, depth)
                self.notes.append(f"{at}: {word} beside properties is not read")
        kinds = part.get("type") or kind_by_words(part)
        if isinstance(kinds, list):
            return united([self._of_kind(kind, part, at, name, depth) for kind in kinds])
        return self._of_kind(kinds, part, at, name, depth)

    def _of_kind(self, kind: Any, part: dict[str, Any], at: str, name: str, depth: int) -> Type:
        match kind:
            case "object":
                return self._object(part, at, name, depth)
            case "array":
                return self._array(part, at, name, depth)
            case "string":
                return text_of(part, at)
            case "integer" | "number":
                return Scalar(kind=kind, limits=range_of(part, at))
            case "boolean" | "null":
                return Scalar(kind=kind)
            case "any" | None:
                return _ANY
        raise wrong(at, f"there is no type {kind!r:.60}; JSON Schema has {', '.join(_TYPES)}")

    # -- references ---------------------------------------------------------------------------

    def _referred(self, reference: Any, at: str, depth: int) -> Type:
        part, pointer = self._places.found(reference, at)
        if pointer in self._under_way:
            if self._under_way[pointer] == self._inside:
                raise wrong(at, f"{reference} refers to itself and never says a type")
            self.notes.append(f"{at}: a list or map that contains itself is read as anything there")
            return _ANY
        self._under_way[pointer] = self._inside
        last = pointer.rpartition("/")[2].removesuffix(".json").removesuffix(".schema")
        name = title_of(part, capital(last) if last != "#" else title_of(self._document, "Value"))
        found = self.type(part, pointer, name, depth + 1)
        del self._under_way[pointer]
        return found

    def _settled(self, part: Any, at: str, depth: int) -> tuple[Any, str]:
        """What a schema says once its references are followed and its `allOf` is joined; with its pointer."""
        seen: set[str] = set()
        while isinstance(part, dict) and "$ref" in part:
            part, at = self._places.found(part["$ref"], at)
            self._count(at)
            if at in seen:
                raise wrong(at, "it refers to itself and never says a type")
            seen.add(at)
        if isinstance(part, dict) and "allOf" in part:
            return self._merged(part, at, depth + 1), at
        return part, at

    # -- objects ------------------------------------------------------------------------------

    def _object(self, part: dict[str, Any], at: str, name: str, depth: int) -> Type:
        more = part.get("additionalProperties", part.get("unevaluatedProperties", True))
        patterns = part.get("patternProperties")
        if more is False and isinstance(patterns, dict) and len(patterns) == 1:
            more = next(iter(patterns.values()))
        if at == "#" or part.get("properties") or more is False:
            return self._record(part, at, name, depth)
        if patterns and more is True:
            self.notes.append(f"{at}: patternProperties is not read")
        limits = limits_of(part, at, {"min_length": "minProperties", "max_length": "maxProperties"})
        values = _ANY if more is True else self._within(more, f"{at}/additionalProperties", f"{name}Value", depth)
        return MapOf(keys=TEXT, values=values, limits=limits)

    def _record(
        self, part: dict[str, Any], at: str, name: str, depth: int, tag: tuple[str, str | int] | None = None
    ) -> Type:
        free = self._free(title_of(part, name))
        tag_field, value = tag or ("", "")
        self.definitions[free] = Record(name=free, tag_field=tag_field, tag=value)
        self._waiting.append(_Waiting(part, at, free, depth))
        return Reference(name=free)

    def _fill(self, waiting: _Waiting) -> None:
        part, at, name, depth = waiting
        properties, required = part.get("properties") or {}, part.get("required") or []
        if isinstance(required, bool):  # draft 3 said it of the property
            required = []
        known = self.definitions[name]
        assert isinstance(known, Record)
        fields = [
            self._field(key, each, f"{at}/properties/{step(key)}", key in required, depth)
            for key, each in properties.items()
            if each is not False and key != known.tag_field
        ]
        absent = [key for key in required if isinstance(key, str) and key not in properties]
        fields += [Field(name=key, type=_ANY) for key in dict.fromkeys(absent) if key != known.tag_field]
        more = part.get("additionalProperties", part.get("unevaluatedProperties"))
        if (isinstance(more, dict) and more) or part.get("patternProperties"):
            self.notes.append(f"{at}: types of further properties are not read")
        closed = more is False and not part.get("patternProperties")
        self.definitions[name] = msgspec.structs.replace(known, fields=tuple(fields), closed=closed)

    def _field(self, key: str, part: Any, at: str, required: bool, depth: int) -> Field:
        inner = self.type(part, at, capital(key), depth + 1)
        said = part if isinstance(part, dict) else {}
        return Field(
            name=key,
            type=inner,
            required=required,
            default=UNSET if required else said.get("default", UNSET),
            sensitive=said.get("x-sensitive") is True,
        )

    def _all_of(self, part: dict[str, Any], at: str, name: str, depth: int) -> Type:
        parts = part["allOf"]
        if not isinstance(parts, list) or not parts:
            raise wrong(at, "its allOf is no list of schemas")
        if len(parts) == 1 and not _SAYING & part.keys() - {"allOf", "type"}:
            # Often written around a reference, to describe it; it stays the same definition.
            return self.type(parts[0], f"{at}/allOf/0", name, depth + 1)
        return self._read(self._merged(part, at, depth), at, name, depth)

    def _merged(self, part: dict[str, Any], at: str, depth: int) -> dict[str, Any]:
        """The parts of an `allOf` as one schema: properties and requirements of all."""
        if depth > _DEPTH_MAX:
            raise wrong(at, f"it nests types deeper than {_DEPTH_MAX}")
        if not isinstance(part["allOf"], list):
            raise wrong(at, "its allOf is no list of schemas")
        merged = {key: value for key, value in part.items() if key != "allOf"}
        for number, each in enumerate(part["allOf"]):
            self._count(at)
            found, _ = self._settled(each, f"{at}/allOf/{number}", depth)
            merged = joined(merged, found, at) if isinstance(found, dict) else merged
        return merged

    # -- others -------------------------------------------------------------------------------

    def _within(self, part: Any, at: str, name: str, depth: int) -> Type:
        """A type in a list or a map, which may contain itself: the recursion ends with an empty one."""
        self._inside += 1
        found = self.type(part, at, name, depth + 1)
        self._inside -= 1
        return found

    def _array(self, part: dict[str, Any], at: str, name: str, depth: int) -> Type:
        items = part.get("items", True)
        listed = part.get("prefixItems", items if isinstance(items, list) else None)
        limits = limits_of(part, at, {"min_length": "minItems", "max_length": "maxItems"})
        unique = part.get("uniqueItems") is True
        if listed is None:
            inner = _ANY if items is False else self._within(items, f"{at}/items", f"{name}Item", depth)
            return ListOf(items=inner, limits=limits, unique=unique)
        if not isinstance(listed, list):
            raise wrong(at, "its prefixItems are no list of schemas")
        places = f"{at}/{'prefixItems' if 'prefixItems' in part else 'items'}"
        each = [self._within(item, f"{places}/{n}", f"{name}{n + 1}", depth) for n, item in enumerate(listed)]
        further = part.get("additionalItems", True) if isinstance(items, list) else items
        most = len(listed) if further is False else limits.max_length
        if each and limits.min_length == len(listed) == most:
            return TupleOf(items=tuple(each))
        inner = united(each) if each and most is not None and most <= len(listed) else _ANY
        return ListOf(items=inner, limits=limits, unique=unique)

    def _symbols(self, values: Any, at: str, name: str) -> Type:
        if not isinstance(values, list) or not values:
            raise wrong(at, "its enum is no list of values")
        plain = [each for each in values if each is not None]
        if not all(isinstance(each, str | int) and not isinstance(each, bool) for each in plain):
            return united([of_value(each) for each in values])
        options: list[Type] = []
        if plain:
            symbols = tuple(dict.fromkeys(plain))
            free = self._free(name, symbols)
            self.definitions[free] = Enumeration(name=free, symbols=symbols)
            options.append(Reference(name=free))
        return united([*options, *([_NULL] if None in values else [])])

    def _free(self, name: str, symbols: tuple[str | int, ...] = ()) -> str:
        """A name that no other definition has, unless that is an enumeration of the same symbols."""
        if symbols and (known := self._enumerations.get((name, symbols))) is not None:
            return known
        free, number = name, self._used.get(name, 1)
        while free in self.definitions:
            number += 1
            free = f"{name}{number}"
        self._used[name] = number
        if symbols:
            self._enumerations[name, symbols] = free
        return free

    # -- unions -------------------------------------------------------------------------------

    def _union(self, part: dict[str, Any], word: str, at: str, name: str, depth: int) -> Type:
        parts = part[word]
        if not isinstance(parts, list) or not parts:
            raise wrong(f"{at}/{word}", "it is no list of alternatives")
        places = [f"{at}/{word}/{n}" for n in range(len(parts))]
        if isinstance(kind := part.get("type"), str):
            # A type said once for all alternatives.
            parts = [
                {**each, "type": kind} if isinstance(each, dict) and not _SAYING & each.keys() else each
                for each in parts
            ]
        tags = self._tags(part, parts, places, depth)
        options: list[Type] = []
        for number, (each, here) in enumerate(zip(parts, places, strict=True)):
            if number in tags:
                options.append(self._tagged(each, here, name, depth, tags[number]))
            elif each is not False:
                options.append(self.type(each, here, name, depth + 1))
        return united(options) if options else _ANY

    def _tagged(self, part: Any, at: str, name: str, depth: int, tag: tuple[str, str | int]) -> Type:
        """A record with a tag; one that a reference names is read once for each tag."""
        settled, place = self._settled(part, at, depth)
        key = f"{place} {tag}"
        if key in self._at:
            return self._again(key)
        last = place.rpartition("/")[2]
        made = self._record(settled, place, capital(f"{tag[1]}") if last.isdigit() else capital(last), depth + 1, tag)
        self._at[key] = made, 1
        return made

    def _tags(
        self, part: dict[str, Any], parts: list[Any], places: list[str], depth: int
    ) -> dict[int, tuple[str, str | int]]:
        """Tag field and tag of the alternatives that are objects, if each has its own constant in the same property."""
        settled = [self._settled(each, at, depth)[0] for each, at in zip(parts, places, strict=True)]
        objects = {n: each for n, each in enumerate(settled) if isinstance(each, dict) and each.get("properties")}
        if len(objects) < 2:
            return {}
        said = part.get("discriminator")
        said = said.get("propertyName") if isinstance(said, dict) else said
        for name in [said] if isinstance(said, str) else next(iter(objects.values()))["properties"]:
            tags = {n: _constant(each["properties"], name) for n, each in objects.items()}
            kinds = {type(tag) for tag in tags.values()}
            if len(kinds) == 1 and kinds <= {str, int} and len(set(tags.values())) == len(tags):
                return {n: (name, tag) for n, tag in tags.items() if tag is not None}
        return {}


def _constant(properties: Any, name: str) -> str | int | None:
    """The one value that a property may have."""
    part = properties.get(name) if isinstance(properties, dict) else None
    if not isinstance(part, dict):
        return None
    values = [part["const"]] if "const" in part else part.get("enum")
    value = values[0] if isinstance(values, list) and len(values) == 1 else None
    return value if isinstance(value, str | int) and not isinstance(value, bool) else None
