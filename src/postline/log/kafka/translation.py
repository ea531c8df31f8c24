"""What Kafka's errors mean to Postline: which of its own each becomes, with place and remedy."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from confluent_kafka import KafkaError, KafkaException

from postline.errors import (
    Fenced,
    LogCorrupt,
    LogError,
    LogFull,
    LogRefused,
    LogUnavailable,
    LogVersionError,
    MessageTooLarge,
    PostlineError,
    SettingsError,
    SubscriptionConflict,
    TopicMismatch,
    UnknownSubscription,
    UnknownTopic,
)

__all__ = ["translated", "unreachable"]

_Kind: TypeAlias = type[PostlineError]


class _Meaning(NamedTuple):
    """Our error for some of Kafka's: its class, what is the matter, and what to do."""

    kind: _Kind
    what: str
    remedy: str


def translated(error: KafkaError | KafkaException, doing: str, address: str) -> PostlineError:
    """Our error for one of Kafka's, met at `address` when asked to `doing` ("publish to topic 'orders'").

    The caller raises it `from` the original. `LogError.retryable` says whether asking again may help; after a
    retryable one from a publish or a commit the outcome is unknown.
    """
    cause = _error_of(error)
    meaning = _meaning_of(cause)
    return meaning.kind(f"{address}: can't {doing}: {meaning.what} ({_said(cause)}).", remedy=meaning.remedy)


def unreachable(address: str, last: KafkaError | None, seconds: float) -> PostlineError:
    """No broker answered within `seconds` at start; `last` is the most telling error that a client's callback got.

    `_ALL_BROKERS_DOWN` and what a call that timed out raises say least: give them only if there was nothing else. A
    plaintext client on a TLS port is told nothing but that. Retryable, unless `last` shows that the cluster refused.
    """
    if last is None:
        return LogUnavailable(f"{address}: no broker answered within {seconds:g} s.", remedy=f"{_REACH} {_STRANGER}")
    meaning = _meaning_of(last)
    said = f"{address}: no connection within {seconds:g} s: {meaning.what} ({_said(last)})."
    return meaning.kind(said, remedy=meaning.remedy)


def _error_of(error: KafkaError | KafkaException) -> KafkaError:
    if isinstance(error, KafkaError):
        return error
    first = error.args[0] if error.args else None
    return first if isinstance(first, KafkaError) else KafkaError(KafkaError._FAIL, str(error))


def _said(error: KafkaError) -> str:
    """Kafka's own name and words for it, on one line."""
    words = " ".join((error.str() or "").split()).rstrip(".")
    return f"{error.name()}: {words}" if words else str(error.name())


def _meaning_of(error: KafkaError) -> _Meaning:
    text = (error.str() or "").lower()
    for codes, signs in _SIGNS:
        if error.code() in codes:
            found = next((meaning for words, meaning in signs if any(word in text for word in words)), None)
            if found is not None:
                return found
    known = _BY_CODE.get(error.code())
    if known is not None:
        return known
    if error.fatal() or error.txn_requires_abort():
        return _Meaning(LogUnavailable, "the transaction can't go on", "It is done again; nothing of it was stored.")
    if error.retriable():
        return _Meaning(LogUnavailable, "the cluster is busy with itself", _AGAIN)
    return _Meaning(LogError, "Kafka refused", "Look up Kafka's error name, and the broker's own log of that moment.")


_AGAIN = "It is tried again; if it stays so, look at the brokers' health."
_REACH = "See that the brokers run, that host and port are right, and that a firewall lets them through."
_STRANGER = "A port that takes connections and says nothing is another program's, or a broker that hangs."
_ACL = " `postline topics plan` lists every ACL that the app needs."
_TLS = (
    "If the port speaks TLS, write security.protocol=ssl (or sasl_ssl) and ssl.ca.location=PATH behind the question"
    " mark; if it speaks none, leave that out or write sasl_plaintext."
)
_LOGIN = "For a login write security.protocol=sasl_ssl, sasl.mechanism=…, sasl.username=… and sasl.password_file=PATH."

_NOBODY = _Meaning(LogUnavailable, "no broker could be reached", _REACH)

_TLS_ON_PLAIN = _Meaning(LogRefused, "the port doesn't speak TLS, as it seems", _TLS)
_UNTRUSTED = _Meaning(
    LogRefused,
    "the broker's certificate isn't trusted",
    "Name the certificate authority's file by ssl.ca.location=PATH; the host must be one that the certificate names.",
)
_NO_CLIENT_CERTIFICATE = _Meaning(
    LogRefused,
    "the broker refused this client's certificate, or wants one",
    "Write ssl.certificate.location=PATH and ssl.key.location=PATH (ssl.key.password_file=PATH if it has one).",
)

_NO_TLS_COMMON = _Meaning(LogUnavailable, "TLS could not be agreed on; the port may not speak TLS", f"{_TLS} {_REACH}")
_HUNG_UP = _Meaning(
    LogUnavailable,
    "the broker hung up on the first request; a TLS mismatch is likely, a port that speaks TLS met in plaintext",
    f"{_TLS} {_LOGIN}",
)
_ALL_DOWN = _Meaning(
    LogUnavailable,
    "no broker could be reached, or each hung up at once, as one that speaks TLS does when met in plaintext",
    f"{_REACH} {_TLS}",
)
_UNRESOLVED = _Meaning(
    LogUnavailable,
    "a broker's host name can't be resolved",
    "Check the name in the URL; if it isn't in the URL, the broker gave it (its advertised.listeners), and it must be"
    " one that this machine can resolve.",
)
_MECHANISM = _Meaning(
    LogRefused,
    "the broker doesn't offer this SASL mechanism, or no login at all",
    "Write sasl.mechanism=… as the broker has it enabled (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, GSSAPI);"
    " for a port without a login write security.protocol=ssl or leave it out.",
)

_Signs: TypeAlias = tuple[tuple[tuple[str, ...], _Meaning], ...]

_CONNECTION_SIGNS: _Signs = (
    (("certificate verify failed", "certificate verification", "hostname mismatch", "self-signed"), _UNTRUSTED),
    (("alert certificate", "alert bad certificate", "certificate required", "unknown ca"), _NO_CLIENT_CERTIFICATE),
    (("wrong version number", "packet length too long", "record layer"), _TLS_ON_PLAIN),
    (("ssl handshake", "ssl_handshake"), _NO_TLS_COMMON),
    (("apiversion", "sasl_handshake", "auth_handshake", "auth_legacy"), _HUNG_UP),
    (("failed to resolve", "name or service not known", "nodename nor servname"), _UNRESOLVED),
)

#: Errors of which librdkafka's words say more than the code: signs to look for, the first that is seen counts.
_SIGNS: tuple[tuple[frozenset[int], _Signs], ...] = (
    (frozenset((KafkaError._TRANSPORT, KafkaError._SSL, KafkaError.NETWORK_EXCEPTION)), _CONNECTION_SIGNS),
    (frozenset((KafkaError._AUTHENTICATION,)), ((("supported mechanisms",), _MECHANISM),)),
)

_TIMED_OUT = _Meaning(
    LogUnavailable,
    "the cluster didn't answer in time",
    f"{_REACH} A cluster that is only slow needs a larger publish_seconds=N or transaction_seconds=N.",
)
_CREDENTIALS = _Meaning(
    LogRefused,
    "the cluster refuses the login",
    "Check sasl.mechanism, sasl.username and the password (sasl.password_file=PATH) against the user in the cluster.",
)
_TOO_LARGE = _Meaning(
    MessageTooLarge,
    "the record, or the batch it was sent in, is larger than the topic or the client allows",
    "Raise max.message.bytes of the topic and message.max.bytes=N in the URL (batch.size=N below both), or store the"
    " content elsewhere and publish its place.",
)
_REPLICAS = _Meaning(
    LogUnavailable,
    "fewer copies are in sync than min.insync.replicas asks for",
    "Bring the missing brokers back; nothing is lost meanwhile.",
)
_NO_TOPIC = _Meaning(
    UnknownTopic,
    "the cluster has no such topic, or hides it from this user",
    "Create it by `postline topics apply` or create_topics=true in the URL; else grant DESCRIBE on it." + _ACL,
)
_OLD_BROKER = _Meaning(
    LogVersionError,
    "the broker is too old for it",
    "Postline needs Apache Kafka 2.5 or newer; group.protocol=consumer needs 4.0 (leave it at auto).",
)
_TAKEN = _Meaning(
    SubscriptionConflict,
    "the group's name is in use by another kind of client or another group protocol",
    "Stop the other program that uses this group, or rename the subscription; while old and new versions run side by"
    " side, keep group.protocol=classic.",
)
_NEWER_OWNER = _Meaning(
    Fenced, "a newer owner has taken over", "Nothing to do: what was not stored is done again there."
)
_MOVED_ON = _Meaning(Fenced, "the group moved on without this member", _NEWER_OWNER.remedy)
_STORAGE = _Meaning(
    LogUnavailable,
    "a broker can't use its disk",
    "Look at that broker's log directories: the disk may be full or failing.",
)
_UNREADABLE = _Meaning(
    LogCorrupt, "what the broker sent or keeps is damaged", "Check the broker's disks; the other replicas may be whole."
)
_BAD_PROPERTY = _Meaning(
    SettingsError, "a property of the URL is refused", "Change or leave out the property that is named."
)
_FEW_BROKERS = _Meaning(
    SettingsError,
    "the cluster has fewer brokers than copies are asked for",
    "Write replication=N with no more than there are brokers, or leave it out for the cluster's default.",
)
_POLICY = _Meaning(
    LogRefused,
    "a policy of the cluster forbids it",
    "Ask whoever runs the cluster; `postline topics plan` shows what is to be created, so that they can do it.",
)
_QUOTA = _Meaning(
    LogUnavailable, "the cluster limits how fast this user may go", "Wait, or have the user's quota raised."
)
_SHORTER = _Meaning(
    SettingsError,
    "the cluster doesn't allow a transaction this long",
    "Write transaction_seconds=N below the broker's transaction.max.timeout.ms.",
)
_GROUP_UNKNOWN = _Meaning(
    UnknownSubscription, "the cluster has no such group", "See `postline subscriptions list` for those that exist."
)
_PARTITIONS = _Meaning(
    TopicMismatch,
    "the number of partitions or their placing can't be had",
    "Declare a number that the cluster allows; an existing topic's can't be lowered.",
)
_NAME = _Meaning(SettingsError, "the cluster can't have a topic or group of this name", "Choose another name.")
_SESSION = _Meaning(
    SettingsError,
    "the broker doesn't allow this session timeout",
    "Write session.timeout.ms=N between its group.min.session.timeout.ms and group.max.session.timeout.ms.",
)
_QUEUE = _Meaning(
    LogUnavailable, "too much waits to be sent", "Publish less at once, or raise queue.buffering.max.kbytes=N."
)
_CROWDED = _Meaning(
    LogUnavailable, "the group has as many members as the broker allows", "Stop some, or raise group.max.size there."
)
_OVERTAKEN = _Meaning(
    LogError,
    "the position is outside of what the topic holds",
    "Retention may have overtaken it, or the topic was made anew.",
)
_BUSY = _Meaning(LogUnavailable, "the cluster is busy with itself", _AGAIN)
_CLOSED = _Meaning(
    LogUnavailable, "this client is closed", "Nothing to do while the app stops; otherwise start it again."
)


def _acl(operations: str, resource: str) -> _Meaning:
    return _Meaning(LogRefused, f"this user lacks an ACL: {operations} on {resource}", f"Have it granted.{_ACL}")


_CODES: tuple[tuple[_Meaning, tuple[str, ...]], ...] = (
    (_NOBODY, ("_TRANSPORT", "NETWORK_EXCEPTION")),
    (_ALL_DOWN, ("_ALL_BROKERS_DOWN",)),
    (_UNRESOLVED, ("_RESOLVE",)),
    (_NO_TLS_COMMON, ("_SSL",)),
    (_TIMED_OUT, ("_TIMED_OUT", "_MSG_TIMED_OUT", "_TIMED_OUT_QUEUE", "REQUEST_TIMED_OUT", "_WAIT_COORD")),
    (_CREDENTIALS, ("_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "ILLEGAL_SASL_STATE", "UNACCEPTABLE_CREDENTIAL")),
    (_CREDENTIALS, ("DELEGATION_TOKEN_EXPIRED", "DELEGATION_TOKEN_NOT_FOUND", "DELEGATION_TOKEN_AUTH_DISABLED")),
    (_MECHANISM, ("UNSUPPORTED_SASL_MECHANISM",)),
    (_acl("READ, WRITE and DESCRIBE (CREATE for a new one)", "the topic"), ("TOPIC_AUTHORIZATION_FAILED",)),
    (_acl("READ and DESCRIBE (DELETE to remove it)", "the group"), ("GROUP_AUTHORIZATION_FAILED",)),
    (_acl("CREATE, DESCRIBE or IDEMPOTENT_WRITE", "the cluster"), ("CLUSTER_AUTHORIZATION_FAILED",)),
    (_acl("WRITE and DESCRIBE", "the transactional id"), ("TRANSACTIONAL_ID_AUTHORIZATION_FAILED",)),
    (_NO_TOPIC, ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION", "UNKNOWN_TOPIC_ID")),
    (_TOO_LARGE, ("MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_MSG_SIZE")),
    (_REPLICAS, ("NOT_ENOUGH_REPLICAS", "NOT_ENOUGH_REPLICAS_AFTER_APPEND", "_ISR_INSUFF")),
    (_STORAGE, ("KAFKA_STORAGE_ERROR", "LOG_DIR_NOT_FOUND")),
    (_Meaning(LogFull, "this machine can't store what it must", "Free some room on its disk."), ("_FS",)),
    (_QUOTA, ("THROTTLING_QUOTA_EXCEEDED",)),
    (_POLICY, ("POLICY_VIOLATION", "TOPIC_DELETION_DISABLED", "SECURITY_DISABLED")),
    (_FEW_BROKERS, ("INVALID_REPLICATION_FACTOR",)),
    (_PARTITIONS, ("INVALID_PARTITIONS", "INVALID_REPLICA_ASSIGNMENT")),
    (_NAME, ("TOPIC_EXCEPTION", "INVALID_GROUP_ID")),
    (_OLD_BROKER, ("UNSUPPORTED_VERSION", "_UNSUPPORTED_FEATURE", "UNSUPPORTED_FOR_MESSAGE_FORMAT")),
    (_TAKEN, ("INCONSISTENT_GROUP_PROTOCOL", "UNRELEASED_INSTANCE_ID", "UNSUPPORTED_ASSIGNOR")),
    (_GROUP_UNKNOWN, ("GROUP_ID_NOT_FOUND", "_UNKNOWN_GROUP")),
    (_SESSION, ("INVALID_SESSION_TIMEOUT",)),
    (_SHORTER, ("INVALID_TRANSACTION_TIMEOUT",)),
    (_NEWER_OWNER, ("PRODUCER_FENCED", "_FENCED", "INVALID_PRODUCER_EPOCH", "TRANSACTION_COORDINATOR_FENCED")),
    (_NEWER_OWNER, ("INVALID_PRODUCER_ID_MAPPING", "UNKNOWN_PRODUCER_ID", "FENCED_INSTANCE_ID")),
    (_MOVED_ON, ("ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "FENCED_MEMBER_EPOCH", "STALE_MEMBER_EPOCH")),
    (_MOVED_ON, ("REBALANCE_IN_PROGRESS", "_ASSIGNMENT_LOST", "_MAX_POLL_EXCEEDED")),
    (_CROWDED, ("GROUP_MAX_SIZE_REACHED",)),
    (_OVERTAKEN, ("OFFSET_OUT_OF_RANGE", "_AUTO_OFFSET_RESET", "_LOG_TRUNCATION", "_NO_OFFSET")),
    (_UNREADABLE, ("INVALID_MSG", "_BAD_MSG", "_BAD_COMPRESSION")),
    (_BAD_PROPERTY, ("_INVALID_ARG", "INVALID_CONFIG", "_NOT_CONFIGURED")),
    (_QUEUE, ("_QUEUE_FULL",)),
    (_CLOSED, ("_DESTROY",)),
    (_BUSY, ("COORDINATOR_LOAD_IN_PROGRESS", "COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR", "NOT_CONTROLLER")),
    (_BUSY, ("LEADER_NOT_AVAILABLE", "NOT_LEADER_FOR_PARTITION", "BROKER_NOT_AVAILABLE", "REPLICA_NOT_AVAILABLE")),
    (_BUSY, ("CONCURRENT_TRANSACTIONS", "UNSTABLE_OFFSET_COMMIT", "OFFSET_NOT_AVAILABLE", "UNKNOWN_LEADER_EPOCH")),
    (_BUSY, ("FENCED_LEADER_EPOCH", "STALE_CTRL_EPOCH", "PREFERRED_LEADER_NOT_AVAILABLE", "OPERATION_NOT_ATTEMPTED")),
    (_BUSY, ("REASSIGNMENT_IN_PROGRESS", "TRANSACTION_ABORTABLE", "_RETRY", "_IN_PROGRESS", "_PREV_IN_PROGRESS")),
    (_BUSY, ("_PURGE_QUEUE", "_PURGE_INFLIGHT", "_DESTROY_BROKER", "_WAIT_CACHE")),
)

# By name, because the oldest driver that is supported lacks the newest of them.
_BY_CODE: dict[int, _Meaning] = {
    getattr(KafkaError, name): meaning for meaning, names in _CODES for name in names if hasattr(KafkaError, name)
}
