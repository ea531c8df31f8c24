"""Comparing what apps need with what a log has, and refusing what can't be mended; the same in every engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from postline.errors import LogError, MissingCapability, TopicMismatch, UnknownTopic
from postline.log.needs import Change, ChangeKind, Detail, Need, TopicSpec

__all__ = [
    "APPLY",
    "FOREIGN_MISSING",
    "IDENTITY_FIXED",
    "identity_of",
    "no_repartition",
    "plan_topics",
    "refusal_of",
    "refuse",
    "sizes_of",
]

#: What mends whatever can be mended.
APPLY = "`postline topics apply APP` makes and alters what is listed; `postline topics plan APP` shows it first."
#: What is said of a topic that an app has a view of alone.
FOREIGN_MISSING = (
    "it is missing, and another service's to make: start or apply that one first, or both together, in one namespace"
)
#: What to do about another key, owner or number of partitions.
IDENTITY_FIXED = (
    "Order and state belong to key and partition, so these can't change in place: restore the contract, or declare a"
    " new topic and move its subscribers."
)
_SIZES = ("retention_ms", "retention_bytes", "compacted", "tombstone_ms", "compact_after_ms")


def identity_of(wanted: TopicSpec, there: TopicSpec, *, owned: bool) -> list[str]:
    """What differs in key, owner, and, for the owner, partitions, in words."""
    found = []
    if there.partitions != wanted.partitions and owned:
        found.append(f"partitions are {there.partitions}, the contract says {wanted.partitions}")
    if there.key != wanted.key:
        found.append(f"the key is {there.key or 'none'!r}, the contract says {wanted.key or 'none'!r}")
    if there.owner != wanted.owner:
        found.append(f"its owner is {there.owner!r}, the contract says {wanted.owner!r}")
    return found


def sizes_of(wanted: TopicSpec, there: TopicSpec) -> tuple[Detail, ...]:
    """What differs in retention and cleanup."""
    return tuple(
        Detail(name, _text(getattr(there, name)), _text(getattr(wanted, name)))
        for name in _SIZES
        if getattr(there, name) != getattr(wanted, name)
    )


def _text(value: object) -> str:
    return "none" if value is None else str(value).lower()


def plan_topics(need: Need, there: Mapping[str, TopicSpec]) -> list[Change]:
    """The changes on a log where anybody may make what is missing."""
    found = [change for wanted in need.topics for change in _of_topic(wanted, there, wanted.owner in need.services)]
    found += [change for shared in need.shared for change in _of_topic(shared, there, owned=False)]
    found += [
        Change(kind=ChangeKind.MISSING, name=name, said=FOREIGN_MISSING) for name in need.foreign if name not in there
    ]
    counts = {spec.name: spec.partitions for spec in (*need.topics, *there.values())}
    for subscription in need.subscriptions:
        for own in subscription.own:
            spec = msgspec.structs.replace(own, partitions=counts.get(subscription.topic, own.partitions))
            if spec.name not in there:
                found.append(Change(kind=ChangeKind.CREATE, name=spec.name, details=_all(spec), topic=spec))
    return found


def _of_topic(wanted: TopicSpec, there: Mapping[str, TopicSpec], owned: bool) -> Iterator[Change]:
    known = there.get(wanted.name)
    if known is None:
        yield Change(kind=ChangeKind.CREATE, name=wanted.name, details=_all(wanted), topic=wanted)
    elif differences := identity_of(wanted, known, owned=owned):
        said = f"differs from its contract: {'; '.join(differences)}. {IDENTITY_FIXED}"
        yield Change(kind=ChangeKind.MISMATCH, name=wanted.name, said=said)
    elif owned and (details := sizes_of(wanted, known)):
        yield Change(kind=ChangeKind.ALTER, name=wanted.name, details=details, topic=wanted)


def _all(spec: TopicSpec) -> tuple[Detail, ...]:
    """What a new topic is made with; defaults are left out."""
    plain = TopicSpec(name="", partitions=0, owner="")
    said = [name for name in _SIZES if getattr(spec, name) != getattr(plain, name)]
    return tuple(Detail(name, "", _text(getattr(spec, name))) for name in ("partitions", "owner", "key", *said))


def refusal_of(changes: Iterable[Change], opening: str) -> LogError | None:
    """One error for all of these: UnknownTopic if something is missing, else TopicMismatch; None for none."""
    bad = list(changes)
    if not bad:
        return None
    missing = any(change.kind in (ChangeKind.CREATE, ChangeKind.MISSING) for change in bad)
    applicable = any(change.kind in (ChangeKind.CREATE, ChangeKind.ALTER) for change in bad)
    lines = "\n".join([opening, *(f"- {change}" for change in bad)])
    return (UnknownTopic if missing else TopicMismatch)(lines, remedy=APPLY if applicable else "")


def refuse(changes: Sequence[Change], address: str) -> None:
    """Raise if there is something among these that can't be applied; nothing is, then."""
    bad = [change for change in changes if change.kind in (ChangeKind.MISSING, ChangeKind.MISMATCH)]
    opening = f"{address} has what applying can't mend, so that nothing was done:"
    if (error := refusal_of(bad, opening)) is not None:
        raise error


def no_repartition(address: str) -> MissingCapability:
    """The refusal of engines whose topics keep their partitions for life."""
    return MissingCapability(
        f"{address}: a topic's partitions can't be changed in place here.",
        remedy="Declare a new topic with as many as you need, let its owner publish there, and remove the old one's"
        " subscriptions once they have caught up; or begin anew on a new file.",
    )
