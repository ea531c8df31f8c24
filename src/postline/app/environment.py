"""What an app runs on: the engine that its settings name, clock and randomness; the only place that builds engines."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

from postline.clock import Clock, SystemClock
from postline.errors import SettingsError
from postline.ids import IdSource
from postline.log.port import Log
from postline.log.transfer import MovableLog
from postline.settings import Settings, load_settings

__all__ = ["Environment", "open_environment", "open_log"]


@dataclass(frozen=True)
class Environment:
    """What an app runs on; tests and simulations hand in their own."""

    log: Log
    settings: Settings
    clock: Clock = field(default_factory=SystemClock)
    random: random.Random = field(default_factory=random.Random)
    #: Whether topics that are missing may be created for owners who have not started yet.
    creates_missing: bool = True
    #: Whether handlers that don't come back are named: by a look every few seconds, which a virtual clock would run on.
    watches: bool = True


def open_log(settings: Settings, clock: Clock) -> MovableLog:
    """The engine that the settings' URL names, not yet started. Raises SettingsError for options it can't take."""
    url = settings.url
    if url.scheme == "sqlite":
        from postline.log.sqlite.log import SqliteLog
        from postline.log.sqlite.options import read_options

        return SqliteLog(None if url.path is None else str(url.path), clock=clock, settings=read_options(url.options))
    return _open_kafka(settings, clock)


def _open_kafka(settings: Settings, clock: Clock) -> MovableLog:
    url = settings.url
    try:
        from postline.log.kafka.log import KafkaLog
        from postline.log.kafka.options import read_options
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("confluent_kafka"):
            raise
        raise SettingsError(
            f"{url.redacted} needs the Kafka client, which is not installed.", remedy="pip install 'postline[kafka]'"
        ) from error
    ids = IdSource(clock.now_ms, random.Random())
    options = read_options(url.servers, url.options)
    return KafkaLog(options, clock=clock, ids=ids, namespace=settings.namespace, instance=settings.instance)


def open_environment(url: str | None = None, default_url: str | None = None) -> Environment:
    """The environment of the working directory: postline.toml, variables, and the log they name."""
    settings = load_settings(os.environ, Path.cwd(), url=url, default_url=default_url)
    clock = SystemClock()
    return Environment(open_log(settings, clock), settings, clock)
