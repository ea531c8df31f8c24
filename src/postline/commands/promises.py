"""Replies that were promised for later, in one owned partition: owed, given, given too early, or overdue."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from postline.commands.owed import Owed, decode_owed, encode_owed
from postline.commands.writing import ReplyWriter, Written, decode_written, encode_written
from postline.contracts.cloudevents import EXPIRY, time_of, timestamp
from postline.contracts.replies import ReplyOutcome, TimedOut
from postline.logs.events import event
from postline.message import Envelope
from postline.runtime.context import Context
from postline.runtime.control import ControlOp
from postline.runtime.dedup import identity_digest
from postline.runtime.entries import EARLY, LATER, TimerEntry, keys_of, pages_of
from postline.runtime.partition import OwnedPartition

__all__ = ["OVERDUE", "Promises"]

_log = logging.getLogger("postline.runtime")

#: The kind of timers that answer where a promised reply did not come in time.
OVERDUE = "reply-overdue"

#: Called with what is owed and the reply that ends it.
Give = Callable[[Owed, Written], None]


class Promises:
    """What is owed. Event loop only, but for `promise`, which a plain handler's thread calls."""

    def __init__(self, owned: OwnedPartition, writer: ReplyWriter, within_ms: int, give: Give) -> None:
        self._owned, self._writer, self._within_ms, self._give = owned, writer, within_ms, give
        #: Marks of commands that were promised a reply.
        self._owed: set[bytes] = set()
        #: By mark, replies that came before the attempt that promised them had ended.
        self.early: dict[bytes, bytes] = {}

    async def load(self) -> None:
        """Take up what the last owner left in state."""
        self._owed = set(await keys_of(self._owned, LATER))
        async for page in pages_of(self._owned, EARLY):
            self.early |= dict(page)

    def __contains__(self, mark: bytes | None) -> bool:
        return mark in self._owed

    def promise(self, context: Context[Any], mark: bytes, *, again: bool) -> None:
        """Let the reply come later, with the attempt's settlement; the latest time is that of its expiry, if any."""
        envelope = context.envelope
        expiry = envelope.headers.get(EXPIRY)
        due_ms = None if expiry is None or again else time_of(expiry)  # one that was redriven had its time
        context.promised = True
        owed = Owed(envelope, again, due_ms or self._owned.now_ms() + self._within_ms)
        context.put_entry(LATER, mark, encode_owed(owed))

    def concluded(self, context: Context[Any]) -> None:
        """An attempt gives its own reply: see to it that `settled` hears of it, if another one came early."""
        if (mark := identity_digest(context.envelope)) in self.early:
            assert mark is not None
            context.put_entry(EARLY, mark, b"")

    def settled(self, context: Context[Any], mark: bytes) -> None:
        """An attempt has succeeded: what it promised is owed from now on, or was given already."""
        if not context.promised:
            self.forget_early(mark)
            return
        assert context.entries is not None, "a promise is an entry"
        owed = decode_owed(context.entries[LATER, mark])
        self._owed.add(mark)
        if (early := self.early.get(mark)) is not None:
            self.forget_early(mark)
            self._end(mark, owed, decode_written(early))
        else:
            self._owned.timers.set(owed.due_ms, _timer(owed.cause), OVERDUE, encode_owed(owed))

    def forget_early(self, mark: bytes | None) -> None:
        """The command had its answer otherwise."""
        if mark is not None and self.early.pop(mark, None) is not None:
            self._owned.unit.delete(EARLY, mark)

    async def reply(self, mark: bytes, op: ControlOp) -> None:
        """Give a reply that is owed, or keep it for an attempt that is still to end; else say that it names nothing."""
        owned = self._owned
        written = Written(op.type, op.value, op.flags, op.content_type, ReplyOutcome(op.outcome))
        data = await owned.read_entry(LATER, mark)
        if data is not None and mark in self._owed:
            self._end(mark, decode_owed(data), written)
        elif op.offset is not None and self._is_open(op.offset):
            if mark not in self.early:  # the first one counts
                self.early[mark] = encode_written(written)
                owned.unit.put(EARLY, mark, self.early[mark])
        else:
            _log.warning(
                "subscription %s: no reply is owed to request %s of %s, so the one that was given is dropped: it was "
                "answered before, or the attempt that gave out this token failed",
                *(owned.subscription, op.request, op.client),
                extra=event(
                    "reply.not_owed",
                    subscription=owned.subscription,
                    partition=owned.partition,
                    request=op.request,
                    client=op.client,
                ),
            )

    def _is_open(self, offset: int) -> bool:
        return not self._owned.window.settled(offset) or self._owned.holding.holds(offset)

    def _end(self, mark: bytes, owed: Owed, written: Written) -> None:
        self._owned.unit.delete(LATER, mark)
        self._owed.discard(mark)
        self._owned.timers.cancel(owed.due_ms, _timer(owed.cause))
        self._give(owed, written)

    def overdue(self, entry: TimerEntry) -> None:
        """What a timer of the kind OVERDUE does: a promised reply did not come in time."""
        owed = decode_owed(entry.payload)
        mark = identity_digest(owed.cause)
        if mark is not None and mark in self._owed:  # else a reset has forgotten it
            said = TimedOut(f"The reply that was promised did not come before {timestamp(entry.due_ms)}.")
            self._end(mark, owed, self._writer.written(said, ReplyOutcome.TIMEOUT))


def _timer(envelope: Envelope) -> str:
    return f"{envelope.source}/{envelope.id}"
