"""Contract tests: consumers against examples of every version of their topics, owners against what consumers read.

Versions come from the snapshots that owners commit (`postline contracts snapshot`), what consumers read from the file
that `postline contracts usage --save` writes; neither needs a log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from postline.app import App, declared_views
from postline.contracts.examples import examples_of
from postline.contracts.schema import SCHEMA_URN, Schema
from postline.contracts.snapshot import Snapshot, read_snapshot
from postline.errors import ContractError, UsageError
from postline.events import Subscription
from postline.message import UNREADABLE
from postline.registry import broken_consumers, read_views

__all__ = ["Example", "check_consumers", "consumer_examples", "recorded_examples"]


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
    be read, and UsageError where a topic has no snapshot.
    """
    return [
        Example(read.subscription, read.topic, read.type, version, number, decode(msgspec.json.encode(example)))
        for read in _read_types(app, Path(directory))
        for version, (schema, decode) in read.versions.items()
        for number, example in enumerate(examples_of(schema, count), 1)
    ]


def recorded_examples(app: App, records: str | Path, directory: str | Path = "contracts") -> list[Example]:
    """The same from real records, in a file that `postline tail TOPIC --json --reveal` wrote, numbered as its lines.

    Each is read as the version that it names, or the newest if it names none, as records from outside. Types that no
    subscription handles and tombstones are passed over. Raises ContractError for a record of a version that is not in
    the snapshot, or that can't be read, and as `consumer_examples` does.
    """
    reads = _read_types(app, Path(directory))
    found = []
    for number, line in enumerate(Path(records).read_bytes().splitlines(), 1):
        record = msgspec.json.decode(line, type=_Recorded)
        for read in reads:
            if record.topic == read.topic and record.type in read.names and record.data:
                version, value = read.read(record, f"{records}:{number}")
                found.append(Example(read.subscription, read.topic, read.type, version, number, value))
    return found


class _Recorded(msgspec.Struct):
    """What is needed of a line."""

    topic: str
    type: str
    data: msgspec.Raw = msgspec.Raw()
    dataschema: str = ""


class _ReadType(NamedTuple):
    """A type that a subscription handles, with the versions of its owner's snapshot and what reads their JSON."""

    subscription: str
    topic: str
    type: str
    names: Sequence[str]
    versions: dict[int, tuple[Schema, Callable[[bytes], Any]]]

    def read(self, record: _Recorded, place: str) -> tuple[int, Any]:
        """The record's version, and its data as the handler gets it."""
        named = record.dataschema.removeprefix(SCHEMA_URN)
        for version, (schema, decode) in sorted(self.versions.items(), reverse=True):
            if named in ("", schema.fingerprint):
                try:
                    return version, decode(bytes(record.data))
                except (*UNREADABLE, ValueError, TypeError) as error:
                    raise ContractError(
                        f"{place}: the recorded {self.type} can't be read as version {version}: "
                        f"{str(error).removesuffix('.')}.",
                        remedy="Record it with --reveal; or it is what the consumer would have in its dead letters.",
                    ) from error
        raise ContractError(
            f"{place}: the recorded {self.type} is of a version that the snapshot of {self.topic} does not have.",
            remedy="Bring the snapshot up to date.",
        )


def _read_types(app: App, directory: Path) -> list[_ReadType]:
    return [each for subscription in app.subscriptions.values() for each in _of(subscription, directory)]


def _of(subscription: Subscription, directory: Path) -> Iterator[_ReadType]:
    topic = subscription.topic
    snapshot = _snapshot(directory, topic.name)
    for name in subscription.types:
        reading = topic.reading_of(name)
        names = (name, *reading.aliases)
        known = next((snapshot.types[each] for each in names if each in snapshot.types), None)
        as_json = reading.as_json()
        versions = {
            version: (schema, as_json.decoder(schema)) for version, schema in (known.numbered if known else {}).items()
        }
        yield _ReadType(subscription.name, topic.name, name, names, versions)


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
