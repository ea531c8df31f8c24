"""The layout of generated Python: long lines broken at their brackets, and the imports that a text needs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

__all__ = ["WIDTH", "imports_of", "laid_out"]

#: What formatters and linters take unless they are told otherwise.
WIDTH = 88

_MODULES = ("datetime", "decimal", "enum", "uuid")
_IMPORTED = {
    "typing": ("Annotated", "Any"),
    "msgspec": ("Meta", "Struct", "convert", "field"),
    "postline": ("ForeignTopic", "Topic"),
    "postline.contracts": ("Schemas", "Sensitive", "number", "was"),
}


def imports_of(text: str) -> str:
    """The import statements for the names that a text of ours uses."""
    used = {
        each.id for each in ast.walk(ast.parse(text)) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)
    }
    lines = {
        module: f"from {module} import {', '.join(found)}"
        for module, names in _IMPORTED.items()
        if (found := [name for name in names if name in used])
    }
    standard = [f"import {module}" for module in _MODULES if module in used]
    standard += [lines.pop("typing")] if "typing" in lines else []
    blocks = [["from __future__ import annotations"], standard, list(lines.values())]
    return "\n\n".join("\n".join(block) for block in blocks if block)


class _Group(NamedTuple):
    """A pair of brackets in a line, and the commas between them and in no others."""

    start: int
    end: int
    commas: tuple[int, ...]


def laid_out(line: str, *, bracketed: bool = False) -> str:
    """A logical line, in as many lines as `WIDTH` asks for; a text that is wider than that stays whole.

    `bracketed` says that it stands in brackets, so that it may end anywhere.
    """
    indent, content = line[: len(line) - len(line.lstrip())], line.strip()
    if len(line) + bracketed <= WIDTH:
        return line
    bars, groups = _bars(content), _groups(content)
    if bracketed and bars:
        edges = [0, *bars, len(content)]
        parts = [content[a:b].strip() for a, b in pairwise(edges)]
        return "\n".join(laid_out(indent + each, bracketed=True) for each in parts)
    if not groups:
        return line
    # The last one first, as formatters do; an earlier one where what stands before the last is too long itself.
    fitting = [each for each in groups if len(indent) + each.start < WIDTH]
    group = fitting[-1] if fitting else groups[0]
    start, end = group.start + 1, group.end
    edges = [start, *(comma + 1 for comma in group.commas), end]
    parts = [content[a:b].strip().removesuffix(",") for a, b in pairwise(edges)]
    parts = [each for each in parts if each]
    inner = [laid_out(f"{indent}    {each}", bracketed=True) for each in parts]
    # A comma behind a single thing makes a tuple of it, and only where there was one.
    ending = "," if group.commas else ""
    last = laid_out(indent + content[end:], bracketed=bracketed)
    return indent + content[:start] + "\n" + ",\n".join(inner) + ending + "\n" + last


def _groups(line: str) -> list[_Group]:
    """The outermost brackets of a line that are not empty, in their order."""
    found: list[_Group] = []
    start, commas = 0, list[int]()
    for column, sign, depth in _signs(line):
        if sign in "([{" and depth == 1:
            start, commas = column, []
        elif sign in ")]}" and depth == 0 and column > start + 1:
            found.append(_Group(start, column, tuple(commas)))
        elif sign == "," and depth == 1:
            commas.append(column)
    return found


def _bars(line: str) -> list[int]:
    """Where the alternatives of a union stand in no brackets."""
    return [column for column, sign, depth in _signs(line) if sign == "|" and depth == 0 and column]


def _signs(line: str) -> Iterator[tuple[int, str, int]]:
    """Signs outside strings, with their columns and the brackets that are open after them."""
    depth, quote, escaped = 0, "", False
    for column, sign in enumerate(line):
        if quote:
            quote = quote if escaped or sign != quote else ""
            escaped = sign == "\\" and not escaped
            continue
        quote = sign if sign in "\"'" else ""
        if sign in ")]}" and not depth:
            continue  # the rest of a line whose brackets were opened before
        depth += (sign in "([{") - (sign in ")]}")
        yield column, sign, depth
