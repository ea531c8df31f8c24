"""A cluster of Apache Kafka on this machine, in KRaft mode: each broker also is a controller."""

from __future__ import annotations

import base64
import json
import random
import re
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from tests.brokers.install import HOME, LIBS, find_java, locked, missing
from tests.brokers.process import Recorded
from tests.brokers.ready import Asking, slot_of
from tests.brokers.security import USERS, make_certificate, scram_arguments
from tests.brokers.settings import COORDINATOR_PARTITIONS, HOST, Layout, Ports, listener_protocol, properties_of
from tests.brokers.waiting import BrokerError, until

__all__ = ["Cluster"]

_HERE = Path(__file__).parent
_START_SECONDS = 180.0
_STOP_SECONDS = 20.0
# Below what systems give to outgoing connections: none can take the port of a broker that is down.
_PORTS = range(20000, 30000)
_NO_PROPERTIES: Mapping[str, str] = MappingProxyType({})


class Cluster:
    """Brokers 1 to `brokers` with their data under a directory; whoever names the directory meets the same cluster.

    Blocking, and meant for one process at a time. Every method raises BrokerError, with the remedy, when it fails.
    """

    def __init__(
        self,
        directory: Path,
        brokers: int = 1,
        *,
        tls: bool = False,
        sasl: bool = False,
        tests: bool = True,
        properties: Mapping[str, str] = _NO_PROPERTIES,
    ) -> None:
        self.directory = directory
        asked = Layout(brokers, tls, sasl, tests, {name: str(value) for name, value in properties.items()})
        self.layout = _remembered(directory) or asked
        self._asked = asked

    @classmethod
    def found(cls, directory: Path) -> Cluster | None:
        """The cluster that was started here before, running or not; None when there is none."""
        layout = _remembered(directory)
        if layout is None:
            return None
        return cls(
            directory,
            layout.brokers,
            tls=layout.tls,
            sasl=layout.sasl,
            tests=layout.tests,
            properties=layout.properties,
        )

    def start(self) -> None:
        """Start the brokers that don't run, with the data they had, and return when the cluster answers."""
        if reason := missing():
            raise BrokerError(reason)
        if not self._asked.asks_the_same(self.layout):
            raise BrokerError(
                f"a cluster {self.directory.name!r} with other options is there: choose another name, or remove"
                f" it first (`scripts/kafka stop --remove --name {self.directory.name}`)"
            )
        if _remembered(self.directory) is None:
            self._make()
        down = [number for number in self.numbers if self.state(number) == "stopped"]
        for number in down:
            self._spawn(number)
        if down:
            with self._log_in_errors():
                self._asking(self.numbers).wait_until_ready(self.layout.brokers)
            for number in down:
                self.wait_until_in_sync(number)

    def stop(self, *, remove: bool = False, gently: bool = True) -> None:
        """Stop every broker (without `gently` by SIGKILL); with `remove` the data goes too. May be repeated."""
        brokers = [self.broker(number) for number in self.numbers]
        for broker in brokers if gently else ():
            broker.signal(signal.SIGTERM)
            broker.signal(signal.SIGCONT)
        if gently:
            # Of brokers that stop together the last waits for a quorum that there isn't any more: it is not hurt.
            try:
                until(lambda: not any(broker.pid for broker in brokers), _STOP_SECONDS, str)
            except BrokerError:
                gently = False
        for broker in brokers:
            broker.kill()
        if remove:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.layout = self._asked

    def kill(self, number: int) -> None:
        """SIGKILL a broker, and return when it is gone."""
        self.broker(number).kill()

    def pause(self, number: int) -> None:
        """SIGSTOP a broker: it keeps its connections and says nothing."""
        self._signal(number, signal.SIGSTOP, "paused")

    def resume(self, number: int) -> None:
        """SIGCONT a paused broker; what it does then is its own affair (see `wait_until_in_sync`)."""
        self._signal(number, signal.SIGCONT, "running")

    def restart(self, number: int) -> None:
        """Start a broker again (kill it first if it runs); return when it is registered and in sync everywhere."""
        if reason := missing():
            raise BrokerError(reason)
        self.kill(number)
        self._spawn(number)
        self.wait_until_in_sync(number)

    def wait_until_in_sync(self, number: int) -> None:
        """Return when every running broker lists this one, in sync wherever it has a copy."""
        with self._log_in_errors():
            self._asking([number]).wait_until_in_sync(number)

    @property
    def numbers(self) -> range:
        """The brokers' numbers."""
        return range(1, self.layout.brokers + 1)

    def broker(self, number: int) -> Recorded:
        """The process of a broker: its `pid`, `state` and `log`."""
        if number not in self.numbers:
            raise BrokerError(f"there is no broker {number}; this cluster has 1 to {self.layout.brokers}")
        return Recorded(self.directory / str(number))

    def state(self, number: int) -> str:
        """`running`, `paused` or `stopped`."""
        return self.broker(number).state

    @property
    def is_running(self) -> bool:
        """Whether any broker runs or is paused."""
        return any(self.state(number) != "stopped" for number in self.numbers)

    def controller(self) -> int:
        """The broker that is the active controller; waits while a lost one has no successor yet."""
        until(lambda: self._controller_now() is not None, _START_SECONDS, lambda: "no controller is elected")
        number = self._controller_now()
        assert number is not None
        return number

    def coordinator(self, group: str) -> int:
        """The broker that coordinates a consumer group; -1 while none does."""
        return self._asking([]).leader("__consumer_offsets", slot_of(group, COORDINATOR_PARTITIONS))

    def transaction_coordinator(self, transactional_id: str) -> int:
        """The broker that coordinates the transactions of an id; -1 while none does."""
        return self._asking([]).leader("__transaction_state", slot_of(transactional_id, COORDINATOR_PARTITIONS))

    @property
    def bootstrap(self) -> str:
        """The brokers' addresses for clients: `127.0.0.1:port,…`."""
        return self._addresses(self.numbers)

    @property
    def internal_bootstrap(self) -> str:
        """The addresses at which nobody is asked for a name, and everybody may do everything."""
        return ",".join(f"{HOST}:{ports.internal}" for ports in self.layout.ports)

    def security(self, user: str = "admin", mechanism: str = "SCRAM-SHA-256") -> dict[str, str]:
        """What a client must be told to get in, in librdkafka's words; empty for a cluster without security."""
        found = {}
        if self.layout.sasl or self.layout.tls:
            found["security.protocol"] = listener_protocol(self.layout)
        if self.layout.sasl:
            found |= {"sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": USERS[user]}
        if self.layout.tls:
            found["ssl.ca.location"] = str(self.directory / "ca.pem")
        return found

    @property
    def client(self) -> dict[str, str]:
        """How the administrator's client of confluent-kafka is configured."""
        return {"bootstrap.servers": self.bootstrap, **self.security()}

    @property
    def url(self) -> str:
        """The cluster as Postline's URL, with what the administrator needs to get in."""
        return self.url_for()

    def url_for(self, user: str = "admin", mechanism: str = "SCRAM-SHA-256") -> str:
        """The cluster as Postline's URL for one of its users."""
        options = "&".join(f"{name}={quote(value, safe='')}" for name, value in self.security(user, mechanism).items())
        return f"kafka://{self.bootstrap}" + (f"?{options}" if options else "")

    def run_tool(self, class_name: str, *arguments: str, text: str | None = None, seconds: float = 60) -> str:
        """What one of Kafka's Java tools says on stdout when given `text`; BrokerError when it fails or takes too long.

        `org.apache.kafka.tools.ConsoleProducer`, `….tools.consumer.ConsoleConsumer`,
        `….tools.consumer.group.ConsumerGroupCommand`, `….tools.TopicCommand`, `….tools.AclCommand` and the like, each
        with `--bootstrap-server`, for which `internal_bootstrap` needs no further options.
        """
        command = [*_java("-Xmx256m", "-XX:TieredStopAtLevel=1", config="tools_log4j2.properties"), class_name]
        try:
            done = subprocess.run(
                [*command, *arguments], input=text or "", capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise BrokerError(f"{class_name} {' '.join(arguments)} took more than {seconds:.0f} s") from error
        if done.returncode:
            raise BrokerError(f"{class_name} {' '.join(arguments)} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def _signal(self, number: int, sent: signal.Signals, state: str) -> None:
        broker = self.broker(number)
        if not broker.signal(sent):
            raise BrokerError(f"broker {number} does not run")
        until(lambda: broker.state == state, 10, lambda: f"broker {number} is {broker.state}, not {state}")

    def _addresses(self, numbers: Iterable[int]) -> str:
        return ",".join(f"{HOST}:{self.layout.ports[number - 1].client}" for number in numbers)

    def _asking(self, needed: Sequence[int]) -> Asking:
        """Questions to the brokers that run, as long as those that are needed are alive."""
        running = self._addresses(number for number in self.numbers if self.state(number) == "running")
        if not running:
            raise BrokerError(f"no broker of {self.directory.name} runs")
        client = {**self.client, "bootstrap.servers": running}
        return Asking(client, _START_SECONDS, lambda: all(self.broker(number).pid for number in needed))

    @contextmanager
    def _log_in_errors(self) -> Iterator[None]:
        try:
            yield
        except BrokerError as error:
            said = (f"broker {n} ({self.state(n)}) said:\n{self.broker(n).last_words()}" for n in self.numbers)
            raise BrokerError("\n".join([f"{self.directory.name}: {error}", *said])) from error

    def _make(self) -> None:
        """Choose ports and an id, write the properties, and format the brokers' data."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        with locked(HOME / "ports.lock"):
            ports = _free_ports(self._asked.brokers)
            self.layout = replace(self._asked, cluster_id=_fresh_id(), ports=ports)
            _claim(self.directory, self.layout)
        if self.layout.tls:
            java = find_java()
            assert java is not None
            make_certificate(java, self.directory)
        for number in self.numbers:
            self._write_properties(number)
        self._format()
        # Last: from here on the cluster is there.
        (self.directory / "claim.json").rename(self.directory / "cluster.json")

    def _write_properties(self, number: int) -> None:
        folder = self.directory / str(number)
        folder.mkdir()
        lines = [f"{name}={value}\n" for name, value in properties_of(self.layout, number, self.directory).items()]
        (folder / "server.properties").write_text("".join(lines), encoding="utf-8")

    def _format(self) -> None:
        """Format the first broker's data; the others' is the same but for their numbers, and costs no Java."""
        java = _java("-Xmx256m", "-XX:TieredStopAtLevel=1", config="tools_log4j2.properties")
        tool = [*java, "kafka.tools.StorageTool", "format"]
        first, *others = (self.directory / str(number) for number in self.numbers)
        users = scram_arguments() if self.layout.sasl else []
        done = subprocess.run(
            [*tool, "-t", self.layout.cluster_id, "-c", str(first / "server.properties"), *users],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BrokerError(f"Kafka could not format its storage: {done.stdout}")
        for folder in others:
            shutil.copytree(first / "data", folder / "data")
            meta = folder / "data" / "meta.properties"
            told = re.sub(r"(?m)^node\.id=.*$", f"node.id={folder.name}", meta.read_text(encoding="utf-8"))
            meta.write_text(re.sub(r"(?m)^directory\.id=.*$", f"directory.id={_fresh_id()}", told), encoding="utf-8")

    def _spawn(self, number: int) -> None:
        properties = self.directory / str(number) / "server.properties"
        # One compiler and one collector of garbage start a good third faster; trials get Java's own choice.
        quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC") if self.layout.tests else ()
        java = _java("-Xms256m", "-Xmx512m", *quick, config="log4j2.properties")
        self.broker(number).spawn([*java, "kafka.Kafka", str(properties)])

    def _controller_now(self) -> int | None:
        """The leader of the latest epoch that a controller knows, if it is alive."""
        known = [state for number in self.numbers if (state := self._quorum_state(number))]
        epoch, leader = max(known, default=(-1, -1))
        return leader if leader in self.numbers and self.state(leader) == "running" and epoch >= 0 else None

    def _quorum_state(self, number: int) -> tuple[int, int] | None:
        """Epoch and leader as the controller of a broker has written them down."""
        path = self.directory / str(number) / "data" / "__cluster_metadata-0" / "quorum-state"
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return written["leaderEpoch"], written["leaderId"]


def _java(*options: str, config: str) -> list[str]:
    java = find_java()
    if java is None:
        raise BrokerError(missing())
    log = f"-Dlog4j2.configurationFile={_HERE / config}"
    return [str(java), *options, "-Djava.awt.headless=true", log, "-cp", f"{LIBS}/*"]


def _fresh_id() -> str:
    """An id as Kafka has them; one that begins with a dash would be taken for an option."""
    return base64.urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).decode("ascii").rstrip("=")


def _claim(directory: Path, layout: Layout) -> None:
    (directory / "claim.json").write_text(json.dumps(asdict(layout), indent=1), encoding="utf-8")


def _remembered(directory: Path, name: str = "cluster.json") -> Layout | None:
    try:
        written = json.loads((directory / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Layout(**{**written, "ports": tuple(Ports(**ports) for ports in written["ports"])})


def _free_ports(brokers: int) -> tuple[Ports, ...]:
    """Ports that nobody listens on, nor has a cluster of this checkout, which may be stopped just now."""
    claims = [*HOME.glob("*/claim.json"), *HOME.glob("*/cluster.json")]
    layouts = (_remembered(path.parent, path.name) for path in claims)
    taken = {port for layout in layouts if layout for ports in layout.ports for port in asdict(ports).values()}
    free = _unused(taken)
    return tuple(Ports(next(free), next(free), next(free)) for _ in range(brokers))


def _unused(taken: set[int]) -> Iterator[int]:
    # Drawn by the system's chance, so that two checkouts rarely meet at the same port.
    chance = random.Random(uuid.uuid4().int)
    for port in chance.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        if port not in taken:
            yield port
    raise BrokerError(f"no free port between {_PORTS.start} and {_PORTS.stop}")
