"""Who reads what: each subscription's view of the types that it handles, kept beside the schemas in the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from postline.contracts import Reading
from postline.contracts.schema import Schema
from postline.contracts.usage import fields_read
from postline.errors import ContractError, UnknownTopic
from postline.log.port import Append, Log, Record
from postline.message import UNREADABLE, Envelope

__all__ = ["Usage", "View", "read_views", "view_of", "write_views"]

#: A view that a subscription has, and that it has none of the type any more.
_KIND, _LEFT = "view", "left"
_KEPT_MS = 24 * 3_600 * 1_000


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


class _Noted(NamedTuple):
    """A view as it was noted: under which key, when, and whether the type is still read since then."""

    key: bytes
    at_ms: int
    view: View
    is_read: bool


class Usage:
    """Views in the topic of the schemas, one for each version of a consumer. Event loop only.

    Each start of a subscription notes those that it has. One that another version noted before counts for a day more,
    since that version may still be running: in a rolling deployment, or beside a canary.
    """

    def __init__(self, log: Log, topic: str, new_id: Callable[[], str], now_ms: Callable[[], int]) -> None:
        self._log, self._topic, self._new_id, self._now_ms = log, topic, new_id, now_ms

    async def views(self) -> list[View]:
        """All views that count, by topic, type and subscription, older ones first. Raises LogUnavailable."""
        found = [each.view for noted in (await self._noted()).values() for each in self._counting(noted)]
        return sorted(found, key=lambda view: (view.topic, view.type, view.subscription))

    async def note(self, subscription: str, views: Iterable[View]) -> None:
        """Remember what a subscription reads now; written where it differs. Raises LogUnavailable."""
        known = {name: noted for (owner, name), noted in (await self._noted()).items() if owner == subscription}
        now = {view.type: view for view in views}
        appends = []
        for name, view in now.items():
            newest = known[name][-1] if name in known else None
            if newest is None or newest.view != view or not newest.is_read:
                appends.append(self._append(_key(subscription, name, view), _Entry(_KIND, view)))
        for name, noted in known.items():
            if name not in now and noted[-1].is_read:
                appends.append(self._append(_key(subscription, name, None), _Entry(_LEFT, noted[-1].view)))
            kept = {each.key for each in self._counting(noted)} | {each.key for each in appends} | {noted[-1].key}
            appends += [self._append(each.key, None) for each in noted if each.key not in kept]
        if appends:
            await self._log.append(appends)

    def _counting(self, noted: Sequence[_Noted]) -> list[_Noted]:
        """Of one type's views, oldest first, the newest, and those that it followed within the last day."""
        now_ms = self._now_ms()
        followed = [each.at_ms for each in noted[1:]]
        kept = [each for each, at_ms in zip(noted, followed, strict=False) if now_ms - at_ms < _KEPT_MS]
        return [each for each in (*kept, noted[-1]) if each.is_read]

    async def _noted(self) -> dict[tuple[str, str], list[_Noted]]:
        """By subscription and type, what was noted, oldest first; never empty lists."""
        found: dict[bytes, _Noted] = {}
        offset = 0
        while records := await self._read(offset):
            for record in records:
                key, value = record[2] or b"", record[4]
                found.pop(key, None)  # so that the newest stands last
                if value is not None and (entry := _entry_in(value)) is not None:
                    found[key] = _Noted(key, record[1], entry.view, entry.kind == _KIND)
            offset = records[-1][0] + 1
        grouped: dict[tuple[str, str], list[_Noted]] = {}
        for each in found.values():
            grouped.setdefault((each.view.subscription, each.view.type), []).append(each)
        return grouped

    async def _read(self, offset: int) -> list[Record]:
        try:
            return await self._log.read(self._topic, 0, offset)
        except UnknownTopic:
            return []

    def _append(self, key: bytes, entry: _Entry | None) -> Append:
        value = None if entry is None else msgspec.json.encode(entry)
        envelope = Envelope(id=self._new_id(), source="postline.registry", type="postline.View")
        return Append(self._topic, 0, key, value, envelope)


def _key(subscription: str, name: str, view: View | None) -> bytes:
    """One for each version of a consumer, by its class and those that it keeps for upcasts."""
    kept = (view.reader, *view.upcasts) if view is not None else ()
    version = "".join(f"/{each.fingerprint[:16]}" for each in kept)
    return f"{_KIND}/{subscription}/{name}{version}".encode()


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


def _entry_in(value: bytes) -> _Entry | None:
    try:
        entry = msgspec.json.decode(value, type=_Entry)
    except UNREADABLE:
        return None  # a schema, or what a newer version writes
    return entry if entry.kind in (_KIND, _LEFT) else None
