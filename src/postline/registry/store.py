"""`LogRegistry`: the registry that is built in, kept in the log itself as one compacted topic of one partition.

Everybody reads the same records in the same order, so everybody comes to the same ids and versions without asking
anybody: an id is one more than the offset of the record that registered its document first. Who registers says how many
versions it had compared with; where another came between, the rule is looked at again, and the later one may lose.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

import msgspec

from postline.contracts.compatibility import Finding, Level, judge
from postline.contracts.formats import format_of_type
from postline.contracts.schema import Schema
from postline.errors import ContractError, LogUnavailable, UnknownTopic
from postline.log.needs import TopicSpec
from postline.log.port import Append, Log, Record
from postline.message import Envelope
from postline.registry.model import Document, IncompatibleSchema, Version, meaning_of

__all__ = ["SCHEMAS_TOPIC", "LogRegistry", "schemas_topic"]

#: The topic's name, without the namespace.
SCHEMAS_TOPIC = "postline.schemas"

_SCHEMA, _LEVEL, _DELETED = "schema", "level", "deleted"
_TYPE = "postline.Schema"
_DEFAULT_LEVEL = Level.FULL_TRANSITIVE


class _Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record of the topic: a document that is registered, or a rule."""

    kind: str
    subject: str
    document: Document | None = None
    #: How many versions whoever registered it had compared with, and those it reads in another way.
    compared: int = 0
    agreed: tuple[int, ...] = ()
    level: str = ""
    #: Of a version that is deleted: its number, and whether for good.
    number: int = 0
    permanent: bool = False


def schemas_topic(name: str) -> TopicSpec:
    """The topic that the registry lies in."""
    return TopicSpec(name=name, partitions=1, owner="", key="entry", compacted=True)


class LogRegistry:
    """Schemas in a topic of the log. Event loop only; what was read stays known when the log can't be reached."""

    def __init__(self, log: Log, topic: str, new_id: Callable[[], str]) -> None:
        self._log, self._topic = log, topic
        self._new_id = new_id
        self._read_to = 0
        self._ids: dict[Document, int] = {}
        self._documents: dict[int, Document] = {}
        self._versions: dict[str, list[Version]] = {}
        self._levels: dict[str, Level] = {}
        #: Deleted versions by subject and number; whether for good.
        self._deleted: dict[tuple[str, int], bool] = {}
        #: What was found against registrations that came too late, by their ids.
        self._refused: dict[int, list[Finding]] = {}
        self._turn = asyncio.Lock()

    async def refresh(self) -> None:
        """Read what was registered since; nothing was where there is no topic. Raises LogUnavailable."""
        async with self._turn:
            while records := await self._read():
                for record in records:
                    self._take(record)
                self._read_to = records[-1][0] + 1

    async def _read(self) -> list[Record]:
        try:
            return await self._log.read(self._topic, 0, self._read_to)
        except UnknownTopic:
            return []

    async def register(self, subject: str, document: Document, *, agreed: frozenset[int] = frozenset()) -> int:
        """See `Registry`."""
        await self.refresh()
        if (known := self._known(subject, document)) is not None:
            return known.id
        there = self._versions.get(subject, [])
        if found := self._findings(subject, document, agreed):
            raise IncompatibleSchema(subject, found)
        entry = _Entry(_SCHEMA, subject, document, len(there), tuple(sorted(agreed)))
        offset = await self._append(f"{_SCHEMA}/{subject}/{self._new_id()}", entry)
        await self.refresh()
        if found := self._refused.get(offset + 1, []):
            raise IncompatibleSchema(subject, found)
        if (known := self._known(subject, document)) is None:
            raise LogUnavailable(f"The schema of {subject} was not found again.", remedy="Try again.")
        return known.id

    async def schemas(self, ids: Collection[int]) -> Mapping[int, Schema]:
        """See `Registry`; those whose documents can't be read are left out."""
        if any(number not in self._documents for number in ids):
            await self.refresh()
        found = {}
        for number in ids:
            if (document := self._documents.get(number)) is not None:
                found[number] = meaning_of(document)
        return found

    async def document(self, number: int) -> Document | None:
        """The document of an id, also of one that was deleted."""
        if number not in self._documents:
            await self.refresh()
        return self._documents.get(number)

    async def versions(self, subject: str, *, deleted: bool = False) -> list[Version]:
        """See `Registry`; with `deleted` also those that were, but not for good."""
        await self.refresh()
        return self._there(subject, deleted=deleted)

    async def subjects(self, *, deleted: bool = False) -> list[str]:
        """See `Registry`; with `deleted` also those whose versions all were, but not for good."""
        await self.refresh()
        return sorted(subject for subject in self._versions if self._there(subject, deleted=deleted))

    async def level(self, subject: str) -> Level:
        """See `Registry`."""
        await self.refresh()
        return self._level(subject)

    async def own_level(self, subject: str) -> Level | None:
        """The subject's own rule, if it has one."""
        await self.refresh()
        return self._levels.get(subject)

    async def set_level(self, subject: str, level: Level | None) -> None:
        """See `Registry`; None takes the subject's own rule away."""
        await self._append(f"{_LEVEL}/{subject}", _Entry(_LEVEL, subject, level=level.value if level else ""))
        await self.refresh()

    async def close(self) -> None:
        """See `Registry`; the log is its opener's to close."""

    async def delete(self, version: Version, *, permanent: bool = False) -> None:
        """Hide a version, and for good if it is hidden already. Its id stays: records may carry it."""
        entry = _Entry(_DELETED, version.subject, number=version.number, permanent=permanent)
        await self._append(f"{_DELETED}/{version.subject}/{version.number}", entry)
        await self.refresh()

    # -- the records --------------------------------------------------------------------------

    async def _append(self, key: str, entry: _Entry) -> int:
        envelope = Envelope(id=self._new_id(), source="postline.registry", type=_TYPE)
        append = Append(self._topic, 0, key.encode(), msgspec.json.encode(entry), envelope)
        (offset,) = await self._log.append((append,))
        return offset

    def _take(self, record: Record) -> None:
        try:
            entry = msgspec.json.decode(record[4] or b"", type=_Entry)
        except msgspec.MsgspecError:
            return  # another program's, or a newer version's
        if entry.kind == _LEVEL and entry.level:
            self._levels[entry.subject] = Level(entry.level)
        elif entry.kind == _LEVEL:
            self._levels.pop(entry.subject, None)
        elif entry.kind == _DELETED:
            self._deleted[entry.subject, entry.number] = entry.permanent
        elif entry.document is not None:
            self._register(record[0] + 1, entry, entry.document)

    def _register(self, number: int, entry: _Entry, document: Document) -> None:
        there = self._versions.setdefault(entry.subject, [])
        if self._known(entry.subject, document) is not None:
            return
        overtaken = len(there) != entry.compared
        if overtaken and (found := self._findings(entry.subject, document, frozenset(entry.agreed))):
            self._refused[number] = found
            return
        known = self._ids.setdefault(document, number)
        self._documents[known] = document
        there.append(Version(entry.subject, len(there) + 1, known, document))

    # -- looking ------------------------------------------------------------------------------

    def _there(self, subject: str, *, deleted: bool = False) -> list[Version]:
        versions = self._versions.get(subject, ())
        hidden = self._deleted
        return [
            each for each in versions if (gone := hidden.get((subject, each.number))) is None or (deleted and not gone)
        ]

    def _known(self, subject: str, document: Document) -> Version | None:
        return next((each for each in self._there(subject) if each.document == document), None)

    def _level(self, subject: str) -> Level:
        return self._levels.get(subject) or self._levels.get("") or _DEFAULT_LEVEL

    def _findings(self, subject: str, document: Document, agreed: frozenset[int]) -> list[Finding]:
        there = {version.number: version for version in self._there(subject)}
        if not there:
            return []
        meanings = {number: meaning_of(version.document) for number, version in there.items()}
        whole = format_of_type(document.schema_type).whole
        try:
            found = judge(meaning_of(document), meanings, self._level(subject), whole=whole)
        except ContractError:
            return []
        return [each for each in found if there[each.version].id not in agreed]
