"""Tasks that run in processes of their own, where those find them."""

from __future__ import annotations

import os
import signal
import threading
from typing import NoReturn

from postline import App, Discard, Retry

__all__ = ["app", "die", "fail", "give_up", "pid", "spin"]

app = App("isolated")
ONCE = Retry(immediate=0, delays=())


@app.task(isolation="process")
def pid(said: str) -> tuple[int, str]:
    """Tells where it runs."""
    print("printing does no harm")  # noqa: T201 - it must not reach the worker
    return os.getpid(), said


@app.task(isolation="process", retry=ONCE, timeout=0.2)
def spin() -> None:
    """Never ends by itself."""
    threading.Event().wait()


@app.task(isolation="process", retry=ONCE)
def die() -> None:
    """Ends its process as the kernel does when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


class Unpicklable(Exception):
    """Can't be carried to another process."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


@app.task(isolation="process", retry=ONCE)
def fail(plainly: bool) -> None:
    """Fails with an exception that can be carried over, or with one that can't."""
    if plainly:
        raise ValueError("no picture")
    raise Unpicklable("one", "two")


@app.task(isolation="process", retry=ONCE)
def give_up() -> NoReturn:
    """Wants no further attempt."""
    raise Discard("not wanted")
