"""The demo's picture of itself on a terminal, drawn while it runs."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from postline.demo.run import Look
from postline.monitor import SubscriptionView

__all__ = ["Screen"]


class Screen:
    """A live table of the flow; gone when it is left."""

    def __init__(self) -> None:
        self._live = Live(console=Console(), refresh_per_second=8, transient=True)

    def __enter__(self) -> Screen:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def draw(self, look: Look) -> None:
        """Show how far things are."""
        table = Table(title="Postline's shop", title_justify="left", box=None, padding=(0, 2, 0, 0))
        for name, justify in (("", "left"), ("progress", "left"), ("done", "right"), ("behind", "right")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        for name in ("retrying", "blocked", "dead letters", "processes"):
            table.add_column(name, justify="right")
        table.add_row(
            "shop", _bar(look.published, look.lines), f"{look.published:,}", f"{look.lines - look.published:,}"
        )
        for view in look.subscriptions:
            table.add_row(*_row(view))
        self._live.update(Group(table, Text(_events(look))))


def _bar(done: int, total: int) -> ProgressBar:
    return ProgressBar(total=max(1, total), completed=done, width=32)


def _row(view: SubscriptionView) -> list[str | ProgressBar]:
    end = sum(part.end for part in view.partitions)
    done = end - view.lag_records
    counts = (done, view.lag_records, view.retrying, view.blocked, view.dead_letters, len(view.members))
    return [view.name, _bar(done, end), *(f"{count:,}" for count in counts)]


def _events(look: Look) -> str:
    said = f"{look.processes} processes, {look.kills} of {look.kills_wanted} kills, {look.restarts} restarts"
    if look.moving:
        said += f"\n{look.moving}"
    if look.dead_letter is not None:
        letter = look.dead_letter.letter
        state = "redriven" if look.redriven else f"{letter.blocked} wait behind it"
        said += f"\npacking gave up {letter.id}: {letter.error} ({state})"
    return said
