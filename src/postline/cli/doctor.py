"""`postline doctor`: what is wrong with the log's file, or soon will be, and what to do about it."""

from __future__ import annotations

import asyncio

import click

from postline.app.care import Examination, examine, file_of
from postline.cli.failures import NEGATIVE, OK
from postline.cli.opening import require_existing, settings_for, url_option
from postline.cli.output import console, emit_json, json_option, number, table, wants_json
from postline.clock import SystemClock

__all__ = ["command"]

_EPILOG = """\b
Examples:
  postline doctor
  postline doctor --quick --json | jq -r '.findings[] | .said, .remedy'

\b
Services may run; nothing is changed. Without --quick the whole file is read, and the WAL grows meanwhile by what
services write. Exit codes: 0 all is well; 1 there are findings; 3 there is no such log, or it is no file.
"""


@click.command(epilog=_EPILOG)
@click.option("--quick", is_flag=True, help="Leave out what reads the whole file: integrity, tables, state.")
@json_option
@url_option
def command(quick: bool, as_json: bool | None, url: str | None) -> int:
    """Examine the log's file: damage, sizes, disk, file system, readers, members, settings."""
    log_url = settings_for(url).url
    file_of(log_url, "doctor")
    require_existing(log_url)
    found = asyncio.run(examine(log_url, SystemClock(), quick=quick))
    if wants_json(as_json):
        emit_json(found)
    else:
        _draw(found)
    return NEGATIVE if found.findings else OK


def _draw(found: Examination) -> None:
    screen, there = console(), found.sizes
    if found.kind != "unreadable":
        facts = [
            ("file", found.file),
            ("kind", f"{found.kind}, format {found.format}, SQLite {found.sqlite}"),
            ("integrity", found.integrity),
            ("file system", found.file_system or "unknown"),
            ("bytes", number(there.file)),
            ("free in it", number(there.free)),
            ("wal", number(there.wal)),
            ("reserve", number(there.reserve)),
            ("free on disk", number(there.disk_free)),
        ]
        if found.disk is not None:
            facts.append(("fsync", f"{found.disk.median_ms:.2f} ms, at worst {found.disk.worst_ms:.2f}"))
        screen.print(table(("", ""), facts))
        settings = [(each.name, each.value, each.meaning) for each in found.settings]
        screen.print(table(("setting", "value", "meaning"), settings))
    _draw_sizes(found)
    for each in found.findings:
        screen.print(f"{each.check}: {each.said}", markup=False)
        screen.print(f"  fix: {each.remedy}", markup=False)
    if not found.findings:
        screen.print("All is well.")


def _draw_sizes(found: Examination) -> None:
    screen = console()
    if found.topics:
        rows = [
            (each.topic, ("about " if each.estimated else "") + number(each.records), number(each.bytes))
            for each in found.topics
        ]
        screen.print(table(("topic", ">records", ">bytes"), rows))
    if found.tables:
        tables = [(each.name, number(each.bytes), number(each.unused)) for each in found.tables]
        screen.print(table(("table", ">bytes", ">unused"), tables))
    if found.state:
        state = [(each.subscription, each.namespace, number(each.entries), number(each.bytes)) for each in found.state]
        screen.print(table(("subscription", "namespace", ">entries", ">bytes"), state))
    if found.processes:
        processes = [(str(each.process), each.status, ", ".join(each.subscriptions)) for each in found.processes]
        screen.print(table((">process", "", "member of"), processes))
