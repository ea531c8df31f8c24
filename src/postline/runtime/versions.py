"""Which decoder reads a record: by the handler of its type, and by the schema that its value was written under.

Schema ids are looked up before a batch is handled, for all of it at once; after that a decoder is one look into a dict.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from postline.contracts.frame import guid_behind, unframe
from postline.contracts.schema import Schema
from postline.errors import ContractError, DecodeError
from postline.log.port import SCHEMA_ID_SHIFT, Record
from postline.runtime.handlers import Handler

__all__ = ["SchemaSource", "Versions"]

#: Flags below have no schema id.
_WITHOUT_ID = 1 << SCHEMA_ID_SHIFT


class SchemaSource(Protocol):
    """Whoever knows schemas by their ids."""

    async def schemas(self, ids: Collection[int]) -> Mapping[int, Schema]:
        """Those that there are, of ids or of numbers that stand for GUIDs (`frame.guid_behind`).

        Raises LogUnavailable if one is not known here and nobody can be asked.
        """


class Versions:
    """The versions that records of one subscription came in, in one process. Event loop only."""

    def __init__(self, handlers: Mapping[str, Handler], source: SchemaSource) -> None:
        self._handlers, self._source = handlers, source
        self._schemas: dict[int, Schema] = {}
        #: Flags of records that all can be read.
        self._known = {0, 1}

    async def learn(self, records: Sequence[Record]) -> None:
        """Have a decoder for each of these. Raises LogUnavailable if a schema can't be looked up now."""
        if self.knows(records):
            return
        ids = {_id_of(record) for record in records if record[4] is not None} - {0}
        if unknown := ids - self._schemas.keys():
            self._schemas |= await self._source.schemas(unknown)
        for handler in self._handlers.values():
            handler.writers.update((number, self._schemas[number]) for number in ids & self._schemas.keys())
            for number in ids - handler.decoders.keys():
                handler.decoders[number] = self._once_asked(handler, number)
        for name in {record[3] for record in records if _is_framed(record)} & self._handlers.keys():
            self._handlers[name].decoders[0] = _framed(self._handlers[name])
        # One that is not registered may be so when the record is redriven.
        missing = ids - self._schemas.keys()
        self._known.update(flags for _, _, _, _, _, flags, _ in records if flags >> SCHEMA_ID_SHIFT not in missing)

    def knows(self, records: Sequence[Record]) -> bool:
        """Whether there is a decoder for each of these, or an answer that there is none."""
        flags = {record[5] for record in records}
        if not flags <= self._known:
            return False
        # Only values whose schema is not named beside them can have it in a frame around them.
        return min(flags, default=_WITHOUT_ID) >= _WITHOUT_ID or not any(map(_is_framed, records))

    def _once_asked(self, handler: Handler, number: int) -> Callable[[bytes], Any]:
        """A decoder that is compiled for its first value: few handlers meet all schemas that their topic has."""

        def decode(data: bytes) -> Any:
            made = self._decoder(handler, number)
            if number in self._schemas:
                handler.decoders[number] = made
            return made(data)

        return decode

    def _decoder(self, handler: Handler, number: int) -> Callable[[bytes], Any]:
        schema = self._schemas.get(number)
        if schema is None:
            return _refusing(
                DecodeError(
                    f"{_called(number)} is not in the registry, or its schema can't be read here.",
                    remedy="Use the registry that its publisher uses; then redrive.",
                )
            )
        try:
            return handler.reading.decoder(schema)
        except ContractError as error:
            refusal = DecodeError(f"{_called(number)}: {error.message}", remedy=error.remedy)
            return _refusing(refusal)


def _called(number: int) -> str:
    guid = guid_behind(number)
    return f"Schema id {number}" if guid is None else f"Schema GUID {guid}"


def _is_framed(record: Record) -> bool:
    """Whether the value stands in the frame of Confluent's serializers: no JSON and no Protobuf begins with a zero."""
    return record[5] < _WITHOUT_ID and bool(record[4]) and record[4][0] == 0  # type: ignore[index]


def _id_of(record: Record) -> int:
    """The schema's id, beside the value or in the frame around it; 0 if there is none, or none that can be read."""
    if not _is_framed(record):
        return record[5] >> SCHEMA_ID_SHIFT
    try:
        return unframe(record[4] or b"").schema_id
    except DecodeError:  # told when the record's turn comes
        return 0


def _framed(handler: Handler) -> Callable[[bytes], Any]:
    def decode(data: bytes) -> Any:
        if data[:1] != b"\0":
            return handler.decode(data)
        frame = unframe(data, protobuf=handler.reading.framed_with_indexes)
        return handler.decoders[frame.schema_id](frame.payload)

    return decode


def _refusing(error: DecodeError) -> Callable[[bytes], Any]:
    def refuse(data: bytes) -> Any:
        raise error

    return refuse
