"""What a registry of schemas is: documents under subjects, in versions, each with an id that records carry."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from functools import lru_cache, partial
from typing import Protocol
from uuid import UUID

import msgspec

from postline.contracts.compatibility import Finding, Level
from postline.contracts.formats import SchemaType, format_of_type
from postline.contracts.schema import Schema
from postline.errors import ContractError

__all__ = [
    "Document",
    "IncompatibleSchema",
    "Reference",
    "Registry",
    "UnknownSubject",
    "Version",
    "guid_of",
    "meaning_of",
]


class Reference(msgspec.Struct, frozen=True):
    """Another subject's version that a document refers to by a name of its own."""

    name: str
    subject: str
    version: int


class Document(msgspec.Struct, frozen=True):
    """A schema as its format writes it."""

    schema_type: SchemaType
    text: str
    references: tuple[Reference, ...] = ()


class Version(msgspec.Struct, frozen=True):
    """One version of a subject."""

    subject: str
    number: int
    id: int
    document: Document


_NOBODY_BREAKS = "Make the change so that nobody breaks, or register it as a type of another name."


class IncompatibleSchema(ContractError):
    """A schema that breaks its subject's rule, or that a subscription can't read; `findings` says how."""

    def __init__(self, said: str, findings: list[Finding], *, remedy: str = _NOBODY_BREAKS) -> None:
        super().__init__(said, remedy=remedy)
        self.findings = findings

    def __reduce__(self) -> tuple[object, ...]:
        """Copied and pickled whole, with its findings."""
        return partial(IncompatibleSchema, remedy=self.remedy), (self.message, self.findings)


class UnknownSubject(ContractError):
    """A subject, or a version of one, that nobody registered."""


class Registry(Protocol):
    """Whoever keeps schemas. LogUnavailable comes out where it can't be reached and the answer isn't known here."""

    async def register(self, subject: str, document: Document, *, agreed: frozenset[int] = frozenset()) -> int:
        """The id of the document under the subject, as a new version unless it is one already.

        Raises IncompatibleSchema where it breaks the subject's rule, but for breaks with the versions in `agreed`:
        whoever registers it reads those in another way.
        """

    async def schemas(self, ids: Collection[int]) -> Mapping[int, Schema]:
        """The meaning of those that there are, of ids or of numbers that stand for GUIDs (`frame.guid_behind`)."""

    async def versions(self, subject: str) -> list[Version]:
        """All versions of a subject, oldest first; [] if there is none."""

    async def subjects(self) -> list[str]:
        """All subjects that have a version."""

    async def level(self, subject: str) -> Level:
        """The rule for the subject: its own, else the registry's."""

    async def set_level(self, subject: str, level: Level) -> None:
        """Set the subject's rule; "" is the registry's own."""

    async def close(self) -> None:
        """Let go of what it holds. Idempotent."""


def guid_of(document: Document) -> UUID:
    """The document's id that is the same in all registries of this kind: 16 bytes of its hash.

    Confluent's registries make other ones of the same document, in a way that is not documented; nobody compares them.
    """
    return UUID(bytes=hashlib.sha256(msgspec.json.encode(document)).digest()[:16])


@lru_cache(4_096)
def meaning_of(document: Document) -> Schema:
    """What a document says, in the type model. Raises ContractError for one that can't be read."""
    return format_of_type(document.schema_type).parse(document.text)
