"""How a class that renames its fields writes them, so that former names may be said as Python has them, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

__all__ = ["Renaming", "former_names", "renaming_of"]

#: From an attribute's name to the one on the wire.
Renaming = Callable[[str], str]


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(each[:1].upper() + each[1:] for each in rest)


def _pascal(name: str) -> str:
    return "".join(each[:1].upper() + each[1:] for each in name.split("_"))


def _kebab(name: str) -> str:
    return name.strip("_").replace("_", "-")


_STYLES: tuple[Renaming, ...] = (_camel, _pascal, _kebab, str.lower, str.upper)


def renaming_of(names: Mapping[str, str]) -> Renaming | None:
    """The style in which a class names its fields, by attribute; None for Python's own, or none."""
    if all(name == wire for name, wire in names.items()):
        return None
    return next((style for style in _STYLES if all(style(name) == wire for name, wire in names.items())), None)


def former_names(said: Iterable[str], renaming: Renaming | None) -> tuple[str, ...]:
    """Former names as they are said and, where a class renames its fields, as it would have written them."""
    found = tuple(said)
    return found if renaming is None else tuple(dict.fromkeys([*found, *map(renaming, found)]))
