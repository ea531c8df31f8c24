"""`Cluster`: what every part of the engine stands on: its options, clients and threads, and whether it is closing."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from postline.clock import Clock
from postline.errors import LogUnavailable
from postline.log.kafka.options import Options, default_cache_directory
from postline.log.kafka.slots import Slot, take_slot
from postline.log.kafka.translation import translated, unreachable
from postline.logs.events import event

__all__ = ["CONNECTED", "PASSING", "Cluster"]

T = TypeVar("T")

_log = logging.getLogger("postline.log.kafka")


class _ClientLog:
    """Takes what the client library says of itself: what matters of it comes as an error, too, and is told as ours."""

    def __init__(self) -> None:
        self._log = logging.getLogger("postline.log.kafka.client")

    def log(self, level: int, text: str, *parts: object) -> None:
        """Pass a line on; its own grading takes many expected things for fatal."""
        del level
        self._log.debug(text, *parts, extra=event("kafka.client"))


_THREADS = 16
#: The broker's limit for the topic decides, and contracts before it.
_SIZES = {"message.max.bytes": "1000000000"}
_GREETING_SECONDS = 2.0
_ANSWER_SECONDS = 30.0
_DESCRIBED_SECONDS = 5.0
#: A client that finds no leaders for so long has not learned of a topic, and won't.
_LEADERLESS_SECONDS = 3.0
#: Answers of brokers that are starting, or whose partitions and coordinators move.
PASSING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError._NOENT,  # "no leaders found", of a topic that is a moment old
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError.NETWORK_EXCEPTION,
    }
)
#: Longer from one time to the next: a cluster in trouble must not be kept from mending itself by those who ask.
_AGAIN_SECONDS, _AGAIN_SECONDS_MAX = 0.05, 1.0
_RENEWED_SECONDS = 3.0
_GIVEN_UP_MAX = 4
#: Errors after which asking again in the same way is pointless.
_DECISIVE = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
    }
)
#: Else a question to a broker that is away makes librdkafka 2.16 try to connect without a pause, by three quarters of a
#: processor for each client.
CONNECTED = {"enable.sparse.connections": "false"}
#: Without this every transaction after another one takes 100 ms (research: kafka §4.10).
_QUICK_RETRIES = {"retry.backoff.ms": "1", "retry.backoff.max.ms": "1000"}


class Cluster:
    """One cluster as one log uses it. Thread-safe but for `start` and `close`.

    Blocking calls run in `run`'s threads; every KafkaException leaves `asking` as one of our errors.
    """

    def __init__(self, options: Options, clock: Clock, namespace: str = "", instance: str = "") -> None:
        self.options, self.clock = options, clock
        self.address = "kafka://" + options.client["bootstrap.servers"]
        self.prefix = f"{namespace}." if namespace else ""
        self.instance = instance or "local"
        self.cluster_id = ""
        #: Set when the log closes: whoever waits in a thread gives up.
        self.stopping = threading.Event()
        self.last_error: KafkaError | None = None
        self._away = False
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="postline kafka")
        self._slot: Slot | None = None
        self._slot_lock = threading.Lock()
        self._admin: AdminClient | None = None
        self._given_up: deque[AdminClient | None] = deque(maxlen=_GIVEN_UP_MAX)
        self._renewing = threading.Lock()
        self._renewed_at = -_RENEWED_SECONDS

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Reach the cluster. Blocks; raises LogUnavailable, or what it says about credentials."""
        end = self.clock.monotonic() + self.options.connect_seconds
        with self.asking("connect"):
            admin = self._admin = self._asker()
        while True:
            try:
                admin.list_topics(timeout=0.5)
                break
            except KafkaException as error:
                admin.poll(0)
                last = self.last_error
                if last is not None and last.code() in _DECISIVE:
                    raise translated(last, "connect", self.address) from error
                if self.clock.monotonic() > end:
                    raise unreachable(self.address, last, self.options.connect_seconds) from error
        self.cluster_id = self.ask(
            "describe the cluster", lambda: self.admin.describe_cluster().result(_DESCRIBED_SECONDS).cluster_id
        )

    @property
    def admin(self) -> AdminClient:
        """The client for asking about topics and groups. Raises LogUnavailable once the log is closed."""
        if self._admin is None or self.stopping.is_set():
            raise self.closed()
        return self._admin

    def closed(self) -> LogUnavailable:
        """The refusal of a log that isn't open."""
        return LogUnavailable(f"The log {self.address} is closed.", remedy="Start it first.")

    def close(self) -> None:
        """Let go of threads and clients. Idempotent."""
        self.stopping.set()
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._admin = None
        with self._slot_lock:
            if self._slot is not None:
                self._slot.release()
                self._slot = None

    # -- asking -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def asking(self, doing: str) -> Iterator[None]:
        """Whatever the client library raises inside becomes our error about `doing`, with its cause."""
        try:
            yield
        except KafkaException as error:
            raise translated(error, doing, self.address) from error
        except TimeoutError as error:
            raise LogUnavailable(
                f"{self.address} did not answer in time when asked to {doing}.",
                remedy="Try again; look at the brokers.",
            ) from error

    def ask(self, doing: str, call: Callable[[], T], seconds: float | None = None) -> T:
        """Call until it is answered: where leaders and coordinators move, asking again is left to us."""
        patience = max(_ANSWER_SECONDS, self.options.connect_seconds) if seconds is None else seconds
        began, pause_seconds = self.clock.monotonic(), _AGAIN_SECONDS
        until = began + patience
        while True:
            asked = self._admin
            try:
                return call()
            except KafkaException as error:
                told: KafkaError = error.args[0]
                passing = told.retriable() or told.code() in PASSING
                if not passing or self.clock.monotonic() > until:
                    raise translated(error, doing, self.address) from error
                leaderless = told.code() == KafkaError._NOENT and self.clock.monotonic() > began + _LEADERLESS_SECONDS
                if told.code() == KafkaError.NOT_COORDINATOR or leaderless:
                    self._renew_admin(asked)
            except TimeoutError as error:
                self._renew_admin(asked)
                if self.clock.monotonic() > until:
                    raise self._unanswered(doing) from error
            if self.stopping.wait(pause_seconds):
                raise self.closed()
            pause_seconds = min(2 * pause_seconds, _AGAIN_SECONDS_MAX)
            with contextlib.suppress(KafkaException):  # who leads what may have changed
                self.admin.list_topics(timeout=_GREETING_SECONDS)

    def _renew_admin(self, asked: AdminClient | None) -> None:
        """Take another client than the one that was asked, if that is long enough ago.

        One keeps the coordinators that it once found for a quarter of an hour, though they may have moved.
        """
        now = self.clock.monotonic()
        with self._renewing:
            if self._admin is asked and now - self._renewed_at > _RENEWED_SECONDS and not self.stopping.is_set():
                self._given_up.append(self._admin)  # its calls may be open still
                self._admin = self._asker()
                self._renewed_at = now

    def _unanswered(self, doing: str) -> LogUnavailable:
        return LogUnavailable(
            f"{self.address} did not answer in time when asked to {doing}.", remedy="Try again; look at the brokers."
        )

    async def run(self, work: Callable[..., T], *args: object) -> T:
        """Do blocking work in a thread."""
        if self.stopping.is_set() or self._admin is None:
            raise self.closed()
        try:
            working = asyncio.get_running_loop().run_in_executor(self._executor, work, *args)
        except RuntimeError as error:
            raise self.closed() from error
        return await working

    def note(self, error: KafkaError) -> None:
        """A client's own word about trouble with the cluster; kept for whoever has to explain what failed.

        That all brokers are down follows every other word, and says less.
        """
        last = self.last_error
        if last is None or (last.code() not in _DECISIVE and error.code() != KafkaError._ALL_BROKERS_DOWN):
            self.last_error = error
        _log.debug("%s: %s", self.address, error.str(), extra=event("kafka.client_error", log=self.address))
        if (
            error.code() == KafkaError._ALL_BROKERS_DOWN
            and self.cluster_id
            and not (self._away or self.stopping.is_set())
        ):
            self._away = True
            _log.warning(
                "%s can't be reached: what needs it waits",
                self.address,
                extra=event("log.unreachable", log=self.address),
            )

    def reached(self) -> None:
        """Say so, if it was said that the cluster can't be reached."""
        if self._away:
            self._away = False
            _log.warning("%s is reached again", self.address, extra=event("log.reached", log=self.address))

    # -- who this process is ------------------------------------------------------------------

    @property
    def slot(self) -> Slot:
        """This process's place among those of its instance on this machine; taken at the first call."""
        with self._slot_lock:
            if self._slot is None:
                self._slot = take_slot(self._slots())
            return self._slot

    @contextlib.contextmanager
    def turn(self, what: str) -> Iterator[None]:
        """Be the only one among the processes of this machine, or cache directory, meanwhile."""
        with (self.slot.directory.parent / f"{what}.turn").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def has_been_here(self) -> bool:
        """Whether a process of this instance has worked with this cluster from this machine before."""
        return self._slots().is_dir()

    @property
    def marks(self) -> Path:
        """Where the slot's holder names the transactional ids that it uses, for whoever comes after it."""
        directory = self.slot.directory / "transactions"
        directory.mkdir(exist_ok=True)
        return directory

    def transactional_id(self, what: str) -> str:
        """The stable id of this process's transactions for `what`: who takes its slot next ends what it left open."""
        return f"{self.transactions_prefix}{self.instance}.{self.slot.number}.{what}"

    @property
    def transactions_prefix(self) -> str:
        """What the ids of all of Postline's transactions begin with, so that one right covers them."""
        return f"{self.prefix}postline."

    def _slots(self) -> Path:
        chosen = self.options.cache_directory
        base = Path(chosen) if chosen else default_cache_directory()
        return base / self.cluster_id / f"{self.prefix}{self.instance}".replace("/", "_")

    # -- clients ------------------------------------------------------------------------------

    def _base(self) -> dict[str, Any]:
        return {"log_level": "4", **self.options.client, "error_cb": self.note, "logger": _ClientLog()}

    def _asker(self) -> AdminClient:
        return AdminClient({**self._base(), **CONNECTED, "log_level": "0"})

    def plain_producer(self) -> Producer:
        """A producer for single records: idempotent, unless `durability=relaxed` was asked for."""
        durable = {"enable.idempotence": "true", "acks": "all"}
        if not self.options.durable:
            durable = {"acks": "1", "max.in.flight": "1"}  # without idempotence, retries of several would change places
        seconds = {"delivery.timeout.ms": str(int(self.options.publish_seconds * 1000))}
        return self.producer({"linger.ms": "0"}, durable | seconds)

    def transactional_producer(self, transactional_id: str, *, singly: bool = False) -> Producer:
        """A producer for transactions under this id; its first call has to be init_transactions.

        With `singly` it sends each record as a batch of its own.
        """
        timeout = str(int(self.options.transaction_seconds * 1000))
        fixed = {"transactional.id": transactional_id, "transaction.timeout.ms": timeout, **_QUICK_RETRIES}
        return self.producer({"linger.ms": "1"}, fixed | ({"batch.num.messages": "1"} if singly else {}))

    def producer(self, defaults: Mapping[str, str], fixed: Mapping[str, str]) -> Producer:
        """A producer with these settings; the URL's own stand between them."""
        with self.asking("make a producer"):
            producer = Producer({**_SIZES, **defaults, **self._base(), **self.options.producer, **fixed})
        # One that has asked a broker something begins at once; else it waits half a second for its producer id.
        with contextlib.suppress(KafkaException):
            producer.list_topics(timeout=_GREETING_SECONDS)
        return producer

    def outsider(self, settings: Mapping[str, str]) -> Consumer:
        """A consumer that never joins a group, whatever was asked for members."""
        plain = {"session.timeout.ms": "45000", "heartbeat.interval.ms": "3000", "max.poll.interval.ms": "300000"}
        return self.consumer({}, {**settings, **plain})

    def consumer(self, defaults: Mapping[str, str], fixed: Mapping[str, str]) -> Consumer:
        """A consumer that commits nothing by itself and reads only what was committed."""
        always = {"enable.auto.commit": "false", "isolation.level": "read_committed"}
        with self.asking("make a consumer"):
            return Consumer({**defaults, **self._base(), **self.options.consumer, **always, **fixed})
