"""What the runtime knows of answers: each way that a command can end is told to whoever makes replies of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from postline.errors import Refused
from postline.log.port import Append, PartitionCommit, Record
from postline.message import Envelope
from postline.runtime.context import Context
from postline.runtime.outcomes import Outcome

__all__ = ["Answering", "Answers"]


class Answers(Protocol):
    """The answers of one owned partition. What they append leaves with the commit that settles the record."""

    async def load(self) -> None:
        """Take up what the last owner left in state."""

    def admit(self, record: Record, envelope: Envelope) -> Outcome:
        """When a record is admitted: its outcome if it needs no attempt, being answered or about to; else PENDING."""

    async def answers_unread(self, type_name: str) -> bool:
        """Whether records of a type that can't be read are ours, where a rule could not say so. Raises LogError."""

    def repeated(self, envelope: Envelope, first: int, first_ms: int) -> None:
        """A record repeats the one at offset `first`, of that time, and is dropped as its duplicate."""

    def admitted(self) -> None:
        """A batch has been admitted."""

    def take(self) -> None:
        """A commit takes all that was answered by now."""

    async def seal(self, part: PartitionCommit) -> None:
        """Complete the commit that was taken, before it is made; raises LogError, and is asked again then."""

    def lose(self, is_lost: Callable[[int], bool]) -> None:
        """Records at some offsets are lost to retention."""

    def forestall(self, context: Context[Any]) -> Outcome | None:
        """Before an attempt: the outcome of a record that must not be tried, which is answered; else None."""

    def check_output(self, context: Context[Any]) -> None:
        """Raise UsageError if the handler of this record may not publish."""

    def conclude(self, context: Context[Any], result: Any) -> None:
        """The handler returned: put the reply, and what else it returned, among the context's outputs.

        Raises UsageError for a result that the contract doesn't declare, which is a failed attempt.
        """

    def refuse(self, record: Record, refused: Refused) -> bool:
        """Answer with a refusal; False if the contract doesn't declare it, which is a failed attempt."""

    def unhandled(self, record: Record) -> None:
        """A command of a type that no version handles is filtered."""

    def fault(self, record: Record, error: BaseException, *, redrivable: bool = True) -> None:
        """Answer that the service could not do it; where it can be redriven, that adds to the ticket alone."""

    def forget(self, offset: int) -> None:
        """A dead letter was given up for good: it will not be answered again."""

    def promise(self, context: Context[Any]) -> str:
        """Let the reply come later: its token."""

    def settled(self, context: Context[Any]) -> None:
        """An attempt has succeeded, and what it gave is in the next commit."""

    async def reset(self, unit: Any, offsets: Sequence[int], target: int) -> None:
        """Put into a reset's commit the faults of what it discards, held commands too, and forget what is owed."""

    def progress(self, context: Context[Any], note: str) -> Append:
        """The record that tells the client how far its command is."""

    async def obey(self, op: Any) -> None:
        """Do what a record of the control topic asks: cancel, or a later reply."""


class Answering(Protocol):
    """Makes the answers of a subscription that serves commands."""

    def open(self, owned: Any) -> Answers:
        """The answers of one owned partition."""
