"""Contracts: topics, their message types and keys, and how messages become bytes and back."""

from __future__ import annotations

from postline.contracts.catalog import Catalog
from postline.contracts.kinds import Kind
from postline.contracts.partitioner import Partitioner, murmur2
from postline.contracts.topics import PLACED_BY, Compaction, ForeignTopic, MessageContract, Retention, Topic

__all__ = [
    "PLACED_BY",
    "Catalog",
    "Compaction",
    "ForeignTopic",
    "Kind",
    "MessageContract",
    "Partitioner",
    "Retention",
    "Topic",
    "murmur2",
]
