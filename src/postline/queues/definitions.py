"""What a task is: a function, and the contract that its signature says."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec

from postline.contracts import Kind
from postline.errors import ContractError, UsageError
from postline.runtime.context import Context

__all__ = ["Definition", "define"]

_REFUSED: dict[Any, str] = {
    inspect.Parameter.VAR_POSITIONAL: "takes any number of arguments (*{name})",
    inspect.Parameter.VAR_KEYWORD: "takes arguments of any name (**{name})",
}


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A function as a task: the message that its arguments make, and the reply that its result makes."""

    #: The wire name.
    name: str
    function: Callable[..., Any]
    #: A Struct with a field for each parameter.
    message: type
    #: A Struct with one field, `value`; None for a function that returns None.
    result: type | None
    is_async: bool
    #: The function's first parameter is the context, which no message carries.
    wants_context: bool
    by_position: tuple[str, ...]
    by_name: tuple[str, ...]

    def message_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The message of a call. Raises TypeError for arguments that the function doesn't take."""
        try:
            return self.message(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"task {self.name}: {error}") from None

    def arguments(self, message: Any) -> tuple[list[Any], dict[str, Any]]:
        """What the function is called with, the context aside."""
        args = [getattr(message, name) for name in self.by_position]
        return args, {name: getattr(message, name) for name in self.by_name}

    def reply_of(self, value: Any) -> Any:
        """The reply that a returned value makes. Raises UsageError for a value where none was said to come."""
        if self.result is not None:
            return self.result(value)
        if value is not None:
            raise UsageError(
                f"Task {self.name} returned {value!r:.80}, and its signature says None.",
                remedy="Say what it returns: `-> Thumbnail`.",
            )
        return None

    def value_of(self, reply: Any) -> Any:
        """What the function returned, of its reply."""
        return None if self.result is None else reply.value


def define(function: Callable[..., Any], name: str) -> Definition:
    """The definition of a task. Raises ContractError for a signature that is no contract."""
    if not inspect.isroutine(function) or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        _refuse(name, "is no plain or async function", "Put @app.task above a `def` or `async def`.")
    hints = _hints(function, name)
    parameters = list(inspect.signature(function).parameters.values())
    wants_context = bool(parameters) and _is_context(hints.get(parameters[0].name))
    taken = parameters[wants_context:]
    _check(name, taken, hints)
    by_position = tuple(each.name for each in taken if each.kind is not inspect.Parameter.KEYWORD_ONLY)
    by_name = tuple(each.name for each in taken if each.kind is inspect.Parameter.KEYWORD_ONLY)
    return Definition(
        name=name,
        function=function,
        message=_message(function, name, taken, hints),
        result=_result(function, hints["return"]),
        is_async=inspect.iscoroutinefunction(function),
        wants_context=wants_context,
        by_position=by_position,
        by_name=by_name,
    )


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ContractError(
            f"Task {name} has an annotation of a type that isn't defined there: {error}.",
            remedy="Define the types of its parameters before it, at the top of a module.",
        ) from error
    if "return" not in hints:
        _refuse(name, "does not say what it returns", "Annotate it: `-> None` if nothing, else the result's type.")
    return hints


def _is_context(hint: Any) -> bool:
    return hint is Context or typing.get_origin(hint) is Context


def _check(name: str, parameters: Sequence[inspect.Parameter], hints: dict[str, Any]) -> None:
    for each in parameters:
        if (refused := _REFUSED.get(each.kind)) is not None:
            _refuse(name, refused.format(name=each.name), "Name each parameter: a message has a field for each.")
        if each.name not in hints:
            _refuse(name, f"has a parameter {each.name!r} without a type", f"Annotate it: `{each.name}: str`.")
        if _is_context(hints[each.name]):
            _refuse(name, f"takes the context as {each.name!r}", "Make it the first parameter.")


def _refuse(name: str, what: str, remedy: str) -> NoReturn:
    raise ContractError(f"Task {name} {what}, so its signature is no contract.", remedy=remedy)


def _message(
    function: Callable[..., Any], name: str, parameters: Sequence[inspect.Parameter], hints: dict[str, Any]
) -> type:
    """The Struct takes arguments as the function does: by position and name, or by name alone."""
    title, module = _title(function), function.__module__
    by_name = [_field(each, hints) for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    by_position = [_field(each, hints) for each in parameters if each.kind is not inspect.Parameter.KEYWORD_ONLY]
    try:
        bases = (msgspec.defstruct(title, by_name, kw_only=True, frozen=True, module=module),) if by_name else None
        made = msgspec.defstruct(title, by_position, bases=bases, frozen=True, module=module)
        Kind(made, name=name)
    except (TypeError, ContractError) as error:
        raise ContractError(
            f"Task {name} has a parameter that can't be written: {str(error).removesuffix('.')}.",
            remedy="Use types that msgspec supports, Structs and dataclasses among them.",
        ) from error
    _check_defaults(made, name, parameters)
    return made


def _field(parameter: inspect.Parameter, hints: dict[str, Any]) -> Any:
    hint = hints[parameter.name]
    if parameter.default is parameter.empty:
        return (parameter.name, hint)
    return (parameter.name, hint, parameter.default)


def _check_defaults(made: type, name: str, parameters: Sequence[inspect.Parameter]) -> None:
    """A default of another type than declared is refused here, rather than at the first send."""
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    types = {field.name: field.type for field in msgspec.structs.fields(made)}
    for place, default in defaults.items():
        try:
            msgspec.convert(default, types[place])
        except msgspec.ValidationError as error:
            raise ContractError(
                f"Task {name} has a default for {place!r} that is not of its type: {error}.",
                remedy="Mend the default or the annotation.",
            ) from error


def _result(function: Callable[..., Any], hint: Any) -> type | None:
    """Always of its own: a class that several tasks return would belong to several topics."""
    if hint in (type(None), typing.NoReturn, typing.Never):
        return None
    return msgspec.defstruct(f"{_title(function)}Result", [("value", hint)], frozen=True, module=function.__module__)


def _title(function: Callable[..., Any]) -> str:
    return "".join(part[:1].upper() + part[1:] for part in function.__name__.split("_") if part) or "Task"
