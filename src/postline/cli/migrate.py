"""`postline migrate`: a whole log to another file or engine, and back."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import click

from postline.app import open_log
from postline.cli.failures import OK, alarm
from postline.cli.opening import require_existing, settings_for
from postline.cli.output import console, emit_json, json_option, number, table, wants_json
from postline.clock import Clock, SystemClock
from postline.errors import LogError, UsageError
from postline.ids import IdSource
from postline.log.transfer import MovableLog
from postline.migration import Migration, Progress, Report
from postline.settings import LogUrl

__all__ = ["command"]

_TOLD_SECONDS = 5.0
_DIGITS = 12

_EPILOG = """\b
Examples:
  postline migrate sqlite:///shop.db kafka://broker:9092
  postline migrate sqlite:///shop.db kafka://broker:9092 --cut-over
  postline migrate sqlite:///shop.db kafka://broker:9092 --abandon
"""


@click.command("migrate", epilog=_EPILOG)
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@click.option("--cut-over", is_flag=True, help="Finish: services are stopped, TARGET becomes the log.")
@click.option("--abandon", is_flag=True, help="Take everything back: empty TARGET, go on with SOURCE.")
@click.option("--force", is_flag=True, help="With --abandon, open SOURCE though TARGET has everything, or is gone.")
@json_option
def command(source: str, target: str, cut_over: bool, abandon: bool, force: bool, as_json: bool | None) -> int:
    """Move a whole log, SOURCE, to another one, TARGET.

    Without --cut-over it copies what there is and compares it, while services go on; do so as often as
    you like. With --cut-over, once services are stopped, it copies the rest, hands over subscriptions with
    everything they hold, compares, and closes SOURCE. Interrupted at any point, the same command goes on.
    """
    if cut_over and abandon:
        raise click.UsageError("--cut-over and --abandon contradict each other.")
    if force and not abandon:
        raise click.UsageError("--force belongs to --abandon.")
    report = asyncio.run(_migrate(source, target, cut_over, abandon, force))
    if report is None:
        click.echo(f"taken back: {source} is the log, as before")
    elif wants_json(as_json):
        emit_json(report)
    else:
        _show(report)
    return OK


async def _migrate(source: str, target: str, cut_over: bool, abandon: bool, force: bool) -> Report | None:
    clock = SystemClock()
    require_existing(settings_for(source).url)
    _refuse_memory(settings_for(target).url)
    ids = IdSource(clock.now_ms, Random())
    async with _opened(source, clock) as one, AsyncExitStack() as stack:
        other = open_log(settings_for(target), clock)
        stack.push_async_callback(other.close)
        migration = Migration(one, other, clock, ids.next_id, _Told(clock).hear)
        if abandon:
            await _take_back(migration, other, force)
            return None
        await other.start()
        return await (migration.cut_over() if cut_over else migration.copy())


async def _take_back(migration: Migration, target: MovableLog, force: bool) -> None:
    try:
        await target.start()
        await migration.abandon(force=force)
    except LogError as error:
        # A target that is away, full or damaged must not keep the source closed.
        if not force:
            raise
        alarm(f"{error.message} It stays as it is.")
        await migration.reopen()


def _refuse_memory(url: LogUrl) -> None:
    if url.in_memory:
        raise UsageError("A log in memory belongs to the process that made it.", remedy="Name a file as the target.")


@asynccontextmanager
async def _opened(url: str, clock: Clock) -> AsyncIterator[MovableLog]:
    log = open_log(settings_for(url), clock)
    await log.start()
    try:
        yield log
    finally:
        await log.close()


class _Told:
    """Says now and then on standard error how far it is."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._last = clock, ("", clock.monotonic(), -1)

    def hear(self, progress: Progress) -> None:
        """Take note; says something if it is new, or long ago."""
        doing, at, copied = self._last
        now = self._clock.monotonic()
        if progress.doing == doing and now - at < _TOLD_SECONDS:
            return
        said = f"{progress.doing} {progress.topic}".rstrip()
        if progress.total:
            said += f": {number(progress.copied)} of {number(progress.total)} offsets"
            if copied >= 0 and now > at:
                said += f", {number(int((progress.copied - copied) / (now - at)))} a second"
        click.echo(said, err=True)
        self._last = (progress.doing, now, progress.copied if progress.total else -1)


def _show(report: Report) -> None:
    if report.topics:
        rows = [
            (topic.name, number(topic.records), _digest(topic.digests), number(topic.dropped) if topic.dropped else "-")
            for topic in report.topics
        ]
        console().print(table(("topic", ">records", "digest on both sides", ">compacted since"), rows))
    if report.subscriptions:
        rows = [
            (each.name, number(each.entries), _digest(each.digests), number(each.spared) if each.spared else "-")
            for each in report.subscriptions
        ]
        console().print(table(("subscription", ">state entries", "digest on both sides", ">kept for it"), rows))
    if report.moved:
        click.echo(f"moved: {report.target} is the log now; start services with POSTLINE_URL={report.target}")
    else:
        click.echo(
            f"copied: equal so far; {report.source} still is the log until you stop services and run it with --cut-over"
        )


def _digest(parts: Sequence[str]) -> str:
    return hashlib.blake2b(" ".join(parts).encode()).hexdigest()[:_DIGITS]
