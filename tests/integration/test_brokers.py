"""The brokers of tests and trials: they start, say where they are, die, hang, come back, and keep strangers out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource

from tests.brokers import fixtures, install
from tests.brokers.cluster import Cluster
from tests.brokers.fixtures import cluster_for_tests, remove_stale, require_kafka
from tests.brokers.process import Recorded
from tests.brokers.ready import silent
from tests.brokers.settings import properties_of
from tests.brokers.waiting import BrokerError, until

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`scripts/kafka`, without its setting up."""
    command = [sys.executable, "-m", "tests.brokers", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def run_well(*arguments: str) -> str:
    """What a command that succeeds prints."""
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def settings_of(url: str) -> dict[str, str | int | float]:
    """A client's configuration out of a cluster's URL."""
    parts = urlsplit(url)
    return {"bootstrap.servers": parts.netloc, **dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))}


@pytest.fixture(scope="module")
def name() -> Iterator[str]:
    """A cluster of one broker that the command line has started."""
    require_kafka()
    chosen = f"tests-{os.getpid()}-cli"
    try:
        run_well("start", "--tests", "--name", chosen)
        yield chosen
    finally:
        run_well("stop", "--remove", "--name", chosen)


def status_of(name: str) -> dict:
    """What `status` says about a cluster where nobody looks at it."""
    (cluster,) = json.loads(run_well("status", "--name", name))
    return cluster


def test_starting_again_changes_nothing_and_prints_the_same_url(name):
    before = status_of(name)
    assert run_well("start", "--tests", "--name", name) == run_well("start", "--name", name) == before["url"] + "\n"
    assert status_of(name) == before
    assert before["state"] == "running"


def test_another_kind_of_cluster_under_the_same_name_is_refused(name):
    refused = run("start", "--brokers", "3", "--name", name)
    assert refused.returncode == 1
    assert "with other options" in refused.stderr


def test_a_killed_broker_is_seen_and_comes_back_at_its_port(name):
    before = status_of(name)["brokers"][0]
    run_well("kill", "1", "--name", name)
    assert status_of(name)["brokers"] == [{**before, "state": "stopped", "pid": None}]
    run_well("restart", "1", "--name", name)
    after = status_of(name)["brokers"][0]
    assert after == {**before, "pid": after["pid"]}
    assert after["pid"] != before["pid"]


def test_a_command_runs_while_brokers_are_killed_and_the_cluster_is_left_as_it_was(name):
    before = status_of(name)
    waiting = (
        "import os, socket, sys\n"
        "host, _, port = os.environ['POSTLINE_URL'].removeprefix('kafka://').partition(':')\n"
        "while True:\n"
        "    try:\n"
        "        socket.create_connection((host, int(port))).close()\n"
        "    except ConnectionError:\n"
        "        sys.exit(7)"
    )
    done = run("run", "--tests", "--kill-brokers", "--name", name, "--", sys.executable, "-c", waiting)
    assert done.returncode == 7, done.stderr
    assert "SIGKILL of broker 1" in done.stderr
    after = status_of(name)
    assert (after["state"], after["url"]) == ("running", before["url"])
    assert after["brokers"][0]["pid"] != before["brokers"][0]["pid"]


def test_what_is_not_there_is_named():
    refused = run("kill", "1", "--name", "never-started")
    assert refused.returncode == 1
    assert "`scripts/kafka start --name never-started` makes one" in refused.stderr
    assert run("stop", "--name", "never-started").returncode == 0


def test_every_setting_is_one_that_the_broker_knows(kafka_one):
    resource = ConfigResource(ConfigResource.Type.BROKER, "1")
    admin = AdminClient(kafka_one.client, logger=silent)
    known = admin.describe_configs([resource])[resource].result(20)
    told = properties_of(kafka_one.layout, 1, kafka_one.directory)
    assert {setting: known[setting].value for setting in told if setting in known} == told


def test_a_controller_that_dies_has_a_successor_and_comes_back(kafka_three):
    lost = kafka_three.controller()
    kafka_three.kill(lost)
    try:
        assert kafka_three.controller() != lost
    finally:
        kafka_three.restart(lost)
    assert [kafka_three.state(number) for number in kafka_three.numbers] == ["running"] * 3


def test_a_paused_coordinator_hands_its_groups_over(kafka_three):
    first = kafka_three.coordinator("shop")
    kafka_three.pause(first)
    try:
        assert kafka_three.state(first) == "paused"
        until(lambda: kafka_three.coordinator("shop") not in {first, -1}, 60, lambda: "no other broker took the group")
    finally:
        kafka_three.resume(first)
        kafka_three.wait_until_in_sync(first)


@pytest.mark.slow
def test_kafkas_own_tools_meet_the_cluster(kafka_one):
    where = ("--bootstrap-server", kafka_one.internal_bootstrap, "--topic", "brokers-tools")
    kafka_one.run_tool("org.apache.kafka.tools.TopicCommand", "--create", *where)
    kafka_one.run_tool("org.apache.kafka.tools.ConsoleProducer", *where, text="one\ntwo\n")
    consumer = "org.apache.kafka.tools.consumer.ConsoleConsumer"
    assert kafka_one.run_tool(consumer, *where, "--from-beginning", "--max-messages", "2") == "one\ntwo\n"
    with pytest.raises(BrokerError, match="already exists"):
        kafka_one.run_tool("org.apache.kafka.tools.TopicCommand", "--create", *where)


@pytest.fixture(params=[(True, False), (True, True)], ids=["tls", "tls-sasl"])
def guarded(request) -> Iterator[Cluster]:
    """A cluster with some kind of security."""
    tls, sasl = request.param
    yield from cluster_for_tests("guarded", tls=tls, sasl=sasl)


@pytest.mark.slow
def test_the_url_of_a_guarded_cluster_opens_it_and_acls_decide(guarded):
    AdminClient(settings_of(guarded.url), logger=silent).list_topics(timeout=20)
    bare: dict[str, str | int | float] = {"bootstrap.servers": guarded.bootstrap}
    with pytest.raises(KafkaException):
        AdminClient(bare, logger=silent).list_topics(timeout=1)
    if guarded.layout.sasl:
        where = ("--bootstrap-server", guarded.internal_bootstrap, "--topic", "orders")
        guarded.run_tool("org.apache.kafka.tools.TopicCommand", "--create", *where)
        for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
            assert _produces(guarded.url_for("admin", mechanism)) is None
            refused = _produces(guarded.url_for("shop", mechanism))
            assert refused is not None
            assert refused.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def _produces(url: str) -> KafkaError | None:
    """The error that a record for the topic `orders` ends with, if any."""
    ended: list[KafkaError | None] = []
    producer = Producer({**settings_of(url), "delivery.timeout.ms": 20000}, logger=silent)
    producer.produce("orders", b"x", on_delivery=lambda error, _: ended.append(error))
    producer.flush(20)
    (error,) = ended
    return error


def test_what_a_killed_run_left_is_stopped_and_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(fixtures, "HOME", tmp_path)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, own = (tmp_path / f"tests-{pid}-one" for pid in (gone.pid, os.getpid()))
    brokers = [Recorded(directory / "1") for directory in (left, own)]
    for broker in brokers:
        broker.directory.mkdir(parents=True)
        broker.spawn([sys.executable, "-c", "import threading; threading.Event().wait()", str(broker.directory)])
    try:
        remove_stale()
        assert [broker.state for broker in brokers] == ["stopped", "running"]
        assert [directory.exists() for directory in (left, own)] == [False, True]
    finally:
        for broker in brokers:
            broker.kill()


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_without_brokers_tests_skip_and_in_ci_they_fail(monkeypatch, tmp_path, ci, outcome):
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(install, "LIBS", tmp_path)
    with pytest.raises(outcome, match="scripts/kafka install"):
        require_kafka()
