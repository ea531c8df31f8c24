"""A subscription's group as its coordinator keeps it: committed offsets with their stamps, and live members."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import (
    ConsumerGroupState,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import ConfigResource, ResourceType  # type: ignore[attr-defined]

from postline.errors import LogUnavailable, UsageError
from postline.log.kafka.cluster import Cluster
from postline.log.kafka.lookers import Lookers
from postline.log.kafka.stamp import Stamp

__all__ = ["CLIENT_PREFIX", "Committed", "Groups", "LiveMember", "foreign_members", "live_members"]

#: What the client ids of our members begin with.
CLIENT_PREFIX = "postline-"

_ANSWER_SECONDS = 30.0
#: What is asked at the moment when a coordinator comes back may never be answered: it is asked again.
_ONE_ANSWER_SECONDS = 5.0
_NEVER_SECONDS = 3_600.0
_LISTED_SECONDS = 0.1
_SETTLE_SECONDS = 0.05
_SESSION_MS_MAX = 15_000
_PAUSE_SECONDS_MAX = 0.5
#: How long transactions that are just ending are waited for.
_STABLE_SECONDS = 0.5


class Committed(NamedTuple):
    """One partition of a group; no stamp where another program committed it, or nobody did."""

    partition: int
    #: None if nothing is committed.
    position: int | None
    stamp: Stamp | None


class LiveMember(NamedTuple):
    """A member as the coordinator knows it."""

    member: str
    client: str
    host: str
    partitions: tuple[int, ...]


class Groups:
    """Asks coordinators about groups. Blocking; thread-safe."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._described_soon: dict[str, Any] = {}
        self._listed: Any = None
        self._lookers = Lookers(cluster)

    def close(self) -> None:
        """Let go of the clients that look at groups."""
        self._lookers.close()

    def committed(self, group: str, topic: str, partitions: Sequence[int], *, stable: bool) -> list[Committed] | None:
        """What is committed for these partitions; None if `stable` was asked for and a transaction is still open."""
        places = [TopicPartition(topic, number) for number in partitions]
        until = self._cluster.clock.monotonic() + (_STABLE_SECONDS if stable else _ANSWER_SECONDS)
        pause_seconds = _SETTLE_SECONDS
        while (found := self._lookers.look(group, places, stable=stable)) is None:
            self.members(group)  # says at once what a look only waits for: a missing right, say
            if self._cluster.clock.monotonic() > until:
                if stable:
                    return None
                raise LogUnavailable(
                    f"{self._cluster.address} did not tell the positions of group {group} in time.",
                    remedy="Try again; look at the brokers.",
                )
            if self._cluster.stopping.wait(pause_seconds):
                raise self._cluster.closed()
            pause_seconds = min(2 * pause_seconds, _PAUSE_SECONDS_MAX)
        return sorted(_committed(group, place) for place in found)

    def members(self, group: str, seconds: float = _ANSWER_SECONDS) -> list[LiveMember]:
        """The live members, if the coordinator tells them within `seconds`. Raises LogUnavailable else."""
        told = self._cluster.ask(
            f"describe group {group}", lambda: self._described(group, min(seconds, _ONE_ANSWER_SECONDS)), seconds
        )
        return [] if told is None else _live(told)

    def _described(self, group: str, seconds: float) -> Any:
        """What the coordinator says of the group; None if there is no such group.

        The client library can abort the whole process when such a call times out; so it never does, and whoever asks
        again meanwhile waits for the same answer.
        """
        with self._lock:
            answer = self._described_soon.get(group)
            if answer is None or answer.done():
                asked = self._cluster.admin.describe_consumer_groups([group], request_timeout=_NEVER_SECONDS)
                answer = self._described_soon[group] = asked[group]
        try:
            return answer.result(seconds)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return None
            raise
        except TimeoutError:
            with self._lock:
                self._described_soon.pop(group, None)
            raise

    def ask_for_members(self, groups: Iterable[str]) -> dict[str, Any]:
        """Ask coordinators for the members of many groups, but for those known to have none.

        `members_told` takes each answer. What was asked never times out, and is waited for again.
        """
        idle = self._idle()
        with self._lock:
            wanted = [group for group in groups if group not in idle]
            new = [each for each in wanted if (soon := self._described_soon.get(each)) is None or soon.done()]
            if new:
                asked = self._cluster.admin.describe_consumer_groups(new, request_timeout=_NEVER_SECONDS)
                self._described_soon.update(asked)
            return {group: self._described_soon[group] for group in wanted}

    def _idle(self) -> set[str]:
        """Groups without members, as far as brokers tell at once: a question to each, where members take one a group.

        An answer that took long is told to nobody: parts of it are old.
        """
        with self._lock:
            if self._listed is not None and not self._listed.done():
                return set()
            listed = self._listed = self._cluster.admin.list_consumer_groups(request_timeout=_NEVER_SECONDS)
        try:
            told = listed.result(_LISTED_SECONDS)
        except (KafkaException, TimeoutError):
            return set()
        others = {each.group_id for each in told.valid if each.state != ConsumerGroupState.EMPTY}
        return {each.group_id for each in told.valid} - others

    @staticmethod
    def members_told(answer: Any) -> list[LiveMember] | None:
        """The live members; None if the coordinator does not tell them at once."""
        try:
            return _live(answer.result(_ONE_ANSWER_SECONDS))
        except KafkaException as error:
            return [] if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND else None
        except TimeoutError:
            return None

    def committed_of(self, wanted: Mapping[str, Sequence[TopicPartition]]) -> dict[str, list[Committed]]:
        """What is committed for these partitions of many groups; those that don't tell at once are left out."""
        told = self._lookers.look_at_many(wanted)
        return {group: sorted(_committed(group, place) for place in found) for group, found in told.items()}

    def copy(self, old: str, new: str, topic: str, partitions: int) -> None:
        """Give group `new` the offsets of `old`, stamps included."""
        self.place(new, topic, self.stable(old, topic, range(partitions)))

    def stable(self, group: str, topic: str, partitions: Sequence[int]) -> list[Committed]:
        """What is committed for these partitions once nobody's open transaction can change it."""
        while (found := self.committed(group, topic, partitions, stable=True)) is None:
            if self._cluster.stopping.wait(_SETTLE_SECONDS):
                raise self._cluster.closed()
        return found

    def place(self, group: str, topic: str, positions: Sequence[Committed]) -> None:
        """Commit these positions with their stamps, for a group without members; those that lack one are left out."""
        offsets = [
            TopicPartition(topic, each.partition, each.position, each.stamp.encode())
            for each in positions
            if each.position is not None and each.stamp is not None
        ]
        if not offsets:
            return
        consumer = self._cluster.outsider({"group.id": group})
        try:
            with self._cluster.asking(f"commit the positions of group {group}"):
                consumer.commit(offsets=offsets, asynchronous=False)
        finally:
            consumer.close()

    def delete(self, group: str) -> None:
        """Forget the group's offsets. Raises UsageError while members live."""
        self._cluster.ask(f"delete group {group}", lambda: self._delete(group))

    def _delete(self, group: str) -> None:
        try:
            answer = self._cluster.admin.delete_consumer_groups([group], request_timeout=_NEVER_SECONDS)
            answer[group].result(_ANSWER_SECONDS)
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.NON_EMPTY_GROUP:
                raise live_members(group) from error
            if code != KafkaError.GROUP_ID_NOT_FOUND:
                raise

    def protocol(self) -> str:
        """The group protocol to use: the newer one, "consumer", where brokers offer it and notice deaths soon.

        There the brokers' session timeout decides how long a dead member's partitions stand still, 45 s unless set
        otherwise; with "classic" it is ours.
        """
        try:
            told = self._broker_settings()
        except (KafkaException, TimeoutError):
            return "classic"
        offered = told.get("group.coordinator.rebalance.protocols", "").split(",")
        session_ms = int(told.get("group.consumer.session.timeout.ms", str(_SESSION_MS_MAX + 1)))
        return "consumer" if "consumer" in offered and session_ms <= _SESSION_MS_MAX else "classic"

    def _broker_settings(self) -> dict[str, str]:
        brokers = self._cluster.admin.list_topics(timeout=_ANSWER_SECONDS).brokers
        resource = ConfigResource(ResourceType.BROKER, str(min(brokers)))
        told = self._cluster.admin.describe_configs([resource])[resource].result(_ANSWER_SECONDS)
        return {name: entry.value or "" for name, entry in told.items()}


def _live(told: Any) -> list[LiveMember]:
    if told.state in {ConsumerGroupState.DEAD, ConsumerGroupState.EMPTY}:
        return []
    return [
        LiveMember(
            each.member_id,
            each.client_id,
            each.host,
            tuple(sorted(place.partition for place in each.assignment.topic_partitions))
            if each.assignment is not None
            else (),
        )
        for each in told.members
    ]


def _committed(group: str, place: TopicPartition) -> Committed:
    if place.offset < 0:
        return Committed(place.partition, None, None)
    return Committed(
        place.partition,
        place.offset,
        Stamp.decode(place.metadata, f"Subscription {group}, {place.topic} partition {place.partition}"),
    )


def foreign_members(members: Sequence[LiveMember]) -> list[LiveMember]:
    """Those that are none of ours."""
    return [each for each in members if not each.client.startswith(CLIENT_PREFIX)]


def live_members(group: str) -> UsageError:
    """The refusal to remove a subscription that is served; the same words as on a file."""
    return UsageError(f"Subscription {group!r} has live members.", remedy="Stop the service that runs it first.")
