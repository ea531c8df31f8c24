"""The log that a run works on: a file of its own, or names of its own on a Kafka cluster."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from msgspec import structs

from postline.app import open_log
from postline.clock import Clock
from postline.errors import UsageError
from postline.log.port import Log
from postline.monitor import Monitor, SubscriptionView
from postline.operations import Operations
from postline.settings import CONFIG_NAME, LogUrl, Settings, load_settings, parse_url
from postline.testing.namespaces import remove_namespace

__all__ = ["Addresses", "ShopLog", "adopt_target", "remove_from_cluster", "write_settings"]

_OWN_URL = "sqlite:///shop.db"
_NAMESPACE = "demo-"
#: Settings for the log that the run's own goes to half-way.
_TARGET_NAME = "target.toml"
_VARIABLES = ("POSTLINE_URL", "POSTLINE_URL_FILE")
#: Options whose value names a file, which the processes look for from the directory of the run.
_FILE_OPTIONS = (".location", "_file", ".file", ".keytab", "_dir")
#: Unless the URL says otherwise: a process must not end because a broker is away.
_PATIENCE = {"connect_seconds": "60", "publish_seconds": "60"}


class Addresses(NamedTuple):
    """Where a log is moved from, and to."""

    source: LogUrl
    target: LogUrl


def write_settings(
    directory: Path, url: str | None, environ: Mapping[str, str], randomness: random.Random, moved_to: str | None = None
) -> Addresses | None:
    """Write the `postline.toml` that every process of the run works by, readable for this user alone.

    A Kafka cluster that `url` or the variables name gets topics under a new namespace, made as they are needed;
    otherwise there is a file in the directory. With `moved_to` there are settings for that log too, which
    `adopt_target` makes those of the run. Raises SettingsError, and UsageError where `url` names a file.
    """
    path = directory / CONFIG_NAME
    _write(path, {"url": _OWN_URL})
    named = {name: environ[name] for name in _VARIABLES if url is None and name in environ}
    found = load_settings({**named, "POSTLINE_CONFIG": str(path)}, Path.cwd(), url=url).url
    if url is not None and found.scheme != "kafka":
        raise UsageError(
            f"The demo makes a file of its own, not {found.redacted}.",
            remedy="Say where by --keep DIRECTORY, or name a Kafka cluster by --url kafka://host:port.",
        )
    source = _own(found, directory) if found.scheme == "kafka" else parse_url(_OWN_URL, directory)
    target = None if moved_to is None else _target(parse_url(moved_to, directory), directory)
    if source.scheme == "kafka" or target is not None:
        namespace = f"{_NAMESPACE}{randomness.getrandbits(40):010x}"
        _write(path, {"url": source.text, "namespace": namespace})
        if target is not None:
            _write(directory / _TARGET_NAME, {"url": target.text, "namespace": namespace})
    return None if target is None else Addresses(source, target)


def adopt_target(directory: Path) -> None:
    """Make the settings for the log that this run's went to those of the run."""
    (directory / _TARGET_NAME).replace(directory / CONFIG_NAME)


def _write(path: Path, values: Mapping[str, str]) -> None:
    path.touch(mode=0o600)
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()), encoding="utf-8")


def _target(url: LogUrl, directory: Path) -> LogUrl:
    return _own(url, directory) if url.scheme == "kafka" else url


def _own(url: LogUrl, directory: Path) -> LogUrl:
    """The URL with what the demo needs, and with paths that hold in every directory."""
    options = {name: _anywhere(value) if name.endswith(_FILE_OPTIONS) else value for name, value in url.options.items()}
    needed = {"create_topics": "true", "cache_dir": str(directory / "cache")}
    return replace(url, options={**_PATIENCE, **options, **needed})


def _anywhere(value: str) -> str:
    path = Path(value).expanduser()
    return str(path.absolute()) if path.exists() else value


@dataclass(frozen=True)
class ShopLog:
    """The log of a run, what reads it and asks its owners for something, and the names on it."""

    settings: Settings
    log: Log
    monitor: Monitor
    operations: Operations

    @staticmethod
    def of(directory: Path, clock: Clock, randomness: random.Random) -> ShopLog:
        """The log that the directory's settings name, not yet started. Raises SettingsError."""
        settings = load_settings({}, directory)
        log = open_log(settings, clock)
        return ShopLog(settings, log, Monitor(log, clock), Operations(log, clock, randomness))

    async def subscription(self, name: str) -> SubscriptionView:
        """A subscription of the shop, under the name that the shop gave it. Raises UnknownSubscription."""
        return structs.replace(await self.monitor.subscription(self.full(name)), name=name)

    def full(self, name: str) -> str:
        """The name that a topic or a subscription of the shop has on this log."""
        return self.settings.full_name(name)

    def short(self, name: str) -> str:
        """The name that the shop gave to what has this one on the log."""
        return name.removeprefix(self.settings.full_name(""))


def remove_from_cluster(directory: Path) -> None:
    """Remove the run's topics and groups, if it was on a cluster; nothing may work on them any more.

    Blocking. Raises LogUnavailable with a part of them left.
    """
    settings = load_settings({"POSTLINE_CONFIG": str(directory / CONFIG_NAME)}, directory)
    if settings.namespace.startswith(_NAMESPACE):
        remove_namespace(settings)
