"""The polling thread: a fault in it is told to whoever waits for its records."""

from __future__ import annotations

import threading
from typing import Any

from postline.clock import SystemClock
from postline.errors import LogError
from postline.log.kafka.polling import GroupConsumer, Polling


class Broken:
    """A consumer whose first record makes the thread fail."""

    closed = False

    def subscribe(self, topics: Any, **callbacks: Any) -> None: ...

    def poll(self, seconds: float) -> Any:
        raise ZeroDivisionError("a fault of ours")

    def close(self) -> None:
        self.closed = True


class Waiting:
    """Whoever waits for records."""

    def __init__(self) -> None:
        self.told = threading.Event()
        self.error: LogError | None = None

    def failed(self, error: LogError) -> None:
        self.error = error
        self.told.set()

    def wait_for_room(self, seconds: float) -> bool:
        return True


class Around:
    """As much of the cluster and its ownership as the thread asks for."""

    clock = SystemClock()
    awaited = False


def test_a_fault_ends_what_waits_for_the_thread_instead_of_leaving_it_waiting():
    consumer, waiting, around = Broken(), Waiting(), Around()
    made: Any = GroupConsumer(consumer, classic=True)  # type: ignore[arg-type]
    polling = Polling(around, lambda: made, "shop.orders", (waiting, around), waiting)  # type: ignore[arg-type]
    polling.start()
    assert waiting.told.wait(10)
    polling.stop()
    assert "shop.orders ended by a fault of Postline: ZeroDivisionError" in str(waiting.error)
    assert waiting.error is not None
    assert waiting.error.remedy
    assert consumer.closed
