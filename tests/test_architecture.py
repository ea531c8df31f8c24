"""What docs/ARCHITECTURE.md cites exists: paths, modules, and the symbols inside them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "ARCHITECTURE.md"
CITATIONS_MIN = 20

FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"(?:[\w.*-]+/)+[\w.*-]*|[\w-]+\.(?:py|sql|md|toml)")
SYMBOL = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")


class Source:
    """The modules of a package and the symbols that each defines or imports, read without importing any."""

    def __init__(self, package: Path) -> None:
        self.name = package.name
        self.modules: dict[str, set[str]] = {}
        self.members: dict[str, set[str]] = {}
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            self.modules[module] = symbols_of(ast.parse(path.read_text(encoding="utf-8")), self.members)

    def knows(self, citation: str) -> bool | None:
        """Whether `module.symbol`, `module.Class.member` or `Class.member` exists; None for what is foreign."""
        head, _, rest = citation.partition(".")
        if head == self.name:
            return self._in_module("", rest)
        if head in self.members:
            return rest in self.members[head]
        if any(module.split(".")[0] == head for module in self.modules if module):
            return self._in_module("", citation)
        return False if head[0].isupper() else None

    def _in_module(self, module: str, rest: str) -> bool:
        head, _, tail = rest.partition(".")
        inner = f"{module}.{head}".lstrip(".")
        if inner in self.modules and (not tail or self._in_module(inner, tail)):
            return True
        if head not in self.modules.get(module, ()):
            return False
        return not tail or tail in self.members.get(head, ())


def symbols_of(tree: ast.Module, members: dict[str, set[str]]) -> set[str]:
    """The top-level names of a module; what its classes have is added to `members`."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            members.setdefault(node.name, set()).update(attributes_of(node))
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found.update(alias.asname or alias.name for alias in node.names)
        else:
            found.update(n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    return found


def attributes_of(node: ast.ClassDef) -> set[str]:
    """Methods, fields and what methods set on self."""
    found: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(inner.name)
        elif isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            found.add(inner.id)
        elif isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
            found.add(inner.attr)
    return found


def citations_of(text: str) -> list[str]:
    """What stands in backticks outside of code blocks, calls without their parentheses."""
    return [re.sub(r"\(.*\)$", "", span) for span in SPAN.findall(FENCE.sub("", text))]


def exists(path: str, root: Path) -> bool:
    """Whether a path, or a pattern of paths, is in the checkout or under the package."""
    bases = (root, root / "src" / "postline", root / "docs")
    return any(any(base.glob(path.rstrip("/"))) for base in bases if base.is_dir())


def judge(text: str, source: Source, root: Path) -> tuple[int, list[str]]:
    """How many citations a page makes, and the ones that lead nowhere."""
    count, dead = 0, []
    for citation in citations_of(text):
        if FILE.fullmatch(citation):
            known: bool | None = exists(citation, root)
        else:
            known = source.knows(citation) if SYMBOL.fullmatch(citation) else None
        count += known is not None
        if known is False:
            dead.append(citation)
    return count, dead


def test_everything_the_architecture_page_cites_exists() -> None:
    if not PAGE.exists():
        pytest.skip("docs/ARCHITECTURE.md is not written yet")
    count, dead = judge(PAGE.read_text(encoding="utf-8"), Source(ROOT / "src" / "postline"), ROOT)
    assert dead == []
    assert count >= CITATIONS_MIN, f"the page cites {count} paths and symbols; it should name where things are"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small checkout with one engine module and its SQL."""
    package = tmp_path / "src" / "postline"
    (package / "log" / "sqlite").mkdir(parents=True)
    (package / "__init__.py").write_text("from postline.app import App\n")
    (package / "app.py").write_text(
        "class App:\n    def __init__(self):\n        self.log = 1\n    def publish(self): ...\n"
    )
    (package / "log" / "__init__.py").write_text("")
    (package / "log" / "port.py").write_text("LIMIT = 1\nclass Log:\n    name: str\n    async def commit(self): ...\n")
    (package / "log" / "sqlite" / "queries.sql").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    "citation",
    [
        "src/postline/app.py",
        "src/postline/log/",
        "log/port.py",
        "log/sqlite/*.sql",
        "postline.App",
        "postline.app.App.publish",
        "app.App",
        "App.publish()",
        "App.log",
        "Log.commit(positions, state)",
        "Log.name",
        "log.port",
        "log.port.LIMIT",
        "log.port.Log.commit",
    ],
)
def test_a_citation_that_leads_somewhere_is_counted(checkout: Path, citation: str) -> None:
    assert judge(f"See `{citation}`.", Source(checkout / "src" / "postline"), checkout) == (1, [])


@pytest.mark.parametrize(
    "citation",
    [
        "src/postline/gone.py",
        "gone.py",
        "log/gone/",
        "log/sqlite/*.txt",
        "postline.Gone",
        "app.publish",
        "app.App.gone",
        "App.gone()",
        "Gone.publish",
        "log.port.Gone",
        "log.gone",
    ],
)
def test_a_citation_that_leads_nowhere_is_found(checkout: Path, citation: str) -> None:
    count, dead = judge(f"See `{citation}`.", Source(checkout / "src" / "postline"), checkout)
    assert count == 1
    assert len(dead) == 1


def test_foreign_names_words_and_code_blocks_are_left_alone(checkout: Path) -> None:
    page = "`asyncio.gather`, `ctx.state`, `done`, `sqlite://path`\n\n```python\nApp.gone()\n`app.gone`\n```\n"
    assert judge(page, Source(checkout / "src" / "postline"), checkout) == (0, [])
