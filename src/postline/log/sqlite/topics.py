"""Topics as rows: making and changing them inside the writer's transaction."""

from __future__ import annotations

import apsw

from postline.errors import TopicMismatch, UnknownTopic
from postline.log.needs import TopicSpec
from postline.log.sqlite.connection import fetch
from postline.log.sqlite.reading import topic_spec
from postline.log.sqlite.statements import statements

__all__ = ["alter_topic", "create_topic"]


def create_topic(connection: apsw.Connection, spec: TopicSpec) -> TopicSpec:
    """Create the topic unless it exists; gives back what the file has."""
    sql = statements("queries")
    rows = fetch(connection, sql["topic"], (spec.name,))
    if rows:
        return topic_spec(rows[0])
    values = (spec.name, spec.partitions, spec.owner, spec.key, *_times(spec))
    topic_id, first = fetch(connection, sql["create_topic"], values)[0]
    for partition in range(spec.partitions):
        connection.execute(sql["create_partition"], (first + partition, topic_id, partition))
    return spec


def alter_topic(connection: apsw.Connection, spec: TopicSpec) -> None:
    """Change retention, compaction and times. Raises UnknownTopic; TopicMismatch for other partitions or key."""
    sql = statements("queries")
    rows = fetch(connection, sql["topic"], (spec.name,))
    if not rows:
        raise UnknownTopic(f"The log has no topic {spec.name!r}.", remedy="Create it first.")
    now = topic_spec(rows[0])
    if (now.partitions, now.key) != (spec.partitions, spec.key):
        raise TopicMismatch(
            f"Topic {spec.name!r} has {now.partitions} partitions by key {now.key!r},"
            f" not {spec.partitions} by {spec.key!r}.",
            remedy="Both are fixed for life: declare what the log has, or make a new topic and copy into it.",
        )
    connection.execute(sql["alter_topic"], (spec.name, spec.owner, *_times(spec)))
    if spec.retention_bytes is None:
        connection.execute(sql["forget_measures"], (spec.name,))


def _times(spec: TopicSpec) -> tuple[int | None, int | None, bool, int, int]:
    return spec.retention_ms, spec.retention_bytes, spec.compacted, spec.tombstone_ms, spec.compact_after_ms
