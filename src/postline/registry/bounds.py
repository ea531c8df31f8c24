"""The bounds of topics as their owners declared them, kept beside the schemas in the log for whoever looks on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from postline.contracts import Bound
from postline.errors import UnknownTopic
from postline.log.port import Append, Log, Record
from postline.message import UNREADABLE, Envelope

__all__ = ["DeclaredBounds"]

_KIND = "bound"


class _Entry(msgspec.Struct, frozen=True):
    """A record of the topic. It has no `document`, no `subject` and no `view`, by which the others are known."""

    kind: str
    topic: str
    #: Names are those in the log.
    bound: Bound


class DeclaredBounds:
    """Bounds in the topic of the schemas. Each start of an owner replaces those of its topics. Event loop only."""

    def __init__(self, log: Log, topic: str) -> None:
        self._log, self._topic = log, topic
        self._found: dict[bytes, _Entry] = {}
        self._read_to = 0

    async def all(self) -> dict[str, Bound]:
        """The bounds by their topics; none where there is no such topic. Raises LogUnavailable."""
        while records := await self._read():
            for record in records:
                self._take(record)
            self._read_to = records[-1][0] + 1
        return {entry.topic: entry.bound for entry in self._found.values()}

    async def note(self, topics: Iterable[str], bounds: Mapping[str, Bound], new_id: Callable[[], str]) -> None:
        """Remember the bounds of an owner's topics; written where they differ. Raises LogUnavailable."""
        known = await self.all()
        changed = [topic for topic in topics if known.get(topic) != bounds.get(topic)]
        if changed:
            await self._log.append([self._append(topic, bounds.get(topic), new_id()) for topic in changed])

    async def _read(self) -> list[Record]:
        try:
            return await self._log.read(self._topic, 0, self._read_to)
        except UnknownTopic:
            return []

    def _take(self, record: Record) -> None:
        key, value = record[2] or b"", record[4]
        self._found.pop(key, None)
        try:
            entry = msgspec.json.decode(value or b"", type=_Entry)
        except UNREADABLE:
            return  # a schema, a view, a tombstone, or what a newer version writes
        if entry.kind == _KIND:
            self._found[key] = entry

    def _append(self, topic: str, bound: Bound | None, new_id: str) -> Append:
        value = None if bound is None else msgspec.json.encode(_Entry(_KIND, topic, bound))
        envelope = Envelope(id=new_id, source="postline.registry", type="postline.Bound")
        return Append(self._topic, 0, f"{_KIND}/{topic}".encode(), value, envelope)
