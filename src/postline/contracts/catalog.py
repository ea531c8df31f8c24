"""All topics that an application knows, and the contract of each message class among them."""

from __future__ import annotations

from collections.abc import Iterable

from postline.contracts.topics import ForeignTopic, MessageContract, Topic
from postline.errors import UsageError

__all__ = ["Catalog"]


class Catalog:
    """Looks contracts up by class; finds what contradicts itself between topics."""

    def __init__(self, topics: Iterable[Topic | ForeignTopic]) -> None:
        self.topics: dict[str, Topic] = {}
        self.foreign: dict[str, ForeignTopic] = {}
        self.problems: list[str] = []
        self._contracts: dict[type, MessageContract] = {}
        for topic in topics:
            self._add(topic)

    def _add(self, topic: Topic | ForeignTopic) -> None:
        if isinstance(topic, ForeignTopic):
            self.foreign[topic.name] = topic
            return
        known = self.topics.setdefault(topic.name, topic)
        if known is not topic:
            self.problems.append(
                f"Two contracts are declared for topic {topic.name!r}; import one object everywhere, "
                "or declare a ForeignTopic for reading."
            )
            return
        for contract in topic.contracts.values():
            other = self._contracts.setdefault(contract.cls, contract)
            if other.topic != contract.topic:
                self.problems.append(
                    f"{contract.cls.__qualname__} is declared on two topics, {other.topic!r} and {contract.topic!r}; "
                    "give each topic a class of its own."
                )

    def contract_for(self, cls: type) -> MessageContract:
        """The contract of a message class. Raises UsageError if no topic of the app declares it."""
        contract = self._contracts.get(cls)
        if contract is not None:
            return contract
        for foreign in self.foreign.values():
            if cls in foreign.classes:
                raise UsageError(
                    f"{cls.__qualname__} is a view of foreign topic {foreign.name!r}, for reading alone.",
                    remedy="Import the owner's contract module and list its topic in publishes_to=[…].",
                )
        raise UsageError(
            f"No topic of this app declares the message type {cls.__qualname__}.",
            remedy='Declare it with `@topic.event("Wire.Name")` and list the topic in owns=[…] or publishes_to=[…].',
        )
