"""`LogRegistry`: the registry that is built in, kept in the log itself as one compacted topic of one partition.

Everybody reads the same records in the same order, so everybody comes to the same ids and versions without asking
anybody: an id is one more than the offset of the record that registered its document first. Who registers says how many
versions it had compared with; where another came between, the rule is looked at again, and the later one may lose.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from uuid import UUID

import msgspec

from postline.contracts.compatibility import Finding, Level, judge, judge_by, other_formats, report
from postline.contracts.formats import format_of_type
from postline.contracts.frame import guid_behind
from postline.contracts.readability import Found, found_between
from postline.contracts.schema import Schema
from postline.errors import ContractError, LogUnavailable, UnknownTopic
from postline.log.needs import TopicSpec
from postline.log.port import Append, Log, Record
from postline.message import UNREADABLE, Envelope
from postline.registry.model import Document, IncompatibleSchema, Version, guid_of
from postline.registry.referencing import readable

__all__ = ["SCHEMAS_TOPIC", "LogRegistry", "schemas_topic"]

#: The topic's name, without the namespace.
SCHEMAS_TOPIC = "postline.schemas"

_SCHEMA, _LEVEL, _DELETED = "schema", "level", "deleted"
_TYPE = "postline.Schema"
_LEVELS = {level.value for level in Level}
_DEFAULT_LEVEL = Level.FULL_TRANSITIVE


#: What documents of ours have in them (`avro.MODEL`).
_MODEL = '"x-postline"'


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
        self._guids: dict[UUID, int] = {}
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
        if found := self._findings(subject, document, agreed):
            raise IncompatibleSchema(report(found, subject), found)
        compared = len(self._versions.get(subject, []))
        entry = _Entry(_SCHEMA, subject, document, compared, tuple(sorted(agreed)))
        offset = await self._append(f"{_SCHEMA}/{subject}/{self._new_id()}", entry)
        await self.refresh()
        if found := self._refused.get(offset + 1, []):
            raise IncompatibleSchema(report(found, subject), found)
        if (known := self._known(subject, document)) is None:
            raise LogUnavailable(f"The schema of {subject} was not found again.", remedy="Try again.")
        return known.id

    async def schemas(self, ids: Collection[int]) -> Mapping[int, Schema]:
        """See `Registry`; those whose documents can't be read are left out."""
        if any(self._named(number) is None for number in ids):
            await self.refresh()
        found = {}
        for number in ids:
            document = self._named(number)
            if document is not None and (meaning := self._meaning(document)) is not None:
                found[number] = meaning
        return found

    async def document(self, number: int) -> Document | None:
        """The document of an id, also of one that was deleted."""
        if number not in self._documents:
            await self.refresh()
        return self._documents.get(number)

    async def with_guid(self, guid: UUID) -> tuple[int, Document] | None:
        """Id and document of a GUID, also of one that was deleted."""
        if guid not in self._guids:
            await self.refresh()
        number = self._guids.get(guid)
        return None if number is None else (number, self._documents[number])

    async def everything(self, *, deleted: bool = False) -> list[Version]:
        """All versions of all subjects; with `deleted` also those that were, but not for good."""
        await self.refresh()
        return [each for subject in sorted(self._versions) for each in self._there(subject, deleted=deleted)]

    async def findings(self, subject: str, document: Document, versions: Sequence[Version]) -> list[Finding]:
        """What a document would break of these versions by the subject's rule; what can't be read is not judged."""
        await self.refresh()
        return self._judged(document, versions, self._level(subject))

    async def referenced(self, document: Document) -> Mapping[str, Document]:
        """What a document refers to, and what that does, by name; without what there is not."""
        await self.refresh()
        return self._referenced(document)

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
        # A key of its own: whoever reads later judges by the rules that held; none may be compacted away.
        key = f"{_LEVEL}/{subject}/{self._new_id()}"
        await self._append(key, _Entry(_LEVEL, subject, level=level.value if level else ""))
        await self.refresh()

    async def close(self) -> None:
        """See `Registry`; the log is its opener's to close."""

    async def delete(self, version: Version, *, permanent: bool = False) -> None:
        """Hide a version, and for good if it is hidden already. Its id stays: records may carry it."""
        entry = _Entry(_DELETED, version.subject, number=version.number, permanent=permanent)
        await self._append(f"{_DELETED}/{version.subject}/{version.number}/{self._new_id()}", entry)
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
        except UNREADABLE:
            return  # another program's, or a newer version's
        if entry.kind == _LEVEL:
            self._set_level(entry.subject, entry.level)
        elif entry.kind == _DELETED:
            self._deleted[entry.subject, entry.number] = entry.permanent
        elif entry.document is not None:
            self._register(record[0] + 1, entry, entry.document)

    def _set_level(self, subject: str, level: str) -> None:
        if level in _LEVELS:
            self._levels[subject] = Level(level)
        elif not level:
            self._levels.pop(subject, None)

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
        self._guids[guid_of(document)] = known
        there.append(Version(entry.subject, len(there) + 1, known, document))

    # -- looking ------------------------------------------------------------------------------

    def _named(self, number: int) -> Document | None:
        guid = guid_behind(number)
        return self._documents.get(number if guid is None else self._guids.get(guid, 0))

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
        there = self._there(subject)
        ids = {each.number: each.id for each in there}
        found = self._judged(document, there, self._level(subject))
        return [each for each in found if ids[each.version] not in agreed]

    def _judged(self, document: Document, versions: Sequence[Version], level: Level) -> list[Finding]:
        compared = versions if level.transitive else versions[-1:]
        if level is Level.NONE or not compared:
            return []
        types = {each.number: each.document.schema_type for each in compared}
        alike = [each for each in compared if each.document.schema_type == document.schema_type]
        return other_formats(document.schema_type, types, level) + self._content_judged(document, alike, level)

    def _content_judged(self, document: Document, compared: Sequence[Version], level: Level) -> list[Finding]:
        if not compared or (meaning := self._meaning(document)) is None:
            return []
        meanings = {each.number: self._meaning(each.document) for each in compared}
        read = {number: each for number, each in meanings.items() if each is not None}
        try:
            if document.schema_type == "AVRO":
                others = {each.number: each.document for each in compared if each.number in read}
                return judge_by(self._avro_breaks, document, others, level)
            return judge(meaning, read, level, whole=format_of_type(document.schema_type).whole)
        except ContractError:  # nested too deep to be judged
            return []

    def _avro_breaks(self, reader: Document, writer: Document) -> Iterable[Found]:
        """By our rules between types of ours, which are read by our model; by Avro's own where others have a part."""
        ours, theirs = self._meaning(reader), self._meaning(writer)
        assert ours is not None
        assert theirs is not None
        documents = (reader, writer)
        if all(_MODEL in each.text for each in documents) or any(each.references for each in documents):
            return found_between(ours, theirs, whole=True)
        from postline.contracts.avro_rules import document_breaks

        return document_breaks(*(msgspec.json.decode(each.text) for each in documents))

    def _meaning(self, document: Document) -> Schema | None:
        return readable(document, self._referenced(document))

    def _referenced(self, document: Document) -> dict[str, Document]:
        found: dict[str, Document] = {}
        waiting = list(document.references)
        while waiting:
            reference = waiting.pop()
            versions = self._versions.get(reference.subject, [])
            if reference.name not in found and 0 < reference.version <= len(versions):
                found[reference.name] = other = versions[reference.version - 1].document
                waiting += other.references
        return found
