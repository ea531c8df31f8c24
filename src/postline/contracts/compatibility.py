"""What versions of a contract break for each other: the levels of registries, over any rules of who can read whom."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec

from postline.contracts.readability import Break, Found, found_between
from postline.contracts.schema import Schema

__all__ = [
    "Break",
    "Broken",
    "Finding",
    "Level",
    "breaks",
    "breaks_others",
    "judge",
    "judge_by",
    "other_formats",
    "report",
]

VersionT = TypeVar("VersionT")


class Level(enum.Enum):
    """A topic's rule: whose records must be readable by whom."""

    NONE = "NONE"
    BACKWARD = "BACKWARD"
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FORWARD = "FORWARD"
    FORWARD_TRANSITIVE = "FORWARD_TRANSITIVE"
    FULL = "FULL"
    FULL_TRANSITIVE = "FULL_TRANSITIVE"

    @property
    def backward(self) -> bool:
        """Whether the new version must read old records."""
        return self.value.startswith(("BACKWARD", "FULL"))

    @property
    def forward(self) -> bool:
        """Whether old versions must read new records."""
        return self.value.startswith(("FORWARD", "FULL"))

    @property
    def transitive(self) -> bool:
        """Whether all old versions count, not only the newest."""
        return self.value.endswith("TRANSITIVE")

    def together_with(self, other: Level) -> Level:
        """The rule that asks for all that either of them does."""
        if self is Level.NONE or other is Level.NONE:
            return other if self is Level.NONE else self
        backward, forward = self.backward or other.backward, self.forward or other.forward
        name = "FULL" if backward and forward else "BACKWARD" if backward else "FORWARD"
        return Level(f"{name}_TRANSITIVE" if self.transitive or other.transitive else name)


class Finding(msgspec.Struct, frozen=True):
    """What a new version breaks with one that is there."""

    version: int
    #: "backward": the new version can't read its records; "forward": its readers can't read new ones.
    direction: str
    broken: str
    breaks: list[Break]


class Broken(Protocol):
    """Whom a change breaks, and where."""

    @property
    def broken(self) -> str:
        """Whom, in words."""

    @property
    def breaks(self) -> list[Break]:
        """Where."""


def breaks(reader: Schema, writer: Schema, *, whole: bool = False) -> list[Break]:
    """Everything that keeps the reader from reading whatever the writer may write; [] if nothing does.

    `whole` says that writers write every field, those with defaults too. Raises ContractError for types nested deeper
    than 200.
    """
    return [each.for_readers() for each in found_between(reader, writer, whole=whole)]


def breaks_others(reader: Schema, writer: Schema, *, whole: bool = False) -> list[Break]:
    """As `breaks`, with remedies for the writer: the reader is deployed, by somebody else."""
    return [each.for_writers() for each in found_between(reader, writer, whole=whole)]


def judge(new: Schema, versions: Mapping[int, Schema], level: Level, *, whole: bool = False) -> list[Finding]:
    """What a new version would break, under a level, with the versions that are there; [] if it may be."""
    return judge_by(lambda reader, writer: found_between(reader, writer, whole=whole), new, versions, level)


def judge_by(
    rules: Callable[[VersionT, VersionT], Iterable[Found]],
    new: VersionT,
    versions: Mapping[int, VersionT],
    level: Level,
) -> list[Finding]:
    """As `judge`, by other rules: what keeps a reader (the first) from reading a writer (the second)."""
    chosen = sorted(versions) if level.transitive else sorted(versions)[-1:]
    found = []
    for number in chosen:
        if level.backward and (why := [each.for_readers() for each in rules(new, versions[number])]):
            found.append(Finding(number, "backward", f"records of version {number}, which stay in the log", why))
        if level.forward and (why := [each.for_writers() for each in rules(versions[number], new)]):
            found.append(Finding(number, "forward", f"services that read with version {number}", why))
    return found


def other_formats(new: str, versions: Mapping[int, str], level: Level) -> list[Finding]:
    """What a new version breaks by its format alone: nobody reads values of another one, by no rule and no upcast."""
    return judge_by(_other_format, new, versions, level)


def _other_format(reader: str, writer: str) -> list[Found]:
    said = f"the reader reads {reader}, the writer writes {writer}"
    return [] if reader == writer else [Found("", "format", said)]


def report(findings: Sequence[Broken], subject: str) -> str:
    """The findings for people: each place that breaks, whom it breaks, who reads it, and the remedy."""
    lines = []
    for finding in findings:
        lines.append(f"{subject} breaks {finding.broken}:")
        for each in finding.breaks:
            lines.append(f"  {each.path or 'the message'}: {each.said}")
            if each.read_by:
                lines.append(f"    read by {', '.join(each.read_by)}")
            lines.append(f"    {each.remedy}")
    return "\n".join(lines)
