"""The commands that are reached over HTTP, by wire name; how each is read from JSON, how its replies are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from postline.contracts.commands import CommandSpec, CommandTopic
from postline.contracts.reading import Reading
from postline.contracts.replies import BUILT_IN, built_in_name
from postline.errors import SettingsError
from postline.http.idempotency import mark_of

__all__ = ["Exposed", "Exposure"]


class Exposed(NamedTuple):
    """One command or query."""

    topic: CommandTopic
    spec: CommandSpec
    #: As JSON, whatever format the topic has.
    reading: Reading


class Exposure:
    """What clients can ask for. Made once."""

    def __init__(self, topics: Iterable[CommandTopic]) -> None:
        self.topics = {mark_of(topic.name, 4): topic for topic in topics}
        #: By wire name, former ones too.
        self.commands: dict[str, Exposed] = {}
        self._writers: dict[tuple[str, type], tuple[str, Callable[[Any], bytes]]] = {}
        for topic in self.topics.values():
            for spec in topic.specs.values():
                self._add(topic, spec)
        if not self.commands:
            raise SettingsError(
                "The gateway has no commands to take.",
                remedy="List a CommandTopic in the app's publishes_to=[…] (or owns=[…]), with a command declared.",
            )

    def _add(self, topic: CommandTopic, spec: CommandSpec) -> None:
        reading = topic.commands.reading_of(spec.name).as_json()
        for name in (spec.name, *reading.aliases):
            if name in self.commands:
                raise SettingsError(
                    f"{self.commands[name].topic.name!r} and {topic.name!r} both have a command {name!r}.",
                    remedy="Give the gateway one of them by topics=[…], and the other a gateway of its own.",
                )
            self.commands[name] = Exposed(topic, spec, reading)

    def written(self, topic: CommandTopic, reply: Any) -> tuple[str, bytes]:
        """The wire name of a reply and the reply as JSON."""
        found = self._writers.get((topic.name, type(reply)))
        if found is None:
            found = self._writers[topic.name, type(reply)] = _writer(topic, type(reply))
        name, encode = found
        return name, encode(reply)


def _writer(topic: CommandTopic, cls: type) -> tuple[str, Callable[[Any], bytes]]:
    if (name := built_in_name(cls)) is not None:
        return name, BUILT_IN[name].encode
    name = topic.replies.type_name_of(cls)
    return name, topic.replies.reading_of(name).as_json().codec.encode
