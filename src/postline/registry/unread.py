"""What a subscription can't read of another's topic, by the versions that the owner registered or wrote down."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from postline.contracts import Reading
from postline.contracts.compatibility import Break, Finding, breaks, report
from postline.contracts.formats import FormatName, format_of_type
from postline.contracts.schema import Schema
from postline.logs.events import event
from postline.registry.enrolling import subject_of
from postline.registry.model import IncompatibleSchema, Registry

__all__ = ["ForeignReading", "Unread", "Written", "registered_versions", "require_readable", "unread_of"]

_log = logging.getLogger("postline")

_REMEDY = (
    "Declare in the view what its owner writes, or have the owner write it first; `postline contracts check` says the "
    "same before a start does."
)


class ForeignReading(NamedTuple):
    """How a subscription reads one message type of a topic that its app does not own."""

    subscription: str
    topic: str
    reading: Reading

    @property
    def names(self) -> tuple[str, ...]:
        """The wire names that it reads, the present one first."""
        return (self.reading.name, *self.reading.aliases)


class Written(NamedTuple):
    """A version of a message type; without a schema where we can't read what another program registered."""

    type: str
    number: int
    schema: Schema | None
    #: The format that its values are written in; "" where that is not known, and so not judged.
    format: FormatName | Literal[""] = ""


class Unread(NamedTuple):
    """What can't be read: the newest version, and why, or versions before it alone."""

    of: ForeignReading
    newest: Written
    #: Empty if the newest version can be read.
    breaks: list[Break]
    older: list[Written]

    @property
    def finding(self) -> Finding:
        """The newest version as what breaks."""
        return Finding(self.newest.number, "backward", f"subscription {self.of.subscription}", self.breaks)

    @property
    def warning(self) -> str:
        """What becomes of records of the older versions."""
        which = ", ".join(f"{each.number} of {each.type}" for each in self.older)
        many = "s" if len(self.older) > 1 else ""
        return (
            f"subscription {self.of.subscription} can't read version{many} {which} on {self.of.topic}, whose records "
            "become dead letters: give what they lack a default, or write an upcast"
        )


def unread_of(of: ForeignReading, versions: Sequence[Written]) -> Unread | None:
    """What can't be read of these versions, oldest first, neither by the rules nor by an upcast; None if all can."""
    reading = of.reading
    unread = [each for each in versions if _is_unread(reading, each)]
    if not unread:
        return None
    newest, why = versions[-1], list[Break]()
    if unread[-1] is newest:
        why = _breaks(reading, newest)
        unread.pop()
    return Unread(of, newest, why, unread)


def _is_unread(reading: Reading, version: Written) -> bool:
    if _is_of_another_format(reading, version):
        return True
    return version.schema is not None and not reading.reads(version.schema)


def _is_of_another_format(reading: Reading, version: Written) -> bool:
    return version.format not in ("", reading.format.name)


def _breaks(reading: Reading, version: Written) -> list[Break]:
    if _is_of_another_format(reading, version):
        said = f"it is written as {version.format}, the reader reads {reading.format.name}"
        return [Break("", "format", said, f'Declare the view with format="{version.format}".')]
    assert version.schema is not None
    return breaks(reading.schema, version.schema, whole=reading.format.whole)


async def registered_versions(registry: Registry, of: ForeignReading) -> list[Written]:
    """All versions under the names that it reads, oldest first, of former names before the present's.

    Raises LogUnavailable.
    """
    found = [
        (name, each) for name in reversed(of.names) for each in await registry.versions(subject_of(of.topic, name))
    ]
    known: Mapping[int, Schema] = await registry.schemas([each.id for _, each in found])
    return [
        Written(name, each.number, known.get(each.id), format_of_type(each.document.schema_type).name)
        for name, each in found
    ]


async def require_readable(registry: Registry, readings: Iterable[ForeignReading]) -> None:
    """Refuse readers of what they can't read: every record would become a dead letter that holds its key.

    Raises IncompatibleSchema that names all of them, and LogUnavailable. Versions before the newest are warned of.
    """
    judged = [unread_of(each, await registered_versions(registry, each)) for each in readings]
    unread = [each for each in judged if each is not None]
    if refused := [each for each in unread if each.breaks]:
        said = [report([each.finding], _place_of(each)) for each in refused]
        raise IncompatibleSchema("\n".join(said), [each.finding for each in refused], remedy=_REMEDY)
    for each in unread:
        _log.warning("%s", each.warning, extra=event("contract.unread"))


def _place_of(unread: Unread) -> str:
    """Which version of which topic, in words."""
    return f"{unread.newest.type} on {unread.of.topic}, version {unread.newest.number},"
