"""Contracts: topics, their message types and keys, and how messages become bytes and back."""

from postline.contracts.catalog import Catalog
from postline.contracts.kinds import Kind
from postline.contracts.partitioner import Partitioner, murmur2
from postline.contracts.topics import ForeignTopic, MessageContract, Topic

__all__ = ["Catalog", "ForeignTopic", "Kind", "MessageContract", "Partitioner", "Topic", "murmur2"]
