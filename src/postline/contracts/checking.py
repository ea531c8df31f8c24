"""Whether a contract, as it is declared now, keeps its topic's rule against the versions before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from postline.contracts.compatibility import Break, Finding, Level, judge
from postline.contracts.reading import Reading
from postline.contracts.schema import Schema
from postline.contracts.snapshot import Snapshot
from postline.contracts.topics import Evolution

__all__ = ["broken_promises", "findings", "read_by_upcast", "topic_changes", "undeclared"]

_NUMBER = "Add fields behind the others, or keep numbers with `Annotated[…, number(n)]`."


def findings(reading: Reading, versions: Mapping[int, Schema], evolution: Evolution | str) -> list[Finding]:
    """What breaks the rule, by the version on the other side; [] if nothing does.

    Versions that an upcast reads are not broken for this side.
    """
    level = Level(evolution)
    found = judge(reading.schema, versions, level, whole=reading.format.whole)
    kept = [
        each for each in found if each.direction != "backward" or not read_by_upcast(reading, versions[each.version])
    ]
    return kept + _misread_by_number(reading, versions, level)


def _misread_by_number(reading: Reading, versions: Mapping[int, Schema], level: Level) -> list[Finding]:
    """What programs that know fields by number alone would misread; Postline's own reader goes by the schema's id."""
    if reading.format.name != "protobuf" or level is Level.NONE:
        return []
    from postline.contracts.protobuf import wire_breaks

    found = []
    for each in sorted(versions) if level.transitive else sorted(versions)[-1:]:
        moved = [Break(path, "number", said, _NUMBER) for path, said in wire_breaks(reading.schema, versions[each])]
        if moved:
            found.append(Finding(each, "forward", f"programs with the .proto file of version {each}", moved))
    return found


def read_by_upcast(reading: Reading, version: Schema) -> bool:
    """Whether one of the reading's upcasts is for that version."""
    return any(upcast.old.reads(version) for upcast in reading.upcasts)


def broken_promises(before: Snapshot, now: Snapshot) -> list[str]:
    """What must never change for a topic that has records, in sentences; [] if all stayed."""
    said = _changed(before, now, ("topic", "owner", "key", "encoding"))
    said += [
        f"it does not declare {name} any more, whose records may lie in the log: keep the class, or declare its name "
        "among the aliases of another."
        for name in undeclared(before.types, now)
    ]
    return said


def topic_changes(before: Snapshot, now: Snapshot) -> list[str]:
    """What is said of the topic itself and is another thing now, in sentences; its types aside."""
    return _changed(before, now, ("topic", "owner", "key", "encoding", "evolution"))


def _changed(before: Snapshot, now: Snapshot, names: Iterable[str]) -> list[str]:
    pairs = [(name, getattr(before, name), getattr(now, name)) for name in names]
    return [f"its {name} was {old or 'none'!r} and is {new or 'none'!r}." for name, old, new in pairs if old != new]


def undeclared(known: Iterable[str], now: Snapshot) -> list[str]:
    """Those of the known types that a topic declares no longer, not even as a former name."""
    declared = {*now.types, *(alias for each in now.types.values() for alias in each.aliases)}
    return [name for name in known if name not in declared]
