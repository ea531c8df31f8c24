"""From fetched records to lanes: keyed state, filters and duplicates, looked up for a whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from postline.errors import DecodeError, LogUnavailable
from postline.log.port import FLAG_OWN_ID, SCHEMA_ID_SHIFT, Fetched, Record
from postline.runtime.dedup import EVICTION_STEP, Dedup, identity_digest
from postline.runtime.entries import DEDUP, DEDUP_ORDER
from postline.runtime.handlers import Handler
from postline.runtime.lanes import UNDECODED, Failed
from postline.runtime.outcomes import Outcome
from postline.runtime.partition import OwnedPartition
from postline.runtime.window import Chunk

__all__ = ["admit", "forget_old_marks"]


async def admit(owned: OwnedPartition, fetched: Fetched) -> None:
    """Take fetched records in.

    If the log can't answer a look-up, nothing has happened and the same records can be given again.
    """
    records = fetched.records
    first = owned.window.fetched_to
    lost = owned.window.lose(fetched.log_start)
    if lost:
        owned.lost_to_retention(lost, first, fetched.log_start)
    if not records and fetched.next_offset == owned.window.fetched_to:
        return
    await owned.prepare(records)
    chunk = owned.window.prepare(records, fetched.next_offset)
    if (only := owned.plan.only_key) is not None:
        for index, record in enumerate(records):
            if record[2] != only and not chunk.outcomes[index]:
                chunk.outcomes[index] = Outcome.FILTERED
    messages: dict[int, Any] = {}
    if owned.plan.examines or any(record[5] & FLAG_OWN_ID for record in records):
        messages = await _examine(owned, chunk, records)
    owned.window.add(chunk)
    owned.unit.moved = True
    owned.group(chunk, records, messages)
    if owned.answers is not None:
        owned.answers.admitted()
    owned.bound_window()


async def _examine(owned: OwnedPartition, chunk: Chunk, records: Sequence[Record]) -> dict[int, Any]:
    """Decode, filter, then drop duplicates, in offset order; gives the messages that are left."""
    messages: dict[int, Any] = {}
    digests: dict[int, list[bytes]] = {}
    ours: dict[str, bool] = {}
    examines = owned.plan.examines
    for index, record in enumerate(records):
        handler = owned.plan.handlers.get(record[3])
        if chunk.outcomes[index] or (handler is None and record[3] not in owned.types):
            continue
        if handler is not None and examines:
            message = _read(owned, handler, record)
            if message is UNDECODED or type(message) is Failed:
                message = await _unread(owned, handler, message, ours)
            if message is Outcome.FILTERED:
                chunk.outcomes[index] = Outcome.FILTERED
                continue
            if message is not UNDECODED:
                messages[index] = message
        try:
            found = _digests(owned, record, handler, messages.get(index))
        except DecodeError as error:
            messages[index] = Failed(error)  # an envelope that can't be read: a dead letter
            continue
        if found:
            digests[index] = found
    await _drop_duplicates(owned, chunk, records, digests)
    return messages


def _read(owned: OwnedPartition, handler: Handler, record: Record) -> Any:
    """The message, a `Failed`, FILTERED, or UNDECODED where the worker shall report it."""
    try:
        message = handler.decoders[record[5] >> SCHEMA_ID_SHIFT](record[4])  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - the worker decodes it again and makes a dead letter of it
        return UNDECODED
    try:
        return message if handler.where is None or handler.where(message) else Outcome.FILTERED
    except Exception as error:  # noqa: BLE001 - a failing filter is a failing handler
        return Failed(error)


async def _unread(owned: OwnedPartition, handler: Handler, message: Any, ours: dict[str, bool]) -> Any:
    """FILTERED where several share the records of a type by rules, and those that no rule can tell are not ours."""
    if handler.where is None or owned.answers is None:
        return message
    if handler.type_name not in ours:
        ours[handler.type_name] = await owned.answers.answers_unread(handler.type_name)
    return message if ours[handler.type_name] else Outcome.FILTERED


def _digests(owned: OwnedPartition, record: Record, handler: Handler | None, message: Any) -> list[bytes]:
    found = []
    if record[5] & FLAG_OWN_ID:
        envelope = owned.envelope(record)
        found.append(identity_digest(envelope))
        if owned.answers is not None:
            owned.opened[record[0]] = envelope
    dedup = owned.plan.dedup
    if dedup is not None and handler is None:
        found.append(_unread_digest(owned, dedup, record))
    elif dedup is not None and message is not None and type(message) is not Failed:
        found.append(dedup.digest_of(record, message, owned.envelope))
    return list(dict.fromkeys(digest for digest in found if digest is not None))


def _unread_digest(owned: OwnedPartition, dedup: Dedup, record: Record) -> bytes | None:
    """The mark of a record that waits for a process with a handler for it; by a field it can't have one here."""
    return None if dedup.field is not None else dedup.digest_of(record, None, owned.envelope)


async def _drop_duplicates(
    owned: OwnedPartition, chunk: Chunk, records: Sequence[Record], digests: dict[int, list[bytes]]
) -> None:
    marks = owned.marks
    if unknown := marks.missing([digest for found in digests.values() for digest in found]):
        marks.learn(await owned.membership.get_state(owned.assignment, DEDUP, unknown))
    for index, found in digests.items():
        offset, timestamp_ms = records[index][0], records[index][1]
        if any(marks.is_duplicate(digest, offset, timestamp_ms, owned.unit) for digest in found):
            chunk.outcomes[index] = Outcome.DUPLICATE
            if owned.answers is not None and (envelope := owned.opened.get(offset)) is not None:
                owned.answers.repeated(envelope, *marks.first_of(found[0]))
        elif owned.answers is not None and offset in owned.opened:
            chunk.outcomes[index] = owned.answers.admit(records[index], owned.opened[offset])


async def forget_old_marks(owned: OwnedPartition) -> None:
    """Remove marks that both window and count allow to forget, a few at a time."""
    now_ms = owned.around.clock.now_ms()
    if not owned.marks.eviction_due(now_ms):
        return
    try:
        oldest = await owned.membership.scan_state(owned.assignment, DEDUP_ORDER, limit=EVICTION_STEP)
    except LogUnavailable:
        return  # forgetting can wait; the commit that follows says what is wrong
    owned.marks.evict(oldest, owned.window.position, now_ms, owned.unit)
