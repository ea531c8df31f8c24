"""`postline init`: a small project that runs, to begin from."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click
import msgspec

from postline.cli.failures import OK
from postline.cli.output import emit_json
from postline.errors import UsageError

__all__ = ["command"]

#: Files of the project; in the package each ends in `.txt`, so that nobody takes it for the package's own.
_FILES = ("contracts.py", "app.py", "test_app.py", "postline.toml", "orders.jsonl", "README.md")
#: Written too, unless the directory has one: it keeps the log out of version control.
_IGNORE = ".gitignore"

_EPILOG = """\b
Examples:
  postline init
  postline init shop && cd shop && postline run app:app
"""


class _Written(msgspec.Struct, frozen=True):
    """What was written, as `--json` shows it."""

    directory: str
    files: list[str]


@click.command(epilog=_EPILOG)
@click.argument("directory", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Say what was written as JSON.")
def command(directory: Path, as_json: bool) -> int:
    """Write a small project that runs: contracts, an app, its settings, orders to publish and a test.

    Nothing is overwritten.
    """
    if there := [name for name in _FILES if (directory / name).exists()]:
        raise UsageError(
            f"{directory.resolve()} has {', '.join(there)} already.",
            remedy="Name another directory: `postline init DIR`.",
        )
    directory.mkdir(parents=True, exist_ok=True)
    templates = files("postline.cli") / "project"
    names = [*_FILES, *([] if (directory / _IGNORE).exists() else [_IGNORE])]
    for name in names:
        template = templates / f"{name.removeprefix('.')}.txt"
        (directory / name).write_text(template.read_text("utf-8"), "utf-8")
    if as_json:
        emit_json(_Written(str(directory.resolve()), names))
        return OK
    click.echo(f"Wrote {', '.join(names)} to {directory.resolve()}")
    if directory != Path():
        click.echo(f"  cd {directory}")
    click.echo("  postline run app:app")
    click.echo("  postline publish shop.orders shop.OrderPlaced --app app:app --id-field order < orders.jsonl")
    return OK
