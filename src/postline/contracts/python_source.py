"""Typed Python for schemas: the classes that somebody writes by hand otherwise."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import UNSET

from postline.contracts.schema import (
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

__all__ = ["source_of"]

_SCALARS: dict[str, str] = {
    "null": "None",
    "boolean": "bool",
    "integer": "int",
    "number": "float",
    "decimal": "decimal.Decimal",
    "text": "str",
    "bytes": "bytes",
    "date": "datetime.date",
    "time": "datetime.time",
    "datetime": "datetime.datetime",
    "duration": "datetime.timedelta",
    "uuid": "uuid.UUID",
    "any": "Any",
}
#: How msgspec tells the alternatives of a union apart: at most one of each.
_SHAPES: dict[str, str] = {
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
}
_IMPORTS = (
    ("datetime.", "import datetime"),
    ("decimal.", "import decimal"),
    ("enum.", "import enum"),
    ("uuid.", "import uuid"),
)
_TYPING = ("Annotated", "Any")
_MSGSPEC = ("Meta", "Struct", "convert", "field")
_MARKS = ("Schemas", "Sensitive", "number", "was")
_RESERVED = frozenset({"Annotated", "Any", "ForeignTopic", "Meta", "Schemas", "Sensitive", "Struct", "Topic", "topic"})
#: Names in annotations: msgspec looks for them in the class first.
_SHADOWED = frozenset(
    {
        "bool",
        "bytes",
        "datetime",
        "decimal",
        "dict",
        "enum",
        "float",
        "int",
        "list",
        "mro",
        "set",
        "str",
        "tuple",
        "uuid",
    }
)


def source_of(
    types: Mapping[str, Schema], *, topic: str, owner: str = "", format_name: str = "json", origin: str = ""
) -> str:
    """A module with a class for every record and enumeration, and the topic that declares those with wire names.

    `types` are schemas of records by wire name. With an `owner` it is a Topic, else a ForeignTopic. What classes can't
    say: a field that may be absent and has no default is None then, and alternatives that msgspec can't tell apart are
    Any.
    """
    module = _Module(types)
    body = "\n\n\n".join(module.classes())
    declared = f"{topic!r}".replace("'", '"')
    made = f"Topic({declared}, owner={_text(owner)}" if owner else f"ForeignTopic({declared}"
    if format_name != "json":
        made += f", schemas=Schemas(format={_text(format_name)})" if owner else f", format={_text(format_name)}"
    declare = "event" if owner else "reads"
    lines = [f"topic.{declare}({_text(name)})({module.roots[name]})" for name in types]
    text = f"{body}\n\n\ntopic = {made})\n" + "\n".join(lines) + "\n"
    said = f" from {origin}" if origin else ""
    opening = f'"""Message types of {topic}, made{said} by `postline contracts import`."""'
    return f"{opening}\n\n{_imports(text, owner)}\n\n\n{text}"


def _imports(text: str, owner: str) -> str:
    lines = ["from __future__ import annotations", ""]
    lines += [line for sign, line in _IMPORTS if sign in text]
    if typing := [name for name in _TYPING if re.search(rf"\b{name}\b", text)]:
        lines.append(f"from typing import {', '.join(typing)}")
    if lines[-1]:
        lines.append("")
    if from_msgspec := [name for name in _MSGSPEC if re.search(rf"\b{name}\(|\({name}[,)]", text)]:
        lines.append(f"from msgspec import {', '.join(from_msgspec)}")
        lines.append("")
    marks = [name for name in _MARKS if re.search(rf"\b{name}[\[(]", text)]
    lines.append(f"from postline import {'Topic' if owner else 'ForeignTopic'}")
    if marks:
        lines.append(f"from postline.contracts import {', '.join(marks)}")
    return "\n".join(lines)


class _Module:
    """The names that definitions get, and their text."""

    def __init__(self, types: Mapping[str, Schema]) -> None:
        self._types = types
        self._names: dict[tuple[int, str], str] = {}
        self._found: list[tuple[Schema, str, Definition]] = []
        #: None stands for a class that is nobody else's.
        taken: dict[str, Definition | None] = {}
        for number, (wire, schema) in enumerate(types.items()):
            for name, found in schema.definitions.items():
                # The same definition of two types is one class, but a class has one wire name.
                is_root = schema.root == Reference(name=name)
                free = _free(_class_name(wire if is_root else name), None if is_root else found, taken)
                if free not in taken:
                    self._found.append((schema, free, found))
                taken[free] = None if is_root else found
                self._names[number, name] = free
        self._numbers = {id(schema): number for number, schema in enumerate(types.values())}
        self.roots = {name: self._of(schema, schema.root) for name, schema in types.items()}

    def _of(self, schema: Schema, part: Type) -> str:
        assert isinstance(part, Reference)
        return self._names[self._numbers[id(schema)], part.name]

    def classes(self) -> Iterator[str]:
        """Enumerations first: defaults name their members."""
        for _, name, found in self._found:
            if isinstance(found, Enumeration):
                yield _enumeration(name, found)
        for schema, name, found in self._found:
            if isinstance(found, Record):
                yield self._record(schema, name, found)

    def _record(self, schema: Schema, name: str, record: Record) -> str:
        options = ["Struct", "frozen=True"]
        options += ["array_like=True"] if record.positional else ["kw_only=True"]
        if record.tag_field:
            options += [f"tag_field={_text(record.tag_field)}", f"tag={_literal(record.tag)}"]
        if record.closed:
            options.append("forbid_unknown_fields=True")
        lines = [f"class {name}({', '.join(options)}):"]
        if record.aliases:
            lines.append(f"    __was__ = {_literal(tuple(record.aliases))}")
        taken = set(self._names.values())
        for field in record.fields:
            lines.append(self._field(schema, field, taken))
        return "\n".join(lines if len(lines) > 1 else [*lines, "    pass"])

    def _field(self, schema: Schema, field: Field, taken: set[str]) -> str:
        attribute = _attribute(field.name, taken)
        taken.add(attribute)
        hint, default = self.hint(schema, field.type), ""
        if not field.required:
            default = self._default(schema, field)
            if default == "None" and "None" not in hint.split(" | ") and hint != "Any":
                hint = f"{hint} | None"
        hint = _marked(field, hint)
        if attribute != field.name:
            said = f"default={default}" if default and not default.startswith("field(") else default[6:-1]
            default = f"field({', '.join(each for each in (f'name={_text(field.name)}', said) if each)})"
        return f"    {attribute}: {hint}" + (f" = {default}" if default else "")

    def hint(self, schema: Schema, part: Type) -> str:
        """The annotation for a type."""
        match part:
            case Scalar():
                return _limited(_SCALARS[part.kind], part.limits)
            case ListOf():
                items = self.hint(schema, part.items)
                unique = part.unique and _is_hashable(schema, part.items)
                return _limited(f"{'set' if unique else 'list'}[{items}]", part.limits)
            case TupleOf():
                return f"tuple[{', '.join(self.hint(schema, each) for each in part.items)}]"
            case MapOf():
                return _limited(f"dict[{self.hint(schema, part.keys)}, {self.hint(schema, part.values)}]", part.limits)
            case UnionOf():
                if not _can_be_told_apart(schema, part.options):
                    return "Any"
                return " | ".join(self.hint(schema, each) for each in part.options)
            case Reference():
                return self._of(schema, part)

    def _default(self, schema: Schema, field: Field) -> str:
        """The default's expression."""
        value = field.default
        if value is UNSET or value is None:
            return "None"
        part = _option_for(schema, field.type, value)
        if isinstance(value, list | dict):
            if not value:
                kind = self.hint(schema, part).partition("[")[0] if isinstance(part, ListOf | MapOf) else ""
                if kind in {"list", "dict", "set"}:
                    return f"field(default_factory={kind})"
            return f"field(default_factory=lambda: convert({_literal(value)}, {self.hint(schema, part)}))"
        if isinstance(part, Reference):
            return f"{self._of(schema, part)}({_literal(value)})"
        if isinstance(part, Scalar) and ("." in _SCALARS[part.kind] or part.kind == "bytes"):
            return f"convert({_literal(value)}, {_SCALARS[part.kind]})"
        return _literal(value)


def _enumeration(name: str, found: Enumeration) -> str:
    taken: set[str] = set()
    lines = [f"class {name}(enum.Enum):"]
    for symbol in found.symbols:
        member = _attribute(str(symbol).upper(), taken)
        taken.add(member)
        lines.append(f"    {member} = {_literal(symbol)}")
    if found.default is not None:
        lines += ["", "    @classmethod", f"    def _missing_(cls, value: object) -> {name}:"]
        lines += [f"        return cls({_literal(found.default)})"]
    return "\n".join(lines)


def _free(name: str, found: Definition | None, taken: Mapping[str, Definition | None]) -> str:
    for each in (name, *(f"{name}{n}" for n in range(2, 10_000))):
        if each not in taken or (found is not None and taken[each] == found):
            return each
    raise AssertionError("more than 10,000 definitions of one name")


def _class_name(name: str) -> str:
    words = [each for each in re.split(r"[^A-Za-z0-9]+", name.rpartition(".")[2]) if each]
    made = "".join(word[:1].upper() + word[1:] for word in words) or "Value"
    made = f"_{made}" if made[0].isdigit() else made
    return f"{made}Type" if made in _RESERVED or keyword.iskeyword(made) else made


def _attribute(name: str, taken: set[str]) -> str:
    made = re.sub(r"\W", "_", name, flags=re.ASCII)
    # Two underscores would be mangled, and one would be private.
    made = made.lstrip("_") or "value"
    made = f"n{made}" if made[0].isdigit() else made
    while keyword.iskeyword(made) or made in taken or made in _SHADOWED:
        made += "_"
    return made


def _marked(field: Field, hint: str) -> str:
    hint = f"Sensitive[{hint}]" if field.sensitive else hint
    marks = [f"was({', '.join(map(_text, field.aliases))})"] if field.aliases else []
    marks += [f"number({field.number})"] if field.number else []
    return f"Annotated[{hint}, {', '.join(marks)}]" if marks else hint


def _limited(hint: str, limits: Limits) -> str:
    said = {name: value for name in Limits.__struct_fields__ if (value := getattr(limits, name)) is not None}
    if not said:
        return hint
    return f"Annotated[{hint}, Meta({', '.join(f'{name}={_literal(value)}' for name, value in said.items())})]"


def _can_be_told_apart(schema: Schema, options: tuple[Type, ...]) -> bool:
    """Whether msgspec takes them as one union (its documentation, "Union restrictions")."""
    shapes = [shape for each in options if (shape := _shape(schema, each))]
    tagged = [shape for shape in shapes if shape.startswith("tagged ")]
    objects = [shape for shape in shapes if shape == "object"]
    if tagged and (objects or len({shape.split(" ", 2)[1] for shape in tagged}) > 1 or len(set(tagged)) < len(tagged)):
        return False
    others = [shape for shape in shapes if shape not in tagged]
    return len(set(others)) == len(others)


def _shape(schema: Schema, part: Type) -> str:
    match part:
        case Scalar(kind=kind):
            return _SHAPES.get(kind, "text" if kind != "any" else "any")
        case ListOf() | TupleOf():
            return "array"
        case MapOf():
            return "object"
        case Reference():
            found = schema.resolve(part)
            if isinstance(found, Enumeration):
                return "text" if all(isinstance(each, str) for each in found.symbols) else "integer"
            if isinstance(found, Record) and found.tag_field:
                return f"tagged {found.tag_field}{'[]' if found.positional else ''} {found.tag!r}"
            return "array" if isinstance(found, Record) and found.positional else "object"
    return "any"


def _option_for(schema: Schema, part: Type, value: Any) -> Type:
    """The alternative that a default is of."""
    if not isinstance(part, UnionOf):
        return part
    wanted = {bool: "boolean", int: "integer", float: "number", str: "text", list: "array", dict: "object"}[type(value)]
    fitting = [each for each in part.options if _shape(schema, each).partition(" ")[0] in (wanted, "tagged")]
    plain = [each for each in fitting if each == TEXT]
    return (plain or fitting or [Scalar(kind="any")])[0]


def _is_hashable(schema: Schema, part: Type) -> bool:
    found = schema.resolve(part)
    return isinstance(found, Enumeration) or (isinstance(found, Scalar) and found.kind != "any")


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _literal(value: Any) -> str:
    """Python's words for a plain value."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_literal(key)}: {_literal(each)}' for key, each in value.items())}}}"
    return repr(value)
