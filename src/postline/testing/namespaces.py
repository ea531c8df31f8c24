"""`remove_namespace`: what a trial left on a cluster goes away."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from postline.errors import LogUnavailable, UsageError
from postline.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

__all__ = ["remove_namespace"]

_LOGIN_OPTIONS = ("security.", "sasl.", "ssl.")
_ANSWER_SECONDS, _TRIES = 5.0, 6
_NEVER_SECONDS = 3_600.0


def remove_namespace(settings: Settings) -> None:
    """Remove all topics and groups whose names begin with the settings' namespace; nothing may work on them any more.

    Does nothing where the settings name a file. Blocking. Raises UsageError without a namespace, and LogUnavailable
    with a part of them left.
    """
    if not settings.namespace:
        raise UsageError("Without a namespace, everything would go.", remedy="Give the settings one.")
    if settings.url.scheme != "kafka":
        return
    from confluent_kafka.admin import AdminClient

    servers = {"bootstrap.servers": ",".join(settings.url.servers), "log_level": "0"}
    admin = AdminClient({**servers, **_login(settings.url.options)})
    prefix = settings.full_name("")
    # A call that went to a broker which is away is answered when it is made again, by another one.
    for _ in range(_TRIES):
        failure = _failure_of_removing(admin, prefix)
        if failure is None:
            return
    raise LogUnavailable(
        f"The topics and groups whose names begin with {prefix} could not be removed: {failure}.",
        remedy="Remove them with Kafka's own tools.",
    )


def _failure_of_removing(admin: AdminClient, prefix: str) -> Exception | None:
    """Why something may be left after this attempt; None if nothing is."""
    from confluent_kafka import KafkaError, KafkaException

    gone = {KafkaError.GROUP_ID_NOT_FOUND, KafkaError.UNKNOWN_TOPIC_OR_PART}
    failure: Exception | None = None
    try:
        told = admin.list_consumer_groups().result(_ANSWER_SECONDS)
        failure = next(iter(told.errors), None)
        groups = [each.group_id for each in told.valid if each.group_id.startswith(prefix)]
        topics = [name for name in admin.list_topics(timeout=_ANSWER_SECONDS).topics if name.startswith(prefix)]
        # Where such a call times out the client library can abort the process: it never does.
        removals = {**(admin.delete_consumer_groups(groups, request_timeout=_NEVER_SECONDS) if groups else {})}
        removals |= admin.delete_topics(topics) if topics else {}
    except (KafkaException, TimeoutError) as error:
        return error
    for removal in removals.values():
        try:
            removal.result(_ANSWER_SECONDS)
        except (KafkaException, TimeoutError) as error:
            if not isinstance(error, KafkaException) or error.args[0].code() not in gone:
                failure = error
    return failure


def _login(options: Mapping[str, str]) -> dict[str, str]:
    """What the client library has to be told to get in."""
    found = {}
    for name, value in options.items():
        if name.endswith("password_file"):
            found[name.removesuffix("_file")] = Path(value).read_text("utf-8").rstrip("\r\n")
        elif name.startswith(_LOGIN_OPTIONS):
            found[name] = value
    return found
