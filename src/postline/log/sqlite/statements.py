"""SQL by name: statements live in `sql/*.sql`, each under a line `-- name: …`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources

__all__ = ["script", "statements"]

_MARK = "-- name: "


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
