"""What errors may say of values whose contract marks some as sensitive: where and what is wrong, and no value."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from postline.contracts.masking import has_sensitive
from postline.contracts.schema import Record, Schema
from postline.errors import PostlineError

__all__ = ["Telling", "discreet_place", "telling_of"]

#: What is wrong, in words without values.
Telling: TypeAlias = Callable[[BaseException], str]

_REFUSED = "its value is refused"
#: What msgspec says without quoting a value. A class's own words, from its `__post_init__` say, are none of these.
_SAFE = re.compile(
    r"Expected `[^`]*`.*|Object missing required field `\w+`|Invalid (?:UUID|RFC3339|ISO8601|base64|decimal)[^'\"]*"
    r"|Number out of range|(?:Duration|Timezone|Integer)[^'\"\d]*",
    re.DOTALL,
)
_PLACED = re.compile(r"(.*) - at `([^`]*)`(?:.*)", re.DOTALL)
#: As pydantic names what it can't write.
_FIELD = re.compile(r"field_name='(\w+)'")
_STEP = re.compile(r"\[\d+\]|\[\.\.\.\]|\[[^\]]*\]|[^.\[\]]+")
_SHOWN_MAX = 5


def telling_of(*schemas: Schema) -> Telling | None:
    """How errors are told of values of these schemas; None where nothing is marked, and errors may say all.

    Handlers and validators of users are not held back: what they raise themselves is told by its class alone here.
    """
    if not any(map(has_sensitive, schemas)):
        return None
    names = frozenset(name for schema in schemas for name in _names_in(schema))
    return lambda error: _told(error, names)


def discreet_place(path: str, telling: Telling) -> str:
    """That something is wrong with a value at a path; what it is would tell the value."""
    return telling(msgspec.ValidationError(f"{_REFUSED} - at `{path.strip('`')}`"))


def _names_in(schema: Schema) -> set[str]:
    found = {"$", "key", "[...]"}
    for definition in schema.definitions.values():
        if isinstance(definition, Record):
            found |= {field.name for field in definition.fields} | {definition.tag_field, definition.name}
            found |= {alias for field in definition.fields for alias in field.aliases}
    return found


def _told(error: BaseException, names: frozenset[str]) -> str:
    details = getattr(error, "errors", None)
    if callable(details) and hasattr(error, "error_count"):
        return _of_pydantic(error, names)
    match error:
        case PostlineError():
            return error.message.removesuffix(".")  # of ours, which tells no value, or was told so before
        case msgspec.ValidationError():
            return _of_msgspec(str(error), names)
        case msgspec.DecodeError():
            return str(error)  # of what is no JSON: a place, and what is wrong there
        case UnicodeError():
            return "its text is no UTF-8"
        case RecursionError():
            return "its values are nested too deeply"
    path = getattr(error, "path", "")
    place = f"{_known(path, names)}: " if isinstance(path, str) and path else ""
    return f"{place}{_REFUSED} ({type(error).__name__})"


def _of_msgspec(said: str, names: frozenset[str]) -> str:
    placed = _PLACED.fullmatch(said)
    what, path = (placed[1], placed[2]) if placed else (said, "")
    what = what if _SAFE.fullmatch(what) else _REFUSED
    if not path and (named := _FIELD.search(said)):
        path = named[1]
    return f"{what} - at `{_known(path, names)}`" if path else what


def _of_pydantic(error: BaseException, names: frozenset[str]) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)  # type: ignore[attr-defined]
    told = [
        f"{'.'.join(str(step) if isinstance(step, int) or step in names else '…' for step in each['loc'])}: "
        f"{each['type']}".removeprefix(": ")
        for each in found[:_SHOWN_MAX]
    ]
    more = [f"and {len(found) - _SHOWN_MAX} more"] if len(found) > _SHOWN_MAX else []
    return "; ".join([*told, *more])


def _known(path: str, names: frozenset[str]) -> str:
    """A path without the keys of maps, which may be what nobody is to see."""
    steps = [each if each in names or re.fullmatch(r"\[\d+\]", each) else "…" for each in _STEP.findall(path)]
    return ".".join(steps).replace(".[", "[")
