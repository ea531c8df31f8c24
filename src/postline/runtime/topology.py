"""The topics of one app in the log: made, or checked and refused with everything at once, before anything runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

from postline.contracts import Bound, Catalog, Compaction, Topic
from postline.contracts.commands import CommandTopic
from postline.contracts.priorities import NORMAL, sibling_name
from postline.errors import TopicMismatch, UnknownTopic
from postline.log.needs import Change, ChangeKind, Need, SubscriptionNeed, TopicSpec
from postline.log.planning import IDENTITY_FIXED, identity_of, refusal_of
from postline.log.port import Capability, Log
from postline.logs.events import event
from postline.runtime.announce import own_topics
from postline.runtime.plan import CONTROL_SUFFIX, Plan
from postline.settings import Settings

__all__ = ["Topology", "merged", "warnings_in"]

_log = logging.getLogger("postline")


class Topology:
    """What one app declares of topics, and what the log says of them once it is `prepare`d."""

    def __init__(
        self,
        log: Log,
        service: str,
        catalog: Catalog,
        settings: Settings,
        published: Iterable[Topic],
        shared: Sequence[TopicSpec] = (),
        commands: Sequence[CommandTopic] = (),
    ) -> None:
        self._shared, self._commands = tuple(shared), tuple(commands)
        self._log, self._service, self._catalog, self._settings = log, service, catalog, settings
        self._published = frozenset(settings.full_name(topic.name) for topic in published)
        #: The log's own description of each topic, by the name in the contract.
        self.specs: dict[str, TopicSpec] = {}

    def need(self, plans: Iterable[Plan], principal: str = "") -> Need:
        """Everything that the app needs of the log."""
        subscriptions = [
            SubscriptionNeed(
                name=plan.name,
                topic=plan.topic,
                service=plan.service,
                aliases=plan.aliases,
                own=own_topics(plan, 1),
                followed=frozenset({plan.control}),
            )
            for plan in plans
        ]
        return Need(
            services=frozenset({self._service}),
            topics=tuple(self.wanted(topic) for topic in self._catalog.topics.values()),
            shared=self._shared,
            foreign=tuple(self._settings.full_name(name) for name in self._catalog.foreign),
            subscriptions=tuple(subscriptions),
            publishes=self._published,
            follows=frozenset(self._settings.full_name(name) for each in self._commands for name in _heard(each)),
            asks=frozenset(self._settings.full_name(name) for each in self._commands for name in _cancelling(each)),
            principal=principal,
        )

    async def look(self) -> None:
        """Have the specs as the log has them, else as they are wanted; changes nothing. Raises LogError."""
        there = {spec.name: spec for spec in await self._log.topics()}
        wanted = {name: self.wanted(topic) for name, topic in self._catalog.topics.items()}
        self.specs = {name: there.get(spec.name, spec) for name, spec in wanted.items()}

    def wanted(self, topic: Topic) -> TopicSpec:
        """The topic as its contract, and the environment's sizes over it, want it."""
        # What is said of a topic holds for its other priorities, unless something else is said of them.
        sizes = replace(self._settings.topic(topic.base_name), **self._settings.topic(topic.name).overrides())
        age, compaction = topic.retention.age, topic.compaction or Compaction()
        retention_ms = None if age is None else int(age.total_seconds() * 1000)
        return TopicSpec(
            name=self._settings.full_name(topic.name),
            partitions=sizes.partitions or topic.partitions,
            owner=topic.owner,
            key=topic.key_text,
            retention_ms=sizes.retention_ms or retention_ms,
            retention_bytes=sizes.retention_bytes or topic.retention.bytes_per_partition,
            compacted=topic.compaction is not None,
            tombstone_ms=int(compaction.tombstone_retention.total_seconds() * 1000),
        )

    def bounds(self) -> dict[str, Bound]:
        """The topics' bounds, by their names in the log: as contracts have them, with the environment's sizes."""
        full, found = self._settings.full_name, {}
        for topic in self._catalog.topics.values():
            if topic.bound is not None:
                # Each priority is bounded by itself: by how far the sibling of each subscription lags.
                priority = topic.priority.name if topic.priority else NORMAL
                names = tuple(full(sibling_name(name, priority)) for name in topic.bound.subscriptions)
                sizes = self._settings.topic(topic.base_name).bound_overrides()
                sizes |= self._settings.topic(topic.name).bound_overrides()
                found[full(topic.name)] = replace(topic.bound, subscriptions=names, **sizes)
        return found

    def problems(self) -> list[str]:
        """What the environment says of topics that their contracts have no place for."""
        return [
            f"Topic {topic.name!r}: the environment sizes a bound, and the contract declares none; give it a bound=."
            for topic in self._catalog.topics.values()
            if topic.bound is None and self._settings.topic(topic.name).bound_overrides()
        ]

    def spec_of(self, full_name: str) -> TopicSpec:
        """What the log says of a topic, by its name there."""
        return next(spec for spec in self.specs.values() if spec.name == full_name)

    # -- at start -----------------------------------------------------------------------------

    async def prepare(self, plans: Sequence[Plan], *, creates_missing: bool = True) -> None:
        """Make what is missing where the engine may, else check all. Raises UnknownTopic, TopicMismatch."""
        need = self.need(plans)
        if Capability.CREATES_TOPICS in self._log.capabilities:
            await self._make(creates_missing)
            own = [spec for plan in plans for spec in own_topics(plan, self.spec_of(plan.topic).partitions)]
            await asyncio.gather(*map(self._log.create_topic, (*own, *self._shared)))
            changes = await self._log.plan(need)
        else:
            changes = await self._log.plan(need)
            self._refuse(changes)
            await self._take_specs()
        for warning in warnings_in(changes):
            _log.warning("%s", warning, extra=event("topic.differs"))

    async def prepare_more(self, plans: Sequence[Plan]) -> None:
        """Make, or check, the own topics of subscriptions to topics that are `prepare`d. Raises UnknownTopic."""
        if Capability.CREATES_TOPICS in self._log.capabilities:
            own = [spec for plan in plans for spec in own_topics(plan, self.spec_of(plan.topic).partitions)]
            await asyncio.gather(*map(self._log.create_topic, own))
        else:
            self._refuse(await self._log.plan(self.need(plans)))

    async def make_own(self, plan: Plan) -> None:
        """Make a shadow's own topics where `apply` would have to: no deployment knows it. Raises what that does."""
        if Capability.CREATES_TOPICS not in self._log.capabilities:
            changes = await self._log.plan(self.need([plan]))
            await self._log.apply(
                [each for each in changes if each.kind is ChangeKind.CREATE and each.name.startswith(f"{plan.name}.")]
            )

    def _refuse(self, changes: Sequence[Change]) -> None:
        bad = [change for change in changes if change.open and change.binding]
        opening = f"App {self._service!r} can't start: {self._log.address} is not as it needs it:"
        if (error := refusal_of(bad, opening)) is not None:
            raise error

    async def _take_specs(self) -> None:
        there = {spec.name: spec for spec in await self._log.topics()}
        for name in (*self._catalog.topics, *self._catalog.foreign):
            full = self._settings.full_name(name)
            if full not in there:
                raise self._unknown(full)
            self.specs[name] = there[full]

    async def _make(self, creates_missing: bool) -> None:
        topics = self._catalog.topics.values()
        for topic, there in zip(topics, await self._all_made(topics, creates_missing), strict=True):
            self.specs[topic.name] = there
            await self._compare(topic, self.wanted(topic), there)
        for name in self._catalog.foreign:
            self.specs[name] = await self._existing(self._settings.full_name(name))

    async def _all_made(self, topics: Iterable[Topic], creates_missing: bool) -> list[TopicSpec]:
        """Each topic as the log has it; those that may be made are asked for together."""
        asked = [
            self._log.create_topic(self.wanted(topic))
            if topic.owner == self._service or creates_missing
            else self._existing(self._settings.full_name(topic.name))
            for topic in topics
        ]
        return await asyncio.gather(*asked)

    async def _existing(self, name: str) -> TopicSpec:
        for spec in await self._log.topics():
            if spec.name == name:
                return spec
        raise self._unknown(name)

    def _unknown(self, name: str) -> UnknownTopic:
        return UnknownTopic(
            f"App {self._service!r} needs topic {name!r}, which {self._log.address} does not have.",
            remedy="Start the service that owns it first, or correct the name.",
        )

    async def _compare(self, topic: Topic, wanted: TopicSpec, there: TopicSpec) -> None:
        owned = topic.owner == self._service
        if differences := identity_of(wanted, there, owned=owned):
            raise TopicMismatch(
                f"Topic {wanted.name!r} in {self._log.address} differs from its contract: {'; '.join(differences)}.",
                remedy=IDENTITY_FIXED,
            )
        if owned and there != wanted:
            await self._log.alter_topic(wanted)
            self.specs[topic.name] = wanted


def _heard(topic: CommandTopic) -> list[str]:
    """Where a client hears what became of its commands."""
    return [topic.replies.name, topic.tickets.name]


def _cancelling(topic: CommandTopic) -> list[str]:
    """Where the service that has the whole topic is asked to cancel; the names of shares its contract doesn't tell."""
    return [sibling_name(topic.name, each) + CONTROL_SUFFIX for each in topic.commands.siblings or (NORMAL,)]


def warnings_in(changes: Iterable[Change]) -> list[str]:
    """What there is to know, each thing once, with the names of all topics that it is about."""
    names: dict[str, list[str]] = {}
    for change in changes:
        if change.kind is ChangeKind.WARNING:
            names.setdefault(change.said, []).append(change.name)
    return [f"{', '.join(about)}: {said}" for said, about in names.items()]


def merged(needs: Sequence[Need]) -> Need:
    """What several apps need together; of a topic that several declare, its owner's word counts."""
    services = frozenset[str]().union(*(need.services for need in needs))
    topics: dict[str, TopicSpec] = {}
    for need in needs:
        for spec in need.topics:
            if spec.name not in topics or spec.owner in need.services:
                topics[spec.name] = spec
    return Need(
        services=services,
        topics=tuple(topics.values()),
        shared=tuple(dict.fromkeys(spec for need in needs for spec in need.shared)),
        foreign=tuple(dict.fromkeys(name for need in needs for name in need.foreign if name not in topics)),
        subscriptions=tuple(each for need in needs for each in need.subscriptions),
        publishes=frozenset[str]().union(*(need.publishes for need in needs)),
        follows=frozenset[str]().union(*(need.follows for need in needs)),
        asks=frozenset[str]().union(*(need.asks for need in needs)),
        principal=next((need.principal for need in needs if need.principal), ""),
    )
