"""The events of Postline's own lines: every call of a logger names one, and every name is used and documented."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from postline.logs import EVENTS

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "src" / "postline"
PAGE = ROOT / "docs" / "howto" / "logging.md"
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
LOGGERS = {"_log", "_logger", "_life", "self._log"}
#: Where one event has two levels, its meaning says so.
SEVERAL_LEVELS = {"state.cache_anew", "kafka.loop_ended"}


class Line(NamedTuple):
    place: str
    method: str
    events: list[str]


def lines_of(tree: ast.Module, place: str) -> Iterator[Line]:
    """Every call of a module's logger, with the events that its `extra=` names."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr in {*LEVELS, "log", "critical"} and ast.unparse(node.func.value) in LOGGERS:
            extra = next((each.value for each in node.keywords if each.arg == "extra"), None)
            yield Line(f"{place}:{node.lineno}", node.func.attr, [] if extra is None else events_in(extra))


def events_in(node: ast.AST) -> list[str]:
    """The literal names that are given to `event(…)`."""
    return [
        str(call.args[0].value)
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "event" and isinstance(call.args[0], ast.Constant)
    ]


def all_lines() -> list[Line]:
    places = [path.relative_to(SOURCE) for path in SOURCE.rglob("*.py")]
    chosen = [place for place in places if place.parts[0] not in ("demo", "logs")]
    return [line for place in chosen for line in lines_of(ast.parse((SOURCE / place).read_text()), place.as_posix())]


def test_every_line_of_postline_names_its_event() -> None:
    # Complaints are put together first: they choose among four events.
    nameless = [line for line in all_lines() if not line.events and not line.place.startswith("runtime/complaints")]
    assert nameless == []


def test_a_line_without_an_event_would_be_found() -> None:
    (line,) = lines_of(ast.parse('_log.info("x %s", 1)'), "planted.py")
    assert line == Line("planted.py:1", "info", [])


def test_every_event_is_told_at_the_level_that_is_stated() -> None:
    wrong = [
        line
        for line in all_lines()
        for name in line.events
        if name not in SEVERAL_LEVELS and LEVELS[line.method] != EVENTS[name].level
    ]
    assert wrong == []


def test_every_name_is_used_and_nothing_else_is() -> None:
    used = {name for line in all_lines() for name in line.events}
    complaints = ast.parse((SOURCE / "runtime" / "complaints.py").read_text())
    texts = {str(node.value) for node in ast.walk(complaints) if isinstance(node, ast.Constant)}
    sampling = ast.parse((SOURCE / "logs" / "sampling.py").read_text())
    assert used | (texts & EVENTS.keys()) | set(events_in(sampling)) == EVENTS.keys()


def test_the_page_lists_every_event_with_its_level_and_meaning() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \| (\w+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    assert rows == [(name, each.level, each.means) for name, each in EVENTS.items()]


def test_names_are_told_in_two_words() -> None:
    assert [name for name in EVENTS if not re.fullmatch(r"[a-z_]+\.[a-z_]+", name)] == []
