"""Answers of a served partition: each way that a command can end becomes a reply, in the commit that settles it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from postline.commands.owed import Owed
from postline.commands.promises import OVERDUE, Promises
from postline.commands.tokens import ReplyToken
from postline.commands.underway import Underway
from postline.commands.wishes import Wishes
from postline.commands.writing import ReplyWriter, Written, decode_written, encode_written
from postline.contracts.cloudevents import CLIENT_ID, EXPIRY, REQUEST_ID, UNIQUE_ID, time_of, timestamp
from postline.contracts.commands import CommandSpec
from postline.contracts.replies import OUTCOME_GONE, Cancelled, Done, Fault, ReplyOutcome, TimedOut
from postline.errors import DecodeError, Refused, UsageError
from postline.log.port import Append, PartitionCommit, Record
from postline.message import Envelope
from postline.runtime.calls import publish_result
from postline.runtime.context import Context
from postline.runtime.control import ControlOp
from postline.runtime.deadletters import describe
from postline.runtime.dedup import identity_digest
from postline.runtime.entries import (
    ANSWERED,
    EARLY,
    LATER,
    UNIQUE,
    TimerEntry,
    UniqueEntry,
    keys_of,
    offset_key,
    offset_of,
)
from postline.runtime.outcomes import Outcome
from postline.runtime.partition import OwnedPartition
from postline.runtime.unit import PendingUnit

__all__ = ["OVERDUE", "PartitionAnswers", "ServiceAnswering", "Times", "expire_promise"]

_log = logging.getLogger("postline.runtime")

#: Marks that came from another partition have a higher one.
_OFFSET_MAX = (1 << 63) - 1
#: Where an attempt's context keeps the outcome of a unique call until it is settled; never stored.
_OUTCOME = b"outcome"


class Times(NamedTuple):
    """How long a served topic waits for what may never come, in milliseconds."""

    #: A wish that a command not be begun, for the command.
    wishes_kept_ms: int
    #: A promise without an expiry, for the reply.
    reply_within_ms: int


#: Of a command's wire name, the subscription that answers those which can't be read. Raises LogError.
FirstShare = Callable[[str], Awaitable[str]]


class ServiceAnswering:
    """Makes the answers of one served command topic; see `Answering`."""

    def __init__(
        self, writer: ReplyWriter, specs: dict[str, CommandSpec], times: Times, first_share: FirstShare | None
    ) -> None:
        self.writer = writer
        self.wishes_kept_ms, self.reply_within_ms = times
        #: Where it shares the topic, so that what has no handler here may be another service's: whose is a command
        #: that can't be read.
        self.first_share = first_share
        #: By wire name, former ones too.
        self.specs = specs

    def open(self, owned: OwnedPartition) -> PartitionAnswers:
        """The answers of one owned partition."""
        return PartitionAnswers(self, owned)


class PartitionAnswers:
    """See `Answers`. Event loop only, but for `conclude` and `promise`, which a plain handler's thread calls."""

    def __init__(self, answering: ServiceAnswering, owned: OwnedPartition) -> None:
        self._writer, self._specs, self._owned = answering.writer, answering.specs, owned
        self._first_share = answering.first_share
        self._tickets_kept_ms = answering.writer.tickets_kept_ms
        #: Marks of commands that shall not begin.
        self._cancelled = Wishes(owned, answering.wishes_kept_ms)
        #: Offsets of commands that had a reply when they were given up; a redrive adds to their tickets only.
        self._answered: set[int] = set()
        self._promises = Promises(owned, answering.writer, answering.reply_within_ms, self._give)
        self._underway = Underway(owned, answering.writer)

    async def load(self) -> None:
        """Take up what the last owner left in state."""
        await self._cancelled.load()
        self._answered = {offset_of(key) for key in await keys_of(self._owned, ANSWERED)}
        await self._promises.load()
        await self._underway.load(self._is_owed)

    # -- unique calls -----------------------------------------------------------------------------

    def admit(self, record: Record, envelope: Envelope) -> Outcome:
        """The outcome of a command that needs no attempt: it is cancelled, or equal to one under way; else PENDING."""
        if UNIQUE_ID not in envelope.headers:
            return Outcome.PENDING
        if (mark := identity_digest(envelope)) is not None and mark in self._cancelled:
            self._cancelled.forget(mark)
            self._answer(record, envelope, self._writer.written(Cancelled(), ReplyOutcome.REFUSAL))
            return Outcome.DISCARDED
        return Outcome.PENDING if self._underway.admit(record, envelope) else Outcome.DUPLICATE

    async def answers_unread(self, type_name: str) -> bool:
        """Whether commands of a type that can't be read are this share's to answer: one of all, by its name."""
        return self._first_share is None or await self._first_share(type_name) == self._owned.subscription

    def repeated(self, envelope: Envelope, first: int, first_ms: int) -> None:
        """Answer a request that repeats one whose outcome is not kept any more: it is not run again, nor silent."""
        now_ms, kept_ms = self._owned.now_ms(), self._tickets_kept_ms
        if kept_ms is None or first_ms + kept_ms > now_ms or self._is_open(envelope, first):
            return
        said = f"the request was handled before {timestamp(now_ms - kept_ms)}, and its outcome is not kept any more"
        written = self._writer.written(Fault(OUTCOME_GONE, said), ReplyOutcome.FAULT)
        self._owned.unit.appends += self._writer.gone(envelope, written, now_ms)

    def _is_open(self, envelope: Envelope, offset: int) -> bool:
        """Whether a request, whose command lies at that offset, will still be answered."""
        owned = self._owned
        if offset > _OFFSET_MAX:
            return False  # it was handled in another partition, before there were more of them
        held = not owned.window.settled(offset) or owned.holding.holds(offset)
        return held or identity_digest(envelope) in self._promises or self._underway.waits(offset)

    def admitted(self) -> None:
        """A batch has been admitted."""
        self._underway.admitted()

    def take(self) -> None:
        """A commit takes all that was answered by now."""
        self._underway.take()

    async def seal(self, part: PartitionCommit) -> None:
        """Complete the commit that was taken, before it is made. Raises LogError, with nothing done."""
        await self._underway.seal(part)

    def lose(self, is_lost: Callable[[int], bool]) -> None:
        """Records at some offsets will never be handled."""

        def gone(claim: UniqueEntry) -> bool:
            return is_lost(claim.offset) and not self._is_owed(claim.client, claim.request)

        self._underway.lose(gone)

    def _is_owed(self, client: str, request: str) -> bool:
        return identity_digest(Envelope(id=request, source=client)) in self._promises

    # -- before and after an attempt --------------------------------------------------------------

    def forestall(self, context: Context[Any]) -> Outcome | None:
        """The outcome of a command that is cancelled or has expired, which is answered; None if it may be tried."""
        envelope = context.envelope
        if self._cancelled.came and self._is_cancelled(context, envelope):
            self._answer(context.record, envelope, self._writer.written(Cancelled(), ReplyOutcome.REFUSAL))
            return Outcome.DISCARDED
        expiry = envelope.headers.get(EXPIRY)
        # One that is redriven had its time, and somebody wants it done all the same.
        if context.offset in self._answered:
            return self._join_again(context, envelope)
        if expiry is None or not self._is_over(expiry):
            return None
        how = "begun" if context.attempt == 1 else f"done, after {context.attempt - 1} failed attempts"
        said = TimedOut(f"The command expired at {expiry}, before it was {how}.")
        self._answer(context.record, envelope, self._writer.written(said, ReplyOutcome.TIMEOUT))
        return Outcome.EXPIRED

    def _join_again(self, context: Context[Any], envelope: Envelope) -> Outcome | None:
        """A redriven call has its outcome from an equal one, if one is under way by now."""
        if self._underway.admit(context.record, envelope, again=True):
            return None
        self.forget(context.offset)
        return Outcome.DUPLICATE

    def _is_over(self, expiry: str) -> bool:
        now_ms = self._owned.now_ms()
        now = timestamp(now_ms)
        if len(expiry) == len(now) and expiry[-1] == "Z":  # ours, which sort as the times do
            return expiry <= now
        at = time_of(expiry)
        return at is not None and at <= now_ms

    def _is_cancelled(self, context: Context[Any], envelope: Envelope) -> bool:
        mark = identity_digest(envelope)
        if mark is None or mark not in self._cancelled or context.attempt > 1 or context.offset in self._answered:
            return False  # one that was tried has begun
        self._cancelled.forget(mark)
        return not self._underway.is_awaited(envelope)  # nobody can take back what others asked for, too

    def check_output(self, context: Context[Any]) -> None:
        """Raise UsageError in the handler of a query, which changes nothing."""
        spec = self._specs.get(context.record[3])
        if spec is not None and spec.is_query:
            raise UsageError(
                f"The handler of query {spec.name!r} published or sent something.",
                remedy="A query changes nothing: make it a command, or leave it out.",
            )

    def conclude(self, context: Context[Any], result: Any) -> None:
        """Put the reply among the context's outputs, and what else the handler returned."""
        spec = self._specs[context.record[3]]
        if type(result) in spec.replies and not (spec.is_query or context.promised):
            self._put_reply(context, result)
            return
        if spec.is_query and context.staged is not None:
            raise UsageError(f"The handler of query {spec.name!r} changed state.", remedy="Make it a command.")
        results = list(result) if isinstance(result, list | tuple) else [] if result is None else [result]
        replies = [each for each in results if isinstance(each, spec.replies)]
        for other in results:
            if not isinstance(other, spec.replies):
                publish_result(context, other)
        if context.promised:
            self._require(not replies, spec, "returned a reply although it had asked to reply later")
            return
        self._require(len(replies) == (1 if spec.replies else 0), spec, f"returned {len(replies)} replies")
        self._put_reply(context, replies[0] if replies else Done())

    def _put_reply(self, context: Context[Any], reply: Any) -> None:
        written = self._writer.written(reply, ReplyOutcome.SUCCESS)
        envelope = context.envelope
        for append in self._records(context.record, envelope, written):
            context.put_out(append)
        if UNIQUE_ID in envelope.headers:
            context.put_entry(UNIQUE, _OUTCOME, encode_written(written))  # for `settled`, on the loop
        if self._promises.early:
            self._promises.concluded(context)

    def _require(self, sound: bool, spec: CommandSpec, said: str) -> None:
        if not sound:
            wanted = " or ".join(cls.__qualname__ for cls in spec.replies) or "None"
            raise UsageError(f"The handler of {spec.name!r} {said}.", remedy=f"Return one {wanted}, as declared.")

    # -- other ends ---------------------------------------------------------------------------------

    def refuse(self, record: Record, refused: Refused) -> bool:
        """Answer with a refusal; False if the contract doesn't declare it."""
        spec = self._specs.get(record[3])
        if spec is None or type(refused.refusal) not in spec.refusals:
            return False
        written = self._writer.written(refused.refusal, ReplyOutcome.REFUSAL)
        self._answer(record, self._owned.envelope(record), written)
        self.forget(record[0])
        return True

    def unhandled(self, record: Record) -> None:
        """Answer that nobody handles the command, unless it may be another service's."""
        if self._first_share is None:
            self.fault(record, LookupError(f"{self._owned.plan.service} handles no {record[3]!r}"), redrivable=False)

    def fault(self, record: Record, error: BaseException, *, redrivable: bool = True) -> None:
        """Answer that the service could not do it; where it can be redriven, that adds to the ticket alone."""
        try:
            envelope = self._owned.envelope(record)
        except DecodeError:
            return  # it does not tell who asked
        said = describe(error).partition(": ")[2]
        written = self._writer.written(Fault(type(error).__qualname__, said), ReplyOutcome.FAULT)
        self._answer(record, envelope, written)
        if redrivable:
            self._answered.add(record[0])
            self._owned.unit.put(ANSWERED, offset_key(record[0]), b"")
        else:
            self.forget(record[0])

    def forget(self, offset: int) -> None:
        """It will not be answered again."""
        if offset in self._answered:
            self._answered.discard(offset)
            self._owned.unit.delete(ANSWERED, offset_key(offset))

    async def reset(self, unit: PendingUnit, offsets: Sequence[int], target: int) -> None:
        """Put the faults of what a reset to `target` discards, these held commands too, into its commit."""
        owned = self._owned
        unit.clear(LATER)
        unit.clear(EARLY)
        unit.clear(ANSWERED)
        unit.appends += self._underway.reset(unit, target)
        for record in await owned.around.log.read_offsets(owned.topic, owned.partition, offsets) if offsets else ():
            fault = Fault("Discarded", "an operator moved the service's position past it")
            written = self._writer.written(fault, ReplyOutcome.FAULT)
            unit.appends += self._records(record, owned.envelope(record), written)

    def _answer(self, record: Record, envelope: Envelope, written: Written) -> None:
        self._owned.unit.appends += self._records(record, envelope, written)
        self._underway.end(envelope, written)
        if self._promises.early:
            self._promises.forget_early(identity_digest(envelope))

    def _records(self, record: Record, envelope: Envelope, written: Written) -> list[Append]:
        again = record[0] in self._answered
        return self._writer.records(envelope, written, self._owned.now_ms(), ticket_only=again)

    # -- later ----------------------------------------------------------------------------------------

    def promise(self, context: Context[Any]) -> str:
        """Let the reply come later: its token."""
        envelope = context.envelope
        client, request = envelope.headers.get(CLIENT_ID, ""), envelope.headers.get(REQUEST_ID, "")
        mark = identity_digest(envelope)
        if mark is None or not client:
            raise UsageError("The command does not say who asked, so nobody can be answered.", remedy="Return a reply.")
        self._promises.promise(context, mark, again=context.offset in self._answered)
        place = (self._owned.subscription, self._owned.partition)
        return ReplyToken(*place, context.record[3], client, request, context.offset).text()

    def settled(self, context: Context[Any]) -> None:
        """An attempt has succeeded; what was kept for the case that it would not is forgotten."""
        self.forget(context.offset)
        entries = context.entries or {}
        if (UNIQUE, _OUTCOME) in entries:
            del self._owned.unit.changes[UNIQUE, _OUTCOME]
            self._underway.end(context.envelope, decode_written(entries[UNIQUE, _OUTCOME]))
        if (mark := identity_digest(context.envelope)) is not None:
            self._promises.settled(context, mark)

    def progress(self, context: Context[Any], note: str) -> Append:
        """The record that tells the client how far its command is."""
        return self._writer.progress(context.envelope, note, self._owned.now_ms())

    async def obey(self, op: ControlOp) -> None:
        """Cancel a command that has not begun, or give a later reply that is still owed."""
        mark = identity_digest(Envelope(id=op.request, source=op.client))
        assert mark is not None, "an op names its request"
        if op.op == "cancel":
            self._cancel(mark, op)
        else:
            await self._promises.reply(mark, op)

    def _cancel(self, mark: bytes, op: ControlOp) -> None:
        """Keep the wish: whether the command has begun is seen before its first attempt, and only there."""
        cancelled = self._writer.written(Cancelled(), ReplyOutcome.REFUSAL)
        if not self._underway.withdraw(op.client, op.request, cancelled):
            self._cancelled.keep(mark)

    def _give(self, owed: Owed, written: Written) -> None:
        now_ms = self._owned.now_ms()
        self._owned.unit.appends += self._writer.records(owed.cause, written, now_ms, ticket_only=owed.again)
        self._underway.end(owed.cause, written)

    def overdue(self, entry: TimerEntry) -> None:
        """A promised reply did not come in time."""
        self._promises.overdue(entry)


def expire_promise(owned: OwnedPartition, entry: TimerEntry) -> None:
    """What a timer of the kind OVERDUE does: the reply is still owed, else it would have been cancelled."""
    if isinstance(owned.answers, PartitionAnswers):
        owned.answers.overdue(entry)
