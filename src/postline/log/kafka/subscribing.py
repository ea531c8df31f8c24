"""Subscriptions in the catalog: finding, making, renaming and removing them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from postline.errors import SubscriptionConflict, TopicMismatch, UnknownSubscription
from postline.log.kafka.catalog import Changes, Entries, SubscriptionEntry, subscriptions_in, written
from postline.log.kafka.groups import live_members
from postline.log.kafka.parts import Parts
from postline.log.kafka.topics import STATE_SUFFIX
from postline.log.port import GroupSpec, renamed, still_served

__all__ = ["check_topic", "ensure_subscription", "find_subscription", "remove_subscription"]


def find_subscription(parts: Parts, name: str) -> SubscriptionEntry:
    """The subscription of that name. Raises UnknownSubscription."""
    found = parts.catalog.subscriptions().get(name)
    if found is None:
        raise UnknownSubscription(
            f"The log {parts.cluster.address} has no subscription {name!r}.",
            remedy="`postline subscriptions` lists them.",
        )
    return found


def ensure_subscription(parts: Parts, spec: GroupSpec) -> SubscriptionEntry:
    """Find, rename or create the subscription. Raises UnknownTopic, TopicMismatch, SubscriptionConflict."""
    there = parts.catalog.subscriptions()
    found = there.get(spec.subscription)
    if found is None:
        partitions = parts.catalog.partitions(spec.topic)
        if not any(alias in there for alias in spec.aliases):
            _check_not_renamed(spec, there)
            _ensure_state_topic(parts, spec.subscription + STATE_SUFFIX, partitions)
        entries = parts.catalog.update(lambda entries: _changes(parts, spec, entries))
        found = subscriptions_in(entries)[spec.subscription]
    _check_same(spec, found)
    if found.service != spec.service:  # it takes over
        entries = parts.catalog.update(lambda entries: _changes(parts, spec, entries))
        found = subscriptions_in(entries)[spec.subscription]
    _ensure_state_topic(parts, found.state_topic, len(found.starts))
    return _with_topic_id(parts, found)


def check_topic(entry: SubscriptionEntry, topic_id: str, address: str) -> None:
    """Raise TopicMismatch if the topic is another one than the subscription's positions are of."""
    if entry.topic_id and topic_id and topic_id != entry.topic_id:
        raise TopicMismatch(
            f"Topic {entry.topic!r} of {address} was deleted and made again since subscription {entry.name!r} began to "
            "read it: its positions and what it holds are of records that are gone.",
            remedy=f"`postline subscriptions remove {entry.name}` forgets them; it begins anew when it next starts.",
        )


def _with_topic_id(parts: Parts, found: SubscriptionEntry) -> SubscriptionEntry:
    topic_id = parts.topics.id_of(found.topic)
    check_topic(found, topic_id, parts.cluster.address)
    if not found.topic_id and topic_id:  # made by a version that did not note it
        noted = msgspec.structs.replace(found, topic_id=topic_id)
        parts.catalog.update(lambda entries: {found.key: written(noted)} if found.key in entries else {})
        return noted
    return found


def _changes(parts: Parts, spec: GroupSpec, entries: Entries) -> Changes:
    there = subscriptions_in(entries)
    if (found := there.get(spec.subscription)) is not None:
        _check_same(spec, found)
        if found.service == spec.service:
            return {}
        made = msgspec.structs.replace(found, service=spec.service)
        return {made.key: written(made)}
    old = next((there[alias] for alias in spec.aliases if alias in there), None)
    if old is not None:
        _check_same(spec, old)
        return _renaming(parts, spec, old)
    _check_not_renamed(spec, there)
    made = SubscriptionEntry(
        name=spec.subscription,
        topic=spec.topic,
        service=spec.service,
        created_ms=parts.cluster.clock.now_ms(),
        state_topic=spec.subscription + STATE_SUFFIX,
        starts=_starts(parts, spec),
        topic_id=parts.topics.id_of(spec.topic),
    )
    return {made.key: written(made)}


def _renaming(parts: Parts, spec: GroupSpec, old: SubscriptionEntry) -> Changes:
    if parts.groups.members(old.name):
        raise still_served(old.name, spec.subscription)
    parts.groups.copy(old.name, spec.subscription, old.topic, len(old.starts))
    former = [name for name in old.former if name != spec.subscription] + [old.name]
    made = msgspec.structs.replace(old, name=spec.subscription, former=former)
    return {old.key: None, made.key: written(made)}


def _starts(parts: Parts, spec: GroupSpec) -> list[int]:
    bounds = parts.topics.bounds(spec.topic)[: parts.catalog.partitions(spec.topic)]
    if spec.start.kind == "earliest":
        return [each.start for each in bounds]
    if spec.start.kind == "latest":
        return [each.end for each in bounds]
    return [parts.topics.offset_at(spec.topic, number, spec.start.time_ms) for number in range(len(bounds))]


def _check_not_renamed(spec: GroupSpec, there: Mapping[str, SubscriptionEntry]) -> None:
    """A process of an older version must not begin again from the start under the name it knows."""
    for name in (spec.subscription, *spec.aliases):
        for entry in there.values():
            if name in entry.former:
                raise renamed(name, entry.name)


def _check_same(spec: GroupSpec, found: SubscriptionEntry) -> None:
    if found.topic == spec.topic and found.service in (spec.service, spec.takes_over or spec.service):
        return
    raise SubscriptionConflict(
        f"Subscription {found.name!r} belongs to service {found.service!r} on topic {found.topic!r},"
        f" not to {spec.service!r} on {spec.topic!r}.",
        remedy="Give the subscription another name, or remove the old one (`postline subscriptions remove`).",
    )


def _ensure_state_topic(parts: Parts, name: str, partitions: int) -> None:
    if parts.topics.known(name) is None and parts.topics.look(name) is None:
        if not parts.cluster.options.create_topics:
            raise parts.topics.unknown(name)
        parts.topics.create_state(name, partitions)


def remove_subscription(parts: Parts, name: str) -> None:
    """Forget positions and state, for good. Raises UnknownSubscription; UsageError while members live."""
    entry = find_subscription(parts, name)
    if parts.groups.members(name):
        raise live_members(name)
    parts.groups.delete(name)
    parts.topics.delete(entry.state_topic)
    gone = [key for key in parts.catalog.entries() if key == entry.key or key.startswith(f"member/{name}/")]
    parts.catalog.update(lambda entries: {key: None for key in gone if key in entries})
