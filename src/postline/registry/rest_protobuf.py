"""Protobuf's documents over HTTP, which clients write and ask for either as text or as a serialized file descriptor."""

from __future__ import annotations

import base64
import binascii
import importlib
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from postline.contracts.protobuf_layout import descriptors
from postline.contracts.protobuf_text import parse_text, write_text
from postline.errors import ContractError

__all__ = ["as_descriptor", "as_text", "check_protobuf", "is_descriptor", "same_protobuf"]

#: What every client has at hand, so that nobody registers it: Google's types, and the marks of Confluent's.
_EVERYWHERE = re.compile(r'(?:^|;)\s*import\s+(?:public\s+)?"(?:confluent|google/type)/', re.MULTILINE)
_EDITION = re.compile(r"(?:\s+|//[^\n]*\n|/\*.*?\*/)*edition\s*=", re.DOTALL)


def check_protobuf(text: str, imports: Mapping[str, str]) -> None:
    """Refuse what is no Protobuf. Raises ContractError.

    Text that only says more than is read here (editions, imports that every client knows) passes.
    """
    if not text.strip():
        raise ContractError("The schema is empty.", remedy="Send the text of a .proto, or its descriptor in base64.")
    if _EDITION.match(text) or _EVERYWHERE.search(text):
        return
    _file(text, imports)


def as_descriptor(text: str, imports: Mapping[str, str]) -> str:
    """The file's descriptor in base64, as it came if it came as one. Raises ContractError."""
    if is_descriptor(text):
        return text
    return base64.b64encode(_file(text, imports).SerializeToString()).decode()


@lru_cache(1_024)
def as_text(text: str) -> str:
    """The document as text for people, if that says all of it; else as it came."""
    if not is_descriptor(text):
        return text
    try:
        file = _file(text, {})
        for field in _fields(file.message_type):
            if field.json_name == _json_name(field.name):
                field.ClearField("json_name")
        written = write_text(file)
        return written if _plain(_file(written, {})) == _plain(file) else text
    except ContractError:  # it says what the text could not, or imports what is not at hand
        return text


def same_protobuf(one: str, other: str, imports: Mapping[str, str]) -> bool:
    """Whether two documents are one: of the same text, or the text and the descriptor of one file."""
    if is_descriptor(one) == is_descriptor(other):
        return one.strip() == other.strip()
    try:
        return _bare(_file(one, imports)) == _bare(_file(other, imports))
    except ContractError:
        return False


def is_descriptor(text: str) -> bool:
    """Whether the document is a descriptor in base64; text of a `.proto` has marks that base64 has not."""
    return bool(re.fullmatch(r"[A-Za-z0-9+/\s]+=*\s*", text))


def _file(text: str, imports: Mapping[str, str]) -> Any:
    opened: set[str] = set()

    def imported(path: str) -> Any:
        if path in opened or (path not in imports and not path.startswith("google/protobuf/")):
            raise ContractError(f"The .proto imports {path}, which is not at hand.", remedy="Refer to its subject.")
        if path not in imports:
            return _google_file(path)
        opened.add(path)
        found = _read(imports[path], imported)
        opened.discard(path)
        return found

    return _read(text, imported)


def _read(text: str, imported: Any) -> Any:
    if not is_descriptor(text):
        return parse_text(text, imported)
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        return descriptors().FileDescriptorProto.FromString(base64.b64decode(text))
    except (binascii.Error, DecodeError) as error:
        raise ContractError(f"The schema is no file descriptor in base64: {error}.", remedy="Correct it.") from error


def _google_file(path: str) -> Any:
    name = path.removeprefix("google/protobuf/").removesuffix(".proto")
    if not re.fullmatch(r"[a-z_]+", name):
        raise ContractError(f"There is no {path}.", remedy="Correct the import.")
    try:
        module = importlib.import_module(f"google.protobuf.{name}_pb2")
    except ModuleNotFoundError as error:
        raise ContractError(f"There is no {path}.", remedy="Correct the import.") from error
    file = descriptors().FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    return file


def _plain(file: Any) -> bytes:
    """The file without its name and what says nothing."""
    copy = descriptors().FileDescriptorProto()
    copy.CopyFrom(file)
    copy.ClearField("name")
    copy.ClearField("source_code_info")
    for field in _fields(copy.message_type):
        if field.json_name == _json_name(field.name):
            field.ClearField("json_name")
    return bytes(copy.SerializeToString(deterministic=True))


def _bare(file: Any) -> bytes:
    """The file without what text is read without: options, services and extensions."""
    copy = descriptors().FileDescriptorProto()
    copy.CopyFrom(file)
    if copy.syntax == "proto2":
        copy.ClearField("syntax")
    for name in ("options", "service", "extension", "public_dependency", "weak_dependency"):
        copy.ClearField(name)
    _strip_messages(copy.message_type)
    _strip_enums(copy.enum_type)
    return _plain(copy)


def _strip_messages(messages: Any) -> None:
    for message in messages:
        if not message.options.map_entry:
            message.ClearField("options")
        for name in ("extension", "extension_range", "reserved_range", "reserved_name"):
            message.ClearField(name)
        for part in (*message.field, *message.oneof_decl):
            part.ClearField("options")
        _strip_enums(message.enum_type)
        _strip_messages(message.nested_type)


def _strip_enums(enums: Any) -> None:
    for enum in enums:
        for name in ("options", "reserved_range", "reserved_name"):
            enum.ClearField(name)
        for value in enum.value:
            value.ClearField("options")


def _fields(messages: Any) -> list[Any]:
    return [
        field for message in messages for field in (*message.field, *message.extension, *_fields(message.nested_type))
    ]


def _json_name(name: str) -> str:
    """The name in JSON that the compiler gives a field (protobuf's descriptor.cc, ToJsonName)."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)
