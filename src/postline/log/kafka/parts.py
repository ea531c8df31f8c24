"""What a log on Kafka is made of, as one value, so that memberships can be handed all of it."""

from __future__ import annotations

from typing import NamedTuple

from postline.log.kafka.catalog import Catalog
from postline.log.kafka.changelog import Changelog
from postline.log.kafka.cluster import Cluster
from postline.log.kafka.groups import Groups
from postline.log.kafka.reading import Readers
from postline.log.kafka.topics import Topics

__all__ = ["GroupNames", "Parts", "parts_of"]


class GroupNames(NamedTuple):
    """A subscription's group, the topic it reads, and the changelog of its state."""

    group: str
    topic: str
    state_topic: str


class Parts(NamedTuple):
    """Everything that asks the cluster something."""

    cluster: Cluster
    topics: Topics
    readers: Readers
    groups: Groups
    catalog: Catalog
    changelog: Changelog


def parts_of(cluster: Cluster) -> Parts:
    """The parts on this cluster."""
    topics = Topics(cluster)
    readers = Readers(cluster, topics)
    changelog = Changelog(topics, readers, cluster.clock.now_ms)
    return Parts(cluster, topics, readers, Groups(cluster), Catalog(cluster, topics, readers), changelog)
