"""Groups as rows: subscriptions made and renamed, members added and removed, partitions handed over.

Everything here that changes rows is work for the writer's transaction: it looks first, so that it
may run twice, and decides by the rows alone, so that no member needs another one's consent.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import apsw
import msgspec

from postline.errors import SubscriptionConflict, UsageError
from postline.log.port import GroupSpec, StartAt, renamed, still_served
from postline.log.sqlite.assignment import target
from postline.log.sqlite.connection import fetch
from postline.log.sqlite.reading import Reader
from postline.log.sqlite.statements import statements

__all__ = [
    "Group",
    "Handover",
    "MemberRow",
    "Row",
    "add_member",
    "decoded_formats",
    "depart",
    "encoded_formats",
    "ensure_subscription",
    "read_group",
    "remove_subscription",
    "settle",
]


class Row(NamedTuple):
    """One partition of a subscription; `owner` and `wanted` are "" for nobody."""

    partition: int
    epoch: int
    owner: str
    wanted: str
    position: int
    progress: bytes


class Group(NamedTuple):
    """A subscription's members, with their leases in seconds, and its partitions."""

    members: dict[str, float]
    rows: list[Row]

    def goal(self, salt: str, gone: Collection[str]) -> dict[int, str]:
        """Who should have what, without those that are gone."""
        live = [member for member in self.members if member not in gone]
        # Whoever shall have it next counts, else whoever has it: a hand-over that began goes on.
        now = {row.partition: row.wanted if row.wanted in live else row.owner for row in self.rows}
        return {partition: member or "" for partition, member in target(now, live, salt).items()}


class MemberRow(NamedTuple):
    """What the file keeps of a member."""

    member: str
    subscription_id: int
    instance: str
    joined_ms: int
    lease_ms: int
    #: JSON.
    formats: str


class Handover(NamedTuple):
    """What a member brings to `settle`: what it has seen and what it lets go of."""

    #: Salt of the assignment.
    subscription: str
    #: Members that this one has found dead or hung.
    gone: frozenset[str]
    #: Its own partitions and their epochs, as it knows them.
    held: dict[int, int]
    #: Those of them that it releases now.
    released: dict[int, int]


def read_group(connection: apsw.Connection, subscription_id: int) -> Group:
    """The group as it stands; no rows if the subscription was removed."""
    sql = statements("groups")
    members = {member: lease / 1000 for member, lease in fetch(connection, sql["members"], (subscription_id,))}
    return Group(members, [Row(*row) for row in fetch(connection, sql["assignments"], (subscription_id,))])


def ensure_subscription(
    connection: apsw.Connection, spec: GroupSpec, now_ms: int, address: str, dead: Collection[str] = ()
) -> int:
    """Find, rename or create the subscription; gives its id.

    Raises UnknownTopic, SubscriptionConflict (`dead` members don't keep it from being renamed).
    Start positions of all partitions are those of this one moment.
    """
    sql = statements("groups")
    for name in (spec.subscription, *spec.aliases):
        rows = fetch(connection, sql["subscription"], (name,))
        if not rows:
            continue
        found, _, topic, service = rows[0]
        _check_same(spec, name, topic, service)
        if service != spec.service:
            connection.execute(sql["hand_over"], (int(found), spec.service))
        if name != spec.subscription:
            if read_group(connection, int(found)).members.keys() - dead:
                raise still_served(name, spec.subscription)
            _rename(connection, int(found), name, spec.subscription)
        return int(found)
    _check_not_renamed(connection, spec)
    reader = Reader(connection, address)
    topic_id = reader.topic(spec.topic).id
    starts = _start_offsets(reader, spec.topic, spec.start)
    created = fetch(connection, sql["create_subscription"], (spec.subscription, topic_id, spec.service, now_ms))
    for partition, offset in enumerate(starts):
        connection.execute(sql["create_assignment"], (created[0][0], partition, offset))
    return int(created[0][0])


def add_member(connection: apsw.Connection, row: MemberRow) -> None:
    """Have the member in its group."""
    connection.execute(statements("groups")["add_member"], row)


def settle(connection: apsw.Connection, me: MemberRow, handover: Handover) -> Group:
    """Bring the group to order as far as one member can; gives the group as it is afterwards.

    It removes the dead, shares the partitions out anew, releases what `me` gives up and acquires
    what is meant for it and free. A member that was itself removed is let in again.
    """
    sql, subscription_id = statements("groups"), me.subscription_id
    group = read_group(connection, subscription_id)
    if not group.rows:
        return group
    for member in handover.gone.intersection(group.members):
        connection.execute(sql["remove_member"], (member,))
    if me.member not in group.members:
        add_member(connection, me)
    live = {**group.members, me.member: 0.0}.keys() - handover.gone
    for partition, epoch in handover.released.items():
        connection.execute(sql["release"], (subscription_id, partition, me.member, epoch))
    for row in group.rows:
        if row.owner and row.owner not in live:
            connection.execute(sql["take_away"], (subscription_id, row.partition))
    _share_out(connection, subscription_id, handover.subscription)
    for row in read_group(connection, subscription_id).rows:
        # One's own under an epoch that one doesn't know was acquired by a call that was cancelled.
        stray = row.owner == me.member and handover.held.get(row.partition) != row.epoch
        if row.wanted == me.member and (not row.owner or stray):
            connection.execute(sql["acquire"], (subscription_id, row.partition, me.member))
    return read_group(connection, subscription_id)


def depart(connection: apsw.Connection, member: str, subscription_id: int, salt: str) -> None:
    """Remove the member, free what it owns and share it out anew."""
    sql = statements("groups")
    for row in read_group(connection, subscription_id).rows:
        if row.owner == member:
            connection.execute(sql["release"], (subscription_id, row.partition, member, row.epoch))
    connection.execute(sql["remove_member"], (member,))
    _share_out(connection, subscription_id, salt)


def remove_subscription(connection: apsw.Connection, subscription_id: int, name: str, dead: Collection[str]) -> None:
    """Delete the subscription's rows, but for its state. Raises UsageError if it has members beside the dead."""
    sql = statements("groups")
    if read_group(connection, subscription_id).members.keys() - dead:
        raise UsageError(f"Subscription {name!r} has live members.", remedy="Stop the service that runs it first.")
    for step in ("remove_members", "remove_assignments", "remove_former_names", "remove_subscription"):
        connection.execute(sql[step], (subscription_id,))


def _share_out(connection: apsw.Connection, subscription_id: int, salt: str) -> None:
    group = read_group(connection, subscription_id)
    goal = group.goal(salt, ())
    for row in group.rows:
        if row.wanted != goal[row.partition]:
            connection.execute(statements("groups")["want"], (subscription_id, row.partition, goal[row.partition]))


def _rename(connection: apsw.Connection, subscription_id: int, old: str, new: str) -> None:
    sql = statements("groups")
    connection.execute(sql["rename_subscription"], (subscription_id, new))
    connection.execute(sql["forget_former_name"], (new,))
    connection.execute(sql["remember_former_name"], (old, subscription_id))


def _check_not_renamed(connection: apsw.Connection, spec: GroupSpec) -> None:
    """A process of an older version must not begin again from the start under the name it knows."""
    for name in (spec.subscription, *spec.aliases):
        if rows := fetch(connection, statements("groups")["renamed_to"], (name,)):
            raise renamed(name, rows[0][0])


def _check_same(spec: GroupSpec, name: str, topic: str, service: str) -> None:
    if topic == spec.topic and service in (spec.service, spec.takes_over or spec.service):
        return
    raise SubscriptionConflict(
        f"Subscription {name!r} belongs to service {service!r} on topic {topic!r},"
        f" not to {spec.service!r} on {spec.topic!r}.",
        remedy="Give the subscription another name, or remove the old one (`postline subscriptions remove`).",
    )


def _start_offsets(reader: Reader, topic: str, start: StartAt) -> Sequence[int]:
    bounds = reader.bounds(topic)
    if start.kind == "earliest":
        return [each.start for each in bounds]
    if start.kind == "latest":
        return [each.end for each in bounds]
    return [reader.offset_at(topic, partition, start.time_ms) for partition in range(len(bounds))]


def encoded_formats(formats: dict[str, int]) -> str:
    """A member's format versions as the file keeps them."""
    return msgspec.json.encode(formats).decode()


def decoded_formats(stored: str) -> dict[str, int]:
    """What `encoded_formats` made."""
    return msgspec.json.decode(stored, type=dict[str, int])
