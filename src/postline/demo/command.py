"""`postline demo`: its options, its report as text and as JSON, its exit codes."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from postline.demo.run import Outcome, Wanted

__all__ = ["command"]

_LISTED_DEAD_LETTERS = 20


@click.command("demo", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--orders", type=click.IntRange(1), default=4_000, show_default=True, help="How many orders to make up.")
@click.option(
    "--input",
    "source",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Read invoice lines from the CSV files of this directory instead.",
)
@click.option("--kills", type=click.IntRange(0), default=5, show_default=True, help="How many processes to kill.")
@click.option("--seed", type=int, default=1, show_default=True, help="Decides orders, mishaps, victims and moments.")
@click.option("--workers", type=click.IntRange(1, 8), default=2, show_default=True, help="Processes of each service.")
@click.option("--json", "as_json", is_flag=True, help="Print figures and checks as JSON.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Run in this new or empty directory and keep it; `postline audit` and the rest work there.",
)
def command(
    *, orders: int, source: Path | None, kills: int, seed: int, workers: int, as_json: bool, keep: Path | None
) -> None:
    """Run a small shop of several processes on one file, and prove it right.

    Orders come in, are billed, packed, refunded and summed; handlers fail now and then, one
    message is poison, and processes are killed with SIGKILL while they work. At the end every
    message must be accounted for, every key in order, nothing doubled, and all sums equal to a
    direct computation.

    \b
    Exit codes: 0 proven, 1 a check failed or the run broke off, 2 wrong usage.

    \b
    Examples:
      postline demo
      postline demo --orders 20000 --kills 20 --seed 7
      postline demo --input online_retail_by_day --json
      postline demo --keep shop && cd shop && postline audit
    """
    from postline.demo.run import Wanted
    from postline.errors import PostlineError

    try:
        if keep is not None:
            directory = _empty(keep)
            context: Any = nullcontext(str(directory))
        else:
            context = tempfile.TemporaryDirectory(prefix="postline-demo-", ignore_cleanup_errors=True)
        with context as place:
            wanted = Wanted(Path(place).resolve(), source, orders, kills, seed, workers)
            outcome = _run(wanted, quiet=as_json)
    except PostlineError as error:
        raise click.ClickException(str(error)) from error
    click.echo(_as_json(outcome, wanted) if as_json else _as_text(outcome, wanted))
    if not outcome.proof.ok:
        sys.exit(1)


def _empty(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise click.UsageError(f"{directory} is not empty. Give a new or an empty directory to --keep.")
    return directory


def _run(wanted: Wanted, *, quiet: bool) -> Outcome:
    from postline.clock import SystemClock
    from postline.demo.run import run

    if quiet or not sys.stdout.isatty():
        return asyncio.run(run(wanted, SystemClock(), lambda look: None))
    from postline.demo.screen import Screen

    with Screen() as screen:
        return asyncio.run(run(wanted, SystemClock(), screen.draw))


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
    lines += ["", *(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}" for check in proof.checks), ""]
    lines.append(
        f"{'proven' if proof.ok else 'NOT PROVEN'}: {outcome.lines_published:,} lines through {outcome.processes} processes in "
        f"{outcome.seconds:.1f} s ({outcome.lines_published / outcome.seconds:,.0f}/s), {outcome.kills} killed, seed {wanted.seed}"
    )
    return "\n".join(lines)


def _figure(value: object) -> str:
    return f"{value:,}" if isinstance(value, (int, Decimal)) else str(value)
