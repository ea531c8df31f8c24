"""Contracts as plain files in their owner's repository: every version that was ever snapshot, one file a topic.

A file holds what `check` needs without any log: the rule, and the schemas of all versions in order.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from postline.contracts.difference import Difference, differences
from postline.contracts.schema import Schema
from postline.contracts.topics import Evolution, Topic
from postline.errors import ContractError

__all__ = [
    "FORMAT",
    "Snapshot",
    "TypeVersions",
    "owner_and_topic",
    "read_snapshot",
    "snapshot_of",
    "updated",
    "write_snapshot",
]

#: Of the file; a newer one is refused.
FORMAT = 1


class TypeVersions(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message type: the schemas of its versions, oldest first; the first is version 1."""

    versions: tuple[Schema, ...]
    #: Wire names it had before.
    aliases: tuple[str, ...] = ()

    @property
    def numbered(self) -> dict[int, Schema]:
        """The versions by their numbers."""
        return dict(enumerate(self.versions, 1))

    @property
    def changes(self) -> list[Difference]:
        """What the last version changed; [] for the first."""
        return differences(self.versions[-2], self.versions[-1]) if len(self.versions) > 1 else []


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A topic's contract with its history."""

    format: int = FORMAT
    topic: str
    owner: str
    key: str
    encoding: str
    evolution: Evolution
    types: dict[str, TypeVersions]


class _Format(msgspec.Struct):
    format: int


class _Whose(_Format):
    owner: str
    topic: str


def snapshot_of(topic: Topic) -> Snapshot:
    """The topic as it is declared now, each type with one version. Raises ContractError."""
    return Snapshot(
        topic=topic.name,
        owner=topic.owner,
        key=topic.key_text,
        encoding=topic.format.name,
        evolution=topic.schemas.evolution,
        types={
            name: TypeVersions((contract.reading.schema,), contract.reading.aliases)
            for name, contract in sorted(topic.contracts.items())
        },
    )


def updated(known: Snapshot, now: Snapshot) -> Snapshot:
    """The known history with what is new in `now`: types, versions, and everything said of the topic.

    A type that is not declared any more stays: its records may lie in the log.
    """
    types = dict(known.types)
    for name, declared in now.types.items():
        before = _history(known.types, name, declared.aliases)
        (schema,) = declared.versions
        versions = before if before and before[-1] == schema else (*before, schema)
        types[name] = TypeVersions(versions, declared.aliases)
    return msgspec.structs.replace(now, types=dict(sorted(types.items())))


def _history(types: Mapping[str, TypeVersions], name: str, aliases: tuple[str, ...]) -> tuple[Schema, ...]:
    """The versions under this name, or under the one it had before."""
    return next((types[each].versions for each in (name, *aliases) if each in types), ())


def read_snapshot(text: str | bytes, where: str) -> Snapshot:
    """The snapshot in a file. Raises ContractError that names `where`."""
    try:
        if msgspec.json.decode(text, type=_Format).format > FORMAT:
            raise ContractError(
                f"{where} was written by a newer version of Postline.", remedy="Use that version, or a newer one."
            )
        found = msgspec.json.decode(text, type=Snapshot)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _no_snapshot(where, str(error)) from error
    if said := _fault_in(found):
        raise _no_snapshot(where, said)
    return found


def owner_and_topic(text: str | bytes) -> tuple[str, str] | None:
    """Whose topic a file is the snapshot of; None for a file of another kind, or one that can't be read."""
    try:
        found = msgspec.json.decode(text, type=_Whose)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return found.owner, found.topic


def _no_snapshot(where: str, said: str) -> ContractError:
    return ContractError(
        f"{where} is no snapshot of a contract: {said}.",
        remedy="Restore it from your repository; `postline contracts snapshot` writes it.",
    )


def _fault_in(found: Snapshot) -> str:
    """What a snapshot that was edited, or merged badly, can't mean; "" for nothing."""
    if found.format < 1:
        return f"its format is {found.format}"
    for name, known in found.types.items():
        if not known.versions:
            return f"{name} has no version"
        for number, schema in known.numbered.items():
            missing = next((each for each in schema.references() if each not in schema.definitions), None)
            if missing is not None:
                return f"version {number} of {name} refers to {missing}, which it does not define"
    return ""


def write_snapshot(snapshot: Snapshot) -> bytes:
    """The content of its file: always the same bytes, a line for each fact, so that changes show in a review."""
    return msgspec.json.format(msgspec.json.encode(snapshot, order="deterministic"), indent=2) + b"\n"
