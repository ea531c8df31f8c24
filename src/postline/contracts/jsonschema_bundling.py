"""One JSON Schema of several files: what a document refers to by relative paths becomes a part of it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from postline.contracts.jsonschema_places import step, wrong

__all__ = ["bundle"]

#: Whoever refers to more has no schema of a message.
_DOCUMENTS_MAX = 1000


def bundle(document: Any, read: Callable[[str], Any], *, path: str = "") -> Any:
    """The document with the others under its `$defs`, and references to them changed (JSON Schema Core 2020-12, 9.3).

    `path` is the document's own; `read` gives another one by its path relative to where `path` is, or None if there
    is none. References to URLs, and to what can't be read, stay as they are. Raises ContractError for too many.
    """
    if not isinstance(document, dict) or not isinstance(document.get("$defs", {}), dict):
        return document  # no schema; whoever parses it says so
    bundling = _Bundling(document, read, posixpath.basename(path))
    try:
        made = bundling.changed(document, bundling.path)
        bundling.read_all()
    except RecursionError:
        raise wrong("#", "it nests types too deeply") from None
    if bundling.parts:
        made["$defs"] = {**made.get("$defs", {}), **bundling.parts}
    return made


class _Bundling:
    def __init__(self, document: dict[str, Any], read: Callable[[str], Any], path: str) -> None:
        self.path = path
        self.parts: dict[str, Any] = {}
        self._read = read
        #: The pointers of documents by their paths; None for those that can't be read.
        self._pointers: dict[str, str | None] = {path: "#"}
        self._waiting: list[tuple[str, str, Any]] = []
        self._names = set(document.get("$defs", {}))

    def read_all(self) -> None:
        """Change what was found so far, and what that leads to."""
        while self._waiting:
            name, path, found = self._waiting.pop()
            self.parts[name] = self.changed(found, path)

    def changed(self, part: Any, path: str) -> Any:
        """A part of the document at a path, with references as they are in the whole."""
        match part:
            case dict():
                return {
                    key: self._reference(each, path)
                    if key == "$ref" and isinstance(each, str)
                    else self.changed(each, path)
                    for key, each in part.items()
                }
            case list():
                return [self.changed(each, path) for each in part]
        return part

    def _reference(self, reference: str, path: str) -> str:
        base, _, fragment = reference.partition("#")
        if base.startswith("/") or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", base):
            return reference
        if fragment and not fragment.startswith("/"):
            return f"#{fragment}" if base else reference
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(base))) if base else path
        pointer = self._pointer(target)
        return reference if pointer is None else pointer + fragment

    def _pointer(self, path: str) -> str | None:
        if path not in self._pointers:
            found = self._read(path)
            if len(self._pointers) > _DOCUMENTS_MAX:
                raise wrong("#", f"it refers to more than {_DOCUMENTS_MAX:,} documents")
            name = self._free(re.sub(r"(\.schema)?(\.json)?$", "", posixpath.basename(path)))
            self._pointers[path] = None if found is None else f"#/$defs/{step(name)}"
            if found is not None:
                self._waiting.append((name, path, found))
        return self._pointers[path]

    def _free(self, name: str) -> str:
        free, number = name, 1
        while free in self._names:
            number += 1
            free = f"{name}{number}"
        self._names.add(free)
        return free
