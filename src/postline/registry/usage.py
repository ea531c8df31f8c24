"""Who reads what: each subscription's view of the types that it handles, kept beside the schemas in the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from postline.contracts import Reading
from postline.contracts.schema import Schema
from postline.contracts.usage import fields_read
from postline.errors import ContractError, UnknownTopic
from postline.log.port import Append, Log, Record
from postline.message import UNREADABLE, Envelope

__all__ = ["Usage", "View", "read_views", "view_of", "write_views"]

_KIND = "view"


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What a subscription reads of one message type."""

    topic: str
    type: str
    service: str
    subscription: str
    #: The class of its handler: the fields that it knows.
    reader: Schema
    #: Older classes, kept for upcasts: what the handler's class can't read, the first of these that can does.
    upcasts: tuple[Schema, ...] = ()

    @property
    def consumer(self) -> str:
        """Whose it is, in words: the service, and its subscription in brackets."""
        return f"{self.service} ({self.subscription})"

    def fields_of(self, writer: Schema) -> frozenset[str]:
        """The writer's fields that it reads, by dotted paths."""
        return frozenset[str]().union(*(fields_read(each, writer) for each in (self.reader, *self.upcasts)))


def read_views(text: str | bytes, where: str) -> list[View]:
    """The views in a file. Raises ContractError that names `where`."""
    try:
        return msgspec.json.decode(text, type=list[View])
    except UNREADABLE as error:
        raise ContractError(
            f"{where} does not say what consumers read: {error}.",
            remedy="Write it again with `postline contracts usage --save`.",
        ) from error


def write_views(views: Sequence[View]) -> bytes:
    """The content of their file: always the same bytes for the same views."""
    return msgspec.json.format(msgspec.json.encode(views, order="deterministic"), indent=1) + b"\n"


class _Entry(msgspec.Struct, frozen=True):
    """A record of the topic. It has no `document`, by which schemas are known."""

    kind: str
    view: View


class Usage:
    """Views in the topic of the schemas. Each start of a subscription replaces those that it had. Event loop only."""

    def __init__(self, log: Log, topic: str, new_id: Callable[[], str]) -> None:
        self._log, self._topic, self._new_id = log, topic, new_id

    async def views(self) -> list[View]:
        """All views, by topic, type and subscription. Raises LogUnavailable."""
        found: dict[bytes, View] = {}
        offset = 0
        while records := await self._read(offset):
            for record in records:
                key, value = record[2] or b"", record[4]
                if value is None:
                    found.pop(key, None)
                elif (view := _view_in(value)) is not None:
                    found[key] = view
            offset = records[-1][0] + 1
        return sorted(found.values(), key=lambda view: (view.topic, view.type, view.subscription))

    async def note(self, subscription: str, views: Iterable[View]) -> None:
        """Remember what a subscription reads now; written where it differs. Raises LogUnavailable."""
        known = {view.type: view for view in await self.views() if view.subscription == subscription}
        now = {view.type: view for view in views}
        changed = {name: view for name, view in now.items() if known.get(name) != view}
        gone = {name: None for name, view in known.items() if name not in now}
        appends = [self._append(subscription, name, view) for name, view in {**changed, **gone}.items()]
        if appends:
            await self._log.append(appends)

    async def _read(self, offset: int) -> list[Record]:
        try:
            return await self._log.read(self._topic, 0, offset)
        except UnknownTopic:
            return []

    def _append(self, subscription: str, name: str, view: View | None) -> Append:
        key = f"{_KIND}/{subscription}/{name}".encode()
        value = None if view is None else msgspec.json.encode(_Entry(_KIND, view))
        envelope = Envelope(id=self._new_id(), source="postline.registry", type="postline.View")
        return Append(self._topic, 0, key, value, envelope)


def view_of(reading: Reading, type_name: str, *, topic: str, service: str, subscription: str) -> View:
    """What a subscription reads, that reads messages of this name so."""
    return View(
        topic=topic,
        type=type_name,
        service=service,
        subscription=subscription,
        reader=reading.schema,
        upcasts=tuple(_kept(reading)),
    )


def _kept(reading: Reading) -> Iterator[Schema]:
    """The older classes that it reads by upcasts, in the order in which they are tried."""
    for upcast in reading.upcasts:
        yield upcast.old.schema
        yield from _kept(upcast.old)


def _view_in(value: bytes) -> View | None:
    try:
        entry = msgspec.json.decode(value, type=_Entry)
    except UNREADABLE:
        return None  # a schema, or what a newer version writes
    return entry.view if entry.kind == _KIND else None
