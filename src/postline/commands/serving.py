"""Serving as users declare it: a command topic, a policy, and a handler for each command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from postline.contracts.commands import CommandTopic
from postline.events import Policy, Start, Subscription
from postline.runtime.handlers import HandlerFunction
from postline.runtime.plan import After

__all__ = ["ReplySubscription", "Serving"]

FunctionT = TypeVar("FunctionT", bound=HandlerFunction)


class Serving(Subscription):
    """The one subscription that handles a command topic's commands; made by `App.serve`.

    A handler returns the reply that its command declares, or raises `Refused` with a declared refusal. Whatever else
    it raises goes through the retries and ends, at last, in a fault for the client and a dead letter here.
    """

    def __init__(self, name: str, topic: CommandTopic, start: Start, policy: Policy) -> None:
        super().__init__(name, topic.commands, start, policy)
        self.commands = topic

    def on(self, kind: type, *, where: Callable[[Any], bool] | None = None) -> Callable[[FunctionT], FunctionT]:
        """Handle a command or query with the decorated function, which is given back unchanged; see `Subscription`."""
        return super().on(kind, where=where)

    def _after_by_default(self) -> After:
        return "continue"  # whoever asked has been answered


class ReplySubscription(Subscription):
    """The replies to a service's own commands, handled as messages; made by `App.replies`."""

    def __init__(self, name: str, topic: CommandTopic, start: Start, policy: Policy) -> None:
        super().__init__(name, topic.replies, start, policy)
        self.commands = topic
