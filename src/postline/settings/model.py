"""What settings say, as values: the log, the namespace, and sizes of topics and subscriptions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from postline.settings.url import LogUrl
from postline.settings.values import (
    parse_count,
    parse_duration_ms,
    parse_partitions,
    parse_seconds,
    parse_size,
    parse_timedelta,
)

__all__ = ["SUBSCRIPTIONS", "TOPICS", "Kind", "Settings", "SizesT", "SubscriptionSettings", "TopicSettings"]


class _Sizes:
    def overrides(self) -> dict[str, Any]:
        """Only what is said, by field."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class TopicSettings(_Sizes):
    """What the environment says of a topic's size, over its contract; None where it says nothing."""

    partitions: int | None = None
    retention_ms: int | None = None
    #: For each partition.
    retention_bytes: int | None = None
    #: Over the limits of the topic's bound, where its contract declares one.
    bound_records: int | None = None
    bound_age: timedelta | None = None
    bound_bytes: int | None = None

    def bound_overrides(self) -> dict[str, Any]:
        """What is said of the topic's bound, by the bound's fields."""
        return {
            name.removeprefix("bound_"): value for name, value in self.overrides().items() if name.startswith("bound_")
        }


@dataclass(frozen=True, kw_only=True)
class SubscriptionSettings(_Sizes):
    """What the environment says of a subscription, over the code; None where it says nothing.

    The fields mean what they mean in the runtime's plan of a subscription.
    """

    concurrency: int | None = None
    #: Only for subscriptions that the code declares with `batch=`.
    batch: int | None = None
    timeout_seconds: float | None = None
    held_records_max: int | None = None
    held_bytes_max: int | None = None
    in_flight_records_max: int | None = None
    in_flight_bytes_max: int | None = None


SizesT = TypeVar("SizesT", TopicSettings, SubscriptionSettings)


class Kind(NamedTuple, Generic[SizesT]):
    """A kind of thing with sizes: its table in the file, its variables, and the field and the parser of each key."""

    table: str
    variable: str
    make: type[SizesT]
    keys: dict[str, tuple[str, Callable[[object], Any]]]


TOPICS = Kind(
    "topics",
    "POSTLINE_TOPIC_",
    TopicSettings,
    {
        "partitions": ("partitions", parse_partitions),
        "retention": ("retention_ms", parse_duration_ms),
        "retention_bytes": ("retention_bytes", parse_size),
        "bound_records": ("bound_records", parse_count),
        "bound_age": ("bound_age", parse_timedelta),
        "bound_bytes": ("bound_bytes", parse_size),
    },
)
SUBSCRIPTIONS = Kind(
    "subscriptions",
    "POSTLINE_SUBSCRIPTION_",
    SubscriptionSettings,
    {
        "concurrency": ("concurrency", parse_count),
        "batch": ("batch", parse_count),
        "timeout": ("timeout_seconds", parse_seconds),
        "held_records_max": ("held_records_max", parse_count),
        "held_bytes_max": ("held_bytes_max", parse_size),
        "in_flight_records_max": ("in_flight_records_max", parse_count),
        "in_flight_bytes_max": ("in_flight_bytes_max", parse_size),
    },
)


def _variable_name(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that the surroundings say; made by `load_settings`, plain values for tests."""

    url: LogUrl
    #: Who said it: an argument, a variable, a file, the code or the default.
    url_from: str = ""
    namespace: str = ""
    instance: str = ""
    #: Where schemas are registered, if not in the log itself: an `http(s)://` URL, which may carry credentials.
    registry: str = field(default="", repr=False)
    topics: Mapping[str, TopicSettings] = field(default_factory=dict)
    subscriptions: Mapping[str, SubscriptionSettings] = field(default_factory=dict)
    #: The same from variables, by the part of the variable's name that stands for the topic's or the subscription's.
    topic_variables: Mapping[str, TopicSettings] = field(default_factory=dict)
    subscription_variables: Mapping[str, SubscriptionSettings] = field(default_factory=dict)
    #: The file that was read, if there is one.
    config: Path | None = None

    def topic(self, name: str) -> TopicSettings:
        """What is said of a topic, by its name without the namespace; variables over the file."""
        said = self.topics.get(name, TopicSettings())
        return replace(said, **self.topic_variables.get(_variable_name(name), said).overrides())

    def subscription(self, name: str) -> SubscriptionSettings:
        """What is said of a subscription, by its name without the namespace; variables over the file."""
        said = self.subscriptions.get(name, SubscriptionSettings())
        return replace(said, **self.subscription_variables.get(_variable_name(name), said).overrides())

    def full_name(self, name: str) -> str:
        """A topic's or a subscription's name as the log knows it: with the namespace before it, if there is one."""
        return f"{self.namespace}.{name}" if self.namespace else name
