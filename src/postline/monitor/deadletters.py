"""`DeadLetters`: the dead letters of a log chosen, grouped, opened and looked into, page by page."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import msgspec

from postline.contracts.rules import Rule
from postline.errors import ContractError
from postline.log.port import Log, Record, SubscriptionInfo
from postline.message import UNREADABLE
from postline.monitor.contents import Contents
from postline.monitor.letter_views import DeadLetterDetail, DeadLetterGroup, DeadLetterView, EditView, RelatedView
from postline.monitor.views import RecordId, RecordView, key_shown, key_text, printable
from postline.runtime.deadletters import CAUSES, FAILED_AT, ORIGIN, STACK, copies_of, envelope_or_blank, origin_of
from postline.runtime.edits import edited
from postline.runtime.entries import (
    DEAD,
    EDITS,
    HELD,
    DeadEntry,
    EditEntry,
    HeldEntry,
    decode_entry,
    never_redriven,
    offset_key,
    offset_of,
    offsets_of,
    redrives_of,
)
from postline.runtime.places import fingerprint
from postline.runtime.plan import CONTROL_SUFFIX, DEAD_LETTER_SUFFIX

__all__ = ["DeadLetters", "Failure", "Groups", "Letter", "Opened", "Picked", "Selection"]

_PAGE = 4_000
#: Dead letters are copied in the commit after the failure; clocks of two processes differ a little.
_COPY_SLACK_MS = 2_000
#: How far around a record the rest of its conversation is looked for, and in how many records of a partition.
_RELATED_SPAN_MS = 60_000
_RELATED_RECORDS_MAX = 2_000


class Letter(NamedTuple):
    """A dead letter as partition state has it."""

    partition: int
    offset: int
    entry: DeadEntry

    @property
    def id(self) -> RecordId:
        """What operators call it by."""
        return RecordId(self.partition, self.offset)

    @property
    def group(self) -> str:
        """That of all that failed alike."""
        return self.entry.group or fingerprint(self.entry.error_type, "")


class Picked(NamedTuple):
    """Letters of one partition in order of offset, as whoever disposes of them names them."""

    partition: int
    offsets: Sequence[int]
    #: How often each was redriven before.
    redrives: Sequence[int]

    @classmethod
    def of(cls, page: Sequence[Letter]) -> Picked:
        """The letters of a page, which has some."""
        return cls(page[0].partition, [each.offset for each in page], [each.entry.redrives for each in page])


class Failure(NamedTuple):
    """How something failed."""

    group: str
    error_type: str
    place: str
    error: str


class Groups:
    """Gathers letters that fail alike."""

    def __init__(self) -> None:
        self._groups: dict[str, DeadLetterGroup] = {}

    def add(self, letter: Letter, failure: Failure) -> None:
        """One more."""
        failed_ms, before = letter.entry.failed_ms, self._groups.get(failure.group)
        self._groups[failure.group] = DeadLetterGroup(
            group=failure.group,
            error_type=failure.error_type,
            place=failure.place,
            error=failure.error if before is None else before.error,
            count=1 if before is None else before.count + 1,
            first_failed_ms=min(failed_ms, before.first_failed_ms if before else failed_ms),
            last_failed_ms=max(failed_ms, before.last_failed_ms if before else failed_ms),
            types=sorted({letter.entry.type, *(before.types if before else ())}),
            example=str(letter.id) if before is None else before.example,
        )

    def largest_first(self) -> list[DeadLetterGroup]:
        """The groups."""
        return sorted(self._groups.values(), key=lambda each: (-each.count, each.group))


class Opened(NamedTuple):
    """A dead letter with its record, as it would be handled; None if the log lost it. `edit` is who changed it."""

    letter: Letter
    record: Record | None
    edit: EditEntry | None
    original: Record | None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which dead letters are meant: those that everything said is true of; all, if nothing is said."""

    records: tuple[RecordId, ...] = ()
    key: str | None = None
    group: str | None = None
    #: Wire name.
    type: str | None = None
    #: Of the content, as `dlq show --reveal` has it.
    rule: Rule | None = None
    #: When they failed: from then on, and before.
    since_ms: int | None = None
    until_ms: int | None = None
    #: Not those that this redrive has taken already.
    not_of_run: str = ""

    @property
    def narrows(self) -> bool:
        """Whether it leaves out any but those that a redrive has taken."""
        return self != Selection(not_of_run=self.not_of_run)

    def takes(self, letter: Letter) -> bool:
        """Whether it is one of them, by all but the rule."""
        entry = letter.entry
        return (
            (not self.records or letter.id in self.records)
            and (self.key is None or key_text(entry.key) == self.key)
            and (self.group is None or letter.group == self.group)
            and (self.type is None or entry.type == self.type)
            and (self.since_ms is None or entry.failed_ms >= self.since_ms)
            and (self.until_ms is None or entry.failed_ms < self.until_ms)
            and not (self.not_of_run and entry.run == self.not_of_run)
        )


class Shows(Protocol):
    """Whoever shows records and keys, masked where they are sensitive."""

    async def hides_keys(self, topic: str) -> bool:
        """Whether keys are shown as masks."""

    def record_view(
        self, topic: str, partition: int, record: Record, hidden: bool, known: str | None = None
    ) -> RecordView:
        """The record as it is shown."""


class DeadLetters:
    """Reads dead letters, as last committed; keeps nothing between calls."""

    def __init__(self, log: Log, contents: Contents, shows: Shows) -> None:
        self._log, self.contents, self._shows = log, contents, shows

    # -- choosing -----------------------------------------------------------------------------------

    async def pages(self, info: SubscriptionInfo, chosen: Selection) -> AsyncIterator[list[Letter]]:
        """Those that are chosen, by partition and offset, a page of one partition at a time; none is empty."""
        numbers = {each.partition for each in chosen.records}
        for stored in await self._log.partitions(info.name):
            if not numbers or stored.partition in numbers:
                async for page in self._chosen(info, stored.partition, chosen):
                    yield page

    async def picked(self, info: SubscriptionInfo, chosen: Selection) -> AsyncIterator[Picked]:
        """As `pages`, without what only the eye needs: where all are chosen, their entries need not even be decoded."""
        if chosen.narrows:
            async for page in self.pages(info, chosen):
                yield Picked.of(page)
            return
        for stored in await self._log.partitions(info.name):
            after = b""
            while entries := await self._log.peek_state(info.name, stored.partition, DEAD, after=after, limit=_PAGE):
                after = entries[-1][0]
                if picked := _not_of_run(stored.partition, entries, chosen.not_of_run):
                    yield picked

    async def _chosen(self, info: SubscriptionInfo, partition: int, chosen: Selection) -> AsyncIterator[list[Letter]]:
        async for found in self._pages(info.name, partition, chosen):
            if (rule := chosen.rule) is None:
                yield found
            elif some := [each.letter for each in await self.opened(info, found) if self._satisfies(info, each, rule)]:
                yield some

    async def _pages(self, name: str, partition: int, chosen: Selection) -> AsyncIterator[list[Letter]]:
        offsets = [each.offset for each in chosen.records if each.partition == partition]
        after, last = _before(min(offsets, default=0)), max(offsets, default=None)
        while page := await self._log.peek_state(name, partition, DEAD, after=after, limit=_PAGE):
            letters = [Letter(partition, offset_of(key), decode_entry(data, DeadEntry)) for key, data in page]
            found = [each for each in letters if chosen.takes(each)]
            if found:
                yield found
            after = page[-1][0]
            if last is not None and offset_of(after) >= last:
                return

    def _satisfies(self, info: SubscriptionInfo, opened: Opened, rule: Rule) -> bool:
        if opened.record is None:
            return False
        try:
            content = self.contents.plain(info.topic, opened.record, self._content_type(opened.record))
        except (*UNREADABLE, ContractError, ValueError):
            return False
        return isinstance(content, dict) and rule(content)

    def _content_type(self, record: Record) -> str:
        return envelope_or_blank(self._log, record).content_type

    async def opened(self, info: SubscriptionInfo, letters: Sequence[Letter]) -> list[Opened]:
        """These letters of one partition with their records, and what was edited in them."""
        if not letters:
            return []
        partition, offsets = letters[0].partition, [each.offset for each in letters]
        records = {each[0]: each for each in await self._log.read_offsets(info.topic, partition, offsets)}
        edits = await self._edits(info.name, partition, offsets[0], offsets[-1])
        found = []
        for letter in letters:
            original, edit = records.get(letter.offset), edits.get(letter.offset)
            changed = original if original is None or edit is None else edited(original, edit)
            found.append(Opened(letter, changed, edit, original))
        await self.contents.learn(info.topic, [each.record for each in found if each.record is not None])
        return found

    async def _edits(self, name: str, partition: int, first: int, last: int) -> dict[int, EditEntry]:
        found: dict[int, EditEntry] = {}
        after = _before(first)
        while page := await self._log.peek_state(name, partition, EDITS, after=after, limit=_PAGE):
            found |= {offset_of(key): decode_entry(data, EditEntry) for key, data in page}
            after = page[-1][0]
            if offset_of(after) >= last:
                break
        return found

    # -- showing ------------------------------------------------------------------------------------

    async def views(self, info: SubscriptionInfo, chosen: Selection) -> list[DeadLetterView]:
        """Those that are chosen, by partition and offset."""
        hidden = await self._shows.hides_keys(info.topic)
        behind: dict[int, Counter[bytes | None]] = {}
        views = []
        async for page in self.pages(info, chosen):
            partition = page[0].partition
            if any(each.entry.holds for each in page) and partition not in behind:
                behind[partition] = await self._waiting(info.name, partition)
            edits = await self._edits(info.name, partition, page[0].offset, page[-1].offset)
            for each in page:
                blocked = behind[partition][each.entry.lane_key] if each.entry.holds else 0
                key = key_shown(each.entry.key, hidden, chosen.key)
                views.append(_view(each, key, blocked, edited=each.offset in edits))
        return views

    async def _waiting(self, name: str, partition: int) -> Counter[bytes | None]:
        waiting, after = Counter[bytes | None](), b""
        while page := await self._log.peek_state(name, partition, HELD, after=after, limit=_PAGE):
            waiting.update([decode_entry(data, HeldEntry).lane_key for _, data in page])
            after = page[-1][0]
        return waiting

    async def groups(self, info: SubscriptionInfo, chosen: Selection) -> list[DeadLetterGroup]:
        """Those that failed alike, the largest group first."""
        groups = Groups()
        async for page in self.pages(info, chosen):
            for each in page:
                entry = each.entry
                groups.add(each, Failure(each.group, entry.error_type, entry.place or "unknown", entry.error))
        return groups.largest_first()

    async def detail(self, info: SubscriptionInfo, wanted: RecordId) -> DeadLetterDetail | None:
        """One letter with its record, its error's chain, and the conversation it belongs to; None if there is none."""
        found = [page[0] async for page in self.pages(info, Selection(records=(wanted,)))]
        if not found:
            return None
        ((opened,), (letter,)) = await self.opened(info, found), await self.views(info, Selection(records=(wanted,)))
        headers = await self._headers_of_copy(info, found[0])
        hidden = await self._shows.hides_keys(info.topic)
        record, original = (
            None if each is None else self._shows.record_view(info.topic, wanted.partition, each, hidden)
            for each in (opened.record, opened.original)
        )
        correlation = "" if opened.original is None else envelope_or_blank(self._log, opened.original).conversation
        around_ms = opened.original[1] if opened.original is not None else letter.failed_ms
        return DeadLetterDetail(
            letter=letter,
            record=record,
            stack=headers.get(STACK),
            causes=msgspec.json.decode(headers.get(CAUSES, "[]"), type=list[str]),
            origin=origin_of(info.topic, wanted.partition, wanted.offset),
            conversation=printable(correlation),
            related=await self._related(correlation, around_ms, letter.failed_ms) if correlation else [],
            edit=_edit_view(opened.edit),
            original=original if opened.edit is not None else None,
        )

    async def _headers_of_copy(self, info: SubscriptionInfo, letter: Letter) -> dict[str, str]:
        """Those of the newest full copy; the search begins where the failure's time says, and mostly ends there."""
        topic, origin = info.name + DEAD_LETTER_SUFFIX, origin_of(info.topic, letter.partition, letter.offset)
        since = await self._log.offset_at(topic, letter.partition, letter.entry.failed_ms - _COPY_SLACK_MS)
        found: dict[str, str] = {}
        async for headers, _ in copies_of(self._log, topic, letter.partition, since):
            if headers.get(ORIGIN) == origin:
                found = headers
                if headers.get(FAILED_AT) == str(letter.entry.failed_ms):
                    break
        return found

    async def _related(self, conversation: str, published_ms: int, failed_ms: int) -> list[RelatedView]:
        """The records of a conversation that lie near a letter in time, the oldest first."""
        found: list[tuple[int, RelatedView]] = []
        for spec in await self._log.topics():
            if spec.name.endswith((DEAD_LETTER_SUFFIX, CONTROL_SUFFIX)):
                continue
            for partition in range(len(await self._log.bounds(spec.name))):
                since = await self._log.offset_at(spec.name, partition, published_ms - _RELATED_SPAN_MS)
                for record in await self._log.read(spec.name, partition, since, limit=_RELATED_RECORDS_MAX):
                    envelope = envelope_or_blank(self._log, record)
                    if envelope.conversation == conversation and record[1] <= failed_ms + _RELATED_SPAN_MS:
                        view = RelatedView(
                            topic=spec.name,
                            id=str(RecordId(partition, record[0])),
                            type=printable(record[3]),
                            message_id=printable(envelope.id),
                            causation_id=printable(envelope.causation_id),
                            stored_ms=record[1],
                        )
                        found.append((record[1], view))
        return [view for _, view in sorted(found, key=lambda each: each[0])]

    async def export(self, info: SubscriptionInfo, chosen: Selection) -> AsyncIterator[dict[str, Any]]:
        """Those that are chosen as CloudEvents 1.0 in JSON, what failed in extension attributes `postline…`."""
        hidden = await self._shows.hides_keys(info.topic)
        async for page in self.pages(info, chosen):
            for each in await self.opened(info, page):
                yield self._event(info, each, hidden)

    def _event(self, info: SubscriptionInfo, opened: Opened, hidden: bool) -> dict[str, Any]:
        letter, entry, record = opened.letter, opened.letter.entry, opened.record
        origin = origin_of(info.topic, letter.partition, letter.offset)
        event: dict[str, Any] = {"specversion": "1.0", "id": origin, "source": info.topic, "type": entry.type}
        if record is not None:
            view = self._shows.record_view(info.topic, letter.partition, record, hidden)
            event = {name: said for field, name in _ATTRIBUTES.items() if (said := getattr(view, field))}
            event["id"], event["source"] = view.id or origin, view.source or info.topic
            event |= {"type": view.type or "unknown"}
            event |= {
                name: said for name in ("data", "data_base64") if (said := getattr(view, name)) is not msgspec.UNSET
            }
        key = key_shown(entry.key, hidden)
        event |= {} if key is None else {"partitionkey": key}
        event |= {
            "postlinesubscription": info.name,
            "postlineorigin": origin,
            "postlinegroup": letter.group,
            "postlineerrortype": entry.error_type,
            "postlineerror": entry.error,
            "postlineplace": entry.place or "unknown",
            "postlineattempts": entry.attempts,
            "postlinefailedms": str(entry.failed_ms),
            "postlineredrives": entry.redrives,
        }
        return event | ({} if opened.edit is None else {"postlineeditedby": opened.edit.by})


#: Of a record's view, what CloudEvents has a name for.
_ATTRIBUTES = {
    "specversion": "specversion",
    "id": "id",
    "source": "source",
    "type": "type",
    "time": "time",
    "content_type": "datacontenttype",
    "dataschema": "dataschema",
    "correlation_id": "correlationid",
    "causation_id": "causationid",
}


def _not_of_run(partition: int, entries: Sequence[tuple[bytes, bytes]], run: str) -> Picked | None:
    keys, letters = [key for key, _ in entries], [data for _, data in entries]
    if never_redriven(letters):
        return Picked(partition, offsets_of(keys), [0] * len(keys))
    redriven = [redrives_of(data) for data in letters]
    if run and any(last == run for _, last in redriven):
        keys = [key for key, (_, last) in zip(keys, redriven, strict=True) if last != run]
        redriven = [each for each in redriven if each[1] != run]
    return Picked(partition, offsets_of(keys), [number for number, _ in redriven]) if keys else None


def _before(offset: int) -> bytes:
    return offset_key(offset - 1) if offset else b""


def _edit_view(edit: EditEntry | None) -> EditView | None:
    return None if edit is None else EditView(by=edit.by, reason=edit.reason, edited_ms=edit.edited_ms)


def _view(letter: Letter, key: str | None, blocked: int, *, edited: bool) -> DeadLetterView:
    entry = letter.entry
    return DeadLetterView(
        id=str(letter.id),
        partition=letter.partition,
        offset=letter.offset,
        key=key,
        type=entry.type,
        error_type=entry.error_type,
        error=entry.error,
        attempts=entry.attempts,
        failed_ms=entry.failed_ms,
        holds=entry.holds,
        blocked=blocked,
        group=letter.group,
        place=entry.place,
        redrives=entry.redrives,
        edited=edited,
    )
