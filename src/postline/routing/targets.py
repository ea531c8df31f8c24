"""What functions of routes say of themselves, checked where they are declared: what they take, and what they give."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

from postline.contracts import Topic
from postline.contracts.kinds import is_message_class
from postline.errors import ContractError

__all__ = ["require_published", "require_results", "require_taking"]


def require_published(name: str, target: type, kinds: Iterable[type], published: Sequence[Topic]) -> None:
    """Raise ContractError for a class that the app doesn't publish, or that is what subscription `name` handles."""
    if target in kinds:
        raise ContractError(
            f"Subscription {name!r}: a {target.__qualname__} sent on as itself would come back for ever.",
            remedy="Declare a class of the target's topic for it.",
        )
    if not any(target in topic.classes for topic in published):
        raise ContractError(
            f"Subscription {name!r}: no topic that the app publishes has type {target.__qualname__}.",
            remedy='Declare it, `@topic.event("Wire.Name")`, and list its topic in owns=[…] or publishes_to=[…].',
        )


def require_results(name: str, function: Callable[..., Any], kinds: Iterable[type], published: Sequence[Topic]) -> None:
    """As `require_published`, of every class that the function's annotations say it gives."""
    for each in _classes(_hints(function).get("return")):
        require_published(name, each, kinds, published)


def require_taking(name: str, function: Callable[..., Any], kind: type) -> None:
    """Raise ContractError for a function whose annotations say that it takes messages of another class."""
    taken = _hints(function).get(next(iter(inspect.signature(function).parameters), ""))
    if isinstance(taken, type) and is_message_class(taken) and not issubclass(kind, taken):
        raise ContractError(
            f"Subscription {name!r}: {getattr(function, '__qualname__', function)} takes {taken.__qualname__}, and is "
            f"given {kind.__qualname__}.",
            remedy="Give a function of the routed type, or name the type by of=.",
        )


def _hints(function: Any) -> dict[str, Any]:
    """A function's annotations; {} where they can't be resolved."""
    called = function if hasattr(function, "__annotations__") else type(function).__call__
    try:
        return get_type_hints(called)
    except Exception:  # noqa: BLE001 - annotations that can't be resolved say nothing
        return {}


def _classes(declared: Any) -> list[type]:
    if is_message_class(declared):
        return [declared]
    if get_origin(declared) in (Union, types.UnionType, list, tuple):
        return [each for argument in get_args(declared) for each in _classes(argument)]
    return []
