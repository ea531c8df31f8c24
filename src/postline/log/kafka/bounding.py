"""`ManyBounds`: first and next offsets of many topics at once, by one client that is kept."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import TypeAlias

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from postline.log.kafka.cluster import CONNECTED, Cluster
from postline.log.kafka.reading import READING_GROUP
from postline.log.kafka.topics import Topics
from postline.log.port import Bounds

__all__ = ["ManyBounds", "Starts"]

#: What Kafka's protocol takes in the place of a time, for the first and the next offset.
_FIRST, _NEXT = -2, -1
#: The client library compares each place of a question with every other one.
_PLACES_AT_ONCE = 200
#: Where that is not enough the administrative client is asked, which waits for leaders to move.
_ANSWER_SECONDS = 1.0
_GREETING_SECONDS = 2.0

_Place: TypeAlias = tuple[str, int]
#: Offsets by topic and partition.
Starts: TypeAlias = dict[_Place, int]


class ManyBounds:
    """Asks leaders for a thousand offsets in some milliseconds. Blocking; thread-safe.

    The administrative client makes a future of each partition, which takes four times as long.
    """

    def __init__(self, cluster: Cluster, topics: Topics) -> None:
        self._cluster, self._topics = cluster, topics
        #: One question after another: they share a connection to each broker anyway.
        self._lock = threading.Lock()
        self._asker: Consumer | None = None
        self._closed = False

    def close(self) -> None:
        """Let go of the client."""
        with self._lock:
            self._closed = True
            if self._asker is not None:
                self._asker.close()
                self._asker = None

    def starts(self, names: Iterable[str]) -> Starts:
        """The first offset of each partition of those topics that exist, as far as leaders tell at once."""
        counts = {name: self._topics.known(name) or self._topics.look(name) or 0 for name in names}
        return self._told([(name, number) for name, count in counts.items() for number in range(count)], _FIRST)

    def of(self, names: Iterable[str], starts: Starts) -> dict[str, list[Bounds]]:
        """First and next offset of each partition, open transactions included; of those topics that exist.

        `starts` are what was told of these topics a moment ago.
        """
        ends = self._told(list(starts), _NEXT)
        found, missing = dict[str, list[Bounds]](), list[str]()
        for name in names:
            places = [(name, number) for number in range(self._topics.known(name) or 0)]
            if places and all(place in ends for place in places):
                found[name] = [Bounds(starts[place], ends[place]) for place in places]
            else:
                missing.append(name)
        return found | self._topics.bounds_of(missing)

    def _told(self, places: Sequence[_Place], which: int) -> Starts:
        """What leaders tell at once."""
        with self._lock:
            if self._closed:
                raise self._cluster.closed()
            return self._asked(places, which)

    def _asked(self, places: Sequence[_Place], which: int) -> dict[_Place, int]:
        found: dict[_Place, int] = {}
        for some in _chunks(places):
            asked = [TopicPartition(name, number, which) for name, number in some]
            try:
                told = self._client().offsets_for_times(asked, _ANSWER_SECONDS)
            except KafkaException as error:
                self._look_around()
                if error.args[0].code() == KafkaError._TIMED_OUT:
                    break
                continue
            found |= {(each.topic, each.partition): each.offset for each in told if not each.error and each.offset >= 0}
        return found

    def _client(self) -> Consumer:
        if self._asker is None:
            settings = {"group.id": READING_GROUP, "isolation.level": "read_uncommitted", **CONNECTED}
            self._asker = self._cluster.outsider(settings)
            self._look_around()
        return self._asker

    def _look_around(self) -> None:
        """Have the client learn of topics and of who leads them, which it does not by itself: it reads none of them."""
        with suppress(KafkaException):
            self._client().list_topics(timeout=_GREETING_SECONDS)


def _chunks(places: Sequence[_Place]) -> Iterator[list[_Place]]:
    left = iter(places)
    while some := list(islice(left, _PLACES_AT_ONCE)):
        yield some
