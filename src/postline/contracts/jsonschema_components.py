"""A JSON Schema of ours among the components of an OpenAPI or AsyncAPI document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

__all__ = ["component", "referring"]

Part: TypeAlias = dict[str, Any]


def component(name: str) -> str:
    """A name as components may have it."""
    return "".join(each if each.isascii() and (each.isalnum() or each in "_.-") else "-" for each in name)


def _as_it_is(part: Part) -> Part:
    return part


def referring(part: Part, names: Mapping[str, str], adapt: Callable[[Part], Part] = _as_it_is) -> Part:
    """A schema whose references lead to components, of these names by those of its own definitions.

    `adapt` is given each schema in it, the innermost first, and gives what stands there.
    """
    made: Part = {}
    for word, value in part.items():
        match word, value:
            case "$ref", str():
                made[word] = f"#/components/schemas/{names[value.removeprefix('#/$defs/')]}"
            case "properties", dict():
                made[word] = {name: referring(each, names, adapt) for name, each in value.items()}
            case "items" | "additionalProperties", dict():
                made[word] = referring(value, names, adapt)
            case "anyOf" | "prefixItems", list():
                made[word] = [referring(each, names, adapt) for each in value]
            case _:
                made[word] = value
    return adapt(made)
