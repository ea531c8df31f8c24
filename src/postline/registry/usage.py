"""Who reads what: each subscription's view of the types that it handles, kept beside the schemas in the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from postline.contracts.schema import Schema
from postline.errors import UnknownTopic
from postline.log.port import Append, Log, Record
from postline.message import Envelope

__all__ = ["Usage", "View"]

_KIND = "view"


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What a subscription reads of one message type."""

    topic: str
    type: str
    service: str
    subscription: str
    #: The class of its handler: the fields that it knows.
    reader: Schema


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

    async def note(self, service: str, topic: str, subscription: str, readers: Mapping[str, Schema]) -> None:
        """Remember what a subscription reads now, by type; written where it differs. Raises LogUnavailable."""
        known = {view.type: view for view in await self.views() if view.subscription == subscription}
        now = {
            name: View(topic=topic, type=name, service=service, subscription=subscription, reader=reader)
            for name, reader in readers.items()
        }
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


def _view_in(value: bytes) -> View | None:
    try:
        entry = msgspec.json.decode(value, type=_Entry)
    except msgspec.MsgspecError:
        return None  # a schema, or what a newer version writes
    return entry.view if entry.kind == _KIND else None
