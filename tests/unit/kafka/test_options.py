"""What a `kafka://` URL may ask for: whom it concerns, what is refused and why, and that no secret is told."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from postline.errors import SettingsError
from postline.log.kafka.options import Options, default_cache_directory, read_options

SERVERS = ("one:9092", "two:9093")
needs_driver = pytest.mark.skipif(
    importlib.util.find_spec("confluent_kafka") is None, reason="values are checked by librdkafka"
)


def refusal(**given: str) -> str:
    """The whole text of the error that these options lead to; `__` stands for a dot."""
    with pytest.raises(SettingsError) as told:
        read_options(SERVERS, {name.replace("__", "."): value for name, value in given.items()})
    return str(told.value)


def test_nothing_asked_for_is_the_defaults() -> None:
    options = read_options(SERVERS, {})
    assert options == Options(client={"bootstrap.servers": "one:9092,two:9093"}, producer={}, consumer={})
    assert options.durable
    assert (options.publish_seconds, options.connect_seconds, options.transaction_seconds) == (30, 10, 10)


def test_properties_go_to_whom_they_concern() -> None:
    given = {"security.protocol": "SSL", "linger.ms": "2", "compression.type": "lz4", "fetch.min.bytes": "9"}
    options = read_options(SERVERS, {**given, "client.rack": "a", "debug": "broker", "session.timeout.ms": "6000"})
    assert options.client == {
        "bootstrap.servers": "one:9092,two:9093",
        "security.protocol": "SSL",
        "debug": "broker",
    }
    assert options.producer == {"linger.ms": "2", "compression.type": "lz4"}
    assert options.consumer == {"fetch.min.bytes": "9", "client.rack": "a", "session.timeout.ms": "6000"}


def test_postlines_own_options_are_read() -> None:
    given = {"create_topics": "true", "group.protocol": "classic", "replication": "3", "durability": "relaxed"}
    times = {
        "record_bytes_max": "8388608",
        "publish_seconds": "5.5",
        "connect_seconds": "2",
        "transaction_seconds": "60",
        "cache_dir": "/var/x",
    }
    options = read_options(SERVERS, {**given, **times})
    assert (options.create_topics, options.group_protocol, options.replication) == (True, "classic", 3)
    assert (options.durable, options.cache_directory) == (False, "/var/x")
    assert (options.publish_seconds, options.connect_seconds, options.transaction_seconds) == (5.5, 2, 60)
    assert options.record_bytes_max == 8 << 20


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("create_topics", "yes"),
        ("group.protocol", "newest"),
        ("replication", "0"),
        ("replication", "two"),
        ("durability", "some"),
        ("publish_seconds", "0"),
        ("publish_seconds", "nan"),
        ("connect_seconds", "inf"),
        ("transaction_seconds", "0.5"),
        ("transaction_seconds", "901"),
        ("record_bytes_max", "8M"),
        ("record_bytes_max", "1000"),
        ("record_bytes_max", "999999999"),
        ("cache_dir", ""),
    ],
)
def test_a_value_of_our_own_that_cant_be_is_named(name: str, value: str) -> None:
    assert f"{name} " in refusal(**{name: value})


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("enable.auto.commit", "committed together"),
        ("enable.auto.offset.store", "committed together"),
        ("isolation.level", "aborted transaction"),
        ("enable.idempotence", "durability=relaxed"),
        ("acks", "durability=full"),
        ("request.required.acks", "durability=full"),
        ("transactional.id", "fence each other"),
        ("transaction.timeout.ms", "transaction_seconds=N"),
        ("group.id", "after the subscription"),
        ("group.instance.id", "after the subscription"),
        ("auto.offset.reset", "declared with it"),
        ("partitioner", "Postline's to choose"),
        ("partition.assignment.strategy", "one by one"),
        ("bootstrap.servers", "before the question mark"),
        ("metadata.broker.list", "before the question mark"),
        ("enable.partition.eof", "where it needs them"),
        ("delivery.timeout.ms", "publish_seconds=N"),
        ("message.timeout.ms", "publish_seconds=N"),
        ("max.in.flight", "order"),
        ("retries", "publish_seconds=N"),
        ("allow.auto.create.topics", "create_topics=true"),
        ("ssl.truststore.location", "ssl.ca.location"),
    ],
)
def test_what_would_break_a_promise_is_refused_with_what_to_do_instead(name: str, instead: str) -> None:
    text = refusal(**{name: "1"})
    assert f"{name} is" in text
    assert instead in text


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("fetch.min.byts", "fetch.min.bytes"),
        ("security-protocol", "security.protocol"),
        ("publish_second", "publish_seconds"),
        ("SASL.Username", "sasl.username"),
        ("cache-dir", "cache_dir"),
    ],
)
def test_a_wrong_name_is_answered_with_the_near_one(name: str, meant: str) -> None:
    assert f"{name} means nothing (did you mean {meant}?)" in refusal(**{name: "1"})


def test_a_name_that_is_near_to_nothing_just_means_nothing() -> None:
    assert "zebra means nothing." in refusal(zebra="1")


@needs_driver
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("linger.ms", "soon", "Invalid value"),
        ("fetch.min.bytes", "-1", "outside allowed range"),
        ("compression.type", "rar", "rar"),
        ("security.protocol", "tls", "tls"),
        ("socket.keepalive.enable", "perhaps", "true or false"),
        ("ssl.endpoint.identification.algorithm", "x", "Invalid value"),
    ],
)
def test_a_wrong_value_is_found_at_once(name: str, value: str, said: str) -> None:
    text = refusal(**{name: value})
    assert f"{name} has a value that it can't have" in text
    assert said in text


@needs_driver
def test_everything_that_is_wrong_is_told_at_once() -> None:
    text = refusal(acks="1", linger__ms="x", fetch__wait__max__ms="y", nothing="z", durability="none")
    assert all(f"{name} " in text for name in ("acks", "linger.ms", "fetch.wait.max.ms", "nothing", "durability"))


def test_contradictions_are_found() -> None:
    assert "session.timeout.ms is the broker's" in refusal(group__protocol="consumer", session__timeout__ms="6000")
    assert "needs group.protocol=consumer" in refusal(group__protocol="classic", group__remote__assignor="range")
    assert "above transaction_seconds=10" in refusal(socket__timeout__ms="60000")
    longer = read_options(SERVERS, {"socket.timeout.ms": "60000", "transaction_seconds": "60"})
    assert longer.client["socket.timeout.ms"] == "60000"
    assert read_options(SERVERS, {"session.timeout.ms": "6000"}).group_protocol == "auto"


SECRETS = ("sasl.password", "ssl.key.password", "ssl.key.pem", "ssl.ca.pem", "sasl.oauthbearer.client.secret")


@pytest.mark.parametrize("name", [*SECRETS, "sasl.jaas.config", "sasl.pasword", "ssl.keystore.passwd"])
def test_no_secret_is_told(name: str) -> None:
    assert "hunter2" not in refusal(**{name: "hunter2", "acks": "1", "linger.ms": "x"})


def test_options_are_shown_without_secrets() -> None:
    options = read_options(SERVERS, {**dict.fromkeys(SECRETS, "hunter2"), "sasl.username": "ann"})
    assert options.client["sasl.password"] == "hunter2"
    for text in (repr(options), str(options), f"{options}"):
        assert "hunter2" not in text
        assert "ann" in text


@pytest.mark.parametrize("name", ["sasl.password", "ssl.key.password"])
def test_a_secret_is_read_from_its_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / "secret"
    file.write_text(" hunter2 \n", encoding="utf-8")
    options = read_options(SERVERS, {f"{name}_file": str(file)})
    assert options.client[name] == " hunter2 "
    text = refusal(**{f"{name}_file": str(file), name: "hunter3"})
    assert "give one of them" in text
    assert "hunter" not in text


@pytest.mark.parametrize(("content", "said"), [(None, "can't be read"), (b"\n", "empty"), (b"\xff", "UTF-8")])
def test_a_secrets_file_that_holds_none_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    assert said in refusal(**{"sasl.password_file": str(tmp_path / "secret")})


def test_the_cache_lies_where_caches_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert default_cache_directory() == tmp_path / "caches" / "postline" / "kafka"
    for unset in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert default_cache_directory() == tmp_path / "home" / ".cache" / "postline" / "kafka"
    assert list(tmp_path.iterdir()) == []


def test_without_a_home_the_cache_lies_among_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert default_cache_directory() == tmp_path / "temporary" / f"postline-kafka-{os.getuid()}"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "security.protocol=sasl_ssl needs sasl.mechanism="),
        ({"sasl.mechanism": "plain"}, "sasl.mechanism=PLAIN needs sasl.username=NAME and sasl.password_file=PATH"),
        ({"sasl.mechanisms": "SCRAM-SHA-256", "sasl.username": "shop"}, "needs sasl.username=NAME and sasl.password"),
        ({"sasl.mechanism": "OAUTHBEARER"}, "sasl.mechanism=OAUTHBEARER needs sasl.oauthbearer.method=oidc"),
    ],
)
def test_a_login_that_lacks_something_is_refused_before_a_broker_is_asked(given: dict[str, str], words: str) -> None:
    assert words in refusal(**{"security.protocol": "SASL_SSL", **given})


@pytest.mark.parametrize(
    "given",
    [
        {"sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc"},
        {"sasl.mechanism": "OAUTHBEARER", "enable.sasl.oauthbearer.unsecure.jwt": "true"},
        {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "shop", "sasl.password": "hunter2"},
        {"sasl.mechanism": "GSSAPI"},
    ],
)
def test_a_login_that_is_whole_is_taken(given: dict[str, str]) -> None:
    assert read_options(SERVERS, {"security.protocol": "sasl_plaintext", **given}).client.items() >= given.items()


def test_a_certificates_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "ssl.ca.location names a file that isn't there" in refusal(ssl__ca__location=str(tmp_path / "ca.pem"))
    assert "ssl.key.location" in refusal(ssl__key__location="~/key.pem")
    assert read_options(SERVERS, {"ssl.ca.location": "probe"}).client["ssl.ca.location"] == "probe"
    assert read_options(SERVERS, {"ssl.ca.location": str(tmp_path)}).client["ssl.ca.location"] == str(tmp_path)
