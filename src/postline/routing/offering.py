"""What an app offers of routing: each pattern a method, over `subscribe` alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Unpack

from postline.contracts import ForeignTopic, Topic
from postline.contracts.keys import KeySpec
from postline.errors import UsageError
from postline.events import PolicyOptions, Start, Subscription
from postline.routing.aggregating import Aggregate, AggregateOptions, aggregate
from postline.routing.completion import Completion
from postline.routing.declaring import Declaring, published_by
from postline.routing.routes import Match, Router
from postline.routing.splitting import split
from postline.routing.tapping import TapTopic, tap

__all__ = ["Routing"]


class Routing(Declaring, Protocol):
    """The patterns that an app can be told to follow; `App` inherits them."""

    def route(
        self,
        name: str,
        topic: Topic | ForeignTopic,
        *,
        start: Start | None = None,
        match: Match = "first",
        **options: Unpack[PolicyOptions],
    ) -> Router:
        """Declare a subscription that sends messages on; say where with `.when(rule, to=…)`, `.otherwise` and `.to`.

        A message goes where the first rule says that it satisfies; with match="every" where every such rule does.
        Raises as `subscribe`.
        """
        subscription = self.subscribe(name, topic, start=start, **_singly(name, options))
        return Router(subscription, published_by(self), match)

    def split(
        self,
        name: str,
        topic: Topic | ForeignTopic,
        *,
        into: Callable[..., Any],
        of: type | None = None,
        start: Start | None = None,
        **options: Unpack[PolicyOptions],
    ) -> Subscription:
        """Declare a subscription that publishes a list of messages for each: what `into` makes of it.

        `into` takes the message, and the context if it has a second parameter. Each part carries its group, index and
        count (`postline.routing.Part`). `of` names the type where the topic has several. Raises as `subscribe`, `.on`.
        """
        subscription = self.subscribe(name, topic, start=start, **_singly(name, options))
        split(subscription, into, of, published_by(self))
        return subscription

    def aggregate(
        self,
        name: str,
        topic: Topic | ForeignTopic,
        *,
        complete: Completion | Sequence[Completion],
        into: Callable[[list[Any]], Any],
        key: KeySpec | None = None,
        start: Start | None = None,
        **options: Unpack[AggregateOptions],
    ) -> Aggregate:
        """Gather messages by a key until they are complete, and publish what `into` makes of the list of them.

        `complete` is a `Count`, a `Predicate`, an `After`, or `Whole()` for the parts of a split message, which needs
        no `key`; of several in a list the first that holds counts.
        The parts go through the topic `<name>.parts`, which this app then owns, and wait in the state of the
        subscription of that name; the result leaves in the commit that forgets them. The options are
        `postline.routing.AggregateOptions`. Raises as `subscribe`, UsageError and ContractError.
        """
        return aggregate(self, name, topic, start, key, complete, into, options)

    def tap(
        self,
        name: str,
        topic: Topic | ForeignTopic,
        *,
        to: TapTopic,
        start: Start | None = None,
        **options: Unpack[PolicyOptions],
    ) -> Subscription:
        """Declare a subscription that copies every message of the topic's declared types to a `TapTopic`.

        It has its own position and failures, so nobody waits for it. Raises as `subscribe`, and UsageError for a topic
        that the app does not publish to.
        """
        subscription = self.subscribe(
            name, topic, start=start, **PolicyOptions(**{"after": "continue", **_singly(name, options)})
        )
        tap(subscription, to, published_by(self))
        return subscription


def _singly(name: str, options: PolicyOptions) -> PolicyOptions:
    """The options, which ask for no batches."""
    if options.get("batch") is not None:
        raise UsageError(f"Subscription {name!r} routes messages one by one.", remedy="Leave batch= out.")
    return options
