"""How replies become outcomes, whichever version of the contract wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from postline.commands.tickets import Outcome
from postline.contracts.cloudevents import OUTCOME, REQUEST_ID
from postline.contracts.commands import CommandTopic
from postline.contracts.json_faults import reading_fault
from postline.contracts.replies import BUILT_IN, ReplyOutcome
from postline.errors import DecodeError
from postline.log.port import SCHEMA_ID_SHIFT, Record
from postline.message import Envelope
from postline.runtime.handlers import Handler
from postline.runtime.versions import SchemaSource, Versions

__all__ = ["ReplyReader"]


def _nobody(*_: Any) -> None:
    """Stands for the handler that replies to a waiting client don't have."""


class ReplyReader:
    """Reads the replies and tickets of one command topic. Event loop only."""

    def __init__(self, topic: CommandTopic, schemas: SchemaSource) -> None:
        self._topic = topic
        names = [*topic.replies.contracts, *BUILT_IN]
        readings = {name: topic.replies.reading_of(name) for name in names}
        self._handlers = {
            alias: Handler(name, _nobody, reading, is_async=True, wants_context=False)
            for name, reading in readings.items()
            for alias in (name, *reading.aliases)
        }
        self._versions = Versions(self._handlers, schemas)

    def knows(self, records: Sequence[Record]) -> bool:
        """Whether these can be read without `learn`."""
        return self._versions.knows(records)

    async def learn(self, records: Sequence[Record]) -> None:
        """Have what reads these records. Raises LogUnavailable if a schema can't be looked up now."""
        await self._versions.learn(records)

    def outcome(self, record: Record, envelope: Envelope) -> Outcome:
        """The outcome that a reply or a ticket holds; of records that were `learn`ed. Raises DecodeError."""
        handler = self._handlers.get(record[3])
        if handler is None:
            raise DecodeError(
                f"The reply {record[3]!r} on {self._topic.name!r} is of a type that this client's contract lacks.",
                remedy="Use the contract's newer version.",
            )
        try:
            reply = handler.decoders[record[5] >> SCHEMA_ID_SHIFT](record[4] or b"")
            how = ReplyOutcome(envelope.headers.get(OUTCOME, ""))
        except Exception as error:
            said, remedy = reading_fault(error, record[4] or b"")
            raise DecodeError(
                f"A reply {record[3]!r} on {self._topic.name!r} can't be read: {said}.", remedy=remedy
            ) from error
        return Outcome(envelope.headers.get(REQUEST_ID, ""), how, reply, envelope)
