"""The registry of schemas: built into the log, or another one that speaks the field's REST interface."""

from __future__ import annotations

from postline.registry.bounds import DeclaredBounds
from postline.registry.consumers import BrokenConsumer, Readers, broken_consumers
from postline.registry.enrolling import Standing, enroll, standing_of, subject_of, topic_and_type
from postline.registry.model import Document, IncompatibleSchema, Registry, UnknownSubject, Version, meaning_of
from postline.registry.opening import open_registry
from postline.registry.store import SCHEMAS_TOPIC, LogRegistry, schemas_topic
from postline.registry.unread import (
    ForeignReading,
    Unread,
    Written,
    registered_versions,
    require_readable,
    unread_of,
)
from postline.registry.usage import Usage, View, read_views, view_of, write_views

__all__ = [
    "SCHEMAS_TOPIC",
    "BrokenConsumer",
    "DeclaredBounds",
    "Document",
    "ForeignReading",
    "IncompatibleSchema",
    "LogRegistry",
    "Readers",
    "Registry",
    "Standing",
    "UnknownSubject",
    "Unread",
    "Usage",
    "Version",
    "View",
    "Written",
    "broken_consumers",
    "enroll",
    "meaning_of",
    "open_registry",
    "read_views",
    "registered_versions",
    "require_readable",
    "schemas_topic",
    "standing_of",
    "subject_of",
    "topic_and_type",
    "unread_of",
    "view_of",
    "write_views",
]
