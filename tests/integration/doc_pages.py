"""The code in README and how-to pages, collected as a reader meets it, and run."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import re
import shlex
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"# (\w+)\.py\n")
#: Stands on the line before a block that can't be run, with the reason.
_NOT_RUN = re.compile(r"<!-- not run: [^>]+ -->\n\Z")


@dataclass
class Page:
    """A page's code blocks, in order."""

    path: Path
    #: (line, source) of each.
    python: list[tuple[int, str]] = field(default_factory=list)
    toml: list[tuple[int, str]] = field(default_factory=list)
    #: (line, command line) of each `postline …` in its shell blocks.
    commands: list[tuple[int, list[str]]] = field(default_factory=list)


def read_page(path: Path) -> Page:
    """Collect the blocks of a page; those marked as not run are left out."""
    page, text = Page(path), path.read_text()
    for found in _FENCE.finditer(text):
        language, source = found.groups()
        line = text.count("\n", 0, found.start()) + 1
        if _NOT_RUN.search(text[: found.start()]):
            continue
        if language == "python":
            page.python.append((line, source))
        elif language == "toml":
            page.toml.append((line, source))
        elif language == "sh":
            page.commands += [(line + i, each) for i, each in _commands(source)]
    return page


def _commands(source: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(source.splitlines(), start=1):
        words = shlex.split(line, comments=True)
        for place, word in enumerate(words):
            if word == "postline" and (place == 0 or words[place - 1] in ("|", "&&") or "=" in words[place - 1]):
                rest = words[place + 1 :]
                ends = [i for i, each in enumerate(rest) if each in ("|", "&&", ">", "<", "&")]
                yield number, rest[: min(ends, default=len(rest))]


def run_page(page: Page, folder: Path) -> int:
    """Run all blocks of a page in one namespace, then its tests; gives how many tests ran.

    A block that opens with `# name.py` is that module, which later blocks may import.
    """
    name = "page_" + re.sub(r"\W", "_", page.path.stem)
    namespace = types.ModuleType(name)
    made = [name]
    sys.modules[name] = namespace
    sys.path.insert(0, str(folder))
    try:
        for line, source in page.python:
            if named := _NAMED.match(source):
                made.append(named[1])
                _import(named[1], folder / f"{named[1]}.py", source)
            else:
                code = compile("\n" * line + source, str(page.path), "exec", dont_inherit=True)
                exec(code, vars(namespace))
        tests = [each for each in vars(namespace).values() if getattr(each, "__name__", "").startswith("test_")]
        for test in tests:
            result = test()
            if inspect.iscoroutine(result):
                asyncio.run(result)
        return len(tests)
    finally:
        sys.path.remove(str(folder))
        for each in made:
            sys.modules.pop(each, None)


def _import(name: str, path: Path, source: str) -> None:
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
