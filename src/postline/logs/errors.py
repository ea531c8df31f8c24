"""Errors as data: type, text, stack, and what led to them."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any

from postline.logs.handled import Hide
from postline.logs.values import redacted, text_of

__all__ = ["error_of", "stack_of"]

_CHAIN_MAX = 20
_GROUP_MAX = 20
_STACK_CHARACTERS_MAX = 32_768


def error_of(error: BaseException, hide: Hide = redacted) -> dict[str, Any]:
    """The error with its stack and its chain, the nearest cause first; the errors of a group one level deep."""
    told = _named(error, hide)
    told["stack"] = hide(redacted(stack_of(error)))
    if causes := [_named(each, hide) for each in _causes_of(error)]:
        told["causes"] = causes
    if isinstance(error, BaseExceptionGroup):
        told["errors"] = [_named(each, hide) for each in error.exceptions[:_GROUP_MAX]]
    return told


def _named(error: BaseException, hide: Hide) -> dict[str, Any]:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    told = {"type": name, "message": hide(redacted(text_of(error)))}
    if isinstance(remedy := getattr(error, "remedy", None), str) and remedy:
        told["remedy"] = hide(redacted(remedy))
    return told


def _causes_of(error: BaseException) -> Iterator[BaseException]:
    """As Python prints them: the stated cause, else what was being handled unless that is suppressed."""
    seen = {id(error)}
    while len(seen) <= _CHAIN_MAX:
        following = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if following is None or id(following) in seen:
            return
        yield following
        seen.add(id(following))
        error = following


def stack_of(error: BaseException) -> str:
    """The stack as Python prints it, its end if it is very long, whatever the error is like."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception as broken:  # noqa: BLE001 - a line must not hang on how an error prints
        return f"(its stack can't be had: {type(broken).__qualname__})"
    return text_of(text[-_STACK_CHARACTERS_MAX:].rstrip("\n"))
