"""Texts that a regular expression matches: made by reading it once, a choice at each turn, and then tried."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TypeAlias

__all__ = ["text_matching"]

#: What a piece gives at its n-th repetition.
_Piece: TypeAlias = Callable[[int], str]

_LENGTH_MAX = 10_000
_EXTRAS = 33
#: Tried in this order for a class; the first few are what people like to read.
_CHARACTERS = (
    string.ascii_lowercase
    + string.ascii_uppercase
    + string.digits
    + string.punctuation
    + " \t\n"
    + "".join(map(chr, range(0xA1, 0x250)))
    + "".join(map(chr, range(0x391, 0x450)))
)
_ANY = "aA1-bB2_cC3."
_HEADS = re.compile(r"\?(?:[aiLmsux]*:|P?<[A-Za-z_]\w*>|>)")
_AHEAD = re.compile(r"\?(?:=|!|<=|<!|#)")
_FLAGS = re.compile(r"\(\?[aiLmsux]+\)")
_COUNT = re.compile(r"\{(\d*)(,?)(\d*)\}")
_ESCAPES = re.compile(r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|.)", re.DOTALL)


def text_matching(pattern: str, least: int, most: int | None, number: int) -> str | None:
    """A text of that length in which the pattern is found; numbers give different ones where there are several.

    Number 1 gives the shortest. None where it finds none, as for back references, or if the pattern is malformed.
    """
    try:
        expression = re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return None
    found = []
    for text in _candidates(pattern, least, number):
        # What is not anchored may stand in a longer text.
        for each in (text, text.ljust(least, "x"), text.rjust(least, "x")):
            if least <= len(each) and (most is None or len(each) <= most) and expression.search(each):
                found.append(each)
                break
        if found and (number != 1 or len(found) > 2):
            break
    return min(found, key=len, default=None)


def _candidates(pattern: str, least: int, number: int) -> Iterator[str]:
    """Texts from the likeliest on: of a usual length, then as long as they must be, then of all short ones."""
    usual = (0,) if number == 1 else (2, 5) if number % 2 else (1, 3)
    for extra in usual:
        if (text := _read(pattern, number, extra)) is not None:
            yield text
            if (missing := least - len(text)) > 0 and (longer := _read(pattern, number, extra + missing)) is not None:
                yield longer
    for extra in (*range(_EXTRAS), *range(least, _EXTRAS, -1)[:_EXTRAS]):
        for choice in (number, number + 1, number + 2):
            if (text := _read(pattern, choice, extra)) is None:
                break
            yield text


def _read(pattern: str, number: int, extra: int) -> str | None:
    try:
        return _Reading(pattern, number, extra).text()
    except (_TooMuch, RecursionError):
        return None


class _TooMuch(Exception):
    """The text gets too long, or the pattern has what is not read here."""


class _Reading:
    """Reads a pattern from left to right; repetitions happen `extra` times more than they must."""

    def __init__(self, pattern: str, number: int, extra: int) -> None:
        self._pattern, self._number, self._extra = pattern, number, extra
        self._at = 0

    def text(self) -> str:
        """What the whole pattern gives."""
        piece = self._alternatives()
        if self._at < len(self._pattern):
            raise _TooMuch
        return piece(0)

    def _alternatives(self) -> _Piece:
        options = [self._sequence()]
        while self._take("|"):
            options.append(self._sequence())
        return options[self._number % len(options)]

    def _sequence(self) -> _Piece:
        pieces = []
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            pieces.append(self._repeated(self._atom()))
        return lambda turn: _joined(piece(turn) for piece in pieces)

    def _repeated(self, piece: _Piece) -> _Piece:
        count = self._count()
        if count is None:
            return piece
        self._take("?") or self._take("+")  # lazy or possessive: the same texts
        if count > _LENGTH_MAX:
            raise _TooMuch
        return lambda turn: _joined(piece(turn + each) for each in range(count))

    def _count(self) -> int | None:
        if self._take("*"):
            return self._extra
        if self._take("+"):
            return 1 + self._extra
        if self._take("?"):
            return min(1, self._extra)
        if (found := _COUNT.match(self._pattern, self._at)) and (found[1] or found[3]):
            self._at = found.end()
            low = int(found[1] or 0)
            high = low if not found[2] else int(found[3]) if found[3] else low + self._extra
            return min(low + self._extra, high)
        return None

    def _atom(self) -> _Piece:
        if flags := _FLAGS.match(self._pattern, self._at):
            self._at = flags.end()
            return _nothing
        if self._take("("):
            return self._group()
        if self._take("^") or self._take("$"):
            return _nothing
        if self._take("."):
            return self._one_of(_ANY)
        if self._pattern[self._at] == "[":
            return self._one_of(_members(self._through(self._end_of_class())))
        if escape := _ESCAPES.match(self._pattern, self._at):
            text = self._through(escape.end())
            return _nothing if text[1] in "AbBZ" else self._one_of(_members(text))
        literal = self._through(self._at + 1)
        return lambda turn: literal

    def _group(self) -> _Piece:
        ahead = _AHEAD.match(self._pattern, self._at)
        if head := ahead or _HEADS.match(self._pattern, self._at):
            self._at = head.end()
        piece = self._alternatives()
        if not self._take(")"):
            raise _TooMuch
        return _nothing if ahead else piece

    def _one_of(self, characters: str) -> _Piece:
        if not characters:
            raise _TooMuch
        number = self._number
        return lambda turn: characters[(number + turn) % len(characters)]

    def _end_of_class(self) -> int:
        at = self._at + 1
        at += self._pattern.startswith("^", at)
        at += self._pattern.startswith("]", at)
        while self._pattern[at] != "]":
            at += 2 if self._pattern[at] == "\\" else 1
        return at + 1

    def _through(self, end: int) -> str:
        start, self._at = self._at, end
        return self._pattern[start:end]

    def _take(self, text: str) -> bool:
        found = self._pattern.startswith(text, self._at)
        self._at += len(text) if found else 0
        return found


def _nothing(turn: int) -> str:
    return ""


def _joined(texts: Iterable[str]) -> str:
    found, length = [], 0
    for each in texts:
        found.append(each)
        length += len(each)
        if length > _LENGTH_MAX:
            raise _TooMuch
    return "".join(found)


@lru_cache(256)
def _members(pattern: str) -> str:
    """Some characters that a class or an escape takes."""
    try:
        expression = re.compile(pattern, re.DOTALL)
    except re.error:  # a reference to a group, say
        return ""
    return "".join(each for each in _CHARACTERS if expression.fullmatch(each))[:64]
