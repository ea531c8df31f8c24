"""`Relaying`: events that come from elsewhere as messages of an app's own contracts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from postline.contracts.formats import JSON, format_of_content
from postline.contracts.kinds import Kind
from postline.contracts.topics import MessageContract, Topic
from postline.errors import ContractError, DecodeError
from postline.message import JSON_CONTENT_TYPE, UNREADABLE, Envelope

__all__ = ["CloudEvent", "Relaying"]


class CloudEvent(NamedTuple):
    """An event on its way in or out: what is said about it, and its data as bytes; None if it has none."""

    envelope: Envelope
    data: bytes | None


class Relaying:
    """Reads events by the contracts of these topics, which are looked up by the events' types."""

    def __init__(self, topics: Iterable[Topic]) -> None:
        self._contracts = {
            name: contract
            for topic in topics
            if topic.takes_events
            for contract in topic.contracts.values()
            for name in (contract.name, *contract.reading.aliases)
        }

    def message(self, event: CloudEvent, topic: str = "") -> Any:
        """The event's data as a message, of that topic if one is named.

        Raises ContractError for a type that is not taken, DecodeError for wrong data.
        """
        kind = event.envelope.type
        if not (event.envelope.id and event.envelope.source and kind):
            raise DecodeError(
                "A message without id, source or type is no CloudEvent.", remedy="Give it all three, or use publish."
            )
        contract = self._contracts.get(kind)
        if contract is None or (topic and contract.topic != topic):
            known = sorted(name for name, each in self._contracts.items() if topic in ("", each.topic))
            named = f" {topic!r}" if topic else ""
            raise ContractError(
                f"No topic{named} of the app takes {kind!r} from outside.",
                remedy=f"Send one of {', '.join(known) or 'none'}.",
            )
        try:
            return self._decoder(contract, event.envelope.content_type)(event.data or b"")
        except (*UNREADABLE, ValueError, TypeError, ArithmeticError) as error:
            raise DecodeError(
                f"The event {event.envelope.id!r} is no {kind}: {error}.", remedy="Send what its contract says."
            ) from error

    def _decoder(self, contract: MessageContract, content_type: str) -> Any:
        made, wanted = format_of_content(content_type or JSON_CONTENT_TYPE), contract.reading.format
        if made is wanted:
            return contract.decode
        if made is JSON:  # as whoever has no schema can write every type
            return Kind(contract.cls, name=contract.name).decode
        raise DecodeError(
            f"Data of {contract.name} can't be read as {content_type!r}.",
            remedy=f"Send {' or '.join(dict.fromkeys((wanted.content_type, JSON_CONTENT_TYPE)))}.",
        )
