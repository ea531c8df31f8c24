"""Protobuf's language: `.proto` text to a file descriptor and back, without its compiler.

The compiler is a large compiled package that works on files; what contracts need of the language is small. Options,
services and extensions are passed over, since no value of a message depends on them; what would be misread (groups,
editions) is refused. Tests compare descriptors with the compiler's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

from postline.contracts.protobuf_layout import descriptors
from postline.errors import ContractError

__all__ = ["parse_text", "write_text"]

_TOKEN = re.compile(
    r"(?P<blank>\s+|//[^\n]*|/\*.*?\*/)"
    r"|(?P<word>\.?[A-Za-z_][\w.]*)"
    r"""|(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"|(?P<number>[0-9.][\w.]*(?:(?<=[eE])[+-]\d+)?)"
    r"|(?P<mark>[{}()\[\];=,<>:+-]|/(?!\*))",
    re.DOTALL | re.ASCII,
)
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|[xX][0-9a-fA-F]{1,2}|.)", re.DOTALL)
_ESCAPED = dict(zip(b"abfnrtv", b"\a\b\f\n\r\t\v", strict=True))
_SCALARS = {
    *("double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64"),
    *("sfixed32", "sfixed64", "bool", "string", "bytes"),
}
_LABELS = {"optional", "required", "repeated"}
_DEPTH_MAX = 32
_OPENING, _CLOSING = set("{[("), set("}])")


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def parse_text(source: str, imported: Callable[[str], Any]) -> Any:
    """The FileDescriptorProto of `.proto` text; `imported` gives that of a path which it imports.

    Raises ContractError, with the line or the name that is wrong.
    """
    file = _Parser(source).file()
    visible = [file, *(imported(path) for path in file.dependency)]
    symbols = dict(pair for each in visible for pair in _symbols_of(each))
    scope = f".{file.package}" if file.package else ""
    for message in file.message_type:
        _resolve(message, scope, symbols)
    return file


class _Parser:
    """One pass over the tokens. Names of types stay as they are written; they are resolved when all are known."""

    def __init__(self, source: str) -> None:
        self._tokens = list(_tokens(source))
        self._at = 0
        self._library = descriptors()
        self._proto3 = False

    def file(self) -> Any:
        file = self._library.FileDescriptorProto(name="contract.proto")
        while self._next.kind != "end":
            match self._take().text:
                case "syntax":
                    self._syntax(file)
                case "package":
                    file.package = self._word()
                    self._expect(";")
                case "import":
                    file.dependency.append(self._import())
                case "message":
                    self._message(file.message_type.add(), 1)
                case "enum":
                    self._enum(file.enum_type.add())
                case "option" | "service" | "extend" as keyword:
                    self._skip(keyword)
                case ";":
                    pass
                case "edition":
                    self._refuse("editions are not read")
                case other:
                    self._refuse(f"{other!r} can't stand there")
        return file

    def _syntax(self, file: Any) -> None:
        self._expect("=")
        name = self._string().decode("utf-8", "replace")
        if name not in {"proto2", "proto3"}:
            self._refuse(f"there is no syntax {name!r}")
        self._proto3 = name == "proto3"
        if self._proto3:
            file.syntax = name
        self._expect(";")

    def _import(self) -> str:
        if self._next.text in {"public", "weak"}:
            self._take()
        path = self._string().decode("utf-8", "replace")
        self._expect(";")
        return path

    def _message(self, message: Any, depth: int) -> None:
        if depth > _DEPTH_MAX:
            self._refuse(f"messages are nested deeper than {_DEPTH_MAX}")
        message.name = self._word()
        self._expect("{")
        while not self._took("}"):
            match self._next.text:
                case "message" if self._opens_block():
                    self._take()
                    self._message(message.nested_type.add(), depth + 1)
                case "enum" if self._opens_block():
                    self._take()
                    self._enum(message.enum_type.add())
                case "oneof" if self._opens_block():
                    self._oneof(message)
                case "option" | "reserved" | "extensions" | "extend" as keyword:
                    self._skip(keyword)
                case ";":
                    self._take()
                case _:
                    self._field(message)
        for word in ("name", "number"):
            self._refuse_twins([getattr(field, word) for field in message.field], f"two fields of {message.name}")
        _add_presence(message)

    def _refuse_twins(self, found: list[Any], what: str) -> None:
        if twin := next((each for each, count in Counter(found).items() if count > 1), None):
            self._refuse(f"{what} have {twin}")

    def _opens_block(self) -> bool:
        return self._at + 2 < len(self._tokens) and self._tokens[self._at + 2].text == "{"

    def _oneof(self, message: Any) -> None:
        self._take()
        index = len(message.oneof_decl)
        message.oneof_decl.add(name=self._word())
        self._expect("{")
        while not self._took("}"):
            if self._next.text == "option":
                self._skip("option")
            else:
                self._field(message, index)

    def _field(self, message: Any, oneof: int | None = None) -> None:
        label = self._take().text if self._next.text in _LABELS and oneof is None else ""
        field = message.field.add(label=self._constant("LABEL", label or "optional"))
        is_map = self._next.text == "map" and self._tokens[self._at + 1].text == "<"
        entry = self._map(message, field) if is_map else None
        if entry is None:
            self._type(field)
        field.name = self._word()
        if not (label or self._proto3 or is_map or oneof is not None):
            self._refuse(f"the field {field.name} has no label, which proto2 wants")
        if entry is not None:
            entry.name = field.type_name = (
                "".join(part[:1].upper() + part[1:] for part in field.name.split("_")) + "Entry"
            )
        self._expect("=")
        field.number = self._integer(1, (1 << 29) - 1)
        self._options(field)
        self._expect(";")
        if oneof is not None:
            field.oneof_index = oneof
        elif label == "optional" and self._proto3:
            field.proto3_optional = True

    def _type(self, field: Any) -> None:
        name = self._word(dotted=True)
        if name == "group":
            self._refuse("groups are not read")
        if name in _SCALARS:
            field.type = self._constant("TYPE", name)
        else:
            field.type_name = name

    def _map(self, message: Any, field: Any) -> Any:
        self._take()
        self._expect("<")
        entry = message.nested_type.add()
        entry.options.map_entry = True
        for number, (name, end) in enumerate((("key", ","), ("value", ">")), 1):
            self._type(entry.field.add(name=name, number=number, label=self._constant("LABEL", "optional")))
            self._expect(end)
        field.label = self._constant("LABEL", "repeated")
        return entry

    def _options(self, field: Any = None) -> None:
        if not self._took("["):
            return
        while True:
            name = ""
            while not self._took("="):
                name += self._take_inside().text
            value = self._constant_value()
            if field is not None and name == "default":
                field.default_value = value
            elif field is not None and name == "json_name":
                field.json_name = value
            if self._took("]"):
                return
            self._expect(",")

    def _constant_value(self) -> str:
        if self._next.text in _OPENING:
            self._skip_block()
            return ""
        if self._next.kind == "text":
            return self._string().decode("utf-8", "backslashreplace")
        sign = "-" if self._took("-") else ""
        self._took("+")
        return sign + self._take_inside().text

    def _enum(self, enum: Any) -> None:
        enum.name = self._word()
        self._expect("{")
        while not self._took("}"):
            if self._took(";"):
                continue
            if self._next.text in {"option", "reserved"} and self._tokens[self._at + 1].text != "=":
                self._skip(self._next.text)
                continue
            value = enum.value.add(name=self._word())
            self._expect("=")
            sign = -1 if self._took("-") else 1
            value.number = sign * self._integer(0, (1 << 31) - 1 + (sign < 0))
            self._options()
            self._expect(";")

    def _skip(self, keyword: str) -> None:
        """Pass over a statement; services and extensions end with their block."""
        while not self._took(";"):
            if self._next.text in _OPENING:
                is_block = self._next.text == "{"
                self._skip_block()
                if is_block and keyword in {"service", "extend"}:
                    return
            else:
                self._take_inside()

    def _skip_block(self) -> None:
        depth = 0
        while True:
            text = self._take_inside().text
            depth += (text in _OPENING) - (text in _CLOSING)
            if depth == 0:
                return

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _take_inside(self) -> _Token:
        if self._next.kind == "end":
            self._refuse("it ends in the midst of a statement")
        return self._take()

    def _took(self, text: str) -> bool:
        found = self._next.kind == "mark" and self._next.text == text
        self._at += found
        return found

    def _expect(self, text: str) -> None:
        if not self._took(text):
            self._refuse(f"{text!r} is missing before {self._next.text!r}")

    def _word(self, *, dotted: bool = False) -> str:
        if self._next.kind != "word":
            self._refuse(f"a name is missing before {self._next.text!r}")
        return self._take().text

    def _string(self) -> bytes:
        if self._next.kind != "text":
            self._refuse(f"a text is missing before {self._next.text!r}")
        found = b""
        while self._next.kind == "text":
            found += _ESCAPE.sub(_unescaped, self._take().text[1:-1].encode())
        return found

    def _integer(self, low: int, high: int) -> int:
        text = self._next.text
        try:
            number = int(text, 8 if re.fullmatch("0[0-7]+", text) else 0)
        except ValueError:
            self._refuse(f"a number is missing before {text!r}")
        if not low <= number <= high:
            self._refuse(f"{number} is not from {low} to {high:,}")
        self._at += 1
        return number

    def _constant(self, kind: str, name: str) -> int:
        return int(getattr(self._library.FieldDescriptorProto, f"{kind}_{name.upper()}"))

    def _refuse(self, said: str) -> NoReturn:
        raise _wrong(self._next.line, said)


def _wrong(line: int, said: str) -> ContractError:
    return ContractError(f"The .proto is wrong in line {line}: {said}.", remedy="Correct it.")


def _tokens(source: str) -> Iterator[_Token]:
    at, line = 0, 1
    while at < len(source):
        found = _TOKEN.match(source, at)
        if found is None:
            raise _wrong(line, f"{source[at : at + 10]!r} is no Protobuf")
        kind, text = str(found.lastgroup), found.group()
        if kind != "blank":
            yield _Token(kind, text, line)
        line, at = line + text.count("\n"), found.end()
    yield _Token("end", "the end", line)


def _unescaped(found: re.Match[bytes]) -> bytes:
    escape = found[1]
    if escape[:1] in b"01234567":
        return bytes((int(escape, 8) & 0xFF,))
    if escape[:1] in b"xX" and len(escape) > 1:
        return bytes((int(escape[1:], 16),))
    return bytes((_ESCAPED.get(escape[0], escape[0]),)) + escape[1:]


def _add_presence(message: Any) -> None:
    """Protobuf says that a field has presence by a oneof of its own."""
    taken = {each.name for each in (*message.field, *message.oneof_decl, *message.nested_type, *message.enum_type)}
    for field in message.field:
        if field.proto3_optional:
            name = f"_{field.name}"
            while name in taken:
                name = "X" + name
            taken.add(name)
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=name)


def _symbols_of(file: Any) -> Iterator[tuple[str, str]]:
    """Each type of a file by its full name, with the dot before it: MESSAGE or ENUM."""
    waiting = [(f".{file.package}" if file.package else "", file.message_type, file.enum_type)]
    while waiting:
        scope, messages, enums = waiting.pop()
        yield from ((f"{scope}.{each.name}", "ENUM") for each in enums)
        for message in messages:
            yield f"{scope}.{message.name}", "MESSAGE"
            waiting.append((f"{scope}.{message.name}", message.nested_type, message.enum_type))


def _resolve(message: Any, scope: str, symbols: Mapping[str, str]) -> None:
    """Give each field's type its full name, from the innermost scope outwards."""
    here = f"{scope}.{message.name}"
    for field in message.field:
        if name := field.type_name:
            found = next((each for each in _candidates(name, here) if each in symbols), None)
            if found is None:
                raise ContractError(
                    f"{here[1:]}.{field.name} is of the type {name}, which the .proto does not declare.",
                    remedy="Declare it, or import the file that does.",
                )
            field.type_name = found
            field.type = getattr(descriptors().FieldDescriptorProto, f"TYPE_{symbols[found]}")
    for each in message.nested_type:
        _resolve(each, here, symbols)


def _candidates(name: str, scope: str) -> Iterator[str]:
    if name.startswith("."):
        yield name
        return
    while scope:
        yield f"{scope}.{name}"
        scope = scope.rpartition(".")[0]
    yield f".{name}"


def write_text(file: Any) -> str:
    """A FileDescriptorProto in proto3, as text. Its options are not written, except for fields' names in JSON."""
    symbols = {name for name, _ in _symbols_of(file)}
    lines = ['syntax = "proto3";', ""]
    if file.package:
        lines += [f"package {file.package};", ""]
        parts = file.package.split(".")
        symbols |= {"." + ".".join(parts[:end]) for end in range(1, len(parts) + 1)}
    if file.dependency:
        lines += [*(f'import "{path}";' for path in file.dependency), ""]
    scope = f".{file.package}" if file.package else ""
    for each in file.message_type:
        lines += [*_message_lines(each, scope, symbols), ""]
    for each in file.enum_type:
        lines += [*_enum_lines(each), ""]
    return "\n".join(lines)


def _message_lines(message: Any, scope: str, symbols: set[str]) -> list[str]:
    here = f"{scope}.{message.name}"
    inner: list[str] = []
    for each in message.enum_type:
        inner += _enum_lines(each)
    for each in message.nested_type:
        inner += [] if each.options.map_entry else _message_lines(each, here, symbols)
    entries = {f"{here}.{each.name}": each for each in message.nested_type if each.options.map_entry}
    for field in message.field:
        if not _is_member(field):
            inner.append(_field_line(field, here, symbols, entries))
            continue
        members = [each for each in message.field if _is_member(each) and each.oneof_index == field.oneof_index]
        if field.name == members[0].name:
            inner.append(f"oneof {message.oneof_decl[field.oneof_index].name} {{")
            inner += [f"  {_field_line(each, here, symbols, entries)}" for each in members]
            inner.append("}")
    return [f"message {message.name} {{", *(f"  {line}" for line in inner), "}"]


def _is_member(field: Any) -> bool:
    """Whether a field stands in a oneof, other than the one that says whether an optional field is there."""
    return bool(field.HasField("oneof_index")) and not field.proto3_optional


def _field_line(field: Any, scope: str, symbols: set[str], entries: Mapping[str, Any]) -> str:
    words = _type_words(field, scope, symbols)
    if (entry := entries.get(field.type_name)) is not None:
        key, value = entry.field
        words = f"map<{_type_words(key, scope, symbols)}, {_type_words(value, scope, symbols)}>"
    elif field.label == field.LABEL_REPEATED:
        words = f"repeated {words}"
    elif field.proto3_optional:
        words = f"optional {words}"
    options = f' [json_name = "{field.json_name}"]' if field.json_name else ""
    return f"{words} {field.name} = {field.number}{options};"


def _type_words(field: Any, scope: str, symbols: set[str]) -> str:
    if not field.type_name:
        return str(field.Type.Name(field.type)).removeprefix("TYPE_").lower()
    # As short as it means the same there: the first part may name something nearer.
    common = scope
    while common and not field.type_name.startswith(common + "."):
        common = common.rpartition(".")[0]
    short = field.type_name.removeprefix(common + ".")
    first = short.partition(".")[0]
    nearest = next((each for each in _candidates(first, scope) if each in symbols), f".{first}")
    return short if nearest == f"{common}.{first}" else str(field.type_name)


def _enum_lines(enum: Any) -> list[str]:
    return [f"enum {enum.name} {{", *(f"  {value.name} = {value.number};" for value in enum.value), "}"]
