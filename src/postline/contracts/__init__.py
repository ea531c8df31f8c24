"""Contracts: topics, their message types and keys, and how messages become bytes and back."""

from __future__ import annotations

from postline.contracts.bounds import Bound
from postline.contracts.catalog import Catalog
from postline.contracts.kinds import Kind
from postline.contracts.marks import Sensitive, number, was
from postline.contracts.partitioner import Partitioner, murmur2
from postline.contracts.priorities import NORMAL, Priorities, Priority
from postline.contracts.reading import Reading
from postline.contracts.rules import Rule, disjoint, field
from postline.contracts.topics import PLACED_BY, Compaction, ForeignTopic, MessageContract, Retention, Schemas, Topic

__all__ = [
    "NORMAL",
    "PLACED_BY",
    "Bound",
    "Catalog",
    "Compaction",
    "ForeignTopic",
    "Kind",
    "MessageContract",
    "Partitioner",
    "Priorities",
    "Priority",
    "Reading",
    "Retention",
    "Rule",
    "Schemas",
    "Sensitive",
    "Topic",
    "disjoint",
    "field",
    "murmur2",
    "number",
    "was",
]
