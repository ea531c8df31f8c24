"""AsyncAPI 3 documents of services: what travels on their topics, who sends and who receives it.

Source: AsyncAPI 3.0.0, Kafka bindings 0.5.0. One document may describe a whole system: each operation names its
service in `x-service`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple, TypeAlias

from postline.contracts.asyncapi_messages import message
from postline.contracts.commands import CommandSpec, CommandTopic
from postline.contracts.reading import Reading
from postline.contracts.replies import Cancelled, Done, Fault, TimedOut
from postline.contracts.topics import ForeignTopic, Topic
from postline.settings import LogUrl, parse_url

__all__ = ["Commanded", "Receiving", "Service", "document"]

_VERSION = "3.0.0"
_BINDING = {"bindingVersion": "0.5.0"}

_AnyTopic: TypeAlias = Topic | ForeignTopic


class Receiving(NamedTuple):
    """A subscription: its name, its topic, and the message types that it handles."""

    subscription: str
    topic: Topic | ForeignTopic
    types: Sequence[str]


class Commanded(NamedTuple):
    """A command topic that a service serves, or sends to."""

    topic: CommandTopic
    serves: bool


class Service(NamedTuple):
    """One service as a document describes it."""

    name: str
    sends: Sequence[Topic]
    receives: Sequence[Receiving]
    commands: Sequence[Commanded] = ()


def document(services: Sequence[Service], *, title: str = "", version: str = "1.0.0", url: str = "") -> dict[str, Any]:
    """The document of one service, or of several as one system. Secrets in the URL stay out of it.

    A topic is described as its owner declares it, if one of the services has the declaration; else as its readers see
    it. Raises ContractError for a type that can't be said, and SettingsError for a URL that names no log.
    """
    made = _Document(services)
    info = {"title": title or ", ".join(service.name for service in services), "version": version}
    return {
        "asyncapi": _VERSION,
        "info": info,
        "defaultContentType": "application/json",
        **({"servers": dict(_servers(parse_url(url)))} if url else {}),
        "channels": made.channels,
        "operations": made.operations,
        "components": {
            "messages": made.messages,
            **({"schemas": made.schemas} if made.schemas else {}),
            "correlationIds": {"chain": {"location": "$message.header#/ce_correlationid"}},
        },
    }


class _Document:
    """The parts of a document, each topic and type once."""

    def __init__(self, services: Sequence[Service]) -> None:
        self.channels: dict[str, Any] = {}
        self.messages: dict[str, Any] = {}
        self.schemas: dict[str, Any] = {}
        self.operations: dict[str, Any] = {}
        self._keys: dict[tuple[str, str, str], str] = {}
        self._declared = {topic.name: topic for service in services for topic in _declarations(service)}
        for service in services:
            for topic in service.sends:
                self._send(service, topic)
            for receiving in service.receives:
                self._receive(service, receiving)
            for commanded in service.commands:
                for spec in commanded.topic.specs.values():
                    self._command(service, commanded, spec)

    # -- operations ---------------------------------------------------------------------------

    def _send(self, service: Service, topic: Topic) -> None:
        keys = [self._message(topic, contract.reading, service) for contract in topic.contracts.values()]
        if topic.compaction is not None:
            keys.append(self._tombstone(topic))
        self._operation(service, "send", topic, topic.name, keys)

    def _receive(self, service: Service, receiving: Receiving) -> None:
        view, name = receiving.topic, receiving.subscription
        topic = self._declared.get(view.name, view)
        keys = [self._message(*self._told(topic, view, each), service) for each in receiving.types]
        if isinstance(topic, Topic) and topic.compaction is not None:
            self._tombstone(topic)  # which event handlers don't get
        self._operation(service, "receive", view, name, list(dict.fromkeys(keys)), bindings=_group_binding(name))

    def _command(self, service: Service, commanded: Commanded, spec: CommandSpec) -> None:
        """One operation for each command, since its replies are its own."""
        topic = commanded.topic
        answers = (*(spec.replies or (Done,)), *spec.refusals, Fault, TimedOut, Cancelled)
        readings = [topic.replies.reading_of(topic.replies.type_name_of(cls)) for cls in answers]
        replies = [self._message(topic.replies, reading, service) for reading in readings]
        channel = f"#/channels/{topic.replies.name}"
        more: dict[str, Any] = {"x-query": True} if spec.is_query else {}
        if commanded.serves:
            more["bindings"] = _group_binding(topic.name)
        more["reply"] = {
            "channel": {"$ref": channel},
            "messages": [{"$ref": f"{channel}/messages/{key}"} for key in replies],
        }
        key = self._message(topic.commands, topic.commands.reading_of(spec.name), service)
        self._operation(service, "receive" if commanded.serves else "send", topic.commands, spec.name, [key], **more)

    def _operation(
        self, service: Service, action: str, topic: _AnyTopic, name: str, keys: Iterable[str], **more: Any
    ) -> None:
        channel = f"#/channels/{topic.name}"
        self.operations[_free(self.operations, f"{service.name}.{action}.{name}")] = {
            "action": action,
            "channel": {"$ref": channel},
            "messages": [{"$ref": f"{channel}/messages/{key}"} for key in keys],
            **more,
            "x-service": service.name,
        }

    # -- messages -----------------------------------------------------------------------------

    def _told(self, topic: _AnyTopic, view: _AnyTopic, name: str) -> tuple[_AnyTopic, Reading]:
        """A type as its owner declares it, under whatever name; as the reader sees it, if the owner does not."""
        if isinstance(topic, Topic):
            for contract in topic.contracts.values():
                if name in (contract.name, *contract.reading.aliases):
                    return topic, contract.reading
        return view, view.reading_of(name)

    def _message(self, topic: _AnyTopic, reading: Reading, service: Service) -> str:
        """The key of a message in its channel and among the components; views that differ are several messages."""
        identity = (topic.name, reading.name, "" if isinstance(topic, Topic) else reading.schema.fingerprint)
        if identity not in self._keys:
            several = (reading.name, f"{topic.name}.{reading.name}", f"{service.name}.{topic.name}.{reading.name}")
            key = self._keys[identity] = _free(self.messages, *several)
            said = message(topic, reading, key, self.schemas)
            self._add(topic, key, {"name": reading.name, **said, **self._undeclared(topic)})
        return self._keys[identity]

    def _undeclared(self, topic: _AnyTopic) -> dict[str, Any]:
        return {"x-undeclared": True} if self._declared.get(topic.name, topic) is not topic else {}

    def _tombstone(self, topic: Topic) -> str:
        identity = (topic.name, "", "")
        if identity not in self._keys:
            key = self._keys[identity] = _free(self.messages, f"{topic.name}.tombstone")
            said = {"title": "The key is gone", "payload": {"type": "null"}}
            self._add(topic, key, {"name": key, **said, "bindings": {"kafka": {"key": {"type": "string"}, **_BINDING}}})
        return self._keys[identity]

    def _add(self, topic: _AnyTopic, key: str, content: dict[str, Any]) -> None:
        self.messages[key] = content
        self._channel(topic)["messages"][key] = {"$ref": f"#/components/messages/{key}"}

    def _channel(self, topic: _AnyTopic) -> dict[str, Any]:
        if topic.name not in self.channels:
            facts = _facts(self._declared.get(topic.name, topic))
            self.channels[topic.name] = {"address": topic.name, "messages": {}, **facts}
        found: dict[str, Any] = self.channels[topic.name]
        return found


def _group_binding(name: str) -> dict[str, Any]:
    return {"kafka": {"groupId": {"type": "string", "enum": [name]}, **_BINDING}}


def _declarations(service: Service) -> Iterator[Topic]:
    spread = [topic for each in service.commands for topic in (each.topic.commands, each.topic.replies)]
    for topic in (*service.sends, *(each.topic for each in service.receives), *spread):
        if isinstance(topic, Topic):
            yield topic


def _free(taken: dict[str, Any], *names: str) -> str:
    """The first of the names that is free, made of what AsyncAPI's keys may have."""
    keys = [re.sub(r"[^A-Za-z0-9_.-]", "-", name) for name in names]
    numbered = (f"{keys[-1]}-{number}" for number in range(2, len(taken) + 3))
    return next(key for key in (*keys, *numbered) if key not in taken)


def _facts(topic: _AnyTopic) -> dict[str, Any]:
    if not isinstance(topic, Topic):
        return {"bindings": {"kafka": {"topic": topic.name, **_BINDING}}}
    kafka = {"topic": topic.name, "partitions": topic.partitions, "topicConfiguration": _configuration(topic)}
    return {
        "bindings": {"kafka": {**kafka, **_BINDING}},
        "x-owner": topic.owner,
        "x-evolution": topic.schemas.evolution,
        **({"x-key": topic.key_text} if topic.keyed else {}),
        **({"x-priorities": _priorities(topic)} if topic.siblings else {}),
    }


def _priorities(topic: Topic) -> dict[str, Any]:
    """From the highest to the lowest: where records of a priority lie, and its guaranteed share."""
    return {
        name: {"address": sibling.name, "share": sibling.priority.share if sibling.priority else 0}
        for name, sibling in topic.siblings.items()
    }


def _configuration(topic: Topic) -> dict[str, Any]:
    age, size = topic.retention.age, topic.retention.bytes_per_partition
    limited = age is not None or size is not None
    found: dict[str, Any] = {
        "cleanup.policy": ["compact"] * (topic.compaction is not None)
        + ["delete"] * (limited or topic.compaction is None),
        "retention.ms": -1 if age is None else int(age.total_seconds() * 1000),
        "retention.bytes": -1 if size is None else size,
    }
    if topic.compaction is not None:
        found["delete.retention.ms"] = int(topic.compaction.tombstone_retention.total_seconds() * 1000)
    return {**found, "max.message.bytes": topic.message_bytes_max}


def _servers(url: LogUrl) -> Iterator[tuple[str, dict[str, str]]]:
    """What of a log's URL everybody may know: the brokers, or a file's name without its directory."""
    if url.scheme != "kafka":
        yield "log", {"host": PurePath(url.path).name if url.path else "memory", "protocol": url.scheme}
        return
    secure = "ssl" in url.options.get("security.protocol", "").lower()
    for number, host in enumerate(url.servers, 1):
        name = "log" if len(url.servers) == 1 else f"log-{number}"
        yield name, {"host": host, "protocol": "kafka-secure" if secure else "kafka"}
