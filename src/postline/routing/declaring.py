"""What routing asks of an app while it is declared; nothing of it is held afterwards."""

from __future__ import annotations

from typing import Protocol, Unpack

from postline.contracts import ForeignTopic, Topic
from postline.errors import UsageError
from postline.events import PolicyOptions, Start, Subscription

__all__ = ["Declaring", "kind_of", "published_by"]


class Declaring(Protocol):
    """An app, as far as patterns are declared on it."""

    name: str
    owns: tuple[Topic, ...]
    publishes_to: tuple[Topic, ...]

    def subscribe(
        self, name: str, topic: Topic | ForeignTopic, *, start: Start | None = None, **options: Unpack[PolicyOptions]
    ) -> Subscription:
        """As `App.subscribe`."""


def published_by(app: Declaring) -> tuple[Topic, ...]:
    """The topics that the app may publish to."""
    return (*app.owns, *app.publishes_to)


def kind_of(name: str, topic: Topic | ForeignTopic, of: type | None) -> type:
    """The type that is meant: the one named, else the topic's only one. Raises UsageError, ContractError."""
    if of is not None:
        topic.type_name_of(of)
        return of
    if len(topic.classes) != 1:
        raise UsageError(
            f"Subscription {name!r}: topic {topic.name!r} declares {len(topic.classes)} types.",
            remedy="Name the one that is meant: of=Type.",
        )
    return next(iter(topic.classes))
