"""The command line, `postline`: its entry point; each command's module is imported when it is used."""

from __future__ import annotations

from postline.cli.root import main

__all__ = ["main"]
