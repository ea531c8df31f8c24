"""The log that a command works on: found by settings, opened, and closed again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import click

from postline.app import open_log
from postline.cli.failures import alarm
from postline.clock import Clock, SystemClock
from postline.errors import LogMoved, LogUnavailable, UsageError
from postline.ids import IdSource
from postline.log.port import Log
from postline.monitor import Contents, Monitor
from postline.operations import Operations
from postline.registry import SCHEMAS_TOPIC, LogRegistry, Registry, Usage, View, open_registry
from postline.settings import LogUrl, Settings, load_settings

__all__ = ["Opened", "require_existing", "reveal_option", "settings_for", "url_option", "with_log"]

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
ResultT = TypeVar("ResultT")


def reveal_option(command: CommandT) -> CommandT:
    """Let a command be told to mask nothing."""
    option = click.option("--reveal", is_flag=True, help="Show also what contracts mark as sensitive.")
    return option(command)


def _registers_nothing() -> str:
    raise AssertionError("who only looks registers nothing")


def url_option(command: CommandT) -> CommandT:
    """Let a command be told its log with `--url`."""
    option = click.option(
        "--url",
        metavar="URL",
        help="The log, e.g. sqlite:///shop.db. Else POSTLINE_URL, postline.toml, or postline.db here.",
    )
    return option(command)


@dataclass(frozen=True)
class Opened:
    """A log that exists, open, and what commands do with it."""

    log: Log
    settings: Settings
    clock: Clock

    @cached_property
    def monitor(self) -> Monitor:
        """Reads it, with sensitive fields masked."""
        return self.monitor_of(reveal=False)

    def monitor_of(self, *, reveal: bool) -> Monitor:
        """Reads it; with `reveal` nothing is masked."""
        return Monitor(self.log, self.clock, Contents(self.registry, reveal=reveal))

    @cached_property
    def registry(self) -> Registry:
        """Knows the schemas of its records."""
        return open_registry(self.settings, self.log, self.clock, _registers_nothing)

    def registering(self) -> LogRegistry:
        """The registry in the log, for others who register."""
        ids = IdSource(self.clock.now_ms, Random())
        return LogRegistry(self.log, self.settings.full_name(SCHEMAS_TOPIC), ids.next_id)

    @cached_property
    def operations(self) -> Operations:
        """Asks the owners of its subscriptions for something."""
        return Operations(self.log, self.clock, Random(), source="postline.cli")

    async def views(self) -> list[View]:
        """What the subscriptions that are there read."""
        there = {info.name for info in await self.log.subscriptions()}
        known = Usage(self.log, self.settings.full_name(SCHEMAS_TOPIC), _registers_nothing, self.clock.now_ms)
        return [view for view in await known.views() if view.subscription in there]

    async def subscription_name(self, name: str) -> str:
        """The full name that is meant: under the namespace, if there is such a subscription."""
        return self._full(name, (info.name for info in await self.log.subscriptions()))

    async def topic_name(self, name: str) -> str:
        """The full name that is meant: under the namespace, if there is such a topic."""
        return self._full(name, (spec.name for spec in await self.log.topics()))

    def _full(self, name: str, known: Iterable[str]) -> str:
        full = self.settings.full_name(name)
        return full if full in set(known) else name


def settings_for(url: str | None, default_url: str | None = None) -> Settings:
    """What arguments, variables and the working directory's postline.toml say. Raises SettingsError."""
    return load_settings(os.environ, Path.cwd(), url=url, default_url=default_url)


def require_existing(url: LogUrl) -> None:
    """Refuse what only a running service can make: a file that isn't there, or a log in memory.

    Raises UsageError or LogUnavailable.
    """
    if url.in_memory:
        raise UsageError(
            "A log in memory belongs to the process that made it.", remedy="Name a file with --url or POSTLINE_URL."
        )
    if url.path is not None and not Path(url.path).exists():
        raise LogUnavailable(
            f"There is no log at {url.path}.",
            remedy="Name the right one with --url or POSTLINE_URL; `postline run` makes one.",
        )


def with_log(url: str | None, work: Callable[[Opened], Awaitable[ResultT]]) -> ResultT:
    """Run `work` on the log that exists, then close it. Raises what opening it raises."""
    return asyncio.run(_with_log(url, work))


async def _with_log(url: str | None, work: Callable[[Opened], Awaitable[ResultT]]) -> ResultT:
    settings, clock = settings_for(url), SystemClock()
    require_existing(settings.url)
    log = open_log(settings, clock)
    await log.start()
    try:
        await log.require_standing()
    except LogMoved as error:
        alarm(error.message, "note")
    opened = Opened(log, settings, clock)
    try:
        return await work(opened)
    finally:
        await opened.registry.close()
        await log.close()
