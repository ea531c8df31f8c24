"""What commands say after they asked a subscription's owners for something."""

from __future__ import annotations

import sys

import click
import msgspec

from postline.cli.failures import NEGATIVE, OK
from postline.cli.opening import Opened
from postline.cli.output import emit_json
from postline.errors import UsageError
from postline.operations import Request

__all__ = ["Answer", "await_owner", "confirm", "tell", "wait_option"]

wait_option = click.option(
    "--wait",
    "wait_seconds",
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait until the workers have done it; 0 not at all.",
)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a request, as `--json` shows it."""

    subscription: str
    action: str
    #: "done", "told" (of a call: its worker knows, and does not begin it if it has not), "asked" (no worker runs: the
    #: next one does it), "unanswered" (workers run, but did not get to it in time), "missed" (a record that was to be
    #: discarded was being handled) or "nothing" (there was nothing to ask for).
    status: str
    #: Which; [] for more than 1,000.
    records: list[str] = []
    #: How many were asked for.
    asked: int = 0
    #: Of a redrive of many: its name, and how many of them wait or run, and are dead letters again.
    run: str = ""
    held: int = 0
    failed_again: int = 0


async def await_owner(opened: Opened, request: Request, wait_seconds: float) -> str:
    """Wait until the owners obeyed, if there are any; gives the status of an `Answer`."""
    if not request.live or not wait_seconds:
        return "asked"
    if not await opened.operations.obeyed(request, wait_seconds):
        return "unanswered"
    return "missed" if await opened.operations.missed(request) else "done"


def tell(answer: Answer, what: str, json: bool) -> int:
    """Say what became of it: one line for people, the answer for programs. Gives the exit code."""
    said = {
        "done": f"{what}: done.",
        "told": f"{what}: its worker knows. Unless it has begun, its ticket says `cancelled` once its turn has come.",
        "asked": f"{what}: takes effect when a worker runs (none does now).",
        "unanswered": f"{what}: asked for durably, but the workers have not come to it yet.",
        "missed": f"{what}: what `postline subscriptions show` still lists as held is not discarded, since it was "
        "being handled at that moment; ask again once it waits.",
        "nothing": f"{what}: there is nothing to do.",
    }
    if json:
        emit_json(answer)
    else:
        click.echo(said[answer.status])
    return NEGATIVE if answer.status in ("unanswered", "missed", "nothing") else OK


def confirm(question: str, yes: bool) -> None:
    """Ask unless `yes`; a no ends the command, and so does nobody being there to answer (UsageError)."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("This asks for a confirmation, and there is no terminal to answer it.", remedy="Add --yes.")
    if not click.confirm(question, err=True):
        click.echo("Nothing was changed.", err=True)
        raise click.exceptions.Exit(NEGATIVE)
