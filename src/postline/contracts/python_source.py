"""Typed Python for schemas: the classes that somebody writes by hand otherwise."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Container, Iterator, Mapping
from itertools import chain, count
from typing import Any, TypeAlias

from msgspec import UNSET

from postline.contracts.fitting import fits, is_endless
from postline.contracts.python_layout import WIDTH, imports_of, laid_out
from postline.contracts.python_names import attribute_name, class_name, literal, members_of, text_literal
from postline.contracts.python_types import SCALARS, Hints, is_class, tag_of
from postline.contracts.schema import (
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
    UnionOf,
)
from postline.errors import ContractError

__all__ = ["source_of"]

#: Kinds whose values JSON has as Python has them.
_PLAIN = frozenset({"null", "boolean", "integer", "number", "text", "any"})
_INDENT = "    "

#: What a class stands for: its definition and those that it leads to, and under "" the name that is its own.
_Closure: TypeAlias = dict[str, Definition | str]


def source_of(
    types: Mapping[str, Schema], *, topic: str, owner: str = "", format_name: str = "json", origin: str = ""
) -> str:
    """A module with a class for every record and enumeration, and the topic that declares those with wire names.

    `types` are schemas of records by wire name. With an `owner` it is a Topic, else a ForeignTopic; `origin` says in
    the module's docstring what it was made from. Raises ContractError for a schema whose root is no record,
    and for a field whose name msgspec does not take.

    The classes' schemas (`reflection.schema_of`) are those given, but for what classes don't say: widths of numbers,
    precision, sizes and wire types; numbers of symbols; Protobuf's oneof. Where bytes depend on that, in Avro and
    Protobuf, the schemas lie beside the classes and count. A field that may be absent and has no default
    is None then. Alternatives that msgspec can't tell apart are Any. Limits that msgspec does not take, patterns of
    other dialects and defaults that are not of their type are left out; a comment above the field says so.
    """
    is_whole = format_name == "json"
    module = _Module(types, omits=is_whole, gives_schemas=not is_whole)
    made = (
        f"Topic({text_literal(topic)}, owner={text_literal(owner)}" if owner else f"ForeignTopic({text_literal(topic)}"
    )
    if format_name != "json":
        said = f"format={text_literal(format_name)}"
        made += f", schemas=Schemas({said})" if owner else f", {said}"
    declared = [laid_out(f"topic = {made})"), *module.schemas()]
    text = "\n\n\n".join(["\n".join(declared), *module.classes("event" if owner else "reads")]) + "\n"
    return f"{_docstring(topic, origin)}\n\n{imports_of(text)}\n\n{text}"


def _docstring(topic: str, origin: str) -> str:
    said = f" from {origin}" if origin else ""
    # Whatever files are called, the docstring ends where it should.
    said = re.sub(r'[^ -~]|["\\]', "_", f"Message types of {topic}, made{said} by `postline contracts import`.")
    lines = textwrap.wrap(said, WIDTH - len('""""""'), break_long_words=False, break_on_hyphens=False)
    return '"""' + "\n".join(lines) + ('"""' if len(lines) == 1 else '\n"""')


class _Module:
    """The names that definitions get, and their text."""

    def __init__(self, types: Mapping[str, Schema], *, omits: bool, gives_schemas: bool) -> None:
        self._omits = omits
        self._names: dict[tuple[int, str], str] = {}
        self._found: list[tuple[str, int, Schema, Definition]] = []
        #: The wire names by their classes.
        self._declared: dict[str, str] = {}
        taken: dict[str, _Closure] = {}
        for number, (wire, schema) in enumerate(types.items()):
            if schema.record is None or not isinstance(schema.root, Reference):
                raise ContractError(
                    f"The root of {wire} is no record.", remedy="Import a type whose values are objects."
                )
            for name, found in schema.definitions.items():
                # The same definition of two types is one class, but a class has one wire name.
                is_root = name == schema.root.name
                is_own = is_root or len(types) == 1
                closure: _Closure = {"": f"{number} {name}"} if is_own else _closure(schema, name)
                free = _free(class_name(wire if is_root else name), closure, taken)
                if free not in taken:
                    self._found.append((free, number, schema, found))
                taken[free] = closure
                self._names[number, name] = free
                if is_root:
                    self._declared[free] = wire
        self._classes = frozenset(taken)
        #: What the schemas that lie beside the classes are called, by wire name.
        self._given: dict[str, str] = {}
        for number in range(1, len(types) + 1) if gives_schemas else ():
            self._given[list(types)[number - 1]] = f"_SCHEMA_{number}" if len(types) > 1 else "_SCHEMA"
        self._types = types

    def schemas(self) -> Iterator[str]:
        """The schemas beside the classes, in full."""
        if self._given:
            yield "\n# How values lie on the wire; the classes below say less. Import the file anew to change it."
        for wire, name in self._given.items():
            lines = _pieces(self._types[wire].encode().decode())
            yield "\n".join([f"{name} = (", *(f"{_INDENT}{text_literal(each)}" for each in lines), ")"])

    def classes(self, declare: str) -> Iterator[str]:
        """Enumerations first, since defaults name their members, and the topic's own types last."""
        for name, _, _, found in self._found:
            if isinstance(found, Enumeration) and is_class(found):
                yield _enumeration(name, found)
        for name, number, schema, found in sorted(self._found, key=lambda each: each[0] in self._declared):
            if isinstance(found, Record):
                yield self._declaration(name, declare, schema, self._record(name, number, schema, found))

    def _declaration(self, name: str, declare: str, schema: Schema, text: str) -> str:
        if (wire := self._declared.get(name)) is None:
            return text
        given = f", schema={self._given[wire]}" if wire in self._given else ""
        said = f"topic.{declare}({text_literal(wire)}{given})"
        assert isinstance(schema.root, Reference)
        if _contains_itself(schema, schema.root.name):
            # Above the class, its own name would not be known yet.
            return f"{text}\n\n\n{laid_out(f'{said}({name})')}"
        return f"{laid_out(f'@{said}')}\n{text}"

    def _record(self, name: str, number: int, schema: Schema, record: Record) -> str:
        options = ["Struct", "frozen=True", "kw_only=True"]
        options += ["array_like=True"] if record.positional else []
        if tag := tag_of(record):
            options += [f"tag_field={text_literal(tag[0])}", f"tag={literal(tag[1])}"]
        if record.closed:
            options.append("forbid_unknown_fields=True")
        fields = _Fields(schema, lambda name: self._names[number, name], self._classes)
        lines = [line for field in record.fields for line in fields.lines(field)]
        if self._omits and fields.may_be_absent and not record.positional:
            # Written as None, they would be there.
            options.append("omit_defaults=True")
        heading = [laid_out(f"class {name}({', '.join(options)}):")]
        if record.aliases:
            heading.append(laid_out(f"{_INDENT}__was__ = {literal(record.aliases)}"))
        return "\n".join([*heading, *(lines or ([] if record.aliases else [f"{_INDENT}pass"]))])


class _Fields:
    """The fields of one class."""

    def __init__(self, schema: Schema, name_of: Callable[[str], str], classes: Container[str]) -> None:
        self._schema, self._name_of, self._classes = schema, name_of, classes
        self._taken: set[str] = set()
        self._left_out: list[str] = []
        self._hints = Hints(schema, name_of, self._left_out.append)
        #: Whether one of them is None only where it is not on the wire.
        self.may_be_absent = False

    def lines(self, field: Field) -> Iterator[str]:
        """A field's declaration, under what could not be said."""
        self._left_out.clear()
        if re.search(r'[\x00-\x1f"\\]', field.name):
            raise ContractError(
                f"A class can't have a field that is called {field.name!r} on the wire.",
                remedy="msgspec takes names without quotes, backslashes and control characters; read the type as Any.",
            )
        name = attribute_name(field.name, self._classes, self._taken)
        self._taken.add(name)
        hint, default = self._hints.of(field.type), ""
        if not field.required:
            default = self._default(field)
            if default == "None" and not self._hints.takes_none(field.type):
                self.may_be_absent = True
                hint = hint if hint == "Any" else f"{hint} | None"
        arguments = [f"name={text_literal(field.name)}"] if name != field.name else []
        if default.startswith("lambda: ") or default in {"list", "dict", "set"}:
            arguments.append(f"default_factory={default}")
        elif arguments and default:
            arguments.append(f"default={default}")
        value = f"field({', '.join(arguments)})" if arguments else default
        said = f" = {value}" if value else ""
        line = f"{_INDENT}{name}: {_marked(field, hint)}{said}"
        for each in dict.fromkeys(self._left_out):
            yield from textwrap.wrap(
                _comment(each), WIDTH, initial_indent=f"{_INDENT}# ", subsequent_indent=f"{_INDENT}# "
            )
        laid = laid_out(line)
        broken = re.search(r"^    [\])] \|", laid, re.MULTILINE)
        if (broken or max(map(len, laid.splitlines())) > WIDTH) and hint == _marked(field, hint):
            # In parentheses, alternatives may stand on lines of their own.
            laid = laid_out(f"{_INDENT}{name}: ({hint}){said}")
        yield laid

    def _default(self, field: Field) -> str:
        """The default's expression; one that begins with `lambda:` is a factory, as are names of types."""
        value = field.default
        if value is UNSET or value is None:
            return "None"
        options = field.type.options if isinstance(field.type, UnionOf) else (field.type,)
        fitting = next((each for each in options if fits(self._schema, each, value)), None)
        if fitting is None:
            self._left_out.append(f"Without its default {literal(value)}, which is not of its type.")
            return "None"
        if is_endless(self._schema, fitting, value):
            self._left_out.append(f"Without its default {literal(value)}, which would contain itself.")
            return "None"
        return self._of(fitting, value)

    def _of(self, part: Type, value: Any) -> str:
        found = self._schema.resolve(part)
        match found:
            case Enumeration() if is_class(found) and isinstance(part, Reference):
                return f"{self._name_of(part.name)}.{members_of(found)[value]}"
            case ListOf() | MapOf() if not value:
                return self._hints.of(part).removeprefix("Annotated[").partition("[")[0]
            case Scalar(kind="decimal"):
                return f"decimal.Decimal({literal(str(value))})"
            case Scalar(kind=kind) if kind not in _PLAIN:
                return f"convert({literal(value)}, {SCALARS[kind]})"
        if not isinstance(value, list | dict):
            return literal(value)
        if self._is_plain(part):
            return f"lambda: {literal(value)}"
        return f"lambda: convert({literal(value)}, {self._hints.of(part)})"

    def _is_plain(self, part: Type) -> bool:
        """Whether its values are in Python what they are in JSON."""
        match part:
            case Scalar(kind=kind):
                return kind in _PLAIN
            case ListOf(items=items, unique=unique):
                return not unique and self._is_plain(items)
            case MapOf(keys=keys, values=values):
                return keys == Scalar(kind="text") and self._is_plain(values)
            case UnionOf(options=options):
                return all(map(self._is_plain, options))
            case TupleOf() | Reference():
                return False


def _enumeration(name: str, found: Enumeration) -> str:
    lines = [f"class {name}(enum.Enum):"]
    if found.aliases:
        lines.append(laid_out(f"{_INDENT}__was__ = {literal(found.aliases)}"))
    members = members_of(found)
    for symbol, member in members.items():
        line = f"{_INDENT}{member} = {literal(symbol)}"
        lines.append(
            line if len(line) <= WIDTH else f"{_INDENT}{member} = (\n{_INDENT * 2}{literal(symbol)}\n{_INDENT})"
        )
    if found.default in members:
        lines += ["", f"{_INDENT}@classmethod", f"{_INDENT}def _missing_(cls, value: object) -> {name}:"]
        lines += [f"{_INDENT * 2}return cls.{members[found.default]}"]
    return "\n".join(lines)


def _pieces(text: str) -> Iterator[str]:
    """The text in parts that fit on a line, whatever their quotes and escapes."""
    while text:
        size = WIDTH - len(_INDENT) - 2
        while len(text_literal(text[:size])) > WIDTH - len(_INDENT):
            size = size * 7 // 8
        yield text[:size]
        text = text[size:]


def _closure(schema: Schema, name: str) -> _Closure:
    """A definition and all that it leads to; two that are equal can be one class."""
    found: _Closure = {"": name}
    names = [name]
    while names:
        if (name := names.pop()) not in found:
            definition = found[name] = schema.definitions[name]
            for field in definition.fields if isinstance(definition, Record) else ():
                names += _references(field.type)
    return found


def _contains_itself(schema: Schema, name: str) -> bool:
    return any(
        reference == name
        for found in _closure(schema, name).values()
        for field in (found.fields if isinstance(found, Record) else ())
        for reference in _references(field.type)
    )


def _references(part: Type) -> Iterator[str]:
    match part:
        case Reference(name=name):
            yield name
        case ListOf(items=inner):
            yield from _references(inner)
        case MapOf(keys=keys, values=values):
            yield from (*_references(keys), *_references(values))
        case TupleOf(items=several) | UnionOf(options=several):
            for each in several:
                yield from _references(each)


def _free(name: str, closure: _Closure, taken: Mapping[str, _Closure]) -> str:
    names = chain([name], (f"{name}{number}" for number in count(2)))
    return next(each for each in names if each not in taken or taken[each] == closure)


def _marked(field: Field, hint: str) -> str:
    hint = f"Sensitive[{hint}]" if field.sensitive else hint
    marks = [f"was({', '.join(map(text_literal, field.aliases))})"] if field.aliases else []
    marks += [f"number({field.number})"] if field.number else []
    return f"Annotated[{hint}, {', '.join(marks)}]" if marks else hint


def _comment(said: str) -> str:
    return said if len(said) <= 3 * WIDTH else f"{said[: 3 * WIDTH]}…"
