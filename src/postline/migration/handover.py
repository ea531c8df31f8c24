"""Subscriptions on their way: state, held records, positions; written, read back and compared."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from postline.errors import TopicMismatch
from postline.log.needs import TopicSpec
from postline.log.port import PINNING_NAMESPACES, Log
from postline.log.transfer import Batch, MovedSubscription, StateRow, Transfer
from postline.migration.digests import StateDigest

__all__ = ["SubscriptionReport", "compare_subscriptions", "hand_over"]

_OFFSET_BYTES = 8


class SubscriptionReport(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription that was handed over: as many entries of state on both sides, and a digest for each partition."""

    name: str
    topic: str
    entries: int
    digests: list[str]
    #: Held and dead-lettered records that the topic itself no longer keeps, and that went along.
    spared: int


async def hand_over(
    subscription: MovedSubscription, spec: TopicSpec, source: Transfer, source_log: Log, target: Transfer
) -> SubscriptionReport:
    """Write everything that the source keeps of it, and compare. Raises TopicMismatch for a difference."""
    await target.clear_subscription(subscription)
    digests, entries, spared = list[str](), 0, 0
    bounds = await source.bounds(subscription.topic)
    for number in range(len(subscription.partitions)):
        wanted = StateDigest()
        async for page in source.state(subscription, number):
            wanted.feed(page)
            await target.restore_state(subscription, number, page)
            below = (1 << 64) if spec.compacted else bounds[number].start
            if offsets := _pinned(page, below):
                spared += await _spare(subscription, number, offsets, source, source_log, target)
        await _compare_state(subscription, number, wanted, target)
        digests.append(wanted.digest)
        entries += wanted.entries
    await target.restore_subscription(subscription)
    return SubscriptionReport(
        name=subscription.name, topic=subscription.topic, entries=entries, digests=digests, spared=spared
    )


def _pinned(page: Sequence[StateRow], below: int) -> list[int]:
    """Offsets below that one which held or dead letters name."""
    keys = {key for namespace, key, _ in page if namespace in PINNING_NAMESPACES and len(key) == _OFFSET_BYTES}
    return sorted(offset for key in keys if (offset := int.from_bytes(key)) < below)


async def _spare(
    subscription: MovedSubscription,
    partition: int,
    offsets: Sequence[int],
    source: Transfer,
    source_log: Log,
    target: Transfer,
) -> int:
    records = await source_log.read_offsets(subscription.topic, partition, offsets)
    if records:
        batch = Batch(subscription.topic, partition, offsets[0], offsets[-1] + 1, records, source.form, source.envelope)
        await target.restore_spared(subscription, partition, batch)
    return len(records)


async def _compare_state(
    subscription: MovedSubscription, partition: int, wanted: StateDigest, target: Transfer
) -> None:
    found = StateDigest()
    async for page in target.state(subscription, partition):
        found.feed(page)
    if (found.entries, found.digest) != (wanted.entries, wanted.digest):
        raise _differs(
            subscription.name,
            f"partition {partition} has {found.entries} entries of state there, not the {wanted.entries} from here",
        )


async def compare_subscriptions(moved: Sequence[MovedSubscription], target: Transfer) -> None:
    """Read positions and names back. Raises TopicMismatch for a difference."""
    there = {each.name: each for each in await target.subscriptions()}
    for each in moved:
        found = there.get(each.name)
        if found is None or _settled(found) != _settled(each):
            raise _differs(each.name, "its positions or names are others there")


def _settled(subscription: MovedSubscription) -> MovedSubscription:
    return msgspec.structs.replace(subscription, former=sorted(subscription.former))


def _differs(name: str, how: str) -> TopicMismatch:
    return TopicMismatch(
        f"Subscription {name!r} differs: {how}.",
        remedy="Nothing was handed over; run the same again, and report it if it stays so.",
    )
