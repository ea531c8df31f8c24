"""`postline vacuum`: the file's free pages go back to the disk while services go on."""

from __future__ import annotations

import asyncio

import click

from postline.app.care import file_of, vacuum
from postline.cli.failures import OK
from postline.cli.opening import require_existing, settings_for, url_option
from postline.cli.output import emit_json, json_option, number, wants_json
from postline.cli.progress import progress_of
from postline.clock import SystemClock

__all__ = ["command"]

_EPILOG = """\b
Examples:
  postline vacuum
  postline vacuum --url sqlite:////srv/shop/shop.db --json

\b
Each step moves at most a hundred pages (0.4 MB) in a commit of its own, and leaves as much time to the
services as it took. End it whenever you like, and start it again: what was given back is given back.
"""


@click.command(epilog=_EPILOG)
@json_option
@url_option
def command(as_json: bool | None, url: str | None) -> int:
    """Give the free pages of the log's file back to the disk, in short steps.

    Running services do so by themselves when there are more than a few megabytes; this takes the rest, and
    shows how far it has come.
    """
    log_url = settings_for(url).url
    file_of(log_url, "vacuum")
    require_existing(log_url)
    with progress_of("given back") as progress:
        done = asyncio.run(vacuum(log_url, SystemClock(), progress))
    if wants_json(as_json):
        emit_json(done)
    else:
        click.echo(
            f"{number(done.pages_given_back)} pages given back, {number(done.pages_free)} are free:"
            f" {number(done.bytes_before)} bytes are {number(done.bytes_after)} now;"
            f" the longest step took {done.longest_step_seconds * 1000:.1f} ms."
        )
    return OK
