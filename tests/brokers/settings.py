"""What the brokers are told: their server.properties, for trials, for tests that wait for faults, and with security."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tests.brokers.security import TLS_PASSWORD, USERS

__all__ = ["COORDINATOR_PARTITIONS", "HOST", "Layout", "Ports", "listener_protocol", "properties_of"]

HOST = "127.0.0.1"
#: Partitions of each coordinators' topic: few, since start and failover load them all.
COORDINATOR_PARTITIONS = 4

#: Faults show, and what is due is done, in a second or two.
QUICK = {
    "group.min.session.timeout.ms": 500,
    "group.consumer.min.session.timeout.ms": 500,
    "group.consumer.session.timeout.ms": 3000,
    "group.consumer.min.heartbeat.interval.ms": 200,
    "group.consumer.heartbeat.interval.ms": 200,
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 500,
    "transaction.remove.expired.transaction.cleanup.interval.ms": 5000,
    "log.retention.check.interval.ms": 500,
    "log.initial.task.delay.ms": 500,
    "log.cleaner.backoff.ms": 200,
    "log.segment.delete.delay.ms": 500,
    "offsets.retention.check.interval.ms": 1000,
    "broker.heartbeat.interval.ms": 500,
    "broker.session.timeout.ms": 3000,
    "replica.lag.time.max.ms": 3000,
    "controller.quorum.election.timeout.ms": 1000,
    "controller.quorum.fetch.timeout.ms": 1500,
    "controller.quorum.election.backoff.max.ms": 500,
}


@dataclass(frozen=True)
class Ports:
    """Where one broker listens: for clients, for the other brokers and tools here, and as a controller."""

    client: int
    internal: int
    controller: int


@dataclass(frozen=True)
class Layout:
    """All that stays the same for a cluster as long as its data is there."""

    brokers: int
    tls: bool = False
    sasl: bool = False
    tests: bool = False
    properties: dict[str, str] = field(default_factory=dict)
    cluster_id: str = ""
    ports: tuple[Ports, ...] = ()

    def asks_the_same(self, other: Layout) -> bool:
        """Whether both were asked for in the same words, whatever was drawn for them since."""
        mine, others = (
            (one.brokers, one.tls, one.sasl, one.tests, {k: str(v) for k, v in one.properties.items()})
            for one in (self, other)
        )
        return mine == others


def listener_protocol(layout: Layout) -> str:
    """Kafka's name for how clients talk to it."""
    return ("SASL_" if layout.sasl else "") + ("SSL" if layout.tls else "PLAINTEXT")


def properties_of(layout: Layout, number: int, directory: Path) -> dict[str, str]:
    """The server.properties of broker `number` (from 1), which keeps its data under the cluster's directory."""
    merged: dict[str, object] = {
        **_addresses(layout, number),
        **_behaviour(layout.brokers),
        "log.dirs": directory / str(number) / "data",
        **(QUICK if layout.tests else {}),
        **(_tls(directory) if layout.tls else {}),
        **(_sasl() if layout.sasl else {}),
        **layout.properties,
    }
    return {name: str(value) for name, value in merged.items()}


def _addresses(layout: Layout, number: int) -> dict[str, object]:
    ports = layout.ports[number - 1]
    voters = (f"{n}@{HOST}:{one.controller}" for n, one in enumerate(layout.ports, 1))
    reached = f"CLIENT://{HOST}:{ports.client},INTERNAL://{HOST}:{ports.internal}"
    return {
        "process.roles": "broker,controller",
        "node.id": number,
        "controller.quorum.voters": ",".join(voters),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "INTERNAL",
        "listeners": f"{reached},CONTROLLER://{HOST}:{ports.controller}",
        "advertised.listeners": reached,
        "listener.security.protocol.map": (
            f"CLIENT:{listener_protocol(layout)},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT"
        ),
    }


def _behaviour(brokers: int) -> dict[str, object]:
    copies, in_sync = (3, 2) if brokers >= 3 else (1, 1)
    return {
        "num.partitions": 1,
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync,
        "auto.create.topics.enable": "false",
        "unclean.leader.election.enable": "false",
        "offsets.topic.num.partitions": COORDINATOR_PARTITIONS,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.num.partitions": COORDINATOR_PARTITIONS,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": COORDINATOR_PARTITIONS,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync,
        "group.initial.rebalance.delay.ms": 0,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
    }


def _tls(directory: Path) -> dict[str, object]:
    # The names without a listener's prefix hold for whatever listener speaks TLS, and only CLIENT does.
    return {
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": directory / "broker.p12",
        "ssl.keystore.password": TLS_PASSWORD,
        "ssl.key.password": TLS_PASSWORD,
    }


def _sasl() -> dict[str, object]:
    users = " ".join(f'user_{user}="{password}"' for user, password in USERS.items())
    modules = "org.apache.kafka.common.security"
    return {
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.client.plain.sasl.jaas.config": f"{modules}.plain.PlainLoginModule required {users};",
        "listener.name.client.scram-sha-256.sasl.jaas.config": f"{modules}.scram.ScramLoginModule required;",
        "listener.name.client.scram-sha-512.sasl.jaas.config": f"{modules}.scram.ScramLoginModule required;",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        # Who comes without a name comes over INTERNAL or CONTROLLER: the brokers themselves, and tools here.
        "super.users": "User:admin;User:ANONYMOUS",
    }
