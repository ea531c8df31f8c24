"""What a `kafka://` URL can ask for after its question mark."""

from __future__ import annotations

import difflib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from postline.errors import SettingsError

__all__ = ["RECORD_BYTES_MAX", "Options", "default_cache_directory", "read_options"]

# librdkafka's properties by whom they concern; those that are refused, deprecated or no text are left out.
_CLIENT_WORDS = """
api.version.request.timeout.ms broker.address.family broker.address.ttl builtin.features client.dns.lookup client.id
connections.max.idle.ms debug enable.metrics.push enable.random.seed enable.sasl.oauthbearer.unsecure.jwt
enable.ssl.certificate.verification https.ca.location https.ca.pem log.connection.close log.thread.name log_level
message.copy.max.bytes message.max.bytes metadata.max.age.ms metadata.recovery.rebootstrap.trigger.ms
metadata.recovery.strategy plugin.library.paths receive.message.max.bytes reconnect.backoff.max.ms
reconnect.backoff.ms retry.backoff.max.ms retry.backoff.ms sasl.kerberos.keytab sasl.kerberos.kinit.cmd
sasl.kerberos.min.time.before.relogin sasl.kerberos.principal sasl.kerberos.service.name sasl.mechanism
sasl.mechanisms sasl.oauthbearer.assertion.algorithm sasl.oauthbearer.assertion.claim.aud
sasl.oauthbearer.assertion.claim.exp.seconds sasl.oauthbearer.assertion.claim.iss
sasl.oauthbearer.assertion.claim.jti.include sasl.oauthbearer.assertion.claim.nbf.seconds
sasl.oauthbearer.assertion.claim.sub sasl.oauthbearer.assertion.file
sasl.oauthbearer.assertion.jwt.template.file sasl.oauthbearer.assertion.private.key.file
sasl.oauthbearer.assertion.private.key.passphrase sasl.oauthbearer.assertion.private.key.pem
sasl.oauthbearer.client.credentials.client.id sasl.oauthbearer.client.credentials.client.secret
sasl.oauthbearer.client.id sasl.oauthbearer.client.secret sasl.oauthbearer.config sasl.oauthbearer.extensions
sasl.oauthbearer.grant.type sasl.oauthbearer.metadata.authentication.type sasl.oauthbearer.method
sasl.oauthbearer.scope sasl.oauthbearer.sub.claim.name sasl.oauthbearer.token.endpoint.url sasl.password
sasl.username security.protocol socket.connection.setup.timeout.ms socket.keepalive.enable socket.max.fails
socket.nagle.disable socket.receive.buffer.bytes socket.send.buffer.bytes socket.timeout.ms
ssl.ca.certificate.stores ssl.ca.location ssl.ca.pem ssl.certificate.location ssl.certificate.pem
ssl.cipher.suites ssl.crl.location ssl.curves.list ssl.endpoint.identification.algorithm ssl.engine.id
ssl.key.location ssl.key.password ssl.key.pem ssl.keystore.location ssl.keystore.password ssl.providers
ssl.sigalgs.list statistics.interval.ms topic.metadata.propagation.max.ms topic.metadata.refresh.fast.interval.ms
topic.metadata.refresh.interval.ms topic.metadata.refresh.sparse
"""
_PRODUCER_WORDS = """
batch.num.messages batch.size compression.codec compression.level compression.type linger.ms
queue.buffering.backpressure.threshold queue.buffering.max.kbytes queue.buffering.max.messages
queue.buffering.max.ms request.timeout.ms sticky.partitioning.linger.ms
"""
_CONSUMER_WORDS = """
check.crcs client.rack coordinator.query.interval.ms fetch.error.backoff.ms fetch.max.bytes fetch.message.max.bytes
fetch.min.bytes fetch.queue.backoff.ms fetch.wait.max.ms group.remote.assignor heartbeat.interval.ms
max.partition.fetch.bytes max.poll.interval.ms queued.max.messages.kbytes queued.min.messages session.timeout.ms
"""
_CLIENT = frozenset(_CLIENT_WORDS.split())
_PRODUCER = frozenset(_PRODUCER_WORDS.split())
_CONSUMER = frozenset(_CONSUMER_WORDS.split())
_PROPERTIES = _CLIENT | _PRODUCER | _CONSUMER

_COMMITS = "a position is committed together with what its messages led to, never on its own"
_SHARED = "Postline names groups and members itself, after the subscription and the process"
_ORDER = "the order within a key depends on it"
_SENT = "every record's outcome must be known"
_BOUNDED = "publish_seconds=N bounds how long a publish may take"
_WHERE = "name the brokers before the question mark"
_CHOSEN = "a key's partition is Postline's to choose, the same in every engine"
_VERSION = "every broker that Postline can use (2.5 or newer) tells its version"
_JAVA_TRUST = "is Java's; name a PEM file by ssl.ca.location=PATH"

#: Properties that would break a promise, and those of Java's client: why not, and what to write instead.
_REFUSED: dict[str, str] = {
    "enable.auto.commit": f"is refused: {_COMMITS}",
    "auto.commit.enable": f"is refused: {_COMMITS}",
    "auto.commit.interval.ms": f"is refused: {_COMMITS}",
    "enable.auto.offset.store": f"is refused: {_COMMITS}",
    "offset.store.method": f"is refused: {_COMMITS}",
    "isolation.level": "is refused: what an aborted transaction wrote must stay unread",
    "enable.idempotence": "is refused: without it records are stored twice or out of order; durability=relaxed gives up"
    " safety for speed where only publishing is concerned",
    "acks": "is refused: durability=full or durability=relaxed says which copies are waited for",
    "request.required.acks": "is refused: durability=full or durability=relaxed says which copies are waited for",
    "transactional.id": "is refused: each process takes its own, or they would fence each other",
    "transaction.timeout.ms": "is refused: write transaction_seconds=N",
    "group.id": f"is refused: {_SHARED}",
    "group.instance.id": f"is refused: {_SHARED}",
    "group.protocol.type": f"is refused: {_SHARED}",
    "auto.offset.reset": "is refused: where a subscription begins is declared with it, and a lost position is no reason"
    " to begin anew silently",
    "partitioner": f"is refused: {_CHOSEN}",
    "partition.assignment.strategy": "is refused: partitions must move one by one while the others go on",
    "bootstrap.servers": f"is refused: {_WHERE}",
    "metadata.broker.list": f"is refused: {_WHERE}",
    "enable.partition.eof": "is refused: Postline asks for the ends of partitions where it needs them",
    "delivery.timeout.ms": "is refused: write publish_seconds=N",
    "message.timeout.ms": "is refused: write publish_seconds=N",
    "retries": f"is refused: {_BOUNDED}",
    "message.send.max.retries": f"is refused: {_BOUNDED}",
    "max.in.flight": f"is refused: {_ORDER}",
    "max.in.flight.requests.per.connection": f"is refused: {_ORDER}",
    "queuing.strategy": f"is refused: {_ORDER}",
    "enable.gapless.guarantee": "is refused: one record that fails must not stop the producer for all others",
    "delivery.report.only.error": f"is refused: {_SENT}",
    "produce.offset.report": f"is refused: {_SENT}",
    "allow.auto.create.topics": "is refused: write create_topics=true, which creates them as declared",
    "topic.blacklist": "is refused: it would hide topics that subscriptions need",
    "api.version.request": f"is refused: {_VERSION}",
    "api.version.fallback.ms": f"is refused: {_VERSION}",
    "broker.version.fallback": f"is refused: {_VERSION}",
    "log.queue": "is refused: Postline hands librdkafka's log lines to the logger postline.log.kafka",
    "max.poll.records": "is Java's; how many messages are in hand is the subscription's setting",
    "sasl.jaas.config": "is Java's; write sasl.username=NAME and sasl.password_file=PATH",
    "ssl.truststore.location": _JAVA_TRUST,
    "ssl.truststore.password": _JAVA_TRUST,
    "ssl.truststore.type": _JAVA_TRUST,
    "ssl.truststore.certificates": _JAVA_TRUST,
    "ssl.keystore.type": "is Java's; librdkafka reads PKCS#12, or PEM by ssl.key.location and ssl.certificate.location",
    "buffer.memory": "is Java's; write queue.buffering.max.kbytes=N",
    "fetch.max.wait.ms": "is Java's; write fetch.wait.max.ms=N",
}

_SECRET_FILES = {"sasl.password_file": "sasl.password", "ssl.key.password_file": "ssl.key.password"}
_SECRET = re.compile(r"password|passphrase|secret|token|credential|jaas|oauthbearer\.config|\.pem$", re.IGNORECASE)
# What only clients of the classic protocol choose; with the other one the broker does.
_CLASSIC_ONLY = ("session.timeout.ms", "heartbeat.interval.ms")
_FILES = frozenset(f"ssl.{what}.location" for what in ("ca", "certificate", "key", "keystore", "crl"))
# A property that no librdkafka has: given last, it ends the making of a client before anything is made.
_NO_PROPERTY = "postline.nothing"


#: Whatever a contract allows fits, with room for its envelope.
RECORD_BYTES_MAX = (256 << 20) + (1 << 16)
_RECORD_BYTES_MIN = 1 << 16


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a `kafka://` URL asks for. Shown, printed or logged, it hides its secrets."""

    #: librdkafka's properties for every client, `bootstrap.servers` included; may hold secrets.
    client: dict[str, str]
    #: More for producers.
    producer: dict[str, str]
    #: More for consumers. With `group_protocol` "auto" it may hold what only the classic protocol takes.
    consumer: dict[str, str]
    create_topics: bool = False
    #: "auto" (the newer one where the cluster has it), "classic" or "consumer".
    group_protocol: str = "auto"
    #: Copies of a topic that is created; -1 is the cluster's default.
    replication: int = -1
    #: False: publishing outside of handlers waits for one copy and may repeat or lose records.
    durable: bool = True
    publish_seconds: float = 30.0
    connect_seconds: float = 10.0
    transaction_seconds: float = 10.0
    #: The largest record that topics made or altered here take.
    record_bytes_max: int = RECORD_BYTES_MAX
    #: Where state is cached; None is `default_cache_directory()`.
    cache_directory: str | None = None

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={_shown(getattr(self, name))!r}" for name in self.__struct_fields__)
        return f"Options({fields})"


def read_options(servers: Sequence[str], given: Mapping[str, str]) -> Options:
    """The options of a URL with these brokers. Raises SettingsError that names all that is wrong, and no secret.

    Names that librdkafka knows go to it, by whom they concern; values are checked by librdkafka itself, where it is
    installed, without making a client. `sasl.password_file` and `ssl.key.password_file` are read here.
    """
    problems: list[str] = []
    client, producer, consumer = {"bootstrap.servers": ",".join(servers)}, dict[str, str](), dict[str, str]()
    fields: dict[str, object] = {}
    for name, value in given.items():
        try:
            if name in _OWN:
                field, read = _OWN[name]
                fields[field] = read(value)
            elif name in _SECRET_FILES:
                client[_SECRET_FILES[name]] = _secret_of(value, both=_SECRET_FILES[name] in given)
            elif name not in _PROPERTIES:
                problems.append(f"{name} {_meaningless(name)}")
            else:
                home = client if name in _CLIENT else producer if name in _PRODUCER else consumer
                home[name] = value
        except ValueError as error:
            problems.append(f"{name} {error}")
    options = msgspec.structs.replace(Options(client=client, producer=producer, consumer=consumer), **fields)
    problems += [*_wrong_values(given), *_contradictions(options)]
    if problems:
        raise SettingsError(
            f"The kafka URL has options that can't be used: {'; '.join(problems)}.",
            remedy="Known: create_topics=true|false, group.protocol=auto|classic|consumer, replication=N,"
            " durability=full|relaxed, publish_seconds=N, connect_seconds=N, transaction_seconds=N,"
            " record_bytes_max=N, cache_dir=PATH,"
            " sasl.password_file=PATH, ssl.key.password_file=PATH, and the properties of librdkafka.",
        )
    return options


def default_cache_directory() -> Path:
    """Where this user's caches are: `$XDG_CACHE_HOME` or `~/.cache`, else a directory of the user among temporary ones.

    Makes nothing; a home that can't be written, or that there is none of, is passed over.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(named) if os.path.isabs(named) else Path(os.path.expanduser("~")) / ".cache"
    if home.is_absolute() and _writable(home):
        return home / "postline" / "kafka"
    return Path(tempfile.gettempdir()) / f"postline-kafka-{os.getuid()}"


def _writable(directory: Path) -> bool:
    """Whether the directory, or the nearest one above it that exists, can be written."""
    nearest = next((each for each in (directory, *directory.parents) if each.exists()), directory)
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


def _flag(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError(f"is true or false, not {text!r}")
    return text.lower() == "true"


def _one_of(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"is one of {', '.join(allowed)}, not {text!r}")
        return text

    return read


def _number(least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not least <= number <= most:
            raise ValueError(f"is a number from {least:g} to {most:g}, not {text!r}")
        return number

    return read


def _copies(text: str) -> int:
    if not re.fullmatch(r"-1|[1-9][0-9]{0,3}", text):
        raise ValueError(f"is the number of copies, 1 or more, or -1 for the cluster's default, not {text!r}")
    return int(text)


def _size(text: str) -> int:
    if not text.isdecimal() or not _RECORD_BYTES_MIN <= int(text) <= RECORD_BYTES_MAX:
        raise ValueError(f"is a number of bytes from {_RECORD_BYTES_MIN} to {RECORD_BYTES_MAX}, not {text!r}")
    return int(text)


def _path(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("names no directory")
    return os.path.expanduser(text)


#: Postline's own options: the field of Options, and what reads its text or raises ValueError.
_OWN: dict[str, tuple[str, Callable[[str], object]]] = {
    "create_topics": ("create_topics", _flag),
    "group.protocol": ("group_protocol", _one_of("auto", "classic", "consumer")),
    "replication": ("replication", _copies),
    "durability": ("durable", lambda text: _one_of("full", "relaxed")(text) == "full"),
    "publish_seconds": ("publish_seconds", _number(0.1, 86_400)),
    "connect_seconds": ("connect_seconds", _number(0.1, 3_600)),
    "transaction_seconds": ("transaction_seconds", _number(1, 900)),
    "record_bytes_max": ("record_bytes_max", _size),
    "cache_dir": ("cache_directory", _path),
}


def _secret_of(path: str, *, both: bool) -> str:
    """The secret in a file, without the line end that editors leave."""
    if both:
        raise ValueError("is given besides the secret itself; give one of them")
    try:
        secret = Path(path).expanduser().read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("names a file that is no UTF-8 text") from None
    except OSError as error:
        raise ValueError(f"names a file that can't be read: {error.strerror or 'no such path'}") from None
    if not secret:
        raise ValueError("names an empty file")
    return secret


def _meaningless(name: str) -> str:
    """Why an option that isn't taken isn't, or what was meant by it."""
    if name in _REFUSED:
        return _REFUSED[name]
    known = [*_OWN, *_SECRET_FILES, *sorted(_PROPERTIES)]
    near = difflib.get_close_matches(name.lower().replace("-", "."), known, n=1, cutoff=0.75)
    return "means nothing" + "".join(f" (did you mean {each}?)" for each in near)


def _wrong_values(given: Mapping[str, str]) -> Iterator[str]:
    """What librdkafka says against values, one by one, so that all are found; a client is never made."""
    try:
        from confluent_kafka import KafkaException, Producer
    except ImportError:  # the engine itself says how to install it
        return
    for name in sorted(_PROPERTIES & given.keys()):
        try:
            Producer({name: given[name], _NO_PROPERTY: ""})
        except KafkaException as error:
            reason = " ".join(error.args[0].str().split())
            if f'"{_NO_PROPERTY}"' not in reason:
                yield f"{name} has a value that it can't have" + (f" ({reason})" if not _SECRET.search(name) else "")


def _contradictions(options: Options) -> Iterator[str]:
    """What is right in itself and wrong together; librdkafka would say so only when a client is made."""
    for name in _CLASSIC_ONLY if options.group_protocol == "consumer" else ():
        if name in options.consumer:
            yield f"{name} is the broker's to say with group.protocol=consumer (its group.consumer.{name})"
    if options.group_protocol == "classic" and "group.remote.assignor" in options.consumer:
        yield "group.remote.assignor needs group.protocol=consumer"
    yield from _login_gaps(options.client)
    for name in sorted(_FILES & options.client.keys()):
        path = options.client[name]
        if (name, path) != ("ssl.ca.location", "probe") and not os.access(path, os.R_OK):
            yield f"{name} names a file that isn't there or can't be read"
    socket = options.client.get("socket.timeout.ms", "")
    if socket.isdecimal() and int(socket) > options.transaction_seconds * 1000:
        yield f"socket.timeout.ms is above transaction_seconds={options.transaction_seconds:g}"


def _login_gaps(client: Mapping[str, str]) -> Iterator[str]:
    """What a login lacks: librdkafka would fall back on Kerberos, or wait in silence for a token that nobody gives."""
    protocol = client.get("security.protocol", "").lower()
    mechanism = client.get("sasl.mechanism", client.get("sasl.mechanisms", "")).upper()
    if not protocol.startswith("sasl_"):
        return
    if not mechanism:
        yield f"security.protocol={protocol} needs sasl.mechanism=SCRAM-SHA-512, PLAIN or whatever the cluster has"
    elif mechanism == "PLAIN" or mechanism.startswith("SCRAM-"):
        if not client.get("sasl.username") or not client.get("sasl.password"):
            yield f"sasl.mechanism={mechanism} needs sasl.username=NAME and sasl.password_file=PATH"
    elif mechanism == "OAUTHBEARER":
        by_itself = client.get("enable.sasl.oauthbearer.unsecure.jwt", "").lower() == "true"
        if client.get("sasl.oauthbearer.method", "").lower() != "oidc" and not by_itself:
            yield "sasl.mechanism=OAUTHBEARER needs sasl.oauthbearer.method=oidc and where its tokens come from"


def _shown(value: object) -> object:
    """A field's value as it may be shown."""
    if not isinstance(value, dict):
        return value
    return {name: "***" if _SECRET.search(name) else text for name, text in value.items()}
