"""Programs that know nothing of Postline: Kafka's own Java tools, and kcat, as producers, consumers and operators."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from typing import NamedTuple

import pytest

from tests.brokers.cluster import Cluster

__all__ = ["NULL", "Java", "Kcat", "Lag", "Seen", "line", "require_kcat"]

#: What stands for no key, no headers or no value in a line of Java's console producer.
NULL = "NULL"

_PRODUCER = "org.apache.kafka.tools.ConsoleProducer"
_CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
_GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
_KCAT_SECONDS = 60
#: Between the headers that Java's console consumer shows, which it doesn't escape; none of ours has it.
_SEPARATOR = "\x1f"


class Seen(NamedTuple):
    """A record as a foreign consumer shows it."""

    partition: int
    key: str | None
    value: str | None
    headers: dict[str, str]


class Lag(NamedTuple):
    """One partition of a group as the consumer-groups tool shows it."""

    current: int | None
    end: int
    lag: int | None


def line(value: str | None, key: str | None = None, **headers: str) -> str:
    """A record as Java's console producer is given it."""
    shown = ",".join(f"{name}:{text}" for name, text in headers.items())
    return "\t".join([shown or NULL, NULL if key is None else key, NULL if value is None else value])


class Java:
    """The tools of Kafka's own distribution. Blocking."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def _run(self, tool: str, *arguments: str, text: str | None = None) -> str:
        return self._cluster.run_tool(
            tool, "--bootstrap-server", self._cluster.internal_bootstrap, *arguments, text=text
        )

    def produce(self, topic: str, lines: Iterable[str], *arguments: str) -> None:
        """Produce lines as `line` writes them."""
        given = ("parse.key=true", "parse.headers=true", f"null.marker={NULL}")
        properties = [word for each in given for word in ("--property", each)]
        text = "".join(f"{each}\n" for each in lines)
        self._run(_PRODUCER, "--topic", topic, *properties, *arguments, text=text)

    def consume(self, topic: str, count: int, *, isolation: str = "read_committed") -> list[Seen]:
        """So many records from the beginning."""
        given = ("print.partition", "print.headers", "print.key")
        properties = [word for each in given for word in ("--property", f"{each}=true")]
        properties += ["--property", f"headers.separator={_SEPARATOR}"]
        bounds = ("--from-beginning", "--max-messages", str(count), "--timeout-ms", "30000")
        said = self._run(_CONSUMER, "--topic", topic, "--isolation-level", isolation, *bounds, *properties)
        return [_seen(each) for each in said.splitlines() if each.startswith("Partition:")]

    def lags(self, group: str, topic: str) -> dict[int, Lag]:
        """The group's partitions of a topic, by number."""
        said = self._run(_GROUPS, "--describe", "--group", group)
        found = {}
        for words in map(str.split, said.splitlines()):
            if words[:2] == [group, topic]:
                current, end, lag = (None if word == "-" else int(word) for word in words[3:6])
                assert end is not None
                found[int(words[2])] = Lag(current, end, lag)
        return found

    def groups(self, *arguments: str) -> str:
        """Whatever else the consumer-groups tool can do."""
        return self._run(_GROUPS, *arguments)


def _seen(text: str) -> Seen:
    partition, headers, key, value = text.split("\t", 3)
    pairs = [] if headers == "NO_HEADERS" else [each.partition(":")[::2] for each in headers.split(_SEPARATOR)]
    return Seen(
        int(partition.removeprefix("Partition:")),
        None if key == "null" else key,
        None if value == "null" else value,
        dict(pairs),
    )


def require_kcat() -> None:
    """Skip the test where kcat is not installed, and say why; in CI fail it."""
    if shutil.which("kcat"):
        return
    reason = "no kcat here: run `scripts/kafka install`, or install the package kcat"
    if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


class Kcat:
    """kcat, which stands for every client on librdkafka. Blocking."""

    def __init__(self, cluster: Cluster) -> None:
        require_kcat()
        self._servers = cluster.bootstrap

    def _run(self, *arguments: str, text: str = "") -> str:
        command = ["kcat", "-b", self._servers, *arguments]
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=_KCAT_SECONDS, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def produce(self, topic: str, records: Iterable[tuple[str, str]], *arguments: str, **headers: str) -> None:
        """Produce keys with values, an empty value being a tombstone, all with the same headers.

        Keys are placed as Java places them, which kcat has to be told: librdkafka's own way is another.
        """
        named = [word for name, text in headers.items() for word in ("-H", f"{name}={text}")]
        text = "".join(f"{key}\t{value}\n" for key, value in records)
        placed = ("-X", "topic.partitioner=murmur2_random")
        self._run("-P", "-t", topic, "-K", "\t", "-Z", *placed, *named, *arguments, text=text)

    def consume(self, topic: str, *arguments: str) -> list[Seen]:
        """All records there are at this moment, past open transactions never."""
        said = self._run("-C", "-q", "-J", "-e", "-o", "beginning", "-t", topic, *arguments)
        return [_seen_in(json.loads(each)) for each in said.splitlines()]


def _seen_in(told: dict) -> Seen:
    pairs = told.get("headers", [])
    return Seen(told["partition"], told["key"], told["payload"], dict(zip(pairs[::2], pairs[1::2], strict=True)))
