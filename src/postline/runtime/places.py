"""Where an error came from: the innermost frame of the user's code, and the group that it belongs to."""

from __future__ import annotations

import hashlib
import site
import sysconfig
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from postline.errors import DecodeError

__all__ = ["Place", "causes_of", "fingerprint", "place_of"]

_PACKAGE = str(Path(__file__).resolve().parent.parent)
_CAUSES_MAX = 10
_DIGITS = 8


class Place(NamedTuple):
    """Where an error was raised, as people read it, and the group of all that were raised alike."""

    text: str
    group: str


def place_of(error: BaseException, otherwise: str) -> Place:
    """The place of an error; `otherwise` names it where no frame of the user's code is in it."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    frame = None if isinstance(error, DecodeError) else _innermost(error)
    if frame is None:
        return Place(otherwise, fingerprint(kind, otherwise))
    (module, function), line = frame
    where = f"{module}:{function}"
    return Place(f"{where} (line {line})", fingerprint(kind, where))


def fingerprint(kind: str, where: str) -> str:
    """The group's name: eight hexadecimal digits, the same in every process and for every line of the function."""
    return hashlib.blake2b(f"{kind}\0{where}".encode(), digest_size=_DIGITS // 2).hexdigest()


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """What led to the error, the nearest first: `raise … from`, or what was being handled."""
    seen = {id(error)}
    for _ in range(_CAUSES_MAX):
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is None or id(cause) in seen:
            return
        seen.add(id(cause))
        yield cause
        error = cause


def _innermost(error: BaseException) -> tuple[tuple[str, str], int] | None:
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if not _is_foreign(frame.f_code.co_filename):
            found = (_name(frame), line)
    return found


def _name(frame: FrameType) -> tuple[str, str]:
    return str(frame.f_globals.get("__name__", "?")), frame.f_code.co_qualname


@cache
def _is_foreign(filename: str) -> bool:
    """Whether code is Postline's, the standard library's, or an installed package's."""
    return filename.startswith(("<frozen", _PACKAGE, *_libraries())) and not filename.startswith("<string")


@cache
def _libraries() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    places = {paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"], *site.getsitepackages()}
    return tuple(sorted({str(Path(each).resolve()) for each in places} | places))
