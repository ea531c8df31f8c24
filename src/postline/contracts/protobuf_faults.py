"""Where bytes stop being a Protobuf message: Protobuf's library only says that they do."""

from __future__ import annotations

from typing import Any

__all__ = ["fault_in"]

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
#: Protobuf's libraries refuse deeper messages.
_DEPTH_MAX = 100
#: Of a path; more would push what is wrong out of the line.
_STEPS_SHOWN = 20


class _Fault(Exception):
    """What is wrong at the end of the path."""


def fault_in(descriptor: Any, data: bytes) -> str:
    """The path of the first fault in bytes that should be a message of the descriptor, and what it is; "" for none.

    Source: Protobuf's encoding guide.
    """
    path: list[str] = []
    try:
        _walk(descriptor, data, path)
    except _Fault as fault:
        return f"{_shown(path)}: {fault}"
    return ""


def _shown(path: list[str]) -> str:
    if len(path) > _STEPS_SHOWN:
        path = [*path[:_STEPS_SHOWN], "…", path[-1]]
    return ".".join(path) or "the message"


def _walk(descriptor: Any, data: bytes, path: list[str]) -> None:
    if len(path) > _DEPTH_MAX:
        raise _Fault(f"messages lie in each other more than {_DEPTH_MAX} deep")
    at = 0
    while at < len(data):
        tag, at = _varint(data, at, "the number of a field")
        field = descriptor.fields_by_number.get(tag >> 3) if descriptor is not None else None
        path.append(field.name if field is not None else f"field {tag >> 3}")
        at = _value(field, tag, data, at, path)
        path.pop()


def _value(field: Any, tag: int, data: bytes, at: int, path: list[str]) -> int:
    """Passes over one value; gives where it ends."""
    number, kind = tag >> 3, tag & 7
    if number == 0 or kind not in {_VARINT, _FIXED64, _LENGTH, _FIXED32}:
        raise _Fault(f"no field begins with {tag}")
    if kind == _VARINT:
        return _varint(data, at, "a number")[1]
    size = _WIDTHS.get(kind, 0)
    if kind == _LENGTH:
        size, at = _varint(data, at, "a length")
    if at + size > len(data):
        raise _Fault(f"it should have {size} bytes, and {len(data) - at} are left")
    if kind == _LENGTH and field is not None:
        _content(field, data[at : at + size], path)
    return at + size


def _content(field: Any, data: bytes, path: list[str]) -> None:
    if field.type == field.TYPE_MESSAGE:
        _walk(field.message_type, data, path)
    elif field.type == field.TYPE_STRING:
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise _Fault(f"its text is no UTF-8 ({error.reason} at byte {error.start})") from None


def _varint(data: bytes, at: int, what: str) -> tuple[int, int]:
    found = 0
    for shift in range(10):
        if at + shift >= len(data):
            raise _Fault(f"it ends within {what}")
        found |= (data[at + shift] & 0x7F) << 7 * shift
        if data[at + shift] < 0x80:
            return found, at + shift + 1
    raise _Fault(f"{what} has no end")
