"""All topics that an application knows, and the contract of each message class among them."""

from __future__ import annotations

from collections.abc import Iterable

from postline.contracts.topics import ForeignTopic, MessageContract, Topic
from postline.errors import UsageError

__all__ = ["Catalog"]


class Catalog:
    """Looks contracts up by class; `problems` tells all that contradicts itself between topics.

    Topics are objects: the same one may be given often. Two different ones of a name contradict
    each other; several views of a foreign topic don't. A class, and a wire name, belong to one
    topic.
    """

    def __init__(self, topics: Iterable[Topic | ForeignTopic]) -> None:
        self.topics: dict[str, Topic] = {}
        self.foreign: dict[str, ForeignTopic] = {}
        self.problems: list[str] = []
        self._contracts: dict[type, MessageContract] = {}
        self._views: dict[type, ForeignTopic] = {}
        self._topic_of_class: dict[type, Topic | ForeignTopic] = {}
        self._topic_of_name: dict[str, str] = {}
        for topic in dict.fromkeys(topics):
            self._add(topic)
        known: list[Topic | ForeignTopic] = [*self.topics.values(), *self.foreign.values()]
        for topic in known:
            self._add_siblings(topic)

    def _add_siblings(self, topic: Topic | ForeignTopic) -> None:
        """The topics of its other priorities: its own contracts, which are looked up on it alone."""
        for sibling in topic.siblings.values():
            known = self.topics.get(sibling.name) or self.foreign.get(sibling.name)
            if sibling is topic:
                continue
            if known is not None:
                self.problems.append(
                    f"Topic {sibling.name!r} is declared, and is the priority "
                    f"{sibling.priority.name if sibling.priority else ''!r} of topic {topic.name!r}, too; rename one."
                )
            elif isinstance(sibling, Topic):
                self.topics[sibling.name] = sibling
            else:
                self.foreign[sibling.name] = sibling

    def _add(self, topic: Topic | ForeignTopic) -> None:
        if isinstance(topic, Topic):
            if (known := self.topics.get(topic.name)) is not None:
                self.problems.append(
                    f"Two contracts are declared for topic {topic.name!r}{_differences(known, topic)}; "
                    "import one object everywhere, or declare a ForeignTopic for reading."
                )
                return
            self.topics[topic.name] = topic
            self._contracts |= {contract.cls: contract for contract in topic.contracts.values()}
        else:
            self.foreign.setdefault(topic.name, topic)
            self._views |= dict.fromkeys(topic.classes, topic)
        for cls in sorted(topic.classes, key=topic.type_name_of):
            self._check_type(topic, cls)

    def _check_type(self, topic: Topic | ForeignTopic, cls: type) -> None:
        other = self._topic_of_class.setdefault(cls, topic)
        if other is not topic:
            self.problems.append(
                f"{cls.__qualname__} is declared on two topics, {other.name!r} and {topic.name!r}; "
                "give each topic, and each view of one, a class of its own."
            )
        wire_name = topic.type_name_of(cls)
        home = self._topic_of_name.setdefault(wire_name, topic.name)
        if home != topic.name:
            self.problems.append(
                f"Type {wire_name!r} is declared on two topics, {home!r} and {topic.name!r}; "
                "a type belongs to one topic: give each its own wire name."
            )

    def contract_for(self, cls: type) -> MessageContract:
        """The contract of a message class. Raises UsageError if no topic of the app declares it."""
        contract = self._contracts.get(cls)
        if contract is not None:
            return contract
        if (view := self._views.get(cls)) is not None:
            raise UsageError(
                f"{cls.__qualname__} is a view of foreign topic {view.name!r}, for reading alone.",
                remedy="Import the owner's contract module and list its topic in publishes_to=[…].",
            )
        raise UsageError(
            f"No topic of this app declares the message type {cls.__qualname__}.",
            remedy='Declare it with `@topic.event("Wire.Name")` and list the topic in owns=[…] or publishes_to=[…].',
        )


def _differences(first: Topic, second: Topic) -> str:
    """What two declarations of one name say differently, as words in brackets."""
    names = ("owner", "key_text", "partitions", "retention", "compaction", "message_bytes_max", "priorities")
    said = [
        f"{name.removesuffix('_text')} {a!r} and {b!r}"
        for name in names
        if (a := getattr(first, name)) != (b := getattr(second, name))
    ]
    return f" ({', '.join(said)})" if said else ""
