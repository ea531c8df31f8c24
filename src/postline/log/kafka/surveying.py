"""`Surveys`: topics with their ends, subscriptions with members and positions, asked of all brokers side by side."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

from confluent_kafka import TopicPartition

from postline.log.kafka.bounding import ManyBounds, Starts
from postline.log.kafka.catalog import (
    Entries,
    MemberEntry,
    SubscriptionEntry,
    changelogs_in,
    members_in,
    subscriptions_in,
    topic_specs_in,
)
from postline.log.kafka.groups import Committed
from postline.log.kafka.parts import Parts
from postline.log.kafka.views import Views, member_infos
from postline.log.port import Group, SubscriptionInfo, Survey, TopicSpec

__all__ = ["Surveys", "shown_topics"]

#: How old it may be which topics there are, and how many partitions they have, where the catalog has not changed.
_TOPICS_SECONDS = 5.0
#: From when on a topic's settings are asked for again, of some at each survey: those of a thousand take 0.2 s.
_SETTINGS_SECONDS, _SETTINGS_AT_ONCE = 60.0, 25
#: Older ones are not told.
_SETTINGS_SECONDS_MAX = 300.0


class _Told(NamedTuple):
    """A topic as the cluster told it, for what was declared of it then."""

    spec: TopicSpec
    wanted: TopicSpec
    at: float


class _Asked(NamedTuple):
    """Subscriptions, and what coordinators have told of them."""

    entries: dict[str, SubscriptionEntry]
    committed: dict[str, list[Committed]]
    #: Answers that are under way still, of those that may have members.
    members: dict[str, Any]


class _Topics(NamedTuple):
    """Topics, and where their partitions start."""

    specs: list[TopicSpec]
    starts: Starts


class Surveys:
    """Makes surveys; remembers of topics what hardly ever changes."""

    def __init__(self, parts: Parts, views: Views) -> None:
        self._parts, self._views = parts, views
        self._bounds = ManyBounds(parts.cluster, parts.topics)
        #: Held while topics are looked at.
        self._lock = threading.Lock()
        self._there: dict[str, int] = {}
        self._there_at = float("-inf")
        #: Of these those that are shown, as the catalog's entries declare them.
        self._wanted: dict[str, TopicSpec] = {}
        self._declared: Entries | None = None
        self._told: dict[str, _Told] = {}

    def close(self) -> None:
        """Let go of the client that asks for offsets."""
        self._bounds.close()

    async def survey(self, names: Collection[str] | None) -> Survey:
        """All of it, or these subscriptions with their topics. Raises LogUnavailable, UnknownTopic.

        What other programs than Postline change may be told late: which topics there are, and of how many partitions,
        after 5 s, their settings after a minute or two, five at most.
        """
        run = self._parts.cluster.run
        entries = await run(self._parts.catalog.entries)
        there = subscriptions_in(entries)
        chosen = {name: there[name] for name in sorted(there) if names is None or name in names}
        read = None if names is None else {each.topic for each in chosen.values()}
        asked, topics = await asyncio.gather(run(self._ask_groups, chosen), run(self._ask_topics, entries, read))
        return await run(self._completed, entries, asked, topics)

    def _completed(self, entries: Entries, asked: _Asked, topics: _Topics) -> Survey:
        """Ends are asked for after positions, so that none is past its end, and while members are still told."""
        bounds = self._bounds.of([spec.name for spec in topics.specs], topics.starts)
        if not {each.topic for each in asked.entries.values()} <= self._there.keys():
            self._there_at = float("-inf")  # gone; or the broker that told has not heard of it yet
        return Survey(topics=topics.specs, bounds=bounds, groups=self._groups(asked, members_in(entries)))

    # -- topics -------------------------------------------------------------------------------

    def _ask_topics(self, entries: Entries, chosen: set[str] | None) -> _Topics:
        """All topics, or these, and where they start."""
        specs = self._topics(entries)
        if chosen is not None:
            specs = [spec for spec in specs if spec.name in chosen]
        return _Topics(specs, self._bounds.starts([spec.name for spec in specs]))

    def _topics(self, entries: Entries) -> list[TopicSpec]:
        """All topics, by name."""
        with self._lock:
            now = self._parts.cluster.clock.monotonic()
            if entries != self._declared or now - self._there_at > _TOPICS_SECONDS:
                self._there, self._there_at = self._parts.topics.all(), now
                self._wanted = shown_topics(entries, self._there, self._parts.catalog.spec.name)
                self._declared = entries
            self._learn(self._wanted, now)
            return [self._told[name].spec for name in sorted(self._told)]

    def _learn(self, wanted: Mapping[str, TopicSpec], now: float) -> None:
        """Ask for the settings that are not known, or not any more."""
        self._told = {name: told for name, told in self._told.items() if told.wanted == wanted.get(name)}
        ages = sorted((told.at, name) for name, told in self._told.items() if now - told.at > _SETTINGS_SECONDS)
        old = {name for at, name in ages if now - at > _SETTINGS_SECONDS_MAX}
        due = old | {name for _, name in islice(ages, _SETTINGS_AT_ONCE)} | (wanted.keys() - self._told.keys())
        for spec in self._parts.topics.specs(wanted[name] for name in due):
            self._told[spec.name] = _Told(spec, wanted[spec.name], now)
            due.discard(spec.name)
        for name in due:  # gone since
            self._told.pop(name, None)

    # -- subscriptions ------------------------------------------------------------------------

    def _ask_groups(self, chosen: dict[str, SubscriptionEntry]) -> _Asked:
        """Members are told while offsets are looked at."""
        members = self._parts.groups.ask_for_members(chosen)
        places = {
            name: [TopicPartition(entry.topic, number) for number in range(len(entry.starts))]
            for name, entry in chosen.items()
        }
        return _Asked(chosen, self._parts.groups.committed_of(places), members)

    def _groups(self, asked: _Asked, said: Iterable[MemberEntry]) -> list[Group]:
        """The subscriptions, by name. Raises UnknownTopic for one whose state is gone."""
        for entry in asked.entries.values():
            if entry.state_topic not in self._there:
                self._views.known(entry)  # raises, unless it was made since
        by_client = {(each.subscription, each.client): each for each in said}
        return [self._group(entry, asked, by_client) for entry in asked.entries.values()]

    def _group(self, entry: SubscriptionEntry, asked: _Asked, said: Mapping[tuple[str, str], MemberEntry]) -> Group:
        """A subscription by what was told of it; what was not is asked for by itself. Raises LogUnavailable."""
        answer = asked.members.get(entry.name)
        live = [] if answer is None else self._parts.groups.members_told(answer)
        if live is None:
            live = self._parts.groups.members(entry.name)
        owners = {number: each.member for each in live for number in each.partitions}
        told = {each.client: said.get((entry.name, each.client)) for each in live}
        stored = asked.committed.get(entry.name) or self._views.committed(entry)
        return Group(
            info=SubscriptionInfo(
                name=entry.name, topic=entry.topic, service=entry.service, created_ms=entry.created_ms
            ),
            members=member_infos(live, told),
            partitions=[self._views.info(entry, each, owners.get(each.partition, "")) for each in stored],
        )


def shown_topics(entries: Entries, there: Mapping[str, int], catalog: str) -> dict[str, TopicSpec]:
    """Of these topics with so many partitions those that are not the engine's own, as they were declared."""
    own = {catalog, *changelogs_in(entries)} | {each.state_topic for each in subscriptions_in(entries).values()}
    declared = topic_specs_in(entries)
    return {
        name: declared.get(name) or TopicSpec(name=name, partitions=count, owner="")
        for name, count in there.items()
        if name not in own
    }
