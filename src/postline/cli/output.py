"""What commands write: JSON for programs, tables for people, and the words for times and numbers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = [
    "ago",
    "alone",
    "console",
    "duration",
    "emit_json",
    "json_option",
    "number",
    "plain",
    "table",
    "wants_json",
    "when",
]

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

#: Wide enough that nothing is cut where no terminal says how wide it is.
_WIDTH_PIPED = 240
_WIDTH_MIN = 120
_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "m"))


def json_option(command: CommandT) -> CommandT:
    """Let a command be asked for `--json` or `--table`; None is JSON unless a terminal reads it."""
    option = click.option(
        "--json/--table", "as_json", default=None, help="How to write; JSON is the default where no terminal reads it."
    )
    return option(command)


def alone(ctx: click.Context, listing: click.Command, as_json: bool | None, url: str | None, **more: Any) -> int | None:
    """What a group does by itself: its listing, where no subcommand is asked for; options then stand before none."""
    if ctx.invoked_subcommand is None:
        code: int = ctx.invoke(listing, as_json=as_json, url=url, **more)
        return code
    if as_json is not None or url is not None:
        raise click.UsageError(f"Options of {ctx.invoked_subcommand} stand after it.", ctx)
    return None


def wants_json(as_json: bool | None) -> bool:
    """What was asked for, else JSON where no terminal reads it."""
    return not sys.stdout.isatty() if as_json is None else as_json


def emit_json(value: object) -> None:
    """Write one JSON value: indented for a terminal, on one line for programs."""
    data = msgspec.json.encode(value)
    if sys.stdout.isatty():
        data = msgspec.json.format(data, indent=2)
    click.echo(data.decode())


def console(*, redraws: bool = False) -> Console:
    """Where tables are drawn: in colours on a terminal only, and not against NO_COLOR.

    On a narrow terminal a long line is the terminal's to break, rather than cut or broken inside
    words; what `redraws` itself has to fit.
    """
    from rich.console import Console

    is_terminal = sys.stdout.isatty()
    colors = is_terminal and not os.environ.get("NO_COLOR")
    width = None if redraws else max(_WIDTH_MIN, get_terminal_size().columns) if is_terminal else _WIDTH_PIPED
    return Console(width=width, no_color=not colors, highlight=False, emoji=False, soft_wrap=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> Table:
    """A table; columns whose names begin with `>` are set to the right.

    On a terminal that is too narrow for it, columns of nothing but zeros are left out, and it says so.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    rows = [list(row) for row in rows]
    shown = _shown(columns, rows)
    left_out = [name.removeprefix(">") for at, name in enumerate(columns) if at not in shown]
    columns, rows = [columns[at] for at in shown], [[row[at] for at in shown] for row in rows]
    drawn = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    if left_out:
        drawn.caption, drawn.caption_justify = f"zero everywhere: {', '.join(left_out)}", "left"
    for name in columns:
        right, heading = name.startswith(">"), name.removeprefix(">")
        # Headings break between words, never inside one.
        widest_word = max(map(len, heading.split()), default=1)
        drawn.add_column(heading, justify="right" if right else "left", overflow="fold", min_width=widest_word)
    for row in rows:
        # Data is neither markup nor control.
        drawn.add_row(*(Text(plain(cell)) for cell in row))
    return drawn


def _shown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """The columns to draw, by number."""
    widths = [max(map(len, (*name.split(), *(row[at] for row in rows))), default=0) for at, name in enumerate(columns)]
    if not rows or not sys.stdout.isatty() or sum(widths) + 3 * len(widths) <= get_terminal_size().columns:
        return list(range(len(columns)))
    return [at for at, name in enumerate(columns) if not name.startswith(">") or any(row[at] != "0" for row in rows)]


def number(value: float) -> str:
    """A count as people read it: 12,345."""
    return f"{value:,}"


def plain(text: str) -> str:
    """A text from outside as a terminal may show it: what controls terminals is written as an escape."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def duration(seconds: float) -> str:
    """A span of time in its largest unit: 3.2s, 4.0m, 2.5h, 1.0d."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.1f}{unit}"
    return f"{seconds:.1f}s"


def when(time_ms: int | None) -> str:
    """A wall-clock time, UTC."""
    if time_ms is None:
        return "-"
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def ago(time_ms: int | None, now_ms: int) -> str:
    """How long ago, or in how long."""
    if time_ms is None:
        return "-"
    seconds = (now_ms - time_ms) / 1000
    return f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"
