"""The rights (ACLs) that apps need on a cluster that grants them one by one, and granting those that lack.

Which these are was found by running an app as a user that has nothing else; tests/integration/test_kafka_topics.py does
so again. READ and WRITE include DESCRIBE, so that it isn't listed beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from postline.errors import UsageError
from postline.log.kafka.cluster import Cluster
from postline.log.kafka.options import Options
from postline.log.kafka.reading import READING_GROUP
from postline.log.needs import Change, ChangeKind, Detail, Need, SubscriptionNeed

__all__ = ["Right", "Rights", "SubscriptionFacts", "rights_for"]

_ANSWER_SECONDS = 30.0
_TOPIC, _GROUP, _TRANSACTIONS, _CLUSTER = "topic", "group", "transactional-id", "cluster"
_CLUSTER_NAME = "kafka-cluster"
_ANYBODY = ("User:*",)
_IMPLIED = {
    "DESCRIBE": ("READ", "WRITE", "DELETE", "ALTER"),
    "DESCRIBE_CONFIGS": ("ALTER_CONFIGS",),
}


class SubscriptionFacts(NamedTuple):
    """What a need doesn't say of a subscription: its changelog, and the name it is to be renamed from, if it is."""

    state_topic: str
    old_name: str = ""


class Right(NamedTuple):
    """Operations on one resource; a name that ends with `*` stands for all that begin so."""

    kind: str
    name: str
    operations: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def rights_for(
    need: Need, facts: Mapping[str, SubscriptionFacts], catalog: str, transactions: str, options: Options
) -> list[Right]:
    """All that the apps need with these options, and nothing more."""
    reads = {each.topic for each in need.subscriptions}
    topics: dict[str, set[str]] = {}
    for name in (*(spec.name for spec in need.topics), *need.foreign):
        # Of a topic that is read, retention decides when what is held has to be copied.
        topics[name] = {"READ", "DESCRIBE_CONFIGS"} if name in reads else set()
        topics[name] |= {"WRITE"} if name in need.publishes else set()
        topics[name] |= {"READ"} if name in need.follows else set()
    contracts = [spec.name for spec in need.topics if spec.owner in need.services]
    own: dict[str, set[str]] = {name: {"READ", "WRITE"} for name in (catalog, *(spec.name for spec in need.shared))}
    own |= {name: topics.pop(name) for name in contracts}
    for each in need.subscriptions:
        own |= {spec.name: {"WRITE"} | ({"READ"} if spec.name in each.followed else set()) for spec in each.own}
        own[facts[each.name].state_topic] = {"READ", "WRITE"}
    for name, operations in own.items():
        operations.add("DESCRIBE_CONFIGS")
        if options.create_topics:
            operations.update({"CREATE", "ALTER_CONFIGS"} if name in contracts else {"CREATE"})
    topics = {name: {"WRITE"} for name in sorted(need.asks - own.keys())} | own | topics
    found = [Right(_TOPIC, name, _sorted(operations)) for name, operations in topics.items()]
    found += _groups(need.subscriptions, facts)
    found.append(Right(_GROUP, READING_GROUP, ("DESCRIBE",)))
    found.append(Right(_TRANSACTIONS, transactions + "*", ("WRITE",)))
    if need.subscriptions and options.group_protocol == "auto":
        # Which group protocols there are; without it the classic one is taken.
        found.append(Right(_CLUSTER, _CLUSTER_NAME, ("DESCRIBE_CONFIGS",)))
    return found


def _sorted(operations: set[str]) -> tuple[str, ...]:
    if not operations & set(_IMPLIED["DESCRIBE"]):
        operations = operations | {"DESCRIBE"}
    return tuple(sorted(operations))


def _groups(subscriptions: Iterable[SubscriptionNeed], facts: Mapping[str, SubscriptionFacts]) -> Iterator[Right]:
    for each in subscriptions:
        yield Right(_GROUP, each.name, ("READ",))
        if facts[each.name].old_name:
            yield Right(_GROUP, facts[each.name].old_name, ("READ",))


class Rights:
    """Looks at what a principal may, and grants. Blocking."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def plan(self, need: Need, facts: Mapping[str, SubscriptionFacts], catalog: str) -> list[Change]:
        """The rights that the principal lacks. Raises UsageError for no principal, LogRefused if it can't be told."""
        principal = need.principal
        if not principal.startswith("User:") or principal == "User:":
            raise UsageError(f"{principal!r} is no principal.", remedy='Write "User:" and a name, such as User:shop.')
        wanted = rights_for(need, facts, catalog, self._cluster.transactions_prefix, self._cluster.options)
        granted = self._granted(principal)
        found = []
        for right in wanted:
            lacking = [each for each in right.operations if not _covered(right, each, granted)]
            if lacking:
                details = tuple(Detail(each, "", principal) for each in lacking)
                found.append(Change(kind=ChangeKind.ACL, name=str(right), details=details, binding=False))
        return found

    def _granted(self, principal: str) -> list[Any]:
        allowed, anything = AclPermissionType.ALLOW, AclOperation.ANY
        filters: Any = (ResourceType.ANY, None, ResourcePatternType.ANY, None, None, anything, allowed)
        try:
            found: list[Any] = self._cluster.admin.describe_acls(AclBindingFilter(*filters)).result(_ANSWER_SECONDS)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.SECURITY_DISABLED:
                raise UsageError(
                    f"{self._cluster.address} grants everybody everything, so that no principal needs rights.",
                    remedy="Leave the principal out.",
                ) from error
            with self._cluster.asking("look at the rights"):
                raise
        return [each for each in found if each.principal in (principal, *_ANYBODY) and each.host == "*"]

    def apply(self, changes: Sequence[Change]) -> None:
        """Grant; what is granted already stays so."""
        bindings = [_binding(change.name, each) for change in changes for each in change.details]
        if not bindings:
            return
        with self._cluster.asking("grant rights"):
            for future in self._cluster.admin.create_acls(bindings).values():
                future.result(_ANSWER_SECONDS)


def _types() -> dict[str, Any]:
    # What Kafka calls the cluster stands where its library has brokers.
    return {
        _TOPIC: ResourceType.TOPIC,
        _GROUP: ResourceType.GROUP,
        _TRANSACTIONS: ResourceType.TRANSACTIONAL_ID,
        _CLUSTER: ResourceType.BROKER,
    }


def _binding(name: str, detail: Detail) -> AclBinding:
    kind, _, resource = name.partition(" ")
    prefixed = resource.endswith("*")
    return AclBinding(
        _types()[kind],
        resource.removesuffix("*"),
        ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL,
        detail.after,
        "*",
        AclOperation[detail.name],
        AclPermissionType.ALLOW,
    )


def _covered(right: Right, operation: str, granted: Iterable[Any]) -> bool:
    """Whether something that is granted includes this operation on this resource."""
    enough = {operation, "ALL", *_IMPLIED.get(operation, ())}
    wanted, prefixed = right.name.removesuffix("*"), right.name.endswith("*")
    for each in granted:
        if each.restype is not _types()[right.kind] or each.operation.name not in enough:
            continue
        if each.resource_pattern_type is ResourcePatternType.PREFIXED:
            if wanted.startswith(each.name):
                return True
        elif each.name == "*" or (each.name == wanted and not prefixed):
            return True
    return False
