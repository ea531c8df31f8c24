"""What can be wrong around a Kafka cluster: each is told with what, where and the remedy, early, and with no secret."""

from __future__ import annotations

import asyncio
import http.server
import itertools
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from postline import App, Context, ForeignTopic, Topic
from postline.app import Environment, open_environment
from postline.errors import (
    LogCorrupt,
    LogError,
    LogRefused,
    LogUnavailable,
    LogVersionError,
    MessageTooLarge,
    PostlineError,
    SettingsError,
    TopicMismatch,
    UnknownTopic,
)
from postline.log.kafka import transactions
from postline.log.kafka.transactions import Outgoing
from tests.brokers.cluster import Cluster
from tests.brokers.fixtures import cluster_for_tests
from tests.brokers.ready import silent
from tests.conformance.apps import (
    INVOICES,
    NEVER,
    ORDERS,
    Billing,
    InvoiceIssued,
    OrderPlaced,
    World,
    eventually,
    orders,
    started_once,
)
from tests.conformance.engines import KafkaEngine
from tests.integration.foreign_clients import Java
from tests.integration.processes import EXAMPLES, ROOT

#: In every URL with a login; must be in no text.
SECRETS = ("shop-secret", "admin-secret", "hunter2")
QUICKLY = {"connect_seconds": "3", "publish_seconds": "10"}


@pytest.fixture(scope="module")
def secure() -> Iterator[Cluster]:
    """A cluster that wants TLS and a login from clients; behind its internal port it wants neither."""
    yield from cluster_for_tests("strict", tls=True, sasl=True)


@pytest.fixture
async def engine(kafka_one: Cluster, tmp_path: Path) -> AsyncIterator[KafkaEngine]:
    made = KafkaEngine(kafka_one, "consumer", tmp_path)
    yield made
    await made.close()


def url(servers: str, **given: str) -> str:
    """A URL with options, in which `__` stands for a dot."""
    told = {name.replace("__", "."): value for name, value in {**QUICKLY, **given}.items()}
    return f"kafka://{servers}?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in told.items())


def login(cluster: Cluster, mechanism: str = "PLAIN", **changes: str) -> dict[str, str]:
    """What the user `shop` has to say to get in, changed."""
    told = {name.replace(".", "__"): value for name, value in cluster.security("shop", mechanism).items()}
    return {**told, **changes}


def keeps_secrets(text: str) -> bool:
    return not any(secret in text for secret in SECRETS)


async def refusal_at_start(where: str) -> PostlineError:
    """The error that opening a log there ends with."""

    async def start() -> None:
        environment = open_environment(where)
        try:
            await environment.log.start()
        finally:
            await environment.log.close()

    with pytest.raises(PostlineError) as told:
        await start()
    error: PostlineError | None = told.value
    assert error is not None
    while error is not None:
        assert keeps_secrets(repr(error)), "a secret is told"
        error = error.__cause__  # type: ignore[assignment]
    assert told.value.remedy
    return told.value


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# -- reaching the cluster ---------------------------------------------------------------------------


async def test_a_closed_port_is_said_with_its_address() -> None:
    port = closed_port()
    error = await refusal_at_start(url(f"127.0.0.1:{port}"))
    assert isinstance(error, LogUnavailable)
    assert f"127.0.0.1:{port}" in error.message
    assert "Connection refused" in error.message
    assert "host and port" in error.remedy


async def test_a_port_that_is_no_kafka_is_suspected() -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Not to the terminal."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        error = await refusal_at_start(url(f"127.0.0.1:{server.server_port}"))
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
    assert isinstance(error, LogUnavailable)
    assert str(server.server_port) in error.message
    assert "another program's" in error.remedy


async def test_a_name_that_no_resolver_knows_is_said() -> None:
    error = await refusal_at_start(url("no-such-host.invalid:9092"))
    assert isinstance(error, LogUnavailable)
    assert "no-such-host.invalid" in error.message
    assert "advertised.listeners" in error.remedy


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
async def test_a_wrong_password_is_refused_at_once(mechanism: str, secure: Cluster) -> None:
    error = await refusal_at_start(url(secure.bootstrap, **login(secure, mechanism, sasl__password="hunter2")))
    assert isinstance(error, LogRefused)
    assert "refuses the login" in error.message
    assert "sasl.username" in error.remedy


async def test_an_unknown_mechanism_is_refused_with_those_that_there_are(secure: Cluster) -> None:
    error = await refusal_at_start(url(secure.bootstrap, **login(secure, sasl__mechanism="SCRAM-SHA-1")))
    assert isinstance(error, LogRefused)
    assert "SCRAM-SHA-512" in error.message
    assert "sasl.mechanism=" in error.remedy


async def test_a_login_without_mechanism_is_refused_before_anybody_is_asked(secure: Cluster) -> None:
    told = login(secure)
    del told["sasl__mechanism"]
    error = await refusal_at_start(url(secure.bootstrap, **told))
    assert isinstance(error, SettingsError)
    assert "needs sasl.mechanism=" in error.message


async def test_tls_on_a_plaintext_port_is_suspected(secure: Cluster) -> None:
    told = {"security__protocol": "ssl", "ssl__ca__location": str(secure.directory / "ca.pem")}
    error = await refusal_at_start(url(secure.internal_bootstrap, **told))
    assert isinstance(error, LogUnavailable)
    assert "may not speak TLS" in error.message
    assert "security.protocol=" in error.remedy


@pytest.mark.parametrize("protocol", ["plaintext", "sasl_plaintext"])
async def test_plaintext_on_a_tls_port_is_suspected(protocol: str, secure: Cluster) -> None:
    told = {} if protocol == "plaintext" else login(secure, security__protocol=protocol)
    error = await refusal_at_start(url(secure.bootstrap, **told))
    assert isinstance(error, LogUnavailable)
    assert "TLS" in error.message
    assert "security.protocol=ssl" in error.remedy


async def test_a_login_where_none_is_wanted_is_refused(secure: Cluster) -> None:
    told = login(secure, security__protocol="sasl_plaintext")
    error = await refusal_at_start(url(secure.internal_bootstrap, **told))
    assert isinstance(error, LogRefused)
    assert "no login at all" in error.message


async def test_a_certificate_of_another_authority_is_not_trusted(secure: Cluster, tmp_path: Path) -> None:
    # Any certificate that did not sign the broker's will do; this one is the same by name only.
    key, other = tmp_path / "key.pem", tmp_path / "other.pem"
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=postline-brokers"]
    signing = await asyncio.create_subprocess_exec("openssl", *made, "-keyout", key, "-out", other, stderr=-3)
    assert await signing.wait() == 0
    error = await refusal_at_start(url(secure.bootstrap, **login(secure, ssl__ca__location=str(other))))
    assert isinstance(error, LogRefused)
    assert "certificate isn't trusted" in error.message
    assert "ssl.ca.location=PATH" in error.remedy


async def test_a_certificates_file_that_is_not_there_is_said(secure: Cluster, tmp_path: Path) -> None:
    error = await refusal_at_start(url(secure.bootstrap, **login(secure, ssl__ca__location=str(tmp_path / "none"))))
    assert isinstance(error, SettingsError)
    assert "ssl.ca.location names a file that isn't there" in error.message


async def test_all_that_is_wrong_in_a_url_is_said_at_once() -> None:
    wrong = {"linger.mss": "3", "acks": "1", "x": "3", "fetch.wait.max.ms": "soon", "group.protocol": "newest"}
    error = await refusal_at_start(url("h:1", sasl__password="hunter2", **wrong))
    assert isinstance(error, SettingsError)
    assert "did you mean linger.ms?" in error.message
    assert "acks is refused: durability=" in error.message
    assert "x means nothing" in error.message
    assert "fetch.wait.max.ms has a value that it can't have" in error.message
    assert "group.protocol is one of auto, classic, consumer" in error.message


# -- rights -----------------------------------------------------------------------------------------

_WHATEVER: Any = None
_ANYTHING = AclBindingFilter(
    ResourceType.ANY,
    _WHATEVER,
    ResourcePatternType.ANY,
    _WHATEVER,
    _WHATEVER,
    AclOperation.ANY,
    AclPermissionType.ANY,
)
_ALL = (AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS)


class Rights:
    """What the user `shop` may do."""

    def __init__(self, cluster: Cluster) -> None:
        self._admin = AdminClient({"bootstrap.servers": cluster.internal_bootstrap}, logger=silent)
        self._all = {
            "topics": (ResourceType.TOPIC, _ALL),
            "groups": (ResourceType.GROUP, (AclOperation.READ, AclOperation.DESCRIBE)),
            "ids": (ResourceType.TRANSACTIONAL_ID, (AclOperation.WRITE, AclOperation.DESCRIBE)),
        }

    def grant_all_but(self, *kinds: str, names: dict[str, tuple[str, ...]] | None = None) -> None:
        """Grant everything but these kinds, and of these only the prefixes that are named."""
        for deleted in self._admin.delete_acls([_ANYTHING]).values():
            deleted.result(20)
        for kind, (resource, operations) in self._all.items():
            prefixes = ("*",) if kind not in kinds else (names or {}).get(kind, ())
            for prefix in prefixes:
                self.grant(resource, prefix, operations)

    def grant(self, resource: ResourceType, prefix: str, operations: tuple[AclOperation, ...]) -> None:
        """Allow this much of everything whose name begins so; "*" is everything."""
        pattern = ResourcePatternType.LITERAL if prefix == "*" else ResourcePatternType.PREFIXED
        allowed = [
            AclBinding(resource, prefix, pattern, "User:shop", "*", operation, AclPermissionType.ALLOW)
            for operation in operations
        ]
        for created in self._admin.create_acls(allowed).values():
            created.result(20)


@pytest.fixture
async def rights(secure: Cluster, tmp_path: Path) -> Rights:
    """Topics that an administrator has made, and a user who may do nothing yet."""
    made = open_environment(url(secure.internal_bootstrap, create_topics="true", cache_dir=str(tmp_path / "admin")))
    for app in (App("shop", owns=[ORDERS]), Billing().app):
        await app.start(made)
        await app.stop()
    await made.log.close()
    found = Rights(secure)
    found.grant_all_but("topics", "groups", "ids")
    return found


@asynccontextmanager
async def as_shop(secure: Cluster, cache: Path) -> AsyncIterator[Environment]:
    made = open_environment(url(secure.bootstrap, **login(secure), cache_dir=str(cache)))
    try:
        yield made
    finally:
        await made.log.close()


async def failure_of(app: App, made: Environment) -> PostlineError:
    """What the app ends with, at its start or as soon as it works."""

    async def run() -> None:
        await app.start(made)
        try:
            raise await app.wait_failed()
        finally:
            await app.abort()

    with pytest.raises(PostlineError) as told:
        await run()
    assert keeps_secrets(str(told.value))
    return told.value


async def test_a_user_without_rights_on_topics_is_told_so(secure: Cluster, rights: Rights, tmp_path: Path) -> None:
    rights.grant_all_but("topics")
    async with as_shop(secure, tmp_path) as made:
        error = await failure_of(Billing().app, made)
    assert isinstance(error, LogRefused)
    assert "postline.catalog" in error.message
    assert "lacks an ACL: READ, WRITE and DESCRIBE" in error.message
    assert "postline topics plan" in error.remedy


async def test_a_user_who_may_not_write_a_topic_is_told_so(secure: Cluster, rights: Rights, tmp_path: Path) -> None:
    rights.grant_all_but("topics", names={"topics": ("postline.",)})
    rights.grant(ResourceType.TOPIC, "shop.", (AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS))
    async with as_shop(secure, tmp_path) as made:
        app = App("shop", owns=[ORDERS])
        await app.start(made, consume=False)
        with pytest.raises(LogRefused, match=r"shop\.orders.* lacks an ACL: READ, WRITE and DESCRIBE"):
            await app.publish(orders(1)[0])
        await app.stop()


async def test_a_user_without_rights_on_the_group_is_told_so(secure: Cluster, rights: Rights, tmp_path: Path) -> None:
    rights.grant_all_but("groups", names={"groups": ("postline.",)})
    async with as_shop(secure, tmp_path) as made:
        error = await failure_of(Billing().app, made)
    assert isinstance(error, LogRefused)
    assert "billing" in error.message
    assert "lacks an ACL: READ and DESCRIBE" in error.message


async def test_a_user_without_rights_on_transactional_ids_is_told_so(
    secure: Cluster, rights: Rights, tmp_path: Path
) -> None:
    rights.grant_all_but("ids")
    async with as_shop(secure, tmp_path) as made:
        error = await failure_of(Billing().app, made)
        assert isinstance(error, LogRefused)
        assert "begin transactions as" in error.message
        assert "lacks an ACL: WRITE and DESCRIBE on the transactional id" in error.message
        app = App("shop", owns=[ORDERS])
        await app.start(made, consume=False)
        await app.publish(orders(1)[0])
        with pytest.raises(LogRefused, match="transactional id"):
            await app.publish_many(orders(2))
        await app.stop()


async def test_a_user_with_every_right_that_is_needed_gets_along(
    secure: Cluster, rights: Rights, tmp_path: Path
) -> None:
    mine = {"topics": ("shop.", "billing.", "postline."), "groups": ("billing", "postline."), "ids": ("postline.",)}
    rights.grant_all_but("topics", "groups", "ids", names=mine)
    async with as_shop(secure, tmp_path) as made:
        shop, billing = App("shop", owns=[ORDERS]), Billing()
        await shop.start(made, consume=False)
        await billing.app.start(made)
        await shop.publish_many(orders(5))
        await eventually(billing.app.caught_up, "all is handled")
        assert len(billing.ran) >= 5
        await billing.app.stop()
        await shop.stop()


# -- topics -----------------------------------------------------------------------------------------


async def test_a_topic_that_does_not_exist_is_missed_at_start(engine: KafkaEngine) -> None:
    async with World(engine) as world:
        app = App("reader")
        view = ForeignTopic("vendor.events")
        view.reads("vendor.Event")(OrderPlaced)
        app.subscribe("reader", view, start="earliest").on(OrderPlaced)(_ignored)
        with pytest.raises(UnknownTopic, match=r"vendor\.events") as told:
            await world.start(app)
        assert told.value.remedy


async def test_a_topic_with_other_partitions_than_the_contracts_is_refused_to_its_owner(engine: KafkaEngine) -> None:
    async with World(engine):
        other = Topic(ORDERS.name, owner="shop", key="customer", partitions=6)
        with pytest.raises(TopicMismatch, match="partitions are 4, the contract says 6") as told:
            async with World(engine, other):
                raise AssertionError("it starts")
        assert ORDERS.name in told.value.message
        assert told.value.remedy


# -- records ----------------------------------------------------------------------------------------


def limit_records(cluster: Cluster, topic: str, size_bytes: int) -> None:
    """Have the broker take no larger records, or batches of them, from now on."""
    entry = ConfigEntry("max.message.bytes", str(size_bytes), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({**cluster.client}, logger=silent)
    for altered in admin.incremental_alter_configs([resource]).values():
        altered.result(20)


LARGE = OrderPlaced("c1", 1, 10**9)
LARGE = msgspec.structs.replace(LARGE, customer="c" * 5_000)


async def test_a_record_larger_than_the_broker_takes_is_refused_alone(engine: KafkaEngine, kafka_one: Cluster) -> None:
    async with World(engine) as world:
        limit_records(kafka_one, ORDERS.name, 2_000)
        await world.publish(orders(2))
        with pytest.raises(MessageTooLarge, match=r"shop\.orders") as told:
            await world.publisher.publish(LARGE)
        assert "max.message.bytes" in told.value.remedy
        with pytest.raises(MessageTooLarge, match=r"shop\.orders") as told:
            await world.publish([*orders(3, first=2), LARGE])
        assert "max.message.bytes" in told.value.remedy
        await world.publish(orders(2, first=5))
        found = {(each.message.customer, each.message.number) for each in await world.read(ORDERS)}
        assert found == {(order.customer, order.number) for order in [*orders(2), *orders(2, first=5)]}


async def test_small_records_are_stored_although_the_broker_takes_small_batches_only(
    engine: KafkaEngine, kafka_one: Cluster
) -> None:
    async with World(engine) as world:
        limit_records(kafka_one, ORDERS.name, 20_000)
        await world.publish(orders(3_000, customers=3))
        assert len(await world.read(ORDERS)) == 3_000


async def test_a_refusal_that_comes_while_records_are_produced_is_known_by_its_reason(
    engine: KafkaEngine, kafka_one: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, produced = transactions._produce, itertools.count(1)

    def pausing(producer: Producer, each: Outgoing, now_ms: int, delivered: Callable[..., None] | None) -> None:
        plain(producer, each, now_ms, delivered)
        if next(produced) == 500:
            producer.flush(10)

    monkeypatch.setattr(transactions, "_produce", pausing)
    async with World(engine) as world:
        limit_records(kafka_one, ORDERS.name, 1_000)
        await world.publish(orders(990, customers=3))
        assert len(await world.read(ORDERS)) == 990


async def _large_for_one(order: OrderPlaced, ctx: Context) -> None:
    if (order.customer, order.number) == ("c1", 1):
        ctx.publish(InvoiceIssued("c" * 5_000, 1, 1))


async def test_an_output_larger_than_the_broker_takes_fails_its_record_alone(
    engine: KafkaEngine, kafka_one: Cluster
) -> None:
    reminder = App("reminder", publishes_to=[INVOICES])
    reminding = reminder.subscribe("reminding", ORDERS, start="earliest", retry=NEVER)

    @reminding.on(OrderPlaced)
    async def remind(order: OrderPlaced, ctx: Context) -> None:
        await _large_for_one(order, ctx)

    async with World(engine) as world:
        await started_once(world)
        limit_records(kafka_one, INVOICES.name, 8_000)
        await world.start(reminder)
        await world.until_handled("reminding", dead=1)
        (letter,) = await world.letters("reminding")
        assert "over the limit" in letter.error


async def test_a_limit_lowered_while_its_owner_runs_ends_it_and_is_raised_by_its_next_start(
    engine: KafkaEngine, kafka_one: Cluster
) -> None:
    async with World(engine) as world:
        ended = Billing(before=_large_for_one)
        await world.start(ended.app)
        limit_records(kafka_one, INVOICES.name, 2_000)
        await world.publish(orders(36))
        with pytest.raises(LogError, match=r"billing\.invoices") as told:
            await world.until_handled()
        assert "max.message.bytes" in told.value.remedy
        assert "Start the service again" in told.value.remedy
        await world.abort(ended.app)
        await world.start(Billing(before=_large_for_one).app)
        await world.until_handled()
        await world.balanced(done=36)


async def test_a_foreign_record_without_value_under_a_type_of_ours_is_no_message(
    engine: KafkaEngine, kafka_one: Cluster
) -> None:
    async with World(engine) as world:
        billing = Billing()
        await world.start(billing.app)
        foreign = Producer(kafka_one.client, logger=silent)
        typed: list[tuple[str, str | bytes | None]] = [("ce_type", b"shop.OrderPlaced")]
        foreign.produce(ORDERS.name, None, b"c1", headers=typed)
        foreign.produce(
            ORDERS.name, b"\xff\x00 no json", b"c2", headers=[*typed, ("binary", b"\xff\xfe"), ("none", None)]
        )
        assert foreign.flush(20) == 0
        await world.publish([order for order in orders(12) if order.customer not in {"c1", "c2"}])
        await world.until_handled(dead=1)
        (letter,) = await world.letters()
        assert letter.key == "c2"
        assert "can't be read as the handler's type" in letter.error
        await world.balanced(done=10, filtered=1, dead_lettered=1)


# -- groups and formats -----------------------------------------------------------------------------


async def test_a_checkpoint_of_a_newer_version_is_refused(engine: KafkaEngine, kafka_one: Cluster) -> None:
    async with World(engine) as world:
        await started_once(world)
        newer = msgspec.msgpack.encode([99, 7, [9, 9, "somebody", b""]])
        foreign = Producer(kafka_one.client, logger=silent)
        # Its offsets are gone, so that the checkpoint is needed; by its shape this one could be read.
        await asyncio.to_thread(Java(kafka_one).groups, "--group", "billing", "--delete")
        for partition in range(4):
            foreign.produce("billing.state", newer, b"\0engine\0checkpoint", partition)
        assert foreign.flush(20) == 0
        await world.start(Billing().app)
        with pytest.raises(LogVersionError, match=r"billing.*newer version"):
            await world.until_handled()


async def test_a_stamp_of_a_newer_version_is_refused(engine: KafkaEngine, kafka_one: Cluster) -> None:
    async with World(engine) as world:
        await started_once(world)
        positions = {info.partition: info.position for info in await world.log.partitions("billing")}
        later = Consumer({**kafka_one.client, "group.id": "billing"}, logger=silent)
        stamped = [TopicPartition(ORDERS.name, each, at, "postline2:AAAA") for each, at in positions.items()]
        later.commit(offsets=stamped, asynchronous=False)
        later.close()
        with pytest.raises(LogVersionError, match=r"billing.*newer version"):
            await world.start(Billing().app)


async def test_what_others_wrote_into_the_catalog_is_named_or_passed_over(
    engine: KafkaEngine, kafka_one: Cluster
) -> None:
    foreign = Producer(kafka_one.client, logger=silent)

    def write(key: bytes, value: bytes | None) -> None:
        foreign.produce("postline.catalog", value, key)
        assert foreign.flush(20) == 0

    async with World(engine) as world:
        await started_once(world)
        for value in (b"garbage", b"\xff", b'{"name":"\xff"', b"[" * 100_000):
            write(b"subscription/zz", value)
            with pytest.raises(LogCorrupt, match=r"catalog's entry 'subscription/zz'.*without a value under that key"):
                await world.log.subscriptions()
        write(b"subscription/zz", None)
        write(b"\xff\xfe", b"garbage")
        assert [info.name for info in await world.log.subscriptions()] == ["billing"]


async def _ignored(order: OrderPlaced, ctx: Context) -> None:
    """Whatever."""


# -- the command line -------------------------------------------------------------------------------


def postline(*arguments: str, text: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `postline` as a user does; whatever is wrong, it prints no traceback and no secret."""
    done = subprocess.run(
        [sys.executable, "-m", "postline", *arguments],
        cwd=EXAMPLES,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1", **variables},
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert keeps_secrets(done.stdout + done.stderr)
    return done


RUN = ("run", "totals_per_customer.py")
PUBLISH = ("publish", "shop.orders", "shop.OrderPlaced")


@pytest.mark.parametrize("command", [RUN, PUBLISH])
def test_a_closed_port_ends_a_command_with_code_3(command: tuple[str, ...]) -> None:
    done = postline(*command, "--url", url(f"127.0.0.1:{closed_port()}", connect_seconds="1"), text="{}\n")
    assert done.returncode == 3
    assert "error: kafka://127.0.0.1:" in done.stderr
    assert "fix: See that the brokers run" in done.stderr


@pytest.mark.parametrize("command", [RUN, PUBLISH])
def test_wrong_options_end_a_command_with_code_2(command: tuple[str, ...]) -> None:
    done = postline(*command, "--url", url("127.0.0.1:1", linger__mss="1", sasl__password="hunter2"), text="{}\n")
    assert done.returncode == 2
    assert "linger.mss means nothing (did you mean linger.ms?)" in done.stderr


@pytest.mark.parametrize("command", [RUN, PUBLISH])
def test_a_wrong_password_ends_a_command_with_code_3(command: tuple[str, ...], secure: Cluster) -> None:
    done = postline(*command, "--url", url(secure.bootstrap, **login(secure, sasl__password="hunter2")), text="{}\n")
    assert done.returncode == 3
    assert "refuses the login" in done.stderr
    assert "fix: Check sasl.mechanism" in done.stderr


@pytest.mark.parametrize("command", [RUN, PUBLISH])
def test_a_missing_topic_ends_a_command_with_code_3(command: tuple[str, ...], kafka_one: Cluster) -> None:
    command = tuple(word.replace("shop.orders", "nobody.made-it") for word in command)
    done = postline(*command, "--url", url(kafka_one.bootstrap), POSTLINE_NAMESPACE="nobody-was-here", text="{}\n")
    assert done.returncode == 3, done.stderr
    assert "shop.accounts" in done.stderr or "nobody.made-it" in done.stderr
    assert "fix: `postline topics" in done.stderr


@pytest.mark.parametrize("command", [RUN, PUBLISH, ("lag",), ("topics",)])
def test_without_the_client_a_command_says_how_to_install_it(command: tuple[str, ...], tmp_path: Path) -> None:
    broken = 'raise ModuleNotFoundError("No module named confluent_kafka", name="confluent_kafka")\n'
    (tmp_path / "confluent_kafka.py").write_text(broken, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    done = postline(*command, "--url", "kafka://broker:9092?sasl.password=hunter2", text="{}\n", PYTHONPATH=path)
    assert done.returncode == 2
    assert "needs the Kafka client, which is not installed" in done.stderr
    assert "fix: pip install 'postline[kafka]'" in done.stderr


async def test_a_subscription_whose_state_is_gone_is_named_and_can_be_removed(
    engine: KafkaEngine, kafka_one: Cluster
) -> None:
    async with World(engine) as world:
        await started_once(world)
    admin = AdminClient({**kafka_one.client})
    admin.delete_topics(["billing.state"])["billing.state"].result(20)
    await eventually(lambda: "billing.state" not in admin.list_topics(timeout=20).topics, "the topic is gone")
    lag = await asyncio.to_thread(postline, "lag", "--url", kafka_one.url)
    assert lag.returncode == 3
    assert "'billing.state'" in lag.stderr
    assert "postline subscriptions remove billing" in lag.stderr
    removed = await asyncio.to_thread(postline, "subscriptions", "remove", "billing", "--yes", "--url", kafka_one.url)
    assert removed.returncode == 0, removed.stderr
    assert "of which nothing can be shown" in removed.stderr
    lag = await asyncio.to_thread(postline, "lag", "--url", kafka_one.url)
    assert (lag.returncode, lag.stdout.strip()) == (0, "[]")
