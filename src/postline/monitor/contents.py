"""`Contents`: what values say, for people who look at them: read by their writer's schema, sensitive fields masked."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from postline.contracts import PLACED_BY
from postline.contracts.formats import JSON, format_of_content
from postline.contracts.frame import looks_framed, unframe
from postline.contracts.masking import MASK, has_sensitive, hides, masked
from postline.contracts.schema import Schema
from postline.errors import ContractError
from postline.log.port import SCHEMA_ID_SHIFT, Record
from postline.message import UNREADABLE
from postline.registry import Registry, meaning_of, subject_of

__all__ = ["Contents", "Shown"]


class Shown(NamedTuple):
    """A value as it is shown: as JSON, or in base64 where it can't be; a tombstone has neither."""

    data: Raw | UnsetType = UNSET
    data_base64: str | UnsetType = UNSET


class Contents:
    """Shows values. Without a registry, or with `reveal`, nothing is masked. Event loop only."""

    def __init__(self, registry: Registry | None, *, reveal: bool = False) -> None:
        self._registry, self._reveal = registry, reveal
        self._schemas: dict[int, Schema] = {}
        self._fingerprints: dict[int, str] = {}
        #: The newest schema of each subject: for records that name none, and since fields may be marked later.
        self._newest: dict[str, Schema | None] = {}
        self._newest_ids: dict[str, int] = {}
        self._hidden_keys: dict[str, bool] = {}

    @property
    def masks(self) -> bool:
        """Whether anything may be masked."""
        return self._registry is not None and not self._reveal

    async def hides_keys(self, topic: str, key: str) -> bool:
        """Whether a topic's key, declared as that text, is a sensitive field of any of its types.

        One that a function makes tells nothing of where it comes from, and is shown.
        """
        path = key.partition(PLACED_BY)[0]
        if self._registry is None or self._reveal or not path or path.endswith("()"):
            return False
        if topic not in self._hidden_keys:
            subjects = [each for each in await self._registry.subjects() if each.startswith(f"{topic}-")]
            newest = [await self._newest_of(self._registry, subject) for subject in subjects]
            self._hidden_keys[topic] = any(schema is not None and hides(schema, path) for schema in newest)
        return self._hidden_keys[topic]

    async def learn(self, topic: str, records: Sequence[Record]) -> None:
        """Have the schemas of these records. Raises LogUnavailable where the registry can't be asked."""
        if self._registry is None:
            return
        ids = {number for record in records if (number := _id_of(record))} - self._schemas.keys()
        if ids:
            found = await self._registry.schemas(ids)
            self._schemas |= found
            self._fingerprints |= {number: schema.fingerprint for number, schema in found.items()}
        for name in {record[3] for record in records}:
            if (subject := subject_of(topic, name)) not in self._newest:
                self._newest[subject] = await self._newest_of(self._registry, subject)

    async def _newest_of(self, registry: Registry, subject: str) -> Schema | None:
        versions = await registry.versions(subject)
        try:
            if versions:
                self._newest_ids[subject] = versions[-1].id
            return meaning_of(versions[-1].document) if versions else None
        except ContractError:  # another program's, of which we can't say what is in it
            return None

    def fingerprint(self, record: Record) -> str:
        """That of the writer's schema, the same in every log; "" where the record names none that is known."""
        return self._fingerprints.get(_id_of(record), "")

    def plain(self, topic: str, record: Record, content_type: str) -> Any:
        """The value as JSON has it, with nothing masked; raises what its format raises, ValueError without a schema."""
        value, newest = record[4] or b"", self._newest.get(subject_of(topic, record[3]))
        schema, made = self._schemas.get(_id_of(record)) or newest, format_of_content(content_type)
        payload = _without_frame(record, value, indexes=made is not None and made.schema_type == "PROTOBUF")
        if made is None or (schema is None and made is not JSON):
            raise ValueError(f"nobody knows the schema of {record[3]!r}")
        return msgspec.json.decode(payload) if schema is None else made.plain(schema)(payload)

    def schema_of(self, topic: str, record: Record) -> tuple[int, Schema] | None:
        """What an edit of the record is written under: its writer's schema, else the newest; None if nobody knows."""
        if (schema := self._schemas.get(number := _id_of(record))) is not None:
            return number, schema
        newest = self._newest.get(subject_of(topic, record[3]))
        return None if newest is None else (self._newest_ids.get(subject_of(topic, record[3]), 0), newest)

    def shown(self, topic: str, record: Record, content_type: str) -> Shown:
        """The value as it is shown."""
        value = record[4]
        if value is None:
            return Shown()
        newest = self._newest.get(subject_of(topic, record[3]))
        schema = self._schemas.get(_id_of(record)) or newest
        made = format_of_content(content_type)
        payload = _without_frame(record, value, indexes=made is not None and made.schema_type == "PROTOBUF")
        masking = [each for each in (schema, newest) if each is not None and has_sensitive(each)]
        masking = [] if self._reveal else masking
        is_masked = bool(masking)
        if schema is None or (made is JSON and not is_masked):
            is_json = made is JSON and _is_json(payload)
            return Shown(data=Raw(payload)) if is_json else Shown(data_base64=_base64(value))
        try:
            content = made.plain(schema)(payload) if made is not None else msgspec.json.decode(payload)
        except (*UNREADABLE, ContractError, ValueError):
            # Nobody can say which of its bytes are the sensitive ones.
            return Shown(data=Raw(msgspec.json.encode(MASK))) if is_masked else Shown(data_base64=_base64(value))
        for each in masking:
            content = masked(each, content)
        return Shown(data=Raw(msgspec.json.encode(content)))


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _id_of(record: Record) -> int:
    """The schema's id, beside the value or in the frame around it; 0 if there is none."""
    value = record[4]
    if number := record[5] >> SCHEMA_ID_SHIFT:
        return number
    return unframe(value).schema_id if value and looks_framed(value) else 0


def _without_frame(record: Record, value: bytes, *, indexes: bool) -> bytes:
    if record[5] >> SCHEMA_ID_SHIFT or not looks_framed(value):
        return value
    return unframe(value, protobuf=indexes).payload


def _is_json(value: bytes) -> bool:
    try:
        msgspec.json.decode(value, type=Raw)
    except UNREADABLE:
        return False
    return True
