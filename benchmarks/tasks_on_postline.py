"""The service whose tasks benchmarks/tasks.py sends."""

from __future__ import annotations

from postline import App

__all__ = ["app", "work"]

app = App("bench")


@app.task
async def work(path: str, width: int) -> int:
    """Does nothing."""
    return width
