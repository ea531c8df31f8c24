"""`postline demo`: its options, its report as text and as JSON, its exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from postline.errors import LogError

if TYPE_CHECKING:
    from postline.demo.run import Look, Outcome, Wanted

__all__ = ["command"]

_LISTED_DEAD_LETTERS = 20

Draw: TypeAlias = "Callable[[Look], None]"


@click.command("demo", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--orders", type=click.IntRange(1), default=4_000, show_default=True, help="How many orders to make up.")
@click.option(
    "--input",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Read invoice lines from the CSV files of this directory instead.",
)
@click.option("--kills", type=click.IntRange(0), default=5, show_default=True, help="How many processes to kill.")
@click.option("--seed", type=int, default=1, show_default=True, help="Decides orders, mishaps, victims and moments.")
@click.option("--workers", type=click.IntRange(1, 8), default=2, show_default=True, help="Processes of each service.")
@click.option("--json", "as_json", is_flag=True, help="Print figures and checks as JSON.")
@click.option(
    "--url",
    metavar="URL",
    help="Run on this Kafka cluster, kafka://host:port, instead of a file; else on POSTLINE_URL's if that is one.",
)
@click.option(
    "--move-to",
    metavar="URL",
    help="Half-way, move the log to this Kafka cluster, or to a file sqlite:///name.db of the directory.",
)
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Run in this new or empty directory and keep it; `postline audit` and the rest work there.",
)
def command(*, as_json: bool, url: str | None, move_to: str | None, keep: Path | None, **wanted: Any) -> int:
    """Run a small shop of several processes on one log, and prove it right.

    Orders come in, are billed, packed, refunded and summed; handlers fail now and then, one
    message is poison, and processes are killed with SIGKILL while they work. At the end every
    message must be accounted for, every key in order, nothing doubled, and all sums equal to a
    direct computation.

    \b
    Exit codes: 0 proven, 1 a check failed, 2 wrong usage, 3 or 4 the run broke off, 130 interrupted.

    \b
    Examples:
      postline demo
      postline demo --orders 20000 --kills 20 --seed 7
      postline demo --input online_retail_by_day --json
      postline demo --keep shop && cd shop && postline audit
      postline demo --url kafka://localhost:9092
      postline demo --move-to kafka://localhost:9092
    """
    from postline.demo.run import Wanted
    from postline.demo.shoplog import write_settings

    directory = _empty(keep) if keep is not None else Path(tempfile.mkdtemp(prefix="postline-demo-"))
    proven = False
    try:
        moves = write_settings(directory.resolve(), url, os.environ, Random(), move_to)
        run = Wanted(directory.resolve(), **wanted, moves=moves)
        outcome = asyncio.run(_until_told_to_stop(run, quiet=as_json))
        proven = outcome.proof.ok
        click.echo(_as_json(outcome, run) if as_json else _as_text(outcome, run))
    finally:
        began = (directory / "logs").exists()
        if keep is None and (proven or not began):
            _remove(directory, everywhere=began)
        elif not proven and began:
            click.echo(f"The log and the processes' own logs stay in {directory}", err=True)
    return 0 if proven else 1


def _remove(directory: Path, *, everywhere: bool) -> None:
    from postline.demo.shoplog import remove_from_cluster

    try:
        if everywhere:
            remove_from_cluster(directory)
    except LogError as error:
        click.echo(f"{error}", err=True)
    shutil.rmtree(directory, ignore_errors=True)


def _empty(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise click.UsageError(f"{directory} is not empty. Give a new or an empty directory to --keep.")
    return directory


async def _until_told_to_stop(wanted: Wanted, *, quiet: bool) -> Outcome:
    """Run; SIGTERM ends it as Ctrl-C does, with every process stopped."""
    from postline.clock import SystemClock
    from postline.demo.run import run

    running = asyncio.current_task()
    assert running is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    try:
        with _drawing(quiet) as draw:
            return await run(wanted, SystemClock(), draw)
    except asyncio.CancelledError:
        raise click.Abort from None


@contextmanager
def _drawing(quiet: bool) -> Iterator[Draw]:
    if quiet:
        yield lambda look: None
    elif sys.stdout.isatty():
        from postline.demo.screen import Screen

        with Screen() as screen:
            yield screen.draw
    else:
        yield _Ticker().draw


class _Ticker:
    """Progress where no terminal draws it: a line on standard error for each tenth of the lines."""

    def __init__(self) -> None:
        self._tenths = -1
        self._moving = ""

    def draw(self, look: Look) -> None:
        if look.moving != self._moving:
            self._moving = look.moving
            click.echo(look.moving, err=True)
        tenths = 10 * look.published // look.lines
        if tenths != self._tenths:
            self._tenths = tenths
            behind = sum(view.lag_records for view in look.subscriptions)
            said = f"{look.published:,} of {look.lines:,} lines published, {behind:,} messages to be handled"
            click.echo(f"{said}, {look.kills} of {look.kills_wanted} kills", err=True)


def _as_json(outcome: Outcome, wanted: Wanted) -> str:
    proof = outcome.proof
    poison = outcome.dead_letter
    content = {
        "ok": proof.ok,
        **proof.figures,
        "seed": wanted.seed,
        "kills": outcome.kills,
        "restarts": outcome.restarts,
        "processes": outcome.processes,
        "seconds": round(outcome.seconds, 2),
        "lines_per_second": round(outcome.lines_published / outcome.seconds),
        "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in proof.checks],
        "move": None if (moved := outcome.moved) is None else asdict(moved),
        "audit": {audit.subscription: {**audit.outcomes, "gaps": audit.gaps} for audit in proof.audits},
        "dead_letters": {name: errors[:_LISTED_DEAD_LETTERS] for name, errors in proof.dead_letters.items()},
        "poison": None
        if poison is None
        else {
            "subscription": "packing",
            "id": poison.letter.id,
            "key": poison.letter.key,
            "error": poison.letter.error,
            "attempts": poison.letter.attempts,
            "blocked_behind": poison.letter.blocked,
        },
    }
    return json.dumps(content, default=_decimal, indent=2, ensure_ascii=False)


def _decimal(value: object) -> str:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not for JSON")


def _as_text(outcome: Outcome, wanted: Wanted) -> str:
    proof = outcome.proof
    lines = [f"{name:>24}  {_figure(value)}" for name, value in proof.figures.items() if not isinstance(value, dict)]
    lines.append("")
    if (poison := outcome.dead_letter) is not None:
        lines.append(
            f"poison: packing gave up record {poison.letter.id} ({poison.letter.error}) after "
            f"{poison.letter.attempts} attempts, {poison.letter.blocked} waited behind it; redriven in order"
        )
    for name, errors in proof.dead_letters.items():
        lines += [f"dead letter of {name}: {error}" for error in errors[:_LISTED_DEAD_LETTERS]]
    if (moved := outcome.moved) is not None:
        lines.append(f"moved from {moved.source} to {moved.target}: services rested {moved.closed_seconds:.1f} s")
    lines += ["", *(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}" for check in proof.checks), ""]
    rate = outcome.lines_published / outcome.seconds
    lines.append(
        f"{'proven' if proof.ok else 'NOT PROVEN'}: {outcome.lines_published:,} lines through {outcome.processes} "
        f"processes in {outcome.seconds:.1f} s ({rate:,.0f}/s), {outcome.kills} killed, seed {wanted.seed}"
    )
    return "\n".join(lines)


def _figure(value: object) -> str:
    return f"{value:,}" if isinstance(value, (int, Decimal)) else str(value)
