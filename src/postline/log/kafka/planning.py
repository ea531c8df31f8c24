"""What has to change on a cluster for apps to run there, and making it: topics, settings, declarations, rights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from postline.log.kafka.catalog import (
    RepartitionEntry,
    SubscriptionEntry,
    changelog_key,
    subscriptions_in,
    topic_key,
)
from postline.log.kafka.parts import Parts
from postline.log.kafka.rights import Rights, SubscriptionFacts
from postline.log.kafka.topics import STATE_SETTINGS, STATE_SUFFIX, TopicState, state_topic
from postline.log.needs import Change, ChangeKind, Detail, Need, SubscriptionNeed, TopicSpec
from postline.log.planning import FOREIGN_MISSING, IDENTITY_FIXED, identity_of, refuse

__all__ = ["Planner"]

#: Settings that a contract promises; others are for the brokers' good.
_PROMISED = frozenset(
    {"cleanup.policy", "retention.ms", "retention.bytes", "delete.retention.ms", "min.compaction.lag.ms"}
)
_PARTITIONS, _OWNER, _KEY, _COPIES = "partitions", "owner", "key", "replication"
_NO_SETTINGS = frozenset({_PARTITIONS, _OWNER, _KEY, _COPIES})
_INSYNC = "min.insync.replicas"

_ONE_COPY = (
    "there is one copy of it only, so that what was acknowledged is lost with its broker; on a cluster of several"
    " brokers give it three (replication=3 in the URL when it is made)"
)
_ONE_IN_SYNC = (
    f"{_INSYNC} is below 2, so that a record is acknowledged while one broker alone has it; set it to 2, where there"
    " are three copies"
)
_STATE_GONE = (
    "it kept what subscription {name!r} holds, remembers and counts, and is gone. Bring it back from a mirror, or begin"
    " anew: `postline subscriptions remove {name}`, then apply again."
)


class _Wanted(NamedTuple):
    """A topic that shall be there as it is said here."""

    spec: TopicSpec
    #: More than follows from the spec.
    extra: Mapping[str, str] = {}
    #: The existing subscription whose changelog it is, if it is one.
    state_of: str = ""
    #: It is made for a contract, whose partitions are fixed; others only need enough of them.
    contract: bool = False

    @property
    def declared(self) -> bool:
        """Whether the catalog keeps it."""
        return bool(self.spec.owner)


class _Facts(NamedTuple):
    """The cluster at the moment of planning."""

    there: dict[str, TopicState]
    settings: dict[str, dict[str, str]]
    declared: dict[str, TopicSpec]
    subscriptions: dict[str, SubscriptionEntry]
    #: Topics that are being repartitioned.
    moving: dict[str, RepartitionEntry]


class Planner:
    """Plans and applies. Blocking."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._rights = Rights(parts.cluster)

    # -- planning -----------------------------------------------------------------------------

    def plan(self, need: Need) -> list[Change]:
        """Everything that differs, the catalog first. Raises LogRefused where this user may not look."""
        catalog = self._parts.catalog
        entries = catalog.entries()
        declared, subscriptions = catalog.topic_specs(), subscriptions_in(entries)
        looked_at = [spec.name for spec in need.topics] + list(need.foreign)
        there = self._parts.topics.describe(looked_at)
        counts = {name: each.partitions for name, each in there.items()}
        counts |= {spec.name: spec.partitions for spec in need.topics if spec.name not in there}
        counts |= {name: spec.partitions for name, spec in declared.items()}
        wanted = list(self._wanted(need, subscriptions, counts))
        there |= self._parts.topics.describe([each.spec.name for each in wanted if each.spec.name not in there])
        settings = self._parts.topics.settings([each.spec.name for each in wanted if each.spec.name in there])
        facts = _Facts(there, settings, declared, subscriptions, catalog.moving())
        found = [change for each in wanted for change in self._of_own(each, facts)]
        own = {each.spec.name for each in wanted}
        found += [change for spec in need.topics if spec.name not in own for change in _of_other(spec, facts)]
        found += [_missing(name, FOREIGN_MISSING) for name in need.foreign if name not in there]
        found += _stray(need, facts)
        found += self._copies([each.spec.name for each in wanted], facts)
        if need.principal:
            found += self._rights.plan(need, self._subscription_facts(need, subscriptions), catalog.spec.name)
        return found

    def _wanted(
        self, need: Need, subscriptions: Mapping[str, SubscriptionEntry], counts: Mapping[str, int]
    ) -> Iterator[_Wanted]:
        yield _Wanted(self._parts.catalog.spec)
        yield from map(_Wanted, need.shared)
        for spec in need.topics:
            if spec.owner in need.services:
                yield _Wanted(spec, contract=True)
        for each in need.subscriptions:
            entry = _entry_of(each, subscriptions)
            count = len(entry.starts) if entry else counts.get(each.topic, 1)
            for own in each.own:
                yield _Wanted(msgspec.structs.replace(own, partitions=count))
            name = entry.state_topic if entry else each.name + STATE_SUFFIX
            yield _Wanted(state_topic(name, count), STATE_SETTINGS, state_of=entry.name if entry else "")

    def _subscription_facts(
        self, need: Need, subscriptions: Mapping[str, SubscriptionEntry]
    ) -> dict[str, SubscriptionFacts]:
        found = {}
        for each in need.subscriptions:
            entry = _entry_of(each, subscriptions)
            old = entry.name if entry and entry.name != each.name else ""
            found[each.name] = SubscriptionFacts(entry.state_topic if entry else each.name + STATE_SUFFIX, old)
        return found

    def _of_own(self, wanted: _Wanted, facts: _Facts) -> Iterator[Change]:
        spec, there = wanted.spec, facts.there.get(wanted.spec.name)
        if there is None:
            if wanted.state_of:
                yield _mismatch(spec.name, _STATE_GONE.format(name=wanted.state_of))
            else:
                yield Change(kind=ChangeKind.CREATE, name=spec.name, details=self._made_with(wanted), topic=spec)
            return
        known = facts.declared.get(spec.name)
        if wanted.contract and (problem := _contract_problem(spec, known, there, facts)):
            yield _mismatch(spec.name, problem)
            return
        details = _declaration(wanted, known, there) + [
            Detail(name, facts.settings.get(spec.name, {}).get(name, ""), value)
            for name, value in self._intended(wanted).items()
            if facts.settings.get(spec.name, {}).get(name) != value
        ]
        if details:
            binding = any(each.name in _PROMISED | _NO_SETTINGS for each in details)
            yield Change(kind=ChangeKind.ALTER, name=spec.name, details=tuple(details), binding=binding, topic=spec)

    def _made_with(self, wanted: _Wanted) -> tuple[Detail, ...]:
        spec, copies = wanted.spec, self._parts.cluster.options.replication
        said = {_PARTITIONS: str(spec.partitions), _COPIES: str(copies) if copies > 0 else "the cluster's default"}
        if wanted.declared:
            said |= {_OWNER: spec.owner} | ({_KEY: spec.key} if spec.key else {})
        return tuple(Detail(name, "", value) for name, value in (said | self._intended(wanted)).items())

    def _intended(self, wanted: _Wanted) -> dict[str, str]:
        return self._parts.topics.intended(wanted.spec) | dict(wanted.extra)

    def _copies(self, names: Sequence[str], facts: _Facts) -> Iterator[Change]:
        """What may be lost although it was acknowledged."""
        if self._parts.topics.brokers() < 2:
            return  # nothing can be done about it here
        there = [facts.there[name] for name in names if name in facts.there]
        alone = [each.name for each in there if each.replicas == 1]
        early = [
            each.name
            for each in there
            if each.replicas > 1 and int(facts.settings.get(each.name, {}).get(_INSYNC, 2)) < 2
        ]
        for found, said in ((alone, _ONE_COPY), (early, _ONE_IN_SYNC)):
            if found:
                yield Change(kind=ChangeKind.WARNING, name=", ".join(found), said=said, binding=False)

    # -- applying -----------------------------------------------------------------------------

    def apply(self, changes: Sequence[Change]) -> None:
        """Make the changes. Raises UnknownTopic, TopicMismatch with nothing changed."""
        refuse(changes, self._parts.cluster.address)
        for change in changes:
            if change.kind is ChangeKind.CREATE and change.topic is not None:
                self._parts.topics.create(change.topic, _settings_in(change))
        for change in changes:
            if change.kind is ChangeKind.ALTER and change.topic is not None:
                self._alter(change, change.topic)
        topics = [change.topic for change in changes if change.topic is not None]
        written = {topic_key(spec.name): msgspec.json.encode(spec) for spec in topics if spec.owner}
        catalog = self._parts.catalog.spec.name
        written |= {changelog_key(spec.name): b"{}" for spec in topics if not spec.owner and spec.name != catalog}
        if written:
            self._parts.catalog.update(
                lambda entries: {key: value for key, value in written.items() if entries.get(key) != value}
            )
        self._rights.apply([change for change in changes if change.kind is ChangeKind.ACL])

    def _alter(self, change: Change, spec: TopicSpec) -> None:
        if any(each.name == _PARTITIONS for each in change.details):
            self._parts.topics.increase(spec.name, spec.partitions)
        if settings := _settings_in(change):
            self._parts.topics.change(spec.name, settings)


def _settings_in(change: Change) -> dict[str, str]:
    return {each.name: each.after for each in change.details if each.name not in _NO_SETTINGS}


def _entry_of(need: SubscriptionNeed, subscriptions: Mapping[str, SubscriptionEntry]) -> SubscriptionEntry | None:
    """The subscription as it is, under its name or the one that it is to be renamed from."""
    return next((subscriptions[name] for name in (need.name, *need.aliases) if name in subscriptions), None)


def _contract_problem(spec: TopicSpec, known: TopicSpec | None, there: TopicState, facts: _Facts) -> str:
    """Why an owner's topic that exists can't be what its contract says; "" if it can."""
    if spec.name in facts.moving:
        count = facts.moving[spec.name].partitions
        return (
            f"giving it {count} partitions was begun and has not ended;"
            f" `postline topics repartition {spec.name} {count}` goes on with it."
        )
    count = known.partitions if known else there.partitions
    seen = known or msgspec.structs.replace(spec, partitions=count)
    if differences := identity_of(spec, seen, owned=True):
        said = f"differs from its contract: {'; '.join(differences)}. "
        if spec.partitions > count and len(differences) == 1:
            return said + (
                f"Restore the contract, or run `postline topics repartition {spec.name} {spec.partitions}` while"
                " nothing publishes to it or reads it."
            )
        return said + IDENTITY_FIXED
    if there.partitions < count:
        return (
            f"it has {there.partitions} partitions of the {count} that were declared, so it was deleted and made again"
            " by other means. Add the others with Kafka's own tools if what is lost may be lost."
        )
    return ""


def _declaration(wanted: _Wanted, known: TopicSpec | None, there: TopicState) -> list[Detail]:
    """Partitions that lack, and what the catalog does not know yet."""
    spec, found = wanted.spec, []
    if there.partitions < spec.partitions:
        found.append(Detail(_PARTITIONS, str(there.partitions), str(spec.partitions)))
    if wanted.declared and known is None:
        found.append(Detail(_OWNER, "", spec.owner))
        found += [Detail(_KEY, "", spec.key)] if spec.key else []
    return found


def _of_other(spec: TopicSpec, facts: _Facts) -> Iterator[Change]:
    """What is wrong with a topic that another service owns."""
    known = facts.declared.get(spec.name)
    if spec.name not in facts.there:
        yield _missing(spec.name, f"it is missing; its owner, {spec.owner!r}, has to be named, too, to make it")
    elif known is None:
        yield _missing(spec.name, f"its owner, {spec.owner!r}, has not declared it yet, and has to be named, too")
    elif differences := identity_of(spec, known, owned=False):
        yield _mismatch(spec.name, f"differs from its contract: {'; '.join(differences)}. {IDENTITY_FIXED}")
    elif spec.name in facts.moving:
        yield _mismatch(spec.name, "it is being given more partitions; wait until that has ended.")


def _stray(need: Need, facts: _Facts) -> Iterator[Change]:
    """Topics with partitions that nobody here places records in, or reads."""
    read = {each.topic: entry for each in need.subscriptions if (entry := _entry_of(each, facts.subscriptions))}
    for name in (*(spec.name for spec in need.topics), *need.foreign):
        known, there = facts.declared.get(name), facts.there.get(name)
        count = known.partitions if known else len(read[name].starts) if name in read else None
        if there is None or count is None or there.partitions <= count or name in facts.moving:
            continue
        said = (
            f"it has {there.partitions} partitions, {count} of them known here: others added some. What others place in"
            f" those waits until `postline topics repartition {name} {there.partitions}`, while nothing publishes to it"
            " or reads it"
        )
        yield Change(kind=ChangeKind.WARNING, name=name, said=said, binding=False)


def _missing(name: str, said: str = "") -> Change:
    return Change(kind=ChangeKind.MISSING, name=name, said=said)


def _mismatch(name: str, said: str) -> Change:
    return Change(kind=ChangeKind.MISMATCH, name=name, said=said)
