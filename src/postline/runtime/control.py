"""What operators ask of partitions' owners: records of the control topic, and how they are obeyed."""

from __future__ import annotations

import logging
from typing import Annotated, Literal, TypeAlias

import msgspec

from postline.errors import DecodeError, UnknownTopic, UsageError
from postline.log.port import SCHEMA_ID_SHIFT, Append, Record
from postline.logs.events import event
from postline.message import UNREADABLE, Envelope
from postline.runtime.delays import DelayToken
from postline.runtime.disposing import Disposal, dispose
from postline.runtime.entries import CONTROL, EditEntry
from postline.runtime.partition import OwnedPartition
from postline.runtime.plan import CONTROL_SUFFIX

__all__ = [
    "CONTROL_POSITION",
    "ControlOp",
    "cancel_record",
    "control_position",
    "control_record",
    "end_old_control",
    "load_control",
    "obey",
    "position_entry",
    "read_op",
]

_log = logging.getLogger("postline.runtime")

CONTROL_TYPE = "postline.control"
CONTROL_POSITION = b"position"
PAUSED = b"paused"
OPERATOR = "operator"


#: What engines keep as an offset.
_Natural: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class ControlOp(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request to the owner of one partition."""

    op: Literal[
        "redrive", "discard", "edit", "pause", "resume", "retry", "reset", "types", "cancel", "reply", "unschedule"
    ]
    #: redrive, discard, edit: the record; reset: where to go on; retry: the record, none for all.
    offset: _Natural | None = None
    #: redrive, discard: more records, all of which are meant beside `offset`.
    offsets: tuple[_Natural, ...] = ()
    #: redrive, discard, edit: how often each was redriven before, as who asks saw it; none that differs is touched.
    seen: tuple[_Natural, ...] = ()
    #: redrive: its name; edit: that of the redrive which follows it, if one does.
    run: str = ""
    #: edit: who asks.
    by: str = ""
    #: reset: the time to go on from, instead of an offset.
    time_ms: _Natural | None = None
    reason: str = ""
    #: reset: leave the handlers' state as it is.
    keep_state: bool = False
    #: types: what another version of the subscription handles.
    names: tuple[str, ...] = ()
    #: unschedule: the delayed message.
    token: str = ""
    #: cancel: who sent the command, and its id; reply: those of the command that is answered.
    client: str = ""
    request: str = ""
    #: reply: its wire name, and its value under the schema and flags that `flags` says; which of the outcomes it is.
    #: edit: the value, under the schema that `flags` says.
    type: str = ""
    outcome: str = ""
    content_type: str = ""
    value: bytes = b""
    flags: _Natural = 0


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(ControlOp)


def control_record(topic: str, partition: int, op: ControlOp, envelope: Envelope) -> Append:
    """The record that asks the owner of `partition` for `op`; `envelope` gives id, source and time."""
    typed = msgspec.structs.replace(envelope, type=CONTROL_TYPE)
    return Append(topic, partition, None, _ENCODER.encode(op), typed)


def cancel_record(token: str, envelope: Envelope) -> Append:
    """The record that asks for a delayed message to be cancelled. Raises UsageError for what is no token."""
    named = DelayToken.read(token)
    op = ControlOp(op="unschedule", token=token)
    return control_record(named.subscription + CONTROL_SUFFIX, named.partition, op, envelope)


def read_op(record: Record) -> ControlOp:
    """The request in a control record; raises DecodeError."""
    try:
        op = _DECODER.decode(record[4] or b"")
        if op.op == "reset" and op.offset is None and op.time_ms is None:
            raise msgspec.ValidationError("a reset needs an offset or a time")
        return op
    except UNREADABLE as error:
        raise DecodeError(
            f"Control record {record[0]} can't be read: {error}",
            remedy="It is skipped; ask for it again with the command line.",
        ) from error


def position_entry(offset: int, topic: str) -> bytes:
    """What state keeps of the next control record to read; of which topic, since a renamed subscription has another."""
    return f"{offset} {topic}".encode()


def control_position(kept: bytes | None, topic: str) -> int | None:
    """The offset that `position_entry` wrote; None if nothing of this topic has been read yet."""
    offset, _, of_topic = (kept or b"").decode().partition(" ")
    return int(offset) if of_topic == topic else None


async def load_control(owned: OwnedPartition) -> None:
    """Take up an operator's pause and the control topic's position."""
    kept = dict(await owned.membership.scan_state(owned.assignment, CONTROL))
    offset, _, topic = kept.get(CONTROL_POSITION, b"").decode().partition(" ")
    if topic:
        owned.control_topic, owned.control_offset = topic, await _still_there(owned, topic, int(offset))
    await end_old_control(owned, began=bool(topic))
    if PAUSED in kept:
        _pause(owned)


async def _still_there(owned: OwnedPartition, topic: str, offset: int) -> int:
    """The next request's offset; the first that there is where others deleted the topic and made it again."""
    try:
        bounds = (await owned.around.log.bounds(topic))[owned.partition]
    except UnknownTopic:
        return offset
    if offset <= bounds.end:
        return offset
    _log.error(
        "subscription %s: its topic %s was made again; requests in it are obeyed",
        owned.plan.name,
        topic,
        extra=event("control.made_again", subscription=owned.plan.name, topic=topic, partition=owned.partition),
    )
    return bounds.start


async def end_old_control(owned: OwnedPartition, began: bool = True) -> bool:
    """Go over to the subscription's own control topic; not before the rest of that of its old name is obeyed."""
    own = owned.plan.control
    if began and (owned.control_topic == own or await _has_more(owned)):
        return False
    position = await _first_of_its_own(owned)
    owned.control_topic, owned.control_offset = own, position
    # Kept at once: asked again later, a clock that was set back would hide what is asked meanwhile.
    owned.unit.put(CONTROL, CONTROL_POSITION, position_entry(position, own))
    return True


async def _has_more(owned: OwnedPartition) -> bool:
    try:
        bounds = await owned.around.log.bounds(owned.control_topic)
    except UnknownTopic:
        return False
    return owned.control_offset < bounds[owned.partition].end


async def _first_of_its_own(owned: OwnedPartition) -> int:
    """Past what was asked of a removed subscription that had the same name."""
    log = owned.around.log
    created_ms = next((info.created_ms for info in await log.subscriptions() if info.name == owned.plan.name), 0)
    return await log.offset_at(owned.plan.control, owned.partition, created_ms)


def _pause(owned: OwnedPartition) -> None:
    owned.pause(OPERATOR)
    owned.holding.operator_paused = True


async def obey(owned: OwnedPartition, op: ControlOp) -> None:
    """Do what is asked, all except a reset; its effects go into the next commit."""
    match op.op:
        case "pause":
            _pause(owned)
            owned.unit.put(CONTROL, PAUSED, b"1")
            owned.around.life.paused(owned.partition)
        case "resume":
            owned.resume(OPERATOR)
            owned.holding.resume_due()
            owned.unit.delete(CONTROL, PAUSED)
            owned.around.life.resumed(owned.partition)
        case "retry":
            owned.holding.retry_now(_letters(op))
        case "types":
            for name in op.names:
                owned.learn_type(name)
        case "unschedule":
            await _unschedule(owned, op.token)
        case "cancel" | "reply":
            if owned.answers is not None:  # else it watches commands that others serve
                await owned.answers.obey(op)
        case "redrive" | "discard" | "edit" if letters := _letters(op):
            await dispose(owned, letters, Disposal(op.op, op.reason, op.run, _edit(owned, op)))
        case _:
            _log.warning(
                "subscription %s skips a control record without meaning: %s",
                owned.plan.name,
                op,
                extra=event(
                    "control.skipped", subscription=owned.plan.name, topic=owned.topic, partition=owned.partition
                ),
            )


async def _unschedule(owned: OwnedPartition, text: str) -> None:
    try:
        token = DelayToken.read(text)
    except UsageError as error:
        _log.warning(
            "subscription %s skips a control record: %s",
            owned.plan.name,
            error,
            extra=event("control.skipped", subscription=owned.plan.name, topic=owned.topic, partition=owned.partition),
        )
        return
    if not await owned.timers.revoke(token):
        _log.info(
            "subscription %s: nothing was cancelled, message %s has left",
            owned.plan.name,
            token.id,
            extra=event(
                "message.not_cancelled", subscription=owned.plan.name, topic=owned.topic, partition=owned.partition
            ),
        )


def _letters(op: ControlOp) -> dict[int, int | None]:
    """The records that are meant, each with how often it was redriven when who asks saw it; None if that isn't said."""
    offsets = (*op.offsets, *(() if op.offset is None else (op.offset,)))
    seen = dict(zip(offsets, op.seen, strict=False))
    return dict.fromkeys(offsets) | seen


def _edit(owned: OwnedPartition, op: ControlOp) -> EditEntry | None:
    if op.op != "edit":
        return None
    return EditEntry(op.value, op.flags >> SCHEMA_ID_SHIFT, op.by, op.reason, owned.now_ms())
