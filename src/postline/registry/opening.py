"""The registry that settings name: in the log itself, or another one over HTTP."""

from __future__ import annotations

from collections.abc import Callable

from postline.clock import Clock
from postline.log.port import Log
from postline.registry.model import Registry
from postline.registry.store import SCHEMAS_TOPIC, LogRegistry
from postline.settings import Settings

__all__ = ["open_registry"]


def open_registry(settings: Settings, log: Log, clock: Clock, new_id: Callable[[], str]) -> Registry:
    """The registry; its owner closes it. Raises SettingsError where what it needs is not installed."""
    if not settings.registry:
        return LogRegistry(log, settings.full_name(SCHEMAS_TOPIC), new_id)
    from postline.registry.remote import RemoteRegistry

    return RemoteRegistry(settings.registry, clock)
