"""Serving as users declare it: a command topic, a policy, and a handler for each command."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from postline.commands.answering import OVERDUE, expire_promise
from postline.commands.claims import Claim
from postline.contracts.commands import CommandTopic
from postline.contracts.rules import Rule
from postline.errors import UsageError
from postline.events import Policy, PolicyOptions, Start, Subscription
from postline.runtime.breaker import Breaker
from postline.runtime.handlers import HandlerFunction
from postline.runtime.limits import Rate
from postline.runtime.plan import After

__all__ = ["ReplySubscription", "ServeOptions", "Serving", "serving"]

#: A promise that is kept for ever would be state for ever.
REPLY_WITHIN = timedelta(days=30)

#: What is said of serving alone, among its options.
_OWN = ("name", "takes_over", "reply_within")

FunctionT = TypeVar("FunctionT", bound=HandlerFunction)


class ServeOptions(PolicyOptions, total=False):
    """What may be said of serving besides the topic; see `App.serve`."""

    #: Of one that shares the topic with others.
    name: str
    takes_over: str
    reply_within: timedelta


class Serving(Subscription):
    """The one subscription that handles a command topic's commands; made by `App.serve`.

    A handler returns the reply that its command declares, or raises `Refused` with a declared refusal. Whatever else
    it raises goes through the retries and ends, at last, in a fault for the client and a dead letter here.
    """

    def __init__(
        self,
        topic: CommandTopic,
        policy: Policy,
        name: str = "",
        takes_over: str = "",
        reply_within: timedelta = REPLY_WITHIN,
    ) -> None:
        super().__init__(name or topic.name, topic.commands, "earliest", policy)
        self.commands = topic
        #: Serves a part of the topic, beside others.
        self.shares = bool(name)
        #: The service that served the topic before.
        self.takes_over = takes_over
        #: How long a reply that was promised for later is waited for, where its command has no expiry.
        self.reply_within = reply_within
        self._rules: dict[str, Rule] = {}
        self.timers[OVERDUE] = expire_promise

    def on(
        self,
        kind: type,
        *,
        where: Callable[[Any], bool] | None = None,
        concurrency: int | None = None,
        rate: Rate | None = None,
        dry_run: bool = False,
        breaker: Breaker | None = None,
    ) -> Callable[[FunctionT], FunctionT]:
        """Handle a command or query with the decorated function, which is given back unchanged; see `Subscription`.

        `where` is a `Rule`, so that it can be proven that no other service has the same command; only a service that
        shares the topic by `serve(…, name=…)` may leave commands to others.
        """
        if where is not None:
            name = self.commands.commands.type_name_of(kind)
            if not isinstance(where, Rule):
                raise UsageError(
                    f"Where {name!r} is served is said by a function, which nothing can be proven of.",
                    remedy='Give a rule: where=field("amount") < 1000.',
                )
            if not self.shares:
                raise UsageError(
                    f"{name!r} is served where a rule says, so others of it are for other services.",
                    remedy=f'Name this share: app.serve(…, name="{self.name}.small").',
                )
            where.require(kind)
            self._rules[name] = where
        return super().on(kind, where=where, concurrency=concurrency, rate=rate, dry_run=dry_run, breaker=breaker)

    def claim(self, service: str, topic_name: str, name: str) -> Claim:
        """What it handles, under the full names that a namespace gives."""
        rules = {
            name: self._rules[each].to_data() if each in self._rules else None
            for each in self.types
            for name in (each, *self.topic.reading_of(each).aliases)
        }
        return Claim(topic=topic_name, subscription=name, service=service, commands=rules, everything=not self.shares)

    def _after_by_default(self) -> After:
        return "continue"  # whoever asked has been answered


class ReplySubscription(Subscription):
    """The replies to a service's own commands, handled as messages; made by `App.replies`."""

    def __init__(self, name: str, topic: CommandTopic, start: Start, policy: Policy) -> None:
        super().__init__(name, topic.replies, start, policy)
        self.commands = topic


def serving(topic: CommandTopic, options: ServeOptions) -> Serving:
    """What `App.serve` declares."""
    own = {name: said for name, said in options.items() if name in _OWN}
    policy = {name: said for name, said in options.items() if name not in _OWN}
    return Serving(topic, Policy(**policy), **own)  # type: ignore[arg-type] # told apart by `ServeOptions`
