"""How the type model lies in Protobuf's messages: one file descriptor for a schema, and the names in it.

Each field of a record is one field with one number. What Protobuf has no word for in its place (a union, a tuple, a
list within a list, a list that may be null) becomes a message of its own around it, inside the record's message.
Text stands for what Protobuf has no type for: decimals, dates, times of day, UUIDs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from postline.contracts.protobuf_numbers import numbered, options_of, symbol_numbers
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
    ScalarKind,
    Schema,
    TupleOf,
    Type,
    UnionOf,
)
from postline.errors import ContractError, SettingsError

__all__ = [
    "ANY_LIST",
    "ANY_MAP",
    "GOOGLE",
    "GOOGLE_FILES",
    "Layout",
    "descriptors",
    "is_implicit",
    "option_names",
    "proto_names",
    "unique",
]

GOOGLE = "google.protobuf."
#: Which of Google's files declares a message that comes with Protobuf.
GOOGLE_FILES = {
    "any": ("Any",),
    "duration": ("Duration",),
    "empty": ("Empty",),
    "field_mask": ("FieldMask",),
    "struct": ("Struct", "Value", "ListValue", "NullValue"),
    "timestamp": ("Timestamp",),
    "wrappers": (
        *("DoubleValue", "FloatValue", "Int64Value", "UInt64Value", "Int32Value"),
        *("UInt32Value", "BoolValue", "StringValue", "BytesValue"),
    ),
}
_FILE_OF = {GOOGLE + name: f"google/protobuf/{file}.proto" for file, names in GOOGLE_FILES.items() for name in names}

_ANY = Scalar(kind="any")
#: What google.protobuf.Struct and google.protobuf.ListValue are.
ANY_MAP, ANY_LIST = MapOf(keys=TEXT, values=_ANY), ListOf(items=_ANY)
_MESSAGES: dict[ScalarKind, str] = {"any": "Value", "datetime": "Timestamp", "duration": "Duration"}
_TYPES: dict[ScalarKind, str] = {"boolean": "BOOL", "bytes": "BYTES"}
_MAP_KEYS = {"integer", "boolean", "text", "uuid", "decimal", "date", "time", "any"}
_ZEROS: dict[ScalarKind, object] = {"boolean": False, "integer": 0, "number": 0, "text": "", "bytes": ""}
#: As deep as a schema's types may lie in each other without a record's name between them.
_DEPTH_MAX = 32


def descriptors() -> Any:
    """The library's module of descriptors. Raises SettingsError if it isn't installed."""
    try:
        from google.protobuf import descriptor_pb2  # type: ignore[import-untyped]
    except ImportError as error:
        raise SettingsError(
            "Protobuf needs the package protobuf.", remedy="pip install 'postline[protobuf]'"
        ) from error
    return descriptor_pb2


def unique(name: str, taken: Iterable[str]) -> str:
    """The name, with a number behind it if it is taken."""
    known, found, number = set(taken), name, 2
    while found in known:
        found, number = f"{name}{number}", number + 1
    return found


def proto_names(record: Record) -> dict[str, str]:
    """Each field's name in the message: its own, as far as Protobuf takes it."""
    names: dict[str, str] = {}
    for field in record.fields:
        names[field.name] = unique(_identifier(field.name), names.values())
    return names


def option_names(schema: Schema, options: Iterable[Type]) -> list[str]:
    """Names of a union's alternatives within their oneof."""
    names: list[str] = []
    for option in options:
        names.append(unique(_identifier(_option_name(option)), names))
    return names


def _option_name(option: Type) -> str:
    match option:
        case Scalar(kind=kind):
            return kind
        case Reference(name=full):
            return _snake(full.rpartition(".")[2])
        case _:
            return {ListOf: "list", MapOf: "map", TupleOf: "tuple"}[type(option)]


def is_implicit(schema: Schema, field: Field) -> bool:
    """Whether a field that isn't there means zero, so that Protobuf leaves zeros out."""
    match schema.resolve(field.type):
        case Scalar(wire=wire) if wire in GOOGLE_FILES["wrappers"]:
            return False
        case Scalar(kind=kind):
            return field.required or field.default == _ZEROS.get(kind, "")
        case Enumeration() as part:
            return field.required or (
                isinstance(field.default, str | int) and symbol_numbers(part).get(field.default) == 0
            )
        case _:
            return False


class _Scope(NamedTuple):
    """Where messages and fields are put: a file or a message, with its full name and how deep it lies."""

    proto: Any
    full: str
    depth: int = 0

    @property
    def records(self) -> Any:
        return self.proto.nested_type if self.depth else self.proto.message_type

    def within(self, proto: Any) -> _Scope:
        return _Scope(proto, f"{self.full}.{proto.name}" if self.full else proto.name, self.depth + 1)


class Layout:
    """A schema as one Protobuf file, whose first message is the root. Raises ContractError for what it can't say."""

    def __init__(self, schema: Schema, package: str = "") -> None:
        self.schema = numbered(schema)
        root = self.schema.root
        if not isinstance(root, Reference) or self.schema.record is None:
            raise ContractError(
                "A Protobuf message is a record, and this contract is none.", remedy="Put the value into a field."
            )
        self._proto = descriptors().FieldDescriptorProto
        self.file = descriptors().FileDescriptorProto(name="contract.proto", syntax="proto3")
        self._own = _package_of(root.name, self.schema.definitions)
        self.package = ".".join(_identifier(each) for each in (package or self._own).split(".") if each)
        self.file.package = self.package
        #: The root's name in the schema.
        self.root_name = root.name
        #: Each definition's full name in Protobuf.
        self.names: dict[str, str] = {}
        self._scopes = {"": _Scope(self.file, self.package)}
        for name in sorted(self.schema.definitions, key=self._order):
            self._declare(name)
        for name, scope in self._scopes.items():
            if name:
                self._fill(scope, name, self.schema.definitions[name])

    @property
    def root(self) -> str:
        """The full name of the root's message."""
        return self.names[self.root_name]

    @property
    def indexes(self) -> tuple[int, ...]:
        """The root's place in the file, as Confluent's frame has it."""
        places: list[int] = []
        records = self.file.message_type
        for name in self.root.removeprefix(self.package + ".").split("."):
            places.append([each.name for each in records].index(name))
            records = records[places[-1]].nested_type
        return tuple(places)

    def _order(self, name: str) -> tuple[int, bool, str]:
        """What contains others comes before them, and the root, or what contains it, before its equals."""
        depth, parent = 0, self._parent_of(name)
        while parent:
            depth, parent = depth + 1, self._parent_of(parent)
        return depth, not f"{self.root_name}.".startswith(f"{name}."), name

    def _declare(self, name: str) -> None:
        if name in _FILE_OF:
            self.names[name] = self._google(name)
            return
        parent = self._parent_of(name)
        scope = self._scopes[parent]
        local = name.removeprefix(f"{parent or self._own}.").replace(".", "_")
        found = unique(_identifier(local), [each.name for each in (*scope.records, *scope.proto.enum_type)])
        is_record = isinstance(self.schema.definitions[name], Record)
        inner = scope.within((scope.records if is_record else scope.proto.enum_type).add(name=found))
        self.names[name], self._scopes[name] = inner.full, inner

    def _parent_of(self, name: str) -> str:
        """The record that a definition lies in by its name, or nothing."""
        parent = name.rpartition(".")[0]
        return parent if isinstance(self.schema.definitions.get(parent), Record) and parent not in _FILE_OF else ""

    def _google(self, name: str) -> str:
        if _FILE_OF[name] not in self.file.dependency:
            self.file.dependency.append(_FILE_OF[name])
            self.file.dependency.sort()
        return name

    def _fill(self, scope: _Scope, name: str, part: Definition) -> None:
        if isinstance(part, Enumeration):
            beside = self._scopes[self._parent_of(name)].proto.enum_type
            _add_symbols(scope.proto, part, [value.name for each in beside for value in each.value])
            return
        names = proto_names(part)
        oneofs = list(dict.fromkeys(each.oneof for each in part.fields if each.oneof))
        for oneof in oneofs:
            scope.proto.oneof_decl.add(name=unique(_identifier(oneof), names.values()))
        for field in part.fields:
            path = f"{name}.{field.name}"
            implicit = is_implicit(self.schema, field) or bool(field.oneof)
            part_type = options_of(field.type)[0] if field.oneof else field.type
            self._field(scope, names[field.name], field.number, part_type, path, implicit)
            if field.oneof:
                scope.proto.field[-1].oneof_index = oneofs.index(field.oneof)
        _tell_apart_in_json(scope.proto)

    def _field(self, scope: _Scope, name: str, number: int, part: Type, path: str, implicit: bool = True) -> None:
        match part:
            case ListOf(items=items):
                kind, type_name = self._value(scope, name, items, path + "[]")
                self._add(scope, name, number, kind, type_name).label = self._proto.LABEL_REPEATED
                return
            case MapOf():
                entry = self._entry(scope, name, part, path)
                self._add(scope, name, number, "MESSAGE", entry).label = self._proto.LABEL_REPEATED
                return
        options = options_of(part)
        only = options[0] if len(options) == 1 else part
        kind, type_name = self._value(scope, name, only, path)
        field = self._add(scope, name, number, kind, type_name)
        if kind != "MESSAGE" and not (implicit and part is only):
            field.proto3_optional, field.oneof_index = True, len(scope.proto.oneof_decl)
            scope.proto.oneof_decl.add(name=unique("_" + name, [each.name for each in scope.proto.field]))

    def _add(self, scope: _Scope, name: str, number: int, kind: str, type_name: str) -> Any:
        kind_number = getattr(self._proto, "TYPE_" + kind)
        field = scope.proto.field.add(name=name, number=number, type=kind_number, label=self._proto.LABEL_OPTIONAL)
        if type_name:
            field.type_name = "." + type_name
        return field

    def _entry(self, scope: _Scope, name: str, part: MapOf, path: str) -> str:
        value, type_name = self._value(scope, name, part.values, path + "[]")
        if _camel(name) + "Entry" in [each.name for each in scope.proto.nested_type]:
            raise ContractError(
                f"{path} and another map have names that Protobuf can't tell apart.", remedy="Rename one of them."
            )
        entry = scope.within(scope.proto.nested_type.add(name=_camel(name) + "Entry"))
        entry.proto.options.map_entry = True
        self._add(entry, "key", 1, _key_type(self.schema.resolve(part.keys), path), "")
        self._add(entry, "value", 2, value, type_name)
        return entry.full

    def _value(self, scope: _Scope, name: str, part: Type, path: str) -> tuple[str, str]:
        """What stands for one value: the kind of Protobuf's field and, for messages and enumerations, its name."""
        match part:
            case Scalar(kind="null"):
                raise ContractError(f"{path} is always null, which Protobuf can't say.", remedy="Leave the field out.")
            case Scalar(wire=wire) if wire in GOOGLE_FILES["wrappers"]:
                return "MESSAGE", self._google(GOOGLE + wire)
            case Scalar(kind=kind) if kind in _MESSAGES:
                return "MESSAGE", self._google(GOOGLE + _MESSAGES[kind])
            case Scalar():
                return _scalar_type(part), ""
            case Reference(name=full):
                is_record = isinstance(self.schema.definitions[full], Record)
                return "MESSAGE" if is_record else "ENUM", self.names[full]
        if part in (ANY_MAP, ANY_LIST):
            return "MESSAGE", self._google(GOOGLE + ("Struct" if part == ANY_MAP else "ListValue"))
        return "MESSAGE", self._wrapped(scope, name, part, path)

    def _wrapped(self, scope: _Scope, name: str, part: Type, path: str) -> str:
        if scope.depth > _DEPTH_MAX:
            raise ContractError(f"{path} is nested too deeply for Protobuf.", remedy="Give its parts classes.")
        taken = [each.name for each in (*scope.proto.nested_type, *scope.proto.enum_type, *scope.proto.field)]
        wrapper = scope.within(scope.proto.nested_type.add(name=unique(_camel(name) + "Value", taken)))
        options = options_of(part)
        if isinstance(part, TupleOf):
            for number, item in enumerate(part.items, 1):
                self._field(wrapper, f"item_{number}", number, item, path)
        elif isinstance(part, UnionOf) and len(options) > 1:
            wrapper.proto.oneof_decl.add(name="value")
            for number, (label, option) in enumerate(zip(option_names(self.schema, options), options, strict=True), 1):
                kind, type_name = self._value(wrapper, label, option, path)
                self._add(wrapper, label, number, kind, type_name).oneof_index = 0
        else:
            self._field(wrapper, "value", 1, part, path)
        return wrapper.full


def _package_of(name: str, definitions: Mapping[str, Definition]) -> str:
    """What stands before a record's name, without records that it lies in."""
    package = name.rpartition(".")[0]
    while package in definitions:
        package = package.rpartition(".")[0]
    return package


def _scalar_type(part: Scalar) -> str:
    if part.wire:
        return part.wire.upper()
    match part.kind:
        case "integer":
            bits = part.bits or 64
            unsigned = part.limits.ge == 0 and part.limits.le == (1 << bits) - 1
            return f"UINT{bits}" if unsigned else f"INT{bits}"
        case "number":
            return "FLOAT" if part.bits == 32 else "DOUBLE"
        case kind:
            return _TYPES.get(kind, "STRING")


def _key_type(keys: Type | Definition, path: str) -> str:
    match keys:
        case Scalar(kind="integer" | "boolean"):
            return _scalar_type(keys)
        case Enumeration(symbols=symbols):
            return "INT64" if symbol_numbers(keys) and isinstance(symbols[0], int) else "STRING"
        case Scalar(kind=kind) if kind in _MAP_KEYS:
            return "STRING"
        case _:
            raise ContractError(
                f"{path} is a map whose keys Protobuf can't carry.", remedy="Use text or whole numbers as keys."
            )


def _add_symbols(proto: Any, part: Enumeration, taken: list[str]) -> None:
    """Protobuf wants 0 first, and has symbols beside their enumeration, not in it: `taken` are those of others."""
    prefix = _snake(proto.name).upper()
    numbers = symbol_numbers(part)
    # Protobuf's own enumerations keep their names; others get the enumeration's before theirs, as its style guide says.
    is_own = (part.numbers or part.default == part.symbols[0]) and not any(
        symbol != _identifier(str(symbol)) or symbol in taken for symbol in part.symbols
    )
    if 0 not in numbers.values():
        proto.value.add(name=f"{prefix}_UNSPECIFIED", number=0)
    for symbol, number in sorted(numbers.items(), key=lambda each: (each[1] != 0, each[1])):
        name = str(symbol) if is_own else f"{prefix}_{_word(symbol)}"
        proto.value.add(name=unique(name, (*taken, *(each.name for each in proto.value))), number=number)


def _word(symbol: str | int) -> str:
    if isinstance(symbol, int):
        return str(symbol).replace("-", "MINUS_")
    return re.sub(r"\W", "_", symbol, flags=re.ASCII).upper()


def _tell_apart_in_json(proto: Any) -> None:
    """Names that Protobuf's JSON would make the same (`a_b` and `aB`) are kept there as they are."""
    names = [_lower_camel(field.name) for field in proto.field]
    if len(set(names)) < len(names):
        for field in proto.field:
            field.json_name = field.name


def _identifier(name: str) -> str:
    found = re.sub(r"\W", "_", name, flags=re.ASCII)
    return found if re.match(r"[A-Za-z]", found) else f"n{found}"


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _camel(name: str) -> str:
    """As Protobuf's compiler names a map's entries: letters after underscores large, underscores gone."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _lower_camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in others)
