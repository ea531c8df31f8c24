"""Which key of a map an error of decoding means, where the library tells no more than that it is one of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from postline.message import UNREADABLE

__all__ = ["with_keys", "with_keys_of"]

_ANY_KEY, _OF_KEY = "[...]", "`key` in"
_PLACED = re.compile(r"(.*) - at `(?:key` in `)?(\$[^`]*)`", re.DOTALL)
_STEP = re.compile(r"\[\d+\]|\[\.\.\.\]|[^.\[\]]+")
_KEY_SHOWN_MAX = 60


def with_keys(said: str, data: bytes, decode: Callable[[bytes], Any]) -> str:
    """What decoding said of JSON, its path with the keys of maps; as it was where they can't be found.

    Decodes the content anew, with half the keys of a map, and half of those that it fails with: for failures alone.
    """
    if _ANY_KEY not in said and _OF_KEY not in said:
        return said
    try:
        content = msgspec.json.decode(data)
    except UNREADABLE:
        return said
    return with_keys_of(said, content, lambda each: decode(msgspec.json.encode(each)))


def with_keys_of(said: str, content: Any, load: Callable[[Any], Any]) -> str:
    """The same of plain values, of which maps are left with the keys that were found."""
    placed = _PLACED.fullmatch(said)
    if placed is None or (_ANY_KEY not in said and _OF_KEY not in said):
        return said
    try:
        return _Search(said, content, load).place(placed[1], placed[2])
    except (LookupError, TypeError, AttributeError):
        return said


class _Search:
    def __init__(self, said: str, content: Any, load: Callable[[Any], Any]) -> None:
        self._said, self._content, self._load = said, content, load

    def place(self, what: str, path: str) -> str:
        here, found = self._content, "$"
        for step in _STEP.findall(path)[1:]:
            if step == _ANY_KEY:
                key = self._key(here)
                here, found = here[key], f"{found}[{_shown(key)}]"
            elif step.startswith("["):
                here, found = here[int(step[1:-1])], found + step
            else:
                here, found = here[step], f"{found}.{step}"
        if _OF_KEY in self._said:
            return f"{what} - at the key {_shown(self._key(here))} in `{found}`"
        return f"{what} - at `{found}`"

    def _key(self, place: dict[Any, Any]) -> Any:
        """The key of a map in the content by which decoding fails as it did; the map is left with it alone."""
        keys = list(place)
        all_of = dict(place)
        while len(keys) > 1:
            half = keys[: len(keys) // 2]
            self._keep(place, all_of, half)
            keys = half if self._fails() else keys[len(keys) // 2 :]
        self._keep(place, all_of, keys)
        if not self._fails():
            raise LookupError(keys)
        return keys[0]

    def _keep(self, place: dict[Any, Any], all_of: dict[Any, Any], keys: list[Any]) -> None:
        place.clear()
        place.update((key, all_of[key]) for key in keys)

    def _fails(self) -> bool:
        try:
            self._load(self._content)
        except Exception as error:  # noqa: BLE001 - whatever a class of the user's raises
            return str(error) == self._said
        return False


def _shown(key: Any) -> str:
    return f"{key!r:.{_KEY_SHOWN_MAX}}"
