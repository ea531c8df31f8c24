"""Kafka's errors as Postline's: the class, the place, the remedy, and whether asking again helps."""

from __future__ import annotations

import pytest

from postline.errors import (
    Fenced,
    LogError,
    LogRefused,
    LogUnavailable,
    LogVersionError,
    MessageTooLarge,
    PostlineError,
    SettingsError,
    SubscriptionConflict,
    UnknownTopic,
)

pytest.importorskip("confluent_kafka")

from confluent_kafka import KafkaError, KafkaException

from postline.log.kafka.translation import translated, unreachable

WHERE = "kafka://one:9092"
DISCONNECTED = "one:9092/bootstrap: Disconnected (after 0ms in state APIVERSION_QUERY)"
VERIFY = "ssl://one:9092/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: x"
PLAIN = "ssl://one:9092/bootstrap: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?"
NO_CERTIFICATE = (
    "ssl://one:9092: Receive failed: tlsv13 alert certificate required (after 0ms in state APIVERSION_QUERY)"
)
MECHANISMS = "SASL PLAIN mechanism handshake failed: Broker: Unsupported: broker's supported mechanisms: SCRAM-SHA-256"


def error(name: str, text: str | None = None) -> KafkaError:
    """One of Kafka's errors by its name, in librdkafka's words or these."""
    return KafkaError(getattr(KafkaError, name), text)


@pytest.mark.parametrize(
    ("name", "text", "kind", "remedy"),
    [
        ("_ALL_BROKERS_DOWN", None, LogUnavailable, "brokers run"),
        ("_ALL_BROKERS_DOWN", "1/1 brokers are down", LogUnavailable, "security.protocol=ssl"),
        ("_TRANSPORT", "one:9092: Connect to ipv4#… failed: Connection refused", LogUnavailable, "brokers run"),
        ("_TRANSPORT", DISCONNECTED, LogUnavailable, "security.protocol=ssl"),
        ("_TRANSPORT", NO_CERTIFICATE, LogRefused, "ssl.certificate.location"),
        ("_TRANSPORT", "error:0A000086:SSL routines::certificate verify failed", LogRefused, "ssl.ca.location"),
        ("_RESOLVE", "Failed to resolve 'x:1': Name or service not known", LogUnavailable, "advertised.listeners"),
        ("_TIMED_OUT", None, LogUnavailable, "publish_seconds"),
        ("_MSG_TIMED_OUT", None, LogUnavailable, "publish_seconds"),
        ("REQUEST_TIMED_OUT", None, LogUnavailable, "publish_seconds"),
        ("_AUTHENTICATION", "SASL authentication error: Authentication failed", LogRefused, "sasl.password_file"),
        ("_AUTHENTICATION", MECHANISMS, LogRefused, "sasl.mechanism"),
        ("SASL_AUTHENTICATION_FAILED", None, LogRefused, "sasl.username"),
        ("UNSUPPORTED_SASL_MECHANISM", None, LogRefused, "sasl.mechanism"),
        ("_SSL", VERIFY, LogRefused, "ssl.ca.location"),
        ("_SSL", PLAIN, LogUnavailable, "leave that out"),
        (
            "_SSL",
            "SSL handshake failed: error:0A00010B:SSL routines::wrong version number",
            LogRefused,
            "leave that out",
        ),
        ("_SSL", "something else", LogUnavailable, "security.protocol"),
        ("TOPIC_AUTHORIZATION_FAILED", None, LogRefused, "postline topics plan"),
        ("GROUP_AUTHORIZATION_FAILED", None, LogRefused, "postline topics plan"),
        ("CLUSTER_AUTHORIZATION_FAILED", None, LogRefused, "postline topics plan"),
        ("TRANSACTIONAL_ID_AUTHORIZATION_FAILED", None, LogRefused, "postline topics plan"),
        ("UNKNOWN_TOPIC_OR_PART", None, UnknownTopic, "create_topics=true"),
        ("_UNKNOWN_TOPIC", None, UnknownTopic, "create_topics=true"),
        ("MSG_SIZE_TOO_LARGE", None, MessageTooLarge, "max.message.bytes"),
        ("RECORD_LIST_TOO_LARGE", None, MessageTooLarge, "max.message.bytes"),
        ("NOT_ENOUGH_REPLICAS", None, LogUnavailable, "missing brokers"),
        ("NOT_ENOUGH_REPLICAS_AFTER_APPEND", None, LogUnavailable, "missing brokers"),
        ("KAFKA_STORAGE_ERROR", None, LogUnavailable, "disk"),
        ("THROTTLING_QUOTA_EXCEEDED", None, LogUnavailable, "quota"),
        ("POLICY_VIOLATION", None, LogRefused, "postline topics plan"),
        ("INVALID_REPLICATION_FACTOR", None, SettingsError, "replication=N"),
        ("UNSUPPORTED_VERSION", None, LogVersionError, "2.5"),
        ("_UNSUPPORTED_FEATURE", None, LogVersionError, "2.5"),
        ("INCONSISTENT_GROUP_PROTOCOL", None, SubscriptionConflict, "group.protocol=classic"),
        ("INVALID_GROUP_ID", None, SettingsError, "another name"),
        ("INVALID_TRANSACTION_TIMEOUT", None, SettingsError, "transaction_seconds=N"),
        ("PRODUCER_FENCED", None, Fenced, "Nothing to do"),
        ("_FENCED", None, Fenced, "Nothing to do"),
        ("INVALID_PRODUCER_EPOCH", None, Fenced, "Nothing to do"),
        ("ILLEGAL_GENERATION", None, Fenced, "Nothing to do"),
        ("COORDINATOR_LOAD_IN_PROGRESS", None, LogUnavailable, "tried again"),
        ("_INVALID_ARG", 'No such configuration property: "x"', SettingsError, "property"),
        ("UNKNOWN", None, LogError, "broker's own log"),
    ],
)
def test_each_says_what_where_and_what_to_do(
    name: str, text: str | None, kind: type[PostlineError], remedy: str
) -> None:
    for given in (error(name, text), KafkaException(error(name, text))):
        told = translated(given, "publish to topic 'orders'", WHERE)
        assert type(told) is kind
        assert told.message.startswith(f"{WHERE}: can't publish to topic 'orders': ")
        assert name in told.message
        assert text is None or text.rstrip(".") in told.message
        assert remedy in told.remedy


ALL = sorted(name for name in vars(KafkaError) if name.upper() == name and name.strip("_") and name != "NO_ERROR")


@pytest.mark.parametrize("name", ALL)
def test_every_error_there_is_becomes_one_of_ours(name: str) -> None:
    told = translated(error(name), "list topics", WHERE)
    assert isinstance(told, PostlineError)
    assert told.remedy.endswith(".")
    assert "\n" not in str(told)


def test_the_rest_is_judged_by_whether_kafka_would_try_again() -> None:
    plain = KafkaError(KafkaError.INVALID_RECORD)
    assert type(translated(plain, "x", WHERE)) is LogError
    again = KafkaError(KafkaError.INVALID_RECORD, "reason", False, True, False)
    assert again.retriable()
    assert isinstance(translated(again, "x", WHERE), LogUnavailable)
    abort = KafkaError(KafkaError.INVALID_RECORD, "reason", False, False, True)
    assert abort.txn_requires_abort()
    assert isinstance(translated(abort, "x", WHERE), LogUnavailable)


def test_an_exception_without_an_error_of_kafkas_is_told_too() -> None:
    told = translated(KafkaException("odd"), "connect", WHERE)
    assert type(told) is LogError
    assert "odd" in told.message


def test_at_start_the_most_telling_error_counts() -> None:
    nothing = unreachable(WHERE, None, 10)
    assert type(nothing) is LogUnavailable
    assert nothing.message == f"{WHERE}: no broker answered within 10 s."
    refused = unreachable(WHERE, error("_AUTHENTICATION", "Authentication failed"), 10)
    assert type(refused) is LogRefused
    assert not refused.retryable
    mismatch = unreachable(WHERE, error("_TRANSPORT", DISCONNECTED), 2.5)
    assert "within 2.5 s" in mismatch.message
    assert "TLS mismatch is likely" in mismatch.message
