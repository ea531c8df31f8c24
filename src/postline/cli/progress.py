"""How far a long command has come: a line on the terminal, rewritten in place; nothing where nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

__all__ = ["progress_of"]


@contextmanager
def progress_of(what: str) -> Iterator[Callable[[int, int], None]]:
    """Gives what to call with how much is done, and of how much."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    shown = -1

    def report(done: int, total: int) -> None:
        nonlocal shown
        percent = 100 * done // total if total else 100
        if percent != shown:
            shown = percent
            click.echo(f"\r{what}: {percent} %", nl=False, err=True)

    try:
        yield report
    finally:
        if shown >= 0:
            click.echo("", err=True)
