"""What lines tell as data: `extra=` and fields as JSON has them, and texts without the secrets of URLs."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Set
from typing import Any

from postline.logs.handled import Hide

__all__ = ["STANDARD", "extras_of", "hidden_in", "plain", "redacted", "text_of"]

#: What every line has; whatever else stands on one was given by `extra=`.
STANDARD = frozenset(
    [
        *vars(logging.LogRecord("", 0, "", 0, "", None, None)),
        *("message", "asctime", "taskName", "postline", "postline_event", "postline_fields", "postline_error"),
    ]
)
_DEPTH_MAX = 8
_USER = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@'\"]+@", re.IGNORECASE)
_OPTION = re.compile(
    r"([?&][\w.-]*(?:password|passwd|passphrase|secret|token|credential|signature|api[._-]?key|jaas|\.pem)[\w.-]*=)"
    r"[^&\s'\"<>]+",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """The text without what URLs in it tell of users and passwords."""
    if "://" not in text:
        return text
    return _OPTION.sub(r"\1***", _USER.sub(r"\1***@", text))


def text_of(value: object) -> str:
    """The value as text, whatever it is like; without lone surrogates, which no encoding has."""
    try:
        return str(value).encode("utf-8", "backslashreplace").decode()
    except Exception as error:  # noqa: BLE001 - a line must not hang on how a value prints
        return f"(its text can't be had: {type(error).__qualname__})"


def extras_of(record: logging.LogRecord) -> dict[str, Any]:
    """What `extra=` gave to a line."""
    return {name: value for name, value in record.__dict__.items() if name not in STANDARD}


def plain(value: Any, depth: int = 0) -> Any:
    """The value as JSON has it: bytes and whatever else it knows not as text, secrets of URLs masked."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth < _DEPTH_MAX:
        if isinstance(value, Mapping):
            return {text_of(name): plain(each, depth + 1) for name, each in value.items()}
        if isinstance(value, list | tuple | Set):
            return [plain(each, depth + 1) for each in value]
    return redacted(value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else text_of(value))


def hidden_in(value: Any, hide: Hide) -> Any:
    """The value as JSON has it, with what is to be hidden masked in all its texts."""
    match plain(value):
        case dict() as found:
            return {hide(name): hidden_in(each, hide) for name, each in found.items()}
        case list() as found:
            return [hidden_in(each, hide) for each in found]
        case str() as found:
            return hide(found)
        case None | bool() as found:
            return found
        case found:
            return found if (shown := hide(str(found))) == str(found) else shown
