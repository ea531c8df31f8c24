"""The layers hold: imports go strictly down or stay inside one component; deferred and type-checking ones count."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "postline"
SOURCE = Path(__file__).resolve().parent.parent / "src" / PACKAGE

# THINK HARD before moving a line: a module may import what stands in a row below its own, and its own component.
# Components in one row are siblings and never import each other. The number is the layer of docs/ARCHITECTURE.md; a
# layer of several rows says which of its parts lie under which.
ROWS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (0, ("errors",)),  # every other part raises these
    (0, ("logs",)),  # and names the events of its lines by these
    (0, ("message", "clock", "settings", "ids")),
    (1, ("contracts",)),
    (2, ("log", "store")),
    (3, ("runtime",)),
    (4, ("events", "entities", "outbox", "registry", "schedules")),
    (4, ("commands", "routing")),  # served by subscriptions, as events declares them
    (4, ("queues",)),  # tasks are commands
    (5, ("workflows", "streams", "connect")),
    (6, ("monitor", "migration")),
    (6, ("operations",)),  # what operators ask for, shown by what monitor reads
    (7, ("app",)),
    (8, ("http", "dashboard", "testing", "sync")),  # sync: the thin bridge over app for synchronous programs
    (8, ("",)),  # postline/__init__.py gathers the public names; only programs (layer 9) import them from there
    (9, ("demo",)),
    (9, ("cli",)),
    (9, ("__main__",)),
)
ROW_OF = {component: row for row, (_, components) in enumerate(ROWS) for component in components}
LAYER_OF = {component: layer for layer, components in ROWS for component in components}

# Whatever runs on the log knows the port alone, so that the engine stays a matter of the URL: app builds engines, and
# testing builds the ones in memory. Each engine may import the port and what lies beside it, never another engine.
ENGINES = ("log.sqlite", "log.kafka", "log.memory", "log.postgres")
MAY_BUILD_ENGINES = ("app", "testing")


class Import(NamedTuple):
    """One import of one module by another; both named without the package, which itself is the empty name."""

    importer: str
    imported: str
    line: int


def modules_of(source: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name without the package's own."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(source: Path) -> list[Import]:
    """All imports between the package's modules, wherever they stand in a file."""
    modules = modules_of(source)
    edges = []
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for target in targets_of(node, name, is_package=path.name == "__init__.py"):
                imported = longest_module(target, modules)
                if imported is not None and imported != name:
                    edges.append(Import(name, imported, getattr(node, "lineno", 0)))
    return edges


def targets_of(node: ast.AST, importer: str, *, is_package: bool) -> Iterator[str]:
    """The dotted names that a node imports, from the package's root; a name may be a symbol of a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            here = [PACKAGE, *filter(None, importer.split("."))]
            kept = here[: len(here) - node.level + is_package]
            base = ".".join([*kept, *filter(None, [node.module])])
        yield from (f"{base}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        # importlib.import_module("postline.x") hides nothing; other calls' texts are no imports.
        called = ast.unparse(node.func).rpartition(".")[2]
        yield from [str(node.args[0].value)] if called in {"import_module", "__import__"} else []


def longest_module(target: str, modules: dict[str, Path]) -> str | None:
    """The module that a dotted target lies in, or None for one outside the package."""
    package, _, name = target.partition(".")
    if package != PACKAGE:
        return None
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def component_of(module: str) -> str:
    """The part of the package that a module belongs to: the first piece of its name."""
    return module.partition(".")[0]


def engine_of(module: str) -> str | None:
    """The concrete engine that a module belongs to, if any."""
    return next((engine for engine in ENGINES if module == engine or module.startswith(engine + ".")), None)


def problem_of(edge: Import) -> str | None:
    """Why this import is not allowed, or None."""
    importer, imported = component_of(edge.importer), component_of(edge.imported)
    if importer not in ROW_OF or imported not in ROW_OF:
        return None  # reported as unknown, once for the module
    engine = engine_of(edge.imported)
    if engine and engine != engine_of(edge.importer) and importer not in MAY_BUILD_ENGINES:
        return f"only {' and '.join(MAY_BUILD_ENGINES)} build engines; import log.port"
    if importer == imported:
        return None
    if ROW_OF[importer] == ROW_OF[imported]:
        return f"siblings on layer {LAYER_OF[importer]} never import each other"
    if ROW_OF[importer] < ROW_OF[imported]:
        return f"imports go down: layer {LAYER_OF[importer]} can't use layer {LAYER_OF[imported]}"
    return None


def cycles_of(edges: list[Import]) -> list[list[str]]:
    """The import cycles: for each, the modules that reach each other."""
    after: dict[str, set[str]] = {}
    for edge in edges:
        after.setdefault(edge.importer, set()).add(edge.imported)
    reach = {module: reached_from(module, after) for module in after}
    knots = {frozenset(other for other in reach[module] if module in reach.get(other, ())) for module in reach}
    return sorted(sorted(knot) for knot in knots if knot)


def reached_from(module: str, after: dict[str, set[str]]) -> set[str]:
    """Every module that importing this one leads to."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        fresh = after.get(waiting.pop(), set()) - seen
        seen |= fresh
        waiting.extend(fresh)
    return seen


def violations(source: Path) -> list[str]:
    """Everything about the imports under `source` that the layers forbid, one line each."""
    found = [
        f"{PACKAGE}.{component}: no layer; give it a place in ROWS of tests/test_layers.py"
        for component in sorted({component_of(module) for module in modules_of(source)} - ROW_OF.keys())
    ]
    edges = imports_of(source)
    for edge in edges:
        if problem := problem_of(edge):
            found.append(f"{edge.importer or '__init__'}:{edge.line} imports {edge.imported or PACKAGE}: {problem}")
    found.extend(f"cycle between {', '.join(module or PACKAGE for module in knot)}" for knot in cycles_of(edges))
    return found


def test_every_import_goes_down_or_stays_inside_its_component() -> None:
    found = violations(SOURCE)
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def planted(folder: Path, files: dict[str, str]) -> Path:
    """A package tree with these files and an empty `__init__.py` in each of its folders."""
    source = folder / PACKAGE
    for name, text in files.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for path in [source, *source.rglob("*")]:
        if path.is_dir() and not (path / "__init__.py").exists():
            (path / "__init__.py").write_text("", encoding="utf-8")
    return source


CLEAN = {
    "__init__.py": "from postline.app import App",
    "errors.py": "",
    "message.py": "from postline.errors import PostlineError",
    "contracts/topics.py": "import postline.message\nfrom postline.contracts import codecs",
    "contracts/codecs.py": "import json",
    "log/port.py": "from postline.message import Envelope",
    "log/sqlite/__init__.py": "from postline.log.sqlite.engine import Engine",
    "log/sqlite/engine.py": "from postline.log.port import Log\nfrom postline.log.sqlite.files import paths",
    "log/sqlite/files.py": "",
    "log/kafka/engine.py": "from ..port import Log",
    "runtime/consumer.py": "from postline.log.port import Log",
    "monitor.py": "",
    "app.py": "def build():\n    from postline.log.sqlite import Engine",
    # `from postline import app` names a module, so it is no import of the public names.
    "testing/app.py": "from postline.log.sqlite.engine import Engine\nfrom postline import app",
    "cli/__init__.py": "from postline import App\nfrom postline.demo import shop",
    "demo/shop.py": "import postline",
}


def test_a_tree_that_keeps_the_layers_is_accepted(tmp_path: Path) -> None:
    assert violations(planted(tmp_path, CLEAN)) == []


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        pytest.param("message.py", "from postline.runtime import consumer", "imports go down", id="upward"),
        pytest.param("errors.py", "import postline.message", "imports go down", id="upward inside layer 0"),
        pytest.param("routing.py", "from postline.commands import send", "siblings on layer 4", id="sibling"),
        pytest.param("store/sql.py", "from postline.log.port import Log", "siblings on layer 2", id="sibling folder"),
        pytest.param("monitor.py", "def f():\n    from postline.app import App", "imports go down", id="deferred"),
        pytest.param(
            "contracts/codecs.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from postline.app import App",
            "imports go down",
            id="type-checking",
        ),
        pytest.param(
            "monitor.py",
            "import importlib\ndef f():\n    return importlib.import_module('postline.app')",
            "imports go down",
            id="by importlib",
        ),
        pytest.param("log/port.py", "from ..runtime import consumer", "imports go down", id="relative"),
        pytest.param("runtime/consumer.py", "from postline import App", "imports go down", id="public names inside"),
        pytest.param(
            "runtime/consumer.py", "import postline.log.sqlite.engine", "build engines", id="engine outside app"
        ),
        pytest.param(
            "log/kafka/engine.py", "from postline.log.sqlite import files", "build engines", id="engine to engine"
        ),
        pytest.param("log/port.py", "from postline.log import sqlite", "build engines", id="port to engine"),
        pytest.param("log/sqlite/files.py", "from postline.log.sqlite import engine", "cycle between", id="cycle"),
        pytest.param(
            "contracts/codecs.py",
            "def f():\n    import postline.contracts.topics",
            "cycle between",
            id="deferred cycle",
        ),
        pytest.param("gadgets.py", "", "no layer", id="unknown module"),
        pytest.param("gadgets/wheel.py", "", "no layer", id="unknown folder"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, text: str, complaint: str) -> None:
    found = violations(planted(tmp_path, {"commands.py": "def send(): ...", **CLEAN, file: text}))
    assert any(complaint in line for line in found), found


def test_every_component_has_exactly_one_row() -> None:
    named = [component for _, components in ROWS for component in components]
    assert len(named) == len(set(named))
    assert [layer for layer, _ in ROWS] == sorted(layer for layer, _ in ROWS)
