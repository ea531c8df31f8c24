"""`Calling`: calls of the client library in a thread that can be given up, since one may never return.

Seen with librdkafka 2.16: after the only broker had been away, `send_offsets_to_transaction` with a time limit of a
second never came back, and with it the whole worker stood still.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeAlias

__all__ = ["Calling"]

_Asked: TypeAlias = tuple[Callable[[], Any], "Future[Any]"]


class Calling:
    """One thread that makes calls one after another, for one caller at a time. It ends with its owner."""

    def __init__(self, name: str) -> None:
        self._asked: SimpleQueue[_Asked | None] = SimpleQueue()
        # A daemon, and no executor's: nobody must wait for it at the end of the process.
        threading.Thread(target=_make, args=(self._asked,), name=name, daemon=True).start()

    def call(self, work: Callable[[], Any], seconds: float) -> Any:
        """What the call gives or raises. Raises TimeoutError if it has not returned by then: make a new one then."""
        done: Future[Any] = Future()
        self._asked.put((work, done))
        return done.result(seconds)

    def end(self) -> None:
        """Let the thread end, once it is free."""
        self._asked.put(None)

    def __del__(self) -> None:
        self.end()


def _make(asked: SimpleQueue[_Asked | None]) -> None:
    while (one := asked.get()) is not None:
        work, done = one
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is its caller's
            done.set_exception(error)
        # Nothing of the call may live on while the next one is waited for.
        del one, work, done
