"""What the pages show is true: their code runs, their commands exist, their links lead somewhere."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from postline.cli.root import postline
from postline.settings import load_settings
from tests.integration.doc_pages import Page, read_page, run_page
from tests.integration.processes import EXAMPLES, ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "howto").glob("*.md"))]
#: Pages whose code needs a process of its own to prove itself: tests/integration/test_sync.py has them.
PROVED_ELSEWHERE = {"sync.md"}


@pytest.fixture(params=PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def page(request, monkeypatch, tmp_path) -> Page:
    monkeypatch.chdir(tmp_path)  # what a page's code leaves behind stays there
    return read_page(request.param)


def test_the_code_of_a_page_runs_and_proves_itself(page, tmp_path):
    tests = run_page(page, tmp_path)
    silent = page.path.parent.name != "howto" or page.path.name in PROVED_ELSEWHERE
    assert tests or silent or not page.python, "a how-to page's code ends in a test"


def test_the_runbook_names_the_line_that_fails() -> None:
    page = (ROOT / "docs" / "runbook.md").read_text()
    (line,) = re.findall(r"trouble:bill \(line (\d+)\)", page)
    failing = (ROOT / "examples" / "trouble.py").read_text().splitlines()[int(line) - 1]
    assert failing.strip() == 'raise ValueError("an order can\'t be negative")'


def test_what_the_runbook_publishes_can_be_typed_along(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "trouble.py", tmp_path)
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE | re.DOTALL)
    typed = [block for block in blocks if "postline publish" in block]
    around = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    answers = [
        subprocess.run(["sh", "-c", block], check=True, cwd=tmp_path, env=around, stdout=subprocess.PIPE).stdout
        for block in typed
    ]
    assert [json.loads(each)["published"] for each in answers] == [20, 3, 20]
    assert {each.name for each in tmp_path.iterdir()} >= {"backend-away", "hang"}


def test_the_commands_of_a_page_exist(page):
    for line, words in page.commands:
        try:
            _parse(postline, words)
        except click.ClickException as error:
            if isinstance(getattr(getattr(error, "param", None), "type", None), click.Path):
                continue  # a reader's file or folder
            pytest.fail(f"{page.path}:{line}: postline {shlex.join(words)}: {error.format_message()}")


def _parse(command: click.Command, words: list[str]) -> None:
    if not isinstance(command, click.Group) or not words or words[0].startswith("-"):
        command.make_context("postline", list(words))
        return
    chosen = command.get_command(click.Context(command), words[0])
    if chosen is None:
        raise click.UsageError(f"no command {words[0]!r}")
    _parse(chosen, words[1:])


def test_the_settings_of_a_page_are_settings(page, tmp_path):
    for _, source in page.toml:
        tomllib.loads(source)
        (tmp_path / "postline.toml").write_text(source)
        load_settings({}, tmp_path, url="sqlite://")


def test_the_links_of_a_page_lead_somewhere(page):
    for target, anchor in _links(page.path):
        path = page.path.parent / target if target else page.path
        assert path.exists(), f"{page.path}: {target}"
        assert not anchor or anchor in _anchors(path), f"{page.path}: {target}#{anchor}"


def _links(path: Path) -> list[tuple[str, str]]:
    return re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", _without_code(path))


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _without_code(path), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _without_code(path: Path) -> str:
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_a_page_whose_code_fails_is_found(tmp_path):
    path = tmp_path / "wrong.md"
    path.write_text("```python\nx = 1\n```\n\n```python\ndef test_it():\n    assert x == 2\n```\n")
    with pytest.raises(AssertionError):
        run_page(read_page(path), tmp_path)


def test_a_command_that_does_not_exist_is_found(tmp_path):
    path = tmp_path / "wrong.md"
    path.write_text("```sh\necho '{}' | postline dlq list --nothing\nPOSTLINE_URL=x postline lagg\n```\n")
    (_, first), (_, second) = read_page(path).commands
    for words in (first, second):
        with pytest.raises(click.ClickException):
            _parse(postline, words)


def test_the_readme_shows_the_example():
    shown = next(source for _, source in read_page(ROOT / "README.md").python if source.startswith("# shop.py\n"))
    assert (EXAMPLES / "shop.py").read_text().endswith(shown.removeprefix("# shop.py\n"))


async def test_the_tour_of_the_readme_works_as_it_is_written(tmp_path):
    text = (ROOT / "README.md").read_text()
    tour = text[text.index("## Five minutes") : text.index("## Where to go on")]
    blocks = [
        block for block in re.findall(r"^```sh\n(.*?)^```$", tour, re.MULTILINE | re.DOTALL) if "pip" not in block
    ]
    (tmp_path / "shop.py").write_text((EXAMPLES / "shop.py").read_text())
    shim = tmp_path / "bin" / "postline"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m postline "$@"\n')
    shim.chmod(0o755)
    variables = {**os.environ, "PATH": f"{shim.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}

    async def run(script: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *("sh", "-euc", script), cwd=tmp_path, env=variables, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, f"{script}\n{output.decode()}"
        return output.decode()

    first, *others = blocks
    service = await asyncio.create_subprocess_exec(
        *("sh", "-euc", "exec " + first), cwd=tmp_path, env=variables, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert service.stderr is not None
        while b": running billing" not in (line := await service.stderr.readline()):
            assert line, "the service ended"
        publish, look, discard = others
        await run(publish)
        while '"running_total":40' not in await run("postline tail shop.invoices"):
            assert service.returncode is None
        while "an order can't be negative" not in await run("postline dlq list"):
            assert service.returncode is None
        await run(look)
        await run(discard)
        assert '"discarded":1' in await run("postline audit")
    finally:
        service.terminate()
        await service.wait()
    assert service.returncode == 0


def test_every_how_to_page_is_linked_from_the_readme():
    text = (ROOT / "README.md").read_text()
    for path in (ROOT / "docs" / "howto").glob("*.md"):
        assert f"docs/howto/{path.name}" in text
