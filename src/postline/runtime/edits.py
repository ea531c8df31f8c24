"""Edited dead letters of one owned partition: what is handled in place of their records' own values."""

from __future__ import annotations

from typing import Protocol

from postline.log.port import SCHEMA_ID_SHIFT, Assignment, Membership, Record
from postline.runtime.entries import EDITS, EditEntry, decode_entry, encode_entry, offset_key, offset_of, pages_of
from postline.runtime.unit import PendingUnit

__all__ = ["Edits", "edited"]

_OWN_FLAGS = (1 << SCHEMA_ID_SHIFT) - 1


class _Owner(Protocol):
    assignment: Assignment
    membership: Membership
    unit: PendingUnit

    async def read_entry(self, namespace: str, key: bytes) -> bytes | None:
        """A state entry as this owner last wrote it, committed or not."""


class Edits:
    """The edits of one assignment; who made which is in memory, the values are read when needed. Event loop only."""

    def __init__(self, owned: _Owner) -> None:
        self._owned = owned
        #: Who edited, by offset.
        self.by: dict[int, str] = {}

    async def load(self) -> None:
        """Take up what the last owner left."""
        async for page in pages_of(self._owned, EDITS):
            self.by |= {offset_of(key): decode_entry(data, EditEntry).by for key, data in page}

    def put(self, offset: int, edit: EditEntry) -> None:
        """Have this value handled from now on, whoever owns the partition by then."""
        self.by[offset] = edit.by
        self._owned.unit.put(EDITS, offset_key(offset), encode_entry(edit))

    def forget(self, offset: int) -> None:
        """The record has ended."""
        if self.by.pop(offset, None) is not None:
            self._owned.unit.delete(EDITS, offset_key(offset))

    async def applied(self, records: dict[int, Record]) -> dict[int, Record]:
        """The records, by offset, as they are to be handled. Raises LogUnavailable."""
        found = dict(records) if self.by else records
        for offset in self.by.keys() & found.keys():
            data = await self._owned.read_entry(EDITS, offset_key(offset))
            if data is not None:
                found[offset] = edited(found[offset], decode_entry(data, EditEntry))
        return found


def edited(record: Record, edit: EditEntry) -> Record:
    """The record with the edit's value, under the edit's schema."""
    offset, time_ms, key, type_name, _, flags, packed = record
    flags = flags & _OWN_FLAGS | edit.schema_id << SCHEMA_ID_SHIFT
    return (offset, time_ms, key, type_name, edit.value, flags, packed)
