"""Protobuf's documents: a schema as `.proto` text, and `.proto` text or file descriptors as schemas.

What the model has no word for is refused with its path: groups, editions, two symbols with one number. Members of a
oneof become optional fields that know of each other, one of which a writer sets; implicit fields have zero as their
default, those with presence may be null.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from postline.contracts.protobuf_layout import ANY_LIST, ANY_MAP, GOOGLE, Layout, descriptors
from postline.contracts.protobuf_numbers import NULL, numbered, wire_breaks
from postline.contracts.protobuf_text import parse_text, write_text
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
    Type,
    UnionOf,
)
from postline.errors import ContractError

__all__ = ["document", "messages", "numbered", "parse", "serialized", "wire_breaks"]

#: Before the whole schema in a comment, so that what Protobuf can't say (limits, aliases, dates) is not lost.
_COMMENT = "// postline: "
_MODULES = {
    "any",
    "api",
    "descriptor",
    "duration",
    "empty",
    "field_mask",
    "source_context",
    "struct",
    "timestamp",
    "type",
}
_MODULES |= {"wrappers"}
_UNSIGNED = {bits: Limits(ge=0, le=(1 << bits) - 1) for bits in (32, 64)}
_SCALARS: dict[str, tuple[Scalar, Any]] = {
    # The type, and the value of a field that isn't there, as JSON has it.
    "BOOL": (Scalar(kind="boolean"), False),
    "BYTES": (Scalar(kind="bytes"), ""),
    "DOUBLE": (Scalar(kind="number", bits=64), 0.0),
    "FLOAT": (Scalar(kind="number", bits=32), 0.0),
    "INT32": (Scalar(kind="integer", bits=32), 0),
    "INT64": (Scalar(kind="integer", bits=64), 0),
    "STRING": (TEXT, ""),
    "UINT32": (Scalar(kind="integer", bits=32, limits=_UNSIGNED[32]), 0),
    "UINT64": (Scalar(kind="integer", bits=64, limits=_UNSIGNED[64]), 0),
}
_SCALARS |= {
    f"{prefix}{bits}": (Scalar(kind="integer", bits=bits, wire=f"{prefix}{bits}".lower(), limits=limits), 0)
    for bits in (32, 64)
    for prefix, limits in (("SINT", NO_LIMITS), ("SFIXED", NO_LIMITS), ("FIXED", _UNSIGNED[bits]))
}
_GOOGLE_TYPES: dict[str, Type] = {
    "Duration": Scalar(kind="duration"),
    "ListValue": ANY_LIST,
    "Struct": ANY_MAP,
    "Timestamp": Scalar(kind="datetime"),
    "Value": Scalar(kind="any"),
}
_GOOGLE_TYPES |= {
    f"{name}Value": msgspec.structs.replace(_SCALARS[kind][0], wire=f"{name}Value")
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
    for kind in (name.upper(),)
}


def document(schema: Schema, *, package: str = "") -> str:
    """The schema as `.proto` text in proto3, its root as the first message; `parse` gives back an equal schema.

    `package` stands in place of what stands before the root's name. Fields without a number get one by their order
    (`numbered`). Raises ContractError for what Protobuf can't say.
    """
    return f"{_COMMENT}{schema.encode().decode()}\n{write_text(Layout(schema, package).file)}"


def parse(
    source: str | bytes,
    *,
    message: str = "",
    imports: Mapping[str, str | bytes] | None = None,
    foreign: bool = False,
) -> Schema:
    """The schema of one message: of `.proto` text, or of a serialized FileDescriptorProto, as it is or in base64.

    `message` is its full name; without it the first is taken. `imports` are the sources of what the file imports, by
    path; Google's own are known. Required fields of proto2 are refused, because nobody can ever leave one out again,
    unless the schema is `foreign`. Raises ContractError for what is no Protobuf or can't be said in the model.
    """
    if (known := _schema_in_comment(source)) is not None and not message:
        return known
    raised, names = _raised(source, imports, foreign)
    return raised.schema(message or names[0])


def serialized(source: str | bytes) -> str:
    """A source's file descriptor in base64, as clients of registries ask for it. Raises ContractError."""
    return base64.b64encode(_Files({}).read(source).SerializeToString()).decode()


def messages(
    source: str | bytes,
    *,
    imports: Mapping[str, str | bytes] | None = None,
    foreign: bool = False,
) -> dict[str, Schema]:
    """Each message of a file at its top as a schema, by its full name and in the file's order; see `parse`."""
    raised, names = _raised(source, imports, foreign)
    return {name: raised.schema(name) for name in names}


def _raised(source: str | bytes, imports: Mapping[str, str | bytes] | None, foreign: bool) -> tuple[_Raised, list[str]]:
    """What a file and those behind it declare, and the full names of the messages at its top."""
    files = _Files(imports or {})
    file = files.read(source)
    package = f".{file.package}." if file.package else "."
    names = [f"{package}{each.name}"[1:] for each in file.message_type]
    if not names:
        raise ContractError("The .proto declares no message.", remedy="Declare one.")
    return _Raised([file, *files.behind(file)], foreign), names


def _schema_in_comment(source: str | bytes) -> Schema | None:
    """The schema that a document of ours carries, unless what follows was changed since."""
    text = source if isinstance(source, str) else source.decode("utf-8", "replace")
    line, _, rest = text.partition("\n")
    if not line.startswith(_COMMENT):
        return None
    package = re.search(r"^package ([\w.]+);", rest, re.MULTILINE)
    try:
        schema = Schema.decode(line.removeprefix(_COMMENT))
        expected = document(schema, package=package[1] if package else "")
    except (msgspec.MsgspecError, ContractError, KeyError):  # no comment of ours
        return None
    return schema if expected == text else None


class _Files:
    """Files and what they import, each read once."""

    def __init__(self, imports: Mapping[str, str | bytes]) -> None:
        self._sources = imports
        self._files: dict[str, Any] = {}
        self._open: list[str] = []

    def read(self, source: str | bytes) -> Any:
        """The FileDescriptorProto of a source. Raises ContractError."""
        data = _descriptor_in(source)
        if data is None:
            return parse_text(source if isinstance(source, str) else source.decode("utf-8", "replace"), self._imported)
        library = descriptors()
        from google.protobuf.message import DecodeError as Undecodable  # type: ignore[import-untyped]

        try:
            file = library.FileDescriptorProto.FromString(data)
        except Undecodable as error:
            raise ContractError(f"The schema is no Protobuf file descriptor: {error}.", remedy="Correct it.") from error
        if file.syntax not in {"", "proto2", "proto3"}:
            raise ContractError(
                f"The file descriptor has the syntax {file.syntax!r}, which is not read.", remedy="Use proto3."
            )
        return file

    def behind(self, file: Any) -> list[Any]:
        """The files that it imports, and those that these import."""
        waiting, found = list(file.dependency), {}
        while waiting:
            path = waiting.pop()
            if path not in found:
                found[path] = self._imported(path)
                waiting += found[path].dependency
        return list(found.values())

    def _imported(self, path: str) -> Any:
        if path in self._open:
            raise ContractError(f"The .proto {path} imports itself by way of others.", remedy="Break the circle.")
        if path not in self._files:
            self._open.append(path)
            self._files[path] = self.read(self._sources[path]) if path in self._sources else _google_file(path)
            self._open.pop()
        return self._files[path]


def _google_file(path: str) -> Any:
    name = path.removeprefix("google/protobuf/").removesuffix(".proto")
    if path != f"google/protobuf/{name}.proto" or name not in _MODULES:
        raise ContractError(f"The .proto imports {path}, which is not at hand.", remedy="Give it with the source.")
    file = descriptors().FileDescriptorProto()
    importlib.import_module(f"google.protobuf.{name}_pb2").DESCRIPTOR.CopyToProto(file)
    return file


def _descriptor_in(source: str | bytes) -> bytes | None:
    """The bytes of a file descriptor, which have control characters; None for text."""
    if isinstance(source, bytes) and re.search(rb"[^\s\x20-\xff]", source):
        return source
    text = source if isinstance(source, str) else source.decode("utf-8", "replace")
    if not re.fullmatch(r"[A-Za-z0-9+/\s]+=*\s*", text):
        return None
    try:
        return base64.b64decode(text)
    except binascii.Error as error:
        raise ContractError(f"The schema is no base64: {error}.", remedy="Correct it.") from error


class _Raised:
    """Messages and enumerations of files, as the model has them."""

    def __init__(self, files: Sequence[Any], foreign: bool) -> None:
        self._foreign = foreign
        self._parts: dict[str, tuple[Any, bool]] = {}
        self._made: dict[str, Definition] = {}
        for file in files:
            scope = f".{file.package}" if file.package else ""
            self._collect(scope, file.message_type, file.enum_type, file.syntax == "proto3")

    def _collect(self, scope: str, records: Any, enums: Any, proto3: bool) -> None:
        for each in enums:
            self._parts[f"{scope}.{each.name}"] = (each, proto3)
        for each in records:
            self._parts[f"{scope}.{each.name}"] = (each, proto3)
            self._collect(f"{scope}.{each.name}", each.nested_type, each.enum_type, proto3)

    def schema(self, name: str) -> Schema:
        """The schema whose root is the message of that full name, with what it refers to."""
        part, _ = self._part("." + name)
        if not hasattr(part, "field"):
            raise ContractError(f"{name} is no message.", remedy="Name one.")
        definitions: dict[str, Definition] = {}
        waiting = [name]
        while waiting:
            each = waiting.pop()
            if each not in definitions:
                definitions[each] = self._definition(each)
                waiting += _names_in(definitions[each])
        return Schema(root=Reference(name=name), definitions=dict(sorted(definitions.items())))

    def _definition(self, name: str) -> Definition:
        if name not in self._made:
            part, proto3 = self._part("." + name)
            is_record = hasattr(part, "field")
            self._made[name] = self._record(name, part, proto3) if is_record else _enumeration(name, part)
        return self._made[name]

    def _part(self, full: str) -> tuple[Any, bool]:
        try:
            return self._parts[full]
        except KeyError:
            raise ContractError(
                f"The Protobuf schema does not declare {full[1:]}.", remedy="Name a type that it has, in full."
            ) from None

    def _record(self, name: str, message: Any, proto3: bool) -> Record:
        fields = tuple(self._field(f"{name}.{field.name}", message, field, proto3) for field in message.field)
        return Record(name=name, fields=fields)

    def _field(self, path: str, message: Any, field: Any, proto3: bool) -> Field:
        name, number = field.name, field.number
        if field.label == field.LABEL_REPEATED:
            several = self._repeated(path, field)
            empty: Any = [] if isinstance(several, ListOf) else {}
            return Field(name=name, number=number, type=several, required=False, default=empty)
        found, zero = self._type(path, field)
        if field.label == field.LABEL_REQUIRED:
            if not self._foreign:
                raise ContractError(
                    f"{path} is a required field of proto2, which no later version could leave out.",
                    remedy="Make it optional, or read the schema as a foreign topic's.",
                )
            return Field(name=name, number=number, type=found)
        if field.HasField("default_value"):
            return Field(
                name=name, number=number, type=found, required=False, default=_default(found, field.default_value)
            )
        if not proto3 or field.type == field.TYPE_MESSAGE or field.HasField("oneof_index"):
            oneof = message.oneof_decl[field.oneof_index].name if _is_in_oneof(field) else ""
            part = UnionOf(options=(found, NULL))
            return Field(name=name, number=number, type=part, required=False, default=None, oneof=oneof)
        return Field(name=name, number=number, type=found, required=False, default=zero)

    def _repeated(self, path: str, field: Any) -> ListOf | MapOf:
        if field.type == field.TYPE_MESSAGE:
            entry, _ = self._part(field.type_name)
            if entry.options.map_entry:
                key, value = entry.field
                return MapOf(keys=self._type(path, key)[0], values=self._type(path + "[]", value)[0])
        return ListOf(items=self._type(path + "[]", field)[0])

    def _type(self, path: str, field: Any) -> tuple[Type, Any]:
        """A value's type, and what it is in its absence."""
        kind = field.Type.Name(field.type).removeprefix("TYPE_")
        if kind in _SCALARS:
            return _SCALARS[kind]
        if kind == "ENUM":
            values = self._part(field.type_name)[0].value
            return Reference(name=field.type_name[1:]), values[0].name if values else UNSET
        if kind == "MESSAGE":
            google = _GOOGLE_TYPES.get(field.type_name.removeprefix("." + GOOGLE))
            return google or Reference(name=field.type_name[1:]), UNSET
        raise ContractError(
            f"{path} is a {kind.lower()}, which contracts can't say.",
            remedy="Use int32, int64, uint32 or uint64." if "32" in kind or "64" in kind else "Use a message.",
        )


def _enumeration(name: str, enum: Any) -> Enumeration:
    symbols = tuple(value.name for value in enum.value)
    numbers = tuple(value.number for value in enum.value)
    if len(set(numbers)) < len(numbers):
        raise ContractError(f"{name} has two symbols with one number.", remedy="Keep one of them.")
    counted = numbers == tuple(range(len(numbers)))
    default = symbols[0] if symbols else None
    return Enumeration(name=name, symbols=symbols, default=default, numbers=() if counted else numbers)


def _is_in_oneof(field: Any) -> bool:
    return bool(field.HasField("oneof_index")) and not field.proto3_optional


def _names_in(part: Any) -> list[str]:
    """The definitions that a part of a schema refers to."""
    match part:
        case Record(fields=fields):
            return [name for field in fields for name in _names_in(field.type)]
        case Reference(name=name):
            return [name]
        case ListOf(items=inner) | MapOf(values=inner):
            return _names_in(inner)
        case UnionOf(options=options):
            return [name for option in options for name in _names_in(option)]
        case _:
            return []


def _default(part: Type, text: str) -> Any:
    """A default of proto2, written as its compiler does, as JSON has it."""
    match part:
        case Scalar(kind="integer"):
            return int(text)
        case Scalar(kind="number"):
            return float(text)
        case Scalar(kind="boolean"):
            return text == "true"
        case Scalar(kind="bytes"):
            return base64.b64encode(text.encode("latin-1").decode("unicode_escape").encode("latin-1")).decode()
        case _:
            return text
