"""Content-based routing as data: what is made of a message, by the first rule, or every rule, that it satisfies."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from postline.contracts import Rule, Topic
from postline.contracts.kinds import is_message_class
from postline.contracts.rules import covered
from postline.errors import ContractError, UsageError
from postline.events import Subscription
from postline.routing.declaring import kind_of
from postline.routing.splitting import carried, messages_of
from postline.routing.targets import require_published, require_results, require_taking
from postline.routing.transforms import by_field_names
from postline.runtime.context import Context
from postline.runtime.handlers import inspect_handler

__all__ = ["Match", "Router", "Target"]

#: A class, filled by field names, or a function `(message)` or `(message, ctx)` that gives one message, several or
#: none; it may be async.
Target: TypeAlias = type | Callable[..., Any]
#: Whether a message goes where the first rule sends it that it satisfies, or where every such rule does.
Match: TypeAlias = Literal["first", "every"]

_Action: TypeAlias = Callable[[Any, Context[Any]], Any]


@dataclass
class _Routes:
    """Where messages of one type go."""

    ruled: list[tuple[Rule, list[_Action]]] = field(default_factory=list)
    #: Where those go that satisfy no rule; None where they are filtered.
    otherwise: list[_Action] | None = None

    def wants(self, message: Any) -> bool:
        """Whether the message goes anywhere."""
        return self.otherwise is not None or any(rule(message) for rule, _ in self.ruled)

    def actions(self, message: Any, match: Match) -> list[_Action]:
        """What is done with a message."""
        found: list[_Action] = []
        for rule, actions in self.ruled:
            if rule(message):
                if match == "first":
                    return actions
                found += actions
        return found or self.otherwise or []


class Router:
    """Sends each message of a subscription on, by rules that are asked in the order in which they were given.

    What satisfies no rule goes where `otherwise` says, else it counts as filtered. Whatever a message becomes leaves
    in the commit that settles it, like all that a handler publishes: each a message of its own, caused by the routed
    one, in its conversation, with its sender's headers. Failing transforms are retried and dead-lettered by the
    subscription's policy. Made by `App.route`.
    """

    def __init__(self, subscription: Subscription, published: Sequence[Topic], match: Match = "first") -> None:
        if match not in get_args(Match):
            raise UsageError(f"A router can't match {match!r}.", remedy='Say match="first" or match="every".')
        self.subscription = subscription
        self._published = tuple(published)
        self._match: Match = match
        self._routes: dict[type, _Routes] = {}

    def when(self, rule: Rule, *, to: Target | Sequence[Target], of: type | None = None) -> Router:
        """Send messages that satisfy the rule on; `of` names their type where the topic has several.

        Raises ContractError for a rule on fields that the type doesn't have, for one that can't hold any more after
        those before it, and for what can't be made of the type; UsageError for what is no rule.
        """
        kind = kind_of(self.subscription.name, self.subscription.topic, of)
        if not isinstance(rule, Rule):
            raise UsageError(
                f"Router {self.subscription.name!r} was given {rule!r:.80} as rule.",
                remedy='Make one of fields, field("total") > 100; what needs a function is a handler: .on(Type).',
            )
        rule.require(kind)
        routes = self._of(kind)
        if routes.otherwise is not None:
            raise UsageError(
                f"Router {self.subscription.name!r} has a rule behind the one for all other {kind.__qualname__}.",
                remedy="Give rules first, then otherwise(to=…); .to(…) stands alone.",
            )
        if self._match == "first":
            self._require_reachable(rule, routes)
        routes.ruled.append((rule, self._actions(to, kind)))
        return self

    def otherwise(self, *, to: Target | Sequence[Target], of: type | None = None) -> Router:
        """Send messages on that satisfy no rule. Raises as `when`."""
        kind = kind_of(self.subscription.name, self.subscription.topic, of)
        routes = self._of(kind)
        if routes.otherwise is not None:
            raise UsageError(
                f"Router {self.subscription.name!r} says twice where other {kind.__qualname__} go.",
                remedy="Keep one; it may name several targets in a list.",
            )
        routes.otherwise = self._actions(to, kind)
        return self

    def to(self, *targets: Target, of: type | None = None) -> Router:
        """Send every message on, to each of these. Raises as `when`, and UsageError beside rules."""
        kind = kind_of(self.subscription.name, self.subscription.topic, of)
        if self._of(kind).ruled:
            raise UsageError(
                f"Router {self.subscription.name!r} has rules for {kind.__qualname__}, and sends all of them on.",
                remedy="Say otherwise(to=…) for the rest, or use two routers.",
            )
        return self.otherwise(to=targets, of=kind)

    def _of(self, kind: type) -> _Routes:
        if kind not in self._routes:
            routes, match = _Routes(), self._match
            self.subscription.on(kind, where=routes.wants)(_handler(routes, match))
            self._routes[kind] = routes
        return self._routes[kind]

    def _require_reachable(self, rule: Rule, routes: _Routes) -> None:
        if covered(rule, [each for each, _ in routes.ruled]):
            raise ContractError(
                f"Router {self.subscription.name!r}: nothing gets as far as {rule!r:.200}.",
                remedy='Put it before the rules that take it all, or let every rule count: match="every".',
            )

    def _actions(self, to: Target | Sequence[Target], kind: type) -> list[_Action]:
        targets = list(to) if isinstance(to, list | tuple) else [to]
        if not targets:
            raise UsageError(f"Router {self.subscription.name!r} was given no target.", remedy="Name one.")
        return [self._action(each, kind) for each in targets]

    def _action(self, target: Any, kind: type) -> _Action:
        if is_message_class(target):
            require_published(self.subscription.name, target, (kind,), self._published)
            transform = by_field_names(kind, target)
            return lambda message, ctx: transform(message)
        _, wants_context = inspect_handler(target, self.subscription.name)
        require_taking(self.subscription.name, target, kind)
        require_results(self.subscription.name, target, (kind,), self._published)
        return target if wants_context else lambda message, ctx: target(message)


def _handler(routes: _Routes, match: Match) -> Callable[[Any, Context[Any]], Any]:
    async def route(message: Any, ctx: Context[Any]) -> None:
        headers = carried(ctx)
        for action in routes.actions(message, match):
            result = action(message, ctx)
            for each in messages_of(await result if inspect.isawaitable(result) else result):
                ctx.publish(each, headers=headers)

    return route
