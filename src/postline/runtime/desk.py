"""The desk of contexts: what publishing, state and replies of one partition's attempts come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from postline.errors import MessageTooLarge, UsageError
from postline.log.port import Append, Record
from postline.logs.handled import Hide
from postline.message import Envelope
from postline.runtime.answering import Answers
from postline.runtime.context import Context
from postline.runtime.delays import pack_append
from postline.runtime.logged import fields_of, hide_of
from postline.runtime.surroundings import Surroundings

__all__ = ["PartitionDesk"]


class PartitionDesk:
    """What contexts of one partition work on (`Desk`). Event loop only, but for what plain handlers call."""

    #: Nothing that is done here is stored.
    dry_run = False

    def __init__(self, around: Surroundings, partition: int) -> None:
        plan = around.plan
        self.around, self.plan = around, plan
        self.subscription, self.topic, self.partition = plan.name, plan.topic, partition
        self.resources = around.resources
        self.envelope: Callable[[Record], Envelope] = around.log.envelope
        #: Keyed state by key, as far as it was looked up.
        self.states: dict[bytes, bytes | None] = {}
        #: Where the subscription answers commands.
        self.answers: Answers | None = None

    def output(
        self, context: Context[Any], message: Any, headers: Mapping[str, str] | None, priority: str | None = None
    ) -> Append:
        """The record that publishing `message` from this context makes."""
        if self.answers is not None:
            self.answers.check_output(context)
        return self.around.outlet.derive(context, message, headers, priority)

    def pack(self, append: Append) -> bytes:
        """What is kept of a record until it leaves. Raises MessageTooLarge."""
        packed = pack_append(append, self.around.outlet.partitions_of(append.topic))
        if len(packed) > self.plan.state_bytes_max:
            raise MessageTooLarge(
                f"Subscription {self.subscription!r}: a message of {len(packed)} bytes can't wait; "
                f"the limit is {self.plan.state_bytes_max}.",
                remedy="Publish it at once, or keep the payload elsewhere and publish a reference to it later.",
            )
        return packed

    def cancellation(self, context: Context[Any], token: str) -> Append:
        """The record that asks for a delayed message to be cancelled. Raises UsageError."""
        if self.answers is not None:
            self.answers.check_output(context)
        assert self.around.cancellation is not None, "set before the group is joined"
        envelope = Envelope(
            id=self.around.outlet.fresh_id(),
            source=self.around.outlet.service,
            time_ms=self.now_ms(),
            causation_id=context.message_id,
        )
        return self.around.cancellation(token, envelope)

    def command(
        self, context: Context[Any], command: Any, times: tuple[int | None, int | None], priority: str | None = None
    ) -> Append:
        """The record that sending `command` from this context makes."""
        if self.answers is not None:
            self.answers.check_output(context)
        return self.around.outlet.derive_command(context, command, times, priority)

    def promise(self, context: Context[Any]) -> str:
        """The token of a reply that comes later. Raises UsageError where there is nothing to answer."""
        return self._answering().promise(context)

    def later(self, token: str, reply: Any) -> Append:
        """The record that gives a later reply. Raises UsageError where the service answers no commands."""
        if self.around.later is None:
            raise _nothing_to_answer(self.subscription)
        return self.around.later(token, reply)

    async def progress(self, context: Context[Any], note: str) -> None:
        """Tell the client of the command how far it is; durable when this returns."""
        await self.around.log.append([self._answering().progress(context, note)])

    def now_ms(self) -> int:
        """Wall-clock milliseconds."""
        return self.around.clock.now_ms()

    def log_fields(self, context: Context[Any]) -> dict[str, Any]:
        """What lines that are logged in this attempt carry."""
        return fields_of(self.plan, context)

    def log_hide(self, context: Context[Any]) -> Hide | None:
        """Hides what the record's contract marks as sensitive; None where it marks nothing."""
        return hide_of(self.plan, [context.record])

    def _answering(self) -> Answers:
        if self.answers is None:
            raise _nothing_to_answer(self.subscription)
        return self.answers

    def stored_state(self, key: bytes) -> bytes | None:
        """The key's state before this attempt."""
        if self.plan.state is None:
            raise UsageError(
                f"Subscription {self.plan.name!r} keeps no state.", remedy="Declare it: subscribe(…, state=Type)."
            )
        return self.states[key]

    def encode_state(self, value: Any) -> bytes:
        """The bytes of a state value, checked for size."""
        if self.plan.state is None:
            raise UsageError(
                f"Subscription {self.plan.name!r} keeps no state.", remedy="Declare it: subscribe(…, state=Type)."
            )
        data = self.plan.state.encode(value)
        if len(data) > self.plan.state_bytes_max:
            raise MessageTooLarge(
                f"Subscription {self.plan.name!r}: a state value of {len(data)} bytes is over the limit of "
                f"{self.plan.state_bytes_max}.",
                remedy="Keep less for each key, or keep it in the service's own database.",
            )
        return data

    def decode_state(self, data: bytes) -> Any:
        """The state value of these bytes."""
        assert self.plan.state is not None
        return self.plan.state.decode(data)


def _nothing_to_answer(subscription: str) -> UsageError:
    return UsageError(
        f"Subscription {subscription!r} handles no commands, so nobody waits for a reply.",
        remedy="Serve a CommandTopic by `app.serve(topic)`, and reply from its handlers.",
    )
