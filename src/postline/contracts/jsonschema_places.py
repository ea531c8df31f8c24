"""Places in a JSON Schema document: what its references name, by JSON pointer, anchor or id."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from postline.errors import ContractError

__all__ = ["Places", "WrongJsonSchema", "step", "wrong"]

_REMEDY = "Correct it, or declare a class."


class WrongJsonSchema(ContractError):
    """A JSON Schema that nobody could read, rather than one that is more than the type model can say."""


class Places:
    """What a document's own references name. Source: JSON Schema Core 2020-12, 8.2; RFC 6901."""

    def __init__(self, document: Any) -> None:
        self._document = document
        #: Pointers by the names that parts gave themselves; read when the first such name is met.
        self._named: dict[str, str] | None = None

    def found(self, reference: Any, at: str) -> tuple[Any, str]:
        """The part that a reference names, and its pointer. Raises ContractError for one of another document."""
        if not isinstance(reference, str):
            raise wrong(at, f"{reference!r:.60} is no reference")
        base, _, fragment = reference.partition("#")
        fragment = unquote(fragment)
        pointer = "#" if not base else self._names().get(base)
        if pointer is not None and fragment and not fragment.startswith("/"):
            pointer, fragment = self._names().get(f"#{fragment}"), ""
        if pointer is None:
            if not base:
                raise wrong(at, f"{reference} is not there")
            said = f"it refers to another document, {reference!r:.200}; put that one into this"
            raise ContractError(_worded(at, said), remedy=_REMEDY)
        part = self._document
        pointer += fragment
        for each in pointer.split("/")[1:]:
            key = each.replace("~1", "/").replace("~0", "~")
            try:
                part = part[_index(key)] if isinstance(part, list) else part[key]
            except (KeyError, IndexError, ValueError, TypeError):
                raise wrong(at, f"{reference} is not there") from None
        return part, pointer

    def _names(self) -> dict[str, str]:
        if self._named is None:
            self._named = {}
            waiting = [(self._document, "#")]
            while waiting:
                part, at = waiting.pop()
                if isinstance(part, dict):
                    self._name(part, at)
                    waiting += [(each, f"{at}/{step(key)}") for key, each in part.items()]
                elif isinstance(part, list):
                    waiting += [(each, f"{at}/{n}") for n, each in enumerate(part)]
        return self._named

    def _name(self, part: dict[str, Any], at: str) -> None:
        assert self._named is not None
        for word in ("$id", "id", "$anchor"):
            if isinstance(name := part.get(word), str) and name:
                self._named.setdefault(f"#{name}" if word == "$anchor" else name.removesuffix("#"), at)


def step(key: str) -> str:
    """A key as a JSON pointer has it."""
    return key.replace("~", "~0").replace("/", "~1")


def wrong(at: str, said: str) -> WrongJsonSchema:
    """The error for a document that can't be read at a pointer."""
    return WrongJsonSchema(_worded(at, said), remedy=_REMEDY)


def _worded(at: str, said: str) -> str:
    return f"The JSON Schema can't be read: {at:.300}: {said}."


def _index(key: str) -> int:
    if not key.isdecimal():
        raise ValueError(key)
    return int(key)
