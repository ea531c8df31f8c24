"""From a line of JSON to a durable message: through an app's contract, or through the log alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, NamedTuple, Protocol

import msgspec

from postline.app import App, Environment, open_log
from postline.cli.lines import Line
from postline.cli.loading import load_app
from postline.cli.opening import require_existing, settings_for
from postline.clock import Clock, SystemClock
from postline.contracts import Kind, Partitioner, Topic
from postline.contracts.json_documents import require_unique_keys
from postline.contracts.keys import canonical_key
from postline.contracts.schema import Schema
from postline.contracts.unknown import dropped_fields
from postline.errors import DecodeError, EncodeError, UnknownTopic, UsageError
from postline.ids import IdSource
from postline.log.port import FLAG_OWN_ID, Append, Log, TopicSpec
from postline.message import UNREADABLE, Envelope

__all__ = ["Line", "Publisher", "open_publisher", "require_all_kept"]

_SOURCE = "postline.cli"


class Publisher(Protocol):
    """Reads lines as messages and publishes them."""

    def read(self, line: Line) -> Any:
        """The message in a line. Raises MessageError for one that must be refused."""

    async def publish(self, messages: Sequence[Any]) -> None:
        """Publish what `read` gave, in order; durable when it returns. Raises LogError."""


@asynccontextmanager
async def open_publisher(
    topic: str,
    type_name: str,
    *,
    app: str | None,
    url: str | None,
    key: str | None,
    key_field: str | None,
    id_field: str | None,
) -> AsyncIterator[Publisher]:
    """A publisher on an open log, closed in the end. Raises UsageError, SettingsError and LogError."""
    service = None if app is None else load_app(app)
    if service is not None and (key is not None or key_field is not None):
        raise UsageError("The contract of --app says what the key is.", remedy="Leave --key and --key-field out.")
    settings = settings_for(url, service.url if service else None)
    if service is None:
        require_existing(settings.url)
    clock = SystemClock()
    log = open_log(settings, clock)
    try:
        if service is not None:
            await service.start(Environment(log, settings, clock, Random()), consume=False)
            try:
                yield _ContractPublisher(service, topic, type_name, id_field)
            finally:
                await service.stop()
        else:
            await log.start()
            await log.require_standing()
            keys = _Keys(key, key_field, id_field)
            names = (settings.full_name(topic), topic)
            yield _RawPublisher(log, clock, await _spec(log, names), type_name, keys)
    finally:
        await log.close()


async def _spec(log: Log, names: Sequence[str]) -> TopicSpec:
    found = {spec.name: spec for spec in await log.topics()}
    for name in names:
        if name in found:
            return found[name]
    raise UnknownTopic(
        f"The log {log.address} has no topic {names[-1]!r}.",
        remedy="`postline topics` lists them; give --app to make what an app owns.",
    )


# -- with a contract ------------------------------------------------------------------------------


class _Message(NamedTuple):
    """A message that its contract accepts, and its own id."""

    value: Any
    #: "" where none is asked for.
    id: str


class _ContractPublisher:
    """Publishes as the app itself would."""

    def __init__(self, app: App, topic: str, type_name: str, id_field: str | None) -> None:
        declared = _declared(app, topic)
        if type_name not in declared.contracts:
            known = ", ".join(sorted(declared.contracts)) or "none"
            raise UsageError(
                f"Topic {topic!r} of app {app.name!r} declares no type {type_name!r}.", remedy=f"It declares {known}."
            )
        self._app = app
        self._contract = declared.contracts[type_name]
        self._priority = declared.priority.name if declared.priority else None
        #: Lines are JSON, however the topic's values are written.
        self._kind = Kind(self._contract.cls, name=type_name)
        self._bytes_max = declared.message_bytes_max
        self._id_field = id_field or ""
        self._id_of = None if id_field is None else _reader(id_field, "id")

    def read(self, line: Line) -> _Message:
        """The line as a message of the contract."""
        require_unique_keys(line.text)
        try:
            value = self._kind.decode(line.text)
        except (*UNREADABLE, ValueError, TypeError) as error:
            raise DecodeError(f"It is no {self._contract.name}: {error}") from error
        require_all_kept(self._kind, self._contract.reading.schema, line.text, value, self._id_field)
        # What publishing refuses must be known before a batch of lines is stored.
        data = self._contract.encode(value)
        self._contract.placed_by(value, self._contract.key_of(value))
        if len(data) > self._bytes_max:
            raise EncodeError(f"It has {len(data)} bytes; the topic takes {self._bytes_max}.")
        return _Message(value, self._id_of(msgspec.json.decode(line.text)) if self._id_of else "")

    async def publish(self, messages: Sequence[_Message]) -> None:
        """Publish in order, all in one commit."""
        ids = iter([message.id for message in messages])

        def id_of(_: Any) -> str:
            return next(ids)

        values = [message.value for message in messages]
        await self._app.publish_many(values, id_of=id_of if self._id_of else None, priority=self._priority)


def require_all_kept(kind: Kind, schema: Schema, text: bytes, value: Any, used: str = "") -> None:
    """Refuse JSON with a field that the contract does not have: who wrote it meant something. Raises DecodeError.

    But for the one at the path `used`, which becomes something else than a field.
    """
    dropped = dropped_fields(schema, msgspec.json.decode(text), lambda: msgspec.json.decode(kind.encode(value)))
    if lost := [each for each in dropped if each != used and not used.startswith(f"{each}.")]:
        raise DecodeError(
            f"{kind.name} has no field {lost[0]!r:.100}, so it would be lost.",
            remedy="Leave it out, or correct its name; `postline contracts show` lists the fields.",
        )


def _declared(app: App, name: str) -> Topic:
    declared = (*app.owns, *app.publishes_to)
    topics = {each.name: each for topic in declared for each in (topic.siblings.values() or (topic,))}
    if name not in topics:
        raise UsageError(
            f"App {app.name!r} does not publish to topic {name!r}.",
            remedy=f"It publishes to {', '.join(sorted(topics)) or 'none'}; list it in owns= or publishes_to=.",
        )
    return topics[name]


# -- without one ----------------------------------------------------------------------------------


class _Keys(NamedTuple):
    """Where keys and ids come from."""

    constant: str | None
    field: str | None
    id_field: str | None


class _RawPublisher:
    """Publishes JSON as it stands, keyed and placed as every producer of the topic does."""

    def __init__(self, log: Log, clock: Clock, spec: TopicSpec, type_name: str, keys: _Keys) -> None:
        self._log, self._clock, self._spec, self._type = log, clock, spec, type_name
        self._constant = None if keys.constant is None else keys.constant.encode()
        self._key_of = self._key_reader(keys)
        self._id_of = None if keys.id_field is None else _reader(keys.id_field, "id")
        self._ids = IdSource(clock.now_ms, Random())
        self._partitioner = Partitioner(spec.partitions)
        self._turn = 0

    def _key_reader(self, keys: _Keys) -> Callable[[Any], str] | None:
        if keys.constant is not None and keys.field is not None:
            raise UsageError("--key and --key-field contradict each other.", remedy="Give one of them.")
        if keys.constant is not None:
            return None
        if keys.field is None and self._spec.key.endswith("()"):
            raise UsageError(
                f"The key of topic {self._spec.name!r} is made by a function of its owner.",
                remedy="Give --app, whose contract has it, or say the key by --key or --key-field.",
            )
        path = keys.field or self._spec.key
        return _reader(path, "key") if path else None

    def read(self, line: Line) -> Append:
        """The line as a record to be appended."""
        require_unique_keys(line.text)
        try:
            value = msgspec.json.decode(line.text)
        except UNREADABLE as error:
            raise DecodeError(f"It is no JSON: {error}") from error
        key = self._constant
        if self._key_of is not None:
            key = canonical_key(self._key_of(value))
        own_id = None if self._id_of is None else self._id_of(value)
        envelope = Envelope(
            id=own_id or self._ids.next_id(), source=_SOURCE, type=self._type, time_ms=self._clock.now_ms()
        )
        placed_by = key if key is not None else own_id and own_id.encode()
        self._turn += 1
        partition = self._partitioner.partition_of(placed_by) if placed_by else self._turn % self._spec.partitions
        flags = FLAG_OWN_ID if own_id else 0
        return Append(self._spec.name, partition, key, line.text, envelope, flags)

    async def publish(self, messages: Sequence[Append]) -> None:
        """Append in order, all in one commit."""
        if messages:
            await self._log.append(messages)


def _reader(path: str, what: str) -> Callable[[Any], str]:
    """Reads a text or a whole number at a dotted path of a JSON object; raises EncodeError without one."""
    steps = path.split(".")

    def read(value: Any) -> str:
        for step in steps:
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise EncodeError(f"Its {what} is no text and no whole number: {path} is {value!r}.")
        return str(value)

    return read
