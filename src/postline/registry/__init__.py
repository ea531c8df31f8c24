"""The registry of schemas: built into the log, or another one that speaks the field's REST interface."""

from __future__ import annotations

from postline.registry.enrolling import enroll, subject_of
from postline.registry.model import Document, IncompatibleSchema, Registry, UnknownSubject, Version, meaning_of
from postline.registry.opening import open_registry
from postline.registry.store import SCHEMAS_TOPIC, LogRegistry, schemas_topic
from postline.registry.usage import Usage, View

__all__ = [
    "SCHEMAS_TOPIC",
    "Document",
    "IncompatibleSchema",
    "LogRegistry",
    "Registry",
    "UnknownSubject",
    "Usage",
    "Version",
    "View",
    "enroll",
    "meaning_of",
    "open_registry",
    "schemas_topic",
    "subject_of",
]
