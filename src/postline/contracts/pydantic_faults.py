"""pydantic's errors in the words of others: what is wrong and where, without the values, which may be sensitive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

__all__ = ["without_values"]

ResultT = TypeVar("ResultT")

_INPUT, _TYPE = ", input_value=", ", input_type="


def without_values(call: Callable[[Any], ResultT]) -> Callable[[Any], ResultT]:
    """The same function of pydantic's, that raises msgspec.ValidationError for what pydantic refuses."""

    def called(value: Any) -> ResultT:
        try:
            return call(value)
        except ValueError as error:
            if said := _said(error):
                # Without its cause, whose text has the values, and which stacks would show.
                raise msgspec.ValidationError(said) from None
            raise

    return called


def _said(error: ValueError) -> str:
    if not type(error).__module__.startswith("pydantic"):
        return ""
    if (errors := getattr(error, "errors", None)) is not None:
        found = errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(f"{each['msg']} - at `{_path(each['loc'])}`" for each in found)
    return "; ".join(filter(None, map(_without_input, str(error).splitlines()[1:]))) or str(error)


def _path(steps: tuple[int | str, ...]) -> str:
    return "$" + "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in steps)


def _without_input(line: str) -> str:
    """What a serializer says of one value; its representation has no line ends."""
    before, _, behind = line.strip().partition(_INPUT)
    return before + _TYPE + behind.rpartition(_TYPE)[2] if behind else before
