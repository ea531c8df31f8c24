"""What the documents tell people to type exists: commands, subcommands and options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from postline import monitor
from postline.cli.root import postline

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# `postline …` between backticks, or at the beginning of a line of an example, up to what a shell would end it with.
TYPED = re.compile(r"(?:^\s*(?:\$ )?|`)(postline [a-z][^`\n#|<>&;]*)", re.MULTILINE)


def typed() -> Iterator[tuple[Path, str]]:
    for path in DOCUMENTS:
        for found in TYPED.findall(path.read_text("utf-8")):
            yield path, found.strip()


def complaint(line: str) -> str | None:
    """What is wrong with a command line; None if commands and options exist."""
    words = shlex.split(line.replace("…", " ").replace("'", ""))[1:]
    command: click.Command = postline
    while words and isinstance(command, click.Group):
        below = command.get_command(click.Context(command), words[0])
        if below is None:
            return None if command.invoke_without_command and words[0].startswith("-") else f"no command {words[0]}"
        command, words = below, words[1:]
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help"}
    unknown = [word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word) and word not in known]
    return f"no option {unknown[0]}" if unknown else None


def test_documents_tell_people_to_type_what_exists() -> None:
    lines = list(typed())
    assert len(lines) > 10
    wrong = [f"{path.relative_to(ROOT)}: {line}: {said}" for path, line in lines if (said := complaint(line))]
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("postline lagg", "no command lagg"),
        ("postline dlq lost", "no command lost"),
        ("postline lag --wach", "no option --wach"),
        ("postline subscriptions reset x --to-time 2h", None),
        ("postline run app:app", None),
    ],
)
def test_the_check_of_documents_finds_what_does_not_exist(line: str, said: str | None) -> None:
    assert complaint(line) == said


def test_the_json_page_names_every_field_of_every_view() -> None:
    page = (ROOT / "docs/cli.md").read_text("utf-8")
    views = [getattr(monitor, name) for name in monitor.__all__]
    structs = [view for view in views if isinstance(view, type) and issubclass(view, msgspec.Struct)]
    fields = {field.encode_name for view in structs for field in msgspec.structs.fields(view)}
    assert {name for name in fields if f"`{name}`" not in page} == set()
