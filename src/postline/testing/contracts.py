"""Contract tests: consumers against examples of every version of their topics, owners against what consumers read.

Versions come from the snapshots that owners commit (`postline contracts snapshot`), what consumers read from the file
that `postline contracts usage --save` writes; neither needs a log.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from postline.app import App, declared_views
from postline.contracts.examples import examples_of
from postline.contracts.snapshot import Snapshot, read_snapshot
from postline.errors import UsageError
from postline.events import Subscription
from postline.registry import broken_consumers, read_views

__all__ = ["Example", "check_consumers", "consumer_examples"]


class Example(NamedTuple):
    """A message as the consumer's handler gets it, and where it comes from."""

    subscription: str
    topic: str
    type: str
    version: int
    number: int
    value: Any

    def __str__(self) -> str:
        return f"{self.subscription}: {self.type} version {self.version}, example {self.number}"


def consumer_examples(app: App, directory: str | Path = "contracts", *, count: int = 3) -> list[Example]:
    """Examples of every version of every message type that the app's subscriptions handle, read as their handlers read.

    For parametrizing a test that calls the handler with `example.value`. Raises ContractError for a version that can't
    be read, and UsageError where a topic has no snapshot. Of topics whose values are not JSON versions are compared,
    without examples.
    """
    return [each for subscription in app.subscriptions.values() for each in _of(subscription, Path(directory), count)]


def _of(subscription: Subscription, directory: Path, count: int) -> Iterator[Example]:
    snapshot = _snapshot(directory, subscription.topic.name)
    for name in subscription.types:
        reading = subscription.topic.reading_of(name)
        known = next((snapshot.types[each] for each in (name, *reading.aliases) if each in snapshot.types), None)
        for version, schema in (known.numbered if known else {}).items():
            decode = reading.decoder(schema)
            if reading.format.name != "json":
                continue
            for number, example in enumerate(examples_of(schema, count), 1):
                value = decode(msgspec.json.encode(example))
                yield Example(subscription.name, subscription.topic.name, name, version, number, value)


def _snapshot(directory: Path, topic: str) -> Snapshot:
    path = directory / f"{topic}.json"
    if not path.exists():
        raise UsageError(
            f"There is no snapshot of {topic} at {path}.",
            remedy="Copy it from its owner's repository, or name its place.",
        )
    return read_snapshot(path.read_bytes(), str(path))


def check_consumers(app: App, views: str | Path) -> None:
    """Check that everybody who reads the app's topics can read what it publishes now, itself as it is declared now.

    The judgement is that of `postline contracts check`. Raises AssertionError that names each consumer, the path and
    the remedy, and ContractError for a file that holds no views.
    """
    saved = read_views(Path(views).read_bytes(), str(views))
    known = [*(view for view in saved if view.service != app.name), *declared_views(app)]
    broken = [
        consumer
        for topic in app.owns
        for consumer in broken_consumers(topic, (view for view in known if view.topic == topic.name))
    ]
    problems = [
        f"{consumer.consumer} can't read {consumer.type}: {each.path or 'the message'}: {each.said}. {each.remedy}"
        for consumer in broken
        for each in consumer.breaks
    ]
    assert not problems, "\n".join(problems)
