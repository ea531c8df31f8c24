"""The polling thread: a fault in it is told to whoever waits for its records."""

from __future__ import annotations

import threading
from typing import Any

from confluent_kafka import KafkaError, KafkaException

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

    def lost(self, partitions: Any) -> None: ...

    def failed(self, error: LogError) -> None:
        self.error = error
        self.told.set()

    def wait_for_room(self, seconds: float) -> bool:
        return True


class Around:
    """As much of the cluster and its ownership as the thread asks for."""

    clock = SystemClock()
    awaited = False
    granted = ()

    def refresh(self, metadata: Any) -> None: ...


class Forgotten(Broken):
    """A consumer whose group its coordinator has forgotten: it hears so by an event, which does not say it is fatal."""

    def poll(self, seconds: float) -> Any:
        raise KafkaException(KafkaError(KafkaError._FATAL, "Broker: The group id does not exist"))


class Good(Broken):
    """A consumer that works."""

    polled = threading.Event()

    def poll(self, seconds: float) -> Any:
        self.polled.set()

    def position(self, places: Any) -> Any:
        return []

    def consumer_group_metadata(self) -> Any: ...


def test_a_client_that_is_dead_is_made_anew_however_it_says_so():
    consumers, waiting, around = [Forgotten(), Good()], Waiting(), Around()
    made = [GroupConsumer(each, classic=False) for each in consumers]  # type: ignore[arg-type]
    polling = Polling(around, lambda: made.pop(0), "shop.orders", (waiting, around), waiting)  # type: ignore[arg-type]
    polling.start()
    assert Good.polled.wait(20)
    polling.stop()
    assert consumers[0].closed
    assert waiting.error is None


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
