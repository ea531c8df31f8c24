"""What a benchmark found: rates, ratios with their targets, and how they are shown."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.table import Table

__all__ = ["Figure", "Ratio", "Result", "as_json", "show"]


class Figure(msgspec.Struct):
    """One contender's figure, e.g. a rate; `unit` says of what."""

    who: str
    value: float
    unit: str = "/s"


class Ratio(msgspec.Struct):
    """How two figures compare; `target` is what DESIGN §10 asks for, None where it asks nothing."""

    what: str
    value: float
    target: float | None = None
    #: Whether `value` must be at least (else at most) `target`.
    at_least: bool = True
    unit: str = "x"

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


class Result(msgspec.Struct):
    """All that one benchmark found."""

    name: str
    title: str
    figures: list[Figure] = []
    ratios: list[Ratio] = []
    #: What could not be measured, and why.
    notes: list[str] = []


def as_json(machine: dict[str, object], results: Sequence[Result]) -> str:
    """Everything as one JSON document."""
    found = msgspec.to_builtins(list(results))
    for shown, result in zip(found, results, strict=True):
        for ratio, verdict in zip(shown["ratios"], result.ratios, strict=True):
            ratio["met"] = verdict.met
    return msgspec.json.format(msgspec.json.encode({"machine": machine, "benchmarks": found}), indent=2).decode()


def show(results: Sequence[Result], console: Console) -> None:
    """A table of figures, and one of ratios beside their targets."""
    figures = Table("benchmark", "contender", "figure")
    for result in results:
        for figure in result.figures:
            figures.add_row(result.name, figure.who, f"{_number(figure.value)} {figure.unit}")
        figures.add_section()
    ratios = Table("benchmark", "ratio", "found", "target", "")
    for result in results:
        for ratio in result.ratios:
            bound = (
                "" if ratio.target is None else f"{'≥' if ratio.at_least else '≤'} {_with_unit(ratio.target, ratio)}"
            )
            verdict = {None: "", True: "met", False: "[bold]MISSED[/bold]"}[ratio.met]
            ratios.add_row(result.name, ratio.what, _with_unit(ratio.value, ratio), bound, verdict)
        ratios.add_section()
    console.print(figures)
    console.print(ratios)
    for result in results:
        for note in result.notes:
            console.print(f"{result.name}: {note}")


def _with_unit(value: float, ratio: Ratio) -> str:
    return f"{value:.0%}" if ratio.unit == "%" else f"{_number(value)} {ratio.unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
