"""Messages of a topic for those who follow it over HTTP: read in any version, filtered, written as events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from postline.contracts import Rule, Topic
from postline.contracts.json_faults import reading_fault
from postline.errors import ContractError, DecodeError, EncodeError
from postline.http.outgoing import EventWriter
from postline.log.port import SCHEMA_ID_SHIFT, Log, Record
from postline.runtime.handlers import Handler
from postline.runtime.versions import SchemaSource, Versions

__all__ = ["Chosen", "TopicReader", "read_rule"]

_RULE_CHARACTERS_MAX = 10_000


class Chosen(NamedTuple):
    """Which messages somebody wants: of which classes, and by what rule."""

    kinds: frozenset[type]
    rule: Rule | None


def read_rule(text: str) -> Rule | None:
    """The rule that a client wrote as JSON; None for nothing. Raises ContractError."""
    if not text:
        return None
    if len(text) > _RULE_CHARACTERS_MAX:
        raise ContractError("The filter is too long.", remedy=f"Use up to {_RULE_CHARACTERS_MAX:,} characters.")
    try:
        data = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ContractError(
            f"The filter is no JSON: {error}.", remedy='Write {"field": "total", "gt": 100}.'
        ) from error
    return Rule.from_data(data)


async def _nobody(message: Any) -> None:
    """Stands for the handler that those who follow over HTTP don't have."""


class TopicReader:
    """Reads one topic's messages. Event loop only."""

    def __init__(self, topic: Topic, *, reveal: bool) -> None:
        self.topic = topic
        self.kinds = {name: contract.cls for name, contract in topic.contracts.items()}
        self._writer = EventWriter(topic, self.kinds.values(), reveal=reveal)
        self._handlers: dict[str, Handler] = {}
        for name in self.kinds:
            reading = topic.reading_of(name)
            handler = Handler(name, _nobody, reading, is_async=True, wants_context=False)
            self._handlers |= dict.fromkeys((name, *reading.aliases), handler)
        self._versions: Versions | None = None

    def chosen(self, types: Sequence[str], rule: Rule | None) -> Chosen:
        """What a client chose: all types where it names none. Of those, what the rule can be asked of.

        Raises ContractError for a type that the topic doesn't have, or a rule that no type has the fields of.
        """
        if unknown := [name for name in types if name not in self.kinds]:
            raise ContractError(
                f"Topic {self.topic.name!r} has no type {unknown[0]!r:.200}.", remedy=f"It has {', '.join(self.kinds)}."
            )
        wanted = [self.kinds[name] for name in types or self.kinds]
        if rule is None:
            return Chosen(frozenset(wanted), None)
        fitting = [kind for kind in wanted if not rule.problems(kind)]
        if not fitting:
            rule.require(wanted[0])
        return Chosen(frozenset(fitting), rule)

    async def learn(self, records: Sequence[Record], schemas: SchemaSource) -> None:
        """Have what reads these records. Raises LogUnavailable if a schema can't be looked up now."""
        if self._versions is None:
            self._versions = Versions(self._handlers, schemas)
        await self._versions.learn(records)

    def event(self, record: Record, place: str, log: Log, chosen: Chosen) -> bytes | None:
        """A record as an event, if it was chosen; of records that were `learn`ed.

        Raises DecodeError for what can't be read, or can't be an event as it is.
        """
        handler, value = self._handlers.get(record[3]), record[4]
        if handler is None or value is None or handler.reading.cls not in chosen.kinds:
            return None
        try:
            message = handler.decoders[record[5] >> SCHEMA_ID_SHIFT](value)
            if chosen.rule is not None and not chosen.rule(message):
                return None
        except Exception as error:
            raise DecodeError(f"{place} can't be read: {reading_fault(error, value)[0]}.") from error
        try:
            return self._writer.write(message, log.envelope(record), place)
        except EncodeError as error:
            raise DecodeError(f"{place} can't be told as an event: {error.message}", remedy=error.remedy) from error
