"""The survey of a file: all topics, subscriptions, members and partitions, as of one moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import apsw

from postline.log.port import Bounds, Group, MemberInfo, PartitionInfo, SubscriptionInfo, Survey
from postline.log.sqlite.connection import fetch, translated
from postline.log.sqlite.groups import decoded_formats
from postline.log.sqlite.statements import statements
from postline.log.sqlite.storage import Storage

__all__ = ["survey"]


def survey(storage: Storage, names: Collection[str] | None) -> Survey:
    """The survey of these subscriptions, or of everything. In one read transaction: positions and ends fit together."""
    reader = storage.reader
    with translated(storage.address), reader.connection:
        groups, topics = _groups(storage, names), reader.topics()
        if names is None:
            bounds = _bounds(reader.connection)
        else:
            read = {group.info.topic for group in groups}
            topics = [spec for spec in topics if spec.name in read]
            bounds = {name: reader.bounds(name) for name in read}
    return Survey(topics=topics, bounds=bounds, groups=groups)


def _bounds(connection: apsw.Connection) -> dict[str, list[Bounds]]:
    found: defaultdict[str, list[Bounds]] = defaultdict(list)
    for name, start, end in fetch(connection, statements("queries")["all_bounds"]):
        found[name].append(Bounds(start, end))
    return dict(found)


def _groups(storage: Storage, names: Collection[str] | None) -> list[Group]:
    connection, sql = storage.reader.connection, statements("queries")
    rows = [row for row in fetch(connection, sql["survey_subscriptions"]) if names is None or row[1] in names]
    if names is None:
        stored = fetch(connection, sql["all_subscription_partitions"])
    else:
        stored = [
            (row[0], *each) for row in rows for each in fetch(connection, sql["subscription_partitions"], (row[0],))
        ]
    members, partitions = _members(storage), _partitions(stored)
    return [
        Group(
            info=SubscriptionInfo(name=name, topic=topic, service=service, created_ms=created_ms),
            members=members.get(number, []),
            partitions=partitions.get(number, []),
        )
        for number, name, topic, service, created_ms in rows
    ]


def _partitions(rows: Sequence[Any]) -> dict[int, list[PartitionInfo]]:
    found: defaultdict[int, list[PartitionInfo]] = defaultdict(list)
    for number, partition, position, progress, epoch, owner in rows:
        found[number].append(
            PartitionInfo(partition=partition, position=position, progress=progress, epoch=epoch, owner=owner)
        )
    return dict(found)


def _members(storage: Storage) -> dict[int, list[MemberInfo]]:
    found: defaultdict[int, list[MemberInfo]] = defaultdict(list)
    is_gone = storage.presence.liveness.is_gone
    rows = fetch(storage.reader.connection, statements("groups")["all_member_infos"])
    for number, member, lease_ms, instance, joined_ms, formats in rows:
        if not is_gone(member, lease_ms / 1000):
            told = MemberInfo(member=member, instance=instance, joined_ms=joined_ms, formats=decoded_formats(formats))
            found[number].append(told)
    return dict(found)
