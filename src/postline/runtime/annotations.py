"""Whether a handler's own annotation says that it takes what it is registered for."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Annotated, Any, Protocol, Union, cast, get_args, get_origin, get_type_hints

from postline.errors import UsageError

__all__ = ["require_annotated_for"]


def require_annotated_for(function: Callable[..., Any], kind: type, *, batch: bool, subscription: str) -> None:
    """Raise UsageError for a function whose first parameter is annotated with something that `kind` is not.

    What has no annotation, or one that can't be looked up here, is taken as it is.
    """
    hint = _hint_of(function)
    if _takes(hint, kind, batch):
        return
    name = getattr(function, "__qualname__", repr(function))
    wanted = f"list[{kind.__qualname__}]" if batch else kind.__qualname__
    raise UsageError(
        f"Subscription {subscription!r}: handler {name} says that it takes {_shown(hint)}, and gets {wanted}.",
        remedy="Annotate it with what it gets, a base of that or a union; or register it for what it takes.",
    )


def _hint_of(function: Callable[..., Any]) -> Any:
    """The annotation of the first parameter; Any if there is none that can be read."""
    called = function
    while isinstance(called, functools.partial):
        called = called.func
    called = called if inspect.isroutine(called) else type(called).__call__
    try:
        parameters = list(inspect.signature(function).parameters.values())
        own = inspect.unwrap(called)
        told = types.SimpleNamespace(__annotations__={"message": parameters[0].annotation})
        hint = get_type_hints(cast("Any", told), getattr(own, "__globals__", {}), include_extras=True)["message"]
    except Exception:  # noqa: BLE001 - names of blocks for type checkers, of other scopes, of nobody
        return Any
    return Any if hint is inspect.Parameter.empty else hint


def _takes(hint: Any, kind: type, batch: bool) -> bool:
    origin = get_origin(hint)
    if origin is Annotated:
        return _takes(get_args(hint)[0], kind, batch)
    if origin in (Union, types.UnionType):
        return any(_takes(each, kind, batch) for each in get_args(hint))
    if not batch:
        return _is_of(origin or hint, kind)
    # Whatever a list is: list, Sequence, Iterable, object.
    items = get_args(hint)
    return _is_of(origin or hint, list) and (len(items) != 1 or _takes(items[0], kind, batch=False))


def _is_of(hint: Any, kind: type) -> bool:
    if hint is Any or not isinstance(hint, type) or Protocol in hint.__mro__:
        return True  # what only a type checker can tell
    return issubclass(kind, hint)


def _shown(hint: Any) -> str:
    return hint.__qualname__ if isinstance(hint, type) and not get_args(hint) else str(hint)
