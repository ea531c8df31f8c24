"""SQL by name: statements live in `sql/*.sql`, each under a line `-- name: …`."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import TypeVar

__all__ = ["SIZES", "filled", "script", "statements"]

_MARK = "-- name: "
#: Rows of one statement; a few sizes, so that each is compiled once.
SIZES = (100, 30, 10, 4, 2, 1)

ValueT = TypeVar("ValueT")


def filled(values: Sequence[ValueT]) -> Iterator[tuple[list[ValueT], int]]:
    """The values in pieces of the `SIZES`, each with its size.

    The last value fills up: a value more costs less than a statement more, for which the thread lets go of Python.
    """
    for first in range(0, len(values), SIZES[0]):
        some = values[first : first + SIZES[0]]
        size = min(size for size in SIZES if size >= len(some))
        yield [*some, *[some[-1]] * (size - len(some))], size


@functools.cache
def script(path: str) -> str:
    """The text of the file `path` inside `sql/`, e.g. "schema.sql"; read once."""
    return resources.files("postline.log.sqlite").joinpath("sql", path).read_text("utf-8")


@functools.cache
def statements(name: str) -> Mapping[str, str]:
    """The named statements of `sql/<name>.sql`; read at the first call."""
    found = {}
    for block in script(f"{name}.sql").split(_MARK)[1:]:
        title, _, text = block.partition("\n")
        found[title.strip()] = text.strip().rstrip(";")
    return found
