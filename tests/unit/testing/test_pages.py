"""The code on the pages about testing and about synchronous programs runs as it stands there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from postline import App

PAGES = Path(__file__).resolve().parents[3] / "docs" / "howto"


def code_of(page: str) -> dict[str, Any]:
    """Run all Python on a page as one module; its names."""
    blocks = re.findall(r"```python\n(.*?)```", (PAGES / page).read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": page}
    exec(compile("\n".join(blocks), page, "exec"), names)
    return names


TESTS = [
    name for name, thing in code_of("testing.md").items() if name.startswith("test_") and inspect.isfunction(thing)
]


@pytest.mark.parametrize("name", TESTS)
async def test_the_tests_on_the_page_about_testing_pass(name: str):
    await code_of("testing.md")[name]()


def test_the_page_about_testing_shows_some():
    assert len(TESTS) == 5


def test_the_page_about_synchronous_programs_publishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POSTLINE_URL", f"sqlite:///{tmp_path}/page.db")
    names = code_of("sync.md")
    names["place_order"]("1", "ann")
    names["shop"].close()
    assert (tmp_path / "page.db").exists()
    assert isinstance(names["shop"]._declared, App)
