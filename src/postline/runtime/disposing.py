"""What an owner does with dead letters that an operator disposes of: redrives, discards and edits, many at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from postline.errors import DecodeError
from postline.log.port import Record
from postline.logs.events import event
from postline.runtime.edits import edited
from postline.runtime.entries import (
    DEAD,
    HELD,
    DeadEntry,
    EditEntry,
    HeldEntry,
    decode_entry,
    never_redriven,
    offset_key,
    offset_keys,
    offsets_of,
    redrives_of,
)
from postline.runtime.intents import Discard
from postline.runtime.partition import OwnedPartition

__all__ = ["Disposal", "dispose"]

_log = logging.getLogger("postline.runtime")

#: Records whose names a line of the log tells.
_NAMED_MAX = 10


class Disposal(NamedTuple):
    """What is to become of dead letters."""

    action: Literal["redrive", "discard", "edit"]
    reason: str = ""
    #: The redrive's name; of an edit that no redrive follows "".
    run: str = ""
    edit: EditEntry | None = None


async def dispose(owned: OwnedPartition, wanted: Mapping[int, int | None], disposal: Disposal) -> None:
    """Do it with these records, each with how often who asks saw it redriven; what is otherwise by now is left alone.

    Raises LogUnavailable with nothing done.
    """
    async with owned.holding.disposing:
        await _dispose(owned, wanted, disposal)


async def _dispose(owned: OwnedPartition, wanted: Mapping[int, int | None], disposal: Disposal) -> None:
    asked = offset_keys(sorted(wanted))
    stored = await owned.read_entries(DEAD, asked)
    keys = [key for key in asked if key in stored]
    found = letters = dict(zip(offsets_of(keys), [stored[key] for key in keys], strict=True))
    if any(wanted.values()) or not never_redriven(found.values()):
        letters = {offset: data for offset, data in found.items() if wanted[offset] in (None, redrives_of(data)[0])}
    left = sorted(wanted.keys() - letters.keys())
    if disposal.edit is not None:
        await _edit(owned, letters, disposal, disposal.edit)
    elif disposal.action == "redrive":
        await _redrive(owned, letters, disposal.run)
    else:
        _discard(owned, letters, disposal.reason)
        left = [offset for offset in left if offset in found or not await _discard_held(owned, offset, disposal.reason)]
    if left:
        _log.warning(
            "subscription %s has no dead letter %s to %s, or it was redriven since it was seen",
            *(owned.plan.name, _named(owned.partition, left), disposal.action),
            extra=event(
                "dead_letter.unknown", subscription=owned.plan.name, topic=owned.topic, partition=owned.partition
            ),
        )


def _named(partition: int, offsets: Sequence[int]) -> str:
    more = len(offsets) - _NAMED_MAX
    named = ", ".join(f"{partition}:{offset}" for offset in offsets[:_NAMED_MAX])
    return f"{named} and {more} more" if more > 0 else named


async def _redrive(owned: OwnedPartition, letters: Mapping[int, bytes], run: str) -> None:
    if letters:
        owned.holding.redrive(letters, run, await owned.holding.at_hand(letters))


def _discard(owned: OwnedPartition, letters: Mapping[int, bytes], reason: str) -> None:
    for offset, data in letters.items():
        owned.holding.discard(offset, decode_entry(data, DeadEntry))
        if owned.answers is not None:
            owned.answers.forget(offset)
    if letters:
        first, number = next(iter(letters)), len(letters)
        more = f" and {number - 1} more" if number > 1 else ""
        _log.info(
            "subscription %s discards dead letter %d:%d%s: %s",
            owned.plan.name,
            owned.partition,
            first,
            more,
            reason,
            extra=event(
                "dead_letter.discarded",
                subscription=owned.plan.name,
                topic=owned.topic,
                partition=owned.partition,
                offset=first,
            ),
        )


async def _discard_held(owned: OwnedPartition, offset: int, reason: str) -> bool:
    """Give up a record that waits, if it is one; False if it isn't."""
    if not (data := await owned.read_entry(HELD, offset_key(offset))):
        return False
    # Read first: once it is discarded nothing is left that would be asked again.
    answered = owned.answers
    records = [] if answered is None else await owned.around.log.read_offsets(owned.topic, owned.partition, [offset])
    if not owned.holding.discard_held(offset, decode_entry(data, HeldEntry)):
        _log.warning(
            "subscription %s can't discard record %d: it is being handled",
            owned.plan.name,
            offset,
            extra=event(
                "dead_letter.busy",
                subscription=owned.plan.name,
                topic=owned.topic,
                partition=owned.partition,
                offset=offset,
            ),
        )
    elif answered is not None:
        for record in records:
            answered.fault(record, Discard(reason or "discarded by an operator"), redrivable=False)
    return True


async def _edit(owned: OwnedPartition, letters: Mapping[int, bytes], disposal: Disposal, edit: EditEntry) -> None:
    records = await owned.around.log.read_offsets(owned.topic, owned.partition, list(letters))
    changed = [edited(record, edit) for record in records]
    await owned.prepare(changed)
    fit = {record[0]: letters[record[0]] for record in changed if _fits(owned, record)}
    for offset in fit:
        owned.holding.edits.put(offset, edit)
        owned.unit.moved = True
        _log.info(
            "subscription %s: %s edited dead letter %d:%d",
            owned.plan.name,
            edit.by,
            owned.partition,
            offset,
            extra=event(
                "dead_letter.edited",
                subscription=owned.plan.name,
                topic=owned.topic,
                partition=owned.partition,
                offset=offset,
            ),
        )
    if disposal.run:
        await _redrive(owned, fit, disposal.run)


def _fits(owned: OwnedPartition, record: Record) -> bool:
    """Whether the handler can read an edited value."""
    handler = owned.plan.handler_of(record[3])
    if handler is None:
        return True  # for a version that handles it
    try:
        handler.read(record)
    except DecodeError as error:
        _log.error(
            "subscription %s refuses an edit of %d:%d: %s",
            owned.plan.name,
            owned.partition,
            record[0],
            error,
            extra=event(
                "dead_letter.edit_refused",
                subscription=owned.plan.name,
                topic=owned.topic,
                partition=owned.partition,
                offset=record[0],
            ),
        )
        return False
    return True
