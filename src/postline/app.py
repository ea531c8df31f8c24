"""The composition root: an app's declarations, and the only place that builds engines and wires parts."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, Unpack

import msgspec

from postline.clock import Clock, SystemClock
from postline.contracts import Catalog, ForeignTopic, Partitioner, Topic
from postline.contracts.relaying import CloudEvent, Relaying
from postline.errors import PostlineError, SettingsError, UsageError
from postline.events import Policy, PolicyOptions, Start, Subscription
from postline.ids import IdSource
from postline.log.needs import Need
from postline.log.port import FLAG_STRUCTURED, SCHEMA_ID_SHIFT, Append, Log
from postline.message import Envelope
from postline.registry import SCHEMAS_TOPIC, Registry, Usage, View, enroll, open_registry, schemas_topic, view_of
from postline.registry.unread import ForeignReading, require_readable
from postline.runtime.announce import announce_types
from postline.runtime.calls import HANDLING
from postline.runtime.consumer import Consumer
from postline.runtime.outlet import Outlet, Route
from postline.runtime.plan import Plan
from postline.runtime.surroundings import Surroundings
from postline.runtime.topology import Topology
from postline.settings import Settings, load_settings

__all__ = [
    "HANDLER_THREAD",
    "App",
    "Environment",
    "Published",
    "declared_views",
    "foreign_readings",
    "need_of",
    "open_environment",
    "open_log",
]

_log = logging.getLogger("postline")

#: In the name of every thread that runs plain handlers.
HANDLER_THREAD = " handler"

_DEFAULT_GRACE_SECONDS = 10.0
_PUBLISH_MANY_RECORDS = 1_000

#: `App(lifespan=…)`: called with the app at start; what it yields is `ctx.resources`.
Lifespan = Callable[["App"], AbstractAsyncContextManager[Any]]

KindT = TypeVar("KindT")


@dataclass(frozen=True)
class Environment:
    """What an app runs on; tests and simulations hand in their own."""

    log: Log
    settings: Settings
    clock: Clock = field(default_factory=SystemClock)
    random: random.Random = field(default_factory=random.Random)
    #: Whether topics that are missing may be created for owners who have not started yet.
    creates_missing: bool = True


class Published(msgspec.Struct, frozen=True, gc=False):
    """Where a message went; it is durable."""

    id: str
    topic: str
    partition: int
    offset: int


def open_log(settings: Settings, clock: Clock) -> Log:
    """The engine that the settings' URL names, not yet started. Raises SettingsError for options it can't take."""
    url = settings.url
    if url.scheme == "sqlite":
        from postline.log.sqlite.log import SqliteLog
        from postline.log.sqlite.options import read_options

        return SqliteLog(None if url.path is None else str(url.path), clock=clock, settings=read_options(url.options))
    return _open_kafka(settings, clock)


def _open_kafka(settings: Settings, clock: Clock) -> Log:
    url = settings.url
    try:
        from postline.log.kafka.log import KafkaLog
        from postline.log.kafka.options import read_options
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("confluent_kafka"):
            raise
        raise SettingsError(
            f"{url.redacted} needs the Kafka client, which is not installed.", remedy="pip install 'postline[kafka]'"
        ) from error
    ids = IdSource(clock.now_ms, random.Random())
    options = read_options(url.servers, url.options)
    return KafkaLog(options, clock=clock, ids=ids, namespace=settings.namespace, instance=settings.instance)


def open_environment(url: str | None = None, default_url: str | None = None) -> Environment:
    """The environment of the working directory: postline.toml, variables, and the log they name."""
    settings = load_settings(os.environ, Path.cwd(), url=url, default_url=default_url)
    clock = SystemClock()
    return Environment(open_log(settings, clock), settings, clock)


def need_of(app: App, environment: Environment, principal: str = "") -> Need:
    """What the app needs of the log, which is not asked. Raises SettingsError with every contradiction at once."""
    running = _Running(app, environment, owns_log=False)
    return running.topology.need(running.checked_plans(), principal)


def declared_views(app: App, full_name: Callable[[str], str] = str) -> list[View]:
    """What the app's subscriptions read as they are declared now, which its start tells the owners of their topics."""
    return [
        view_of(reading, name, topic=full_name(each.topic.name), service=app.name, subscription=full_name(each.name))
        for each in app.subscriptions.values()
        for name, reading in each.readings.items()
    ]


def foreign_readings(app: App, full_name: Callable[[str], str] = str) -> list[ForeignReading]:
    """How the app's subscriptions read the types of topics that it does not own."""
    owned = {topic.name for topic in app.owns}
    return [
        ForeignReading(full_name(subscription.name), full_name(subscription.topic.name), reading)
        for subscription in app.subscriptions.values()
        if subscription.topic.name not in owned
        for reading in dict.fromkeys(subscription.readings.values())
    ]


class App:
    """One service: its name, the topics it owns, and its subscriptions.

    Nothing happens before `start` (or `async with app:`, or `postline run`). One event loop.
    `owns` lists exactly the topics whose owner is this service; `publishes_to` those of others
    that it publishes to. `url` is used where neither settings nor environment name a log.
    """

    def __init__(
        self,
        name: str,
        *,
        owns: Iterable[Topic] = (),
        publishes_to: Iterable[Topic] = (),
        lifespan: Lifespan | None = None,
        url: str | None = None,
    ) -> None:
        self.name = name
        self.url = url
        self.owns = tuple(owns)
        self.publishes_to = tuple(publishes_to)
        self.subscriptions: dict[str, Subscription] = {}
        self._lifespan = lifespan
        self._running: _Running | None = None

    def subscribe(
        self, name: str, topic: Topic | ForeignTopic, *, start: Start | None = None, **options: Unpack[PolicyOptions]
    ) -> Subscription:
        """Declare a durable subscription; put its `.on(Type)` above the handlers.

        `start` says where it begins when it is new: "earliest", "latest", or a datetime with a
        time zone. It must be said. The options are `postline.events.Policy`'s. Raises UsageError
        for a name that this app has already, or without `start`.
        """
        if start is None:
            raise UsageError(
                f"Subscription {name!r} does not say where it starts when it is new.",
                remedy='Say start="earliest" to handle what is there already, or start="latest" for what comes now.',
            )
        if name in self.subscriptions:
            raise UsageError(f"App {self.name!r} has two subscriptions named {name!r}.", remedy="Rename one.")
        subscription = self.subscriptions[name] = Subscription(name, topic, start, Policy(**options))
        return subscription

    # -- publishing ---------------------------------------------------------------------------

    async def publish(
        self, message: Any, *, id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Published:
        """Publish one message; it is durable when this returns.

        If it raises anything but MessageError or UsageError, or is cancelled, the outcome is
        unknown: repeat it with the same `id`, whose duplicates every subscription drops. An own id
        is one message of this service, whatever its type: "order-placed-17" rather than "17".
        """
        running = self._for_publishing()
        append = running.outlet.fresh(message, id, headers)
        (offset,) = await running.log.append((append,))
        return Published(append.envelope.id, append.topic, append.partition, offset)

    async def publish_many(
        self, messages: Iterable[Any], *, id_of: Callable[[Any], str] | None = None
    ) -> list[Published]:
        """Publish messages in order, many to a commit; all are durable when this returns.

        Each thousand is stored whole or not at all; `id_of` gives the own id that makes repeating safe.
        """
        running = self._for_publishing()
        published: list[Published] = []
        storing: asyncio.Task[list[Published]] | None = None
        try:
            # One thousand is made while the log stores the one before; never more, so that order is kept.
            for appends in running.thousands(messages, id_of):
                if storing is not None:
                    published += await storing
                storing = asyncio.create_task(_append(running.log, appends))
                await asyncio.sleep(0)
            return published + (await storing if storing is not None else [])
        except BaseException:
            if storing is not None:
                await asyncio.gather(storing, return_exceptions=True)
            raise

    async def relay(self, events: Iterable[CloudEvent]) -> list[Published]:
        """Publish events that came from elsewhere, with their own ids, sources, times and extensions.

        An event's type says which contract of `owns` and `publishes_to` its data is checked by. All are durable when
        this returns; if it raises a ContractError none is. Repeating is safe: of events with the same source and id
        every subscription handles the first. Raises ContractError and LogError.
        """
        running = self._for_publishing()
        appends = [running.outlet.relayed(running.relaying.message(event), event.envelope) for event in events]
        return await _append(running.log, appends) if appends else []

    def _for_publishing(self) -> _Running:
        if (subscription := HANDLING.get()) is not None:
            raise UsageError(
                f"app.publish was called in a handler of subscription {subscription!r}, or in a task that one began.",
                remedy="Call ctx.publish before the handler ends: it leaves together with the record's settlement, or "
                "not at all. What shall publish by itself begins in the app's lifespan.",
            )
        return self._require_running()

    def _require_running(self) -> _Running:
        if self._running is None:
            raise UsageError(
                f"App {self.name!r} is not running.", remedy="Use `async with app:` around the call, or `postline run`."
            )
        return self._running

    # -- life ---------------------------------------------------------------------------------

    async def start(self, environment: Environment | None = None, *, consume: bool = True) -> None:
        """Check everything, open the log, and (unless `consume` is False) run the subscriptions.

        Raises SettingsError with every contradiction at once, and LogError for what the log says.
        """
        if self._running is not None:
            raise UsageError(f"App {self.name!r} runs already.", remedy="Start an app once; stop it first.")
        own = environment is None
        environment = environment or open_environment(default_url=self.url)
        running = self._running = _Running(self, environment, own)
        try:
            await running.start(consume, self._lifespan)
        except BaseException:
            self._running = None
            await running.stop(0)
            raise

    async def stop(self, grace_seconds: float = _DEFAULT_GRACE_SECONDS) -> None:
        """Stop fetching, let running attempts end within `grace_seconds`, commit, leave. Idempotent.

        Cancelling it is an `abort`.
        """
        running, self._running = self._running, None
        if running is None:
            return
        try:
            await running.stop(grace_seconds)
        except asyncio.CancelledError:
            await running.abort()
            raise

    async def abort(self) -> None:
        """Let go at once: what was not committed is handled again by whoever comes next."""
        running, self._running = self._running, None
        if running is not None:
            await running.abort()

    async def wait_failed(self) -> BaseException:
        """Wait until a subscription can't go on; gives its error."""
        return await self._require_running().wait_failed()

    async def caught_up(self) -> bool:
        """Whether all subscriptions have settled or held, and committed, all that the log has."""
        consumers = self._require_running().consumers
        return all([await consumer.caught_up() for consumer in consumers])

    @property
    def consumers(self) -> list[Consumer]:
        """The subscriptions at work in this process; none while it is not running."""
        return [] if self._running is None else self._running.consumers

    @property
    def log(self) -> Log:
        """The log it runs on. Raises UsageError while it is not running."""
        return self._require_running().log

    async def __aenter__(self) -> App:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()


async def _append(log: Log, appends: Sequence[Append]) -> list[Published]:
    offsets = await log.append(appends)
    return [
        Published(append.envelope.id, append.topic, append.partition, offset)
        for append, offset in zip(appends, offsets, strict=True)
    ]


class _Running:
    """An app between start and stop: its log, outlet, resources and consumers."""

    def __init__(self, app: App, environment: Environment, owns_log: bool) -> None:
        self._app = app
        self._environment = environment
        self._owns_log = owns_log
        self.log = environment.log
        self._settings = environment.settings
        topics = [*app.owns, *app.publishes_to, *(sub.topic for sub in app.subscriptions.values())]
        self._catalog = Catalog(topics)
        published = (*app.owns, *app.publishes_to)
        self.relaying = Relaying(published)
        self._schemas = environment.settings.full_name(SCHEMAS_TOPIC)
        shared = [schemas_topic(self._schemas)] if self._catalog.topics else []
        self.topology = Topology(environment.log, app.name, self._catalog, environment.settings, published, shared)
        self.outlet = Outlet(app.name, self._route_of, environment.clock, environment.random)
        self.consumers: list[Consumer] = []
        self.registry: Registry = open_registry(environment.settings, self.log, environment.clock, self.outlet.fresh_id)
        #: Ids of the schemas that this app publishes under, by topic and type.
        self._schema_ids: dict[tuple[str, str], int] = {}
        self._stack = AsyncExitStack()
        self._executor = ThreadPoolExecutor(max_workers=32, thread_name_prefix=app.name + HANDLER_THREAD)

    async def start(self, consume: bool, lifespan: Lifespan | None) -> None:
        plans = self.checked_plans()
        await self.log.start()
        await self.topology.prepare(plans if consume else [], creates_missing=self._environment.creates_missing)
        await self._enroll()
        if consume:
            await require_readable(self.registry, foreign_readings(self._app, self._settings.full_name))
        resources = await self._enter(lifespan) if lifespan else None
        if not consume:
            return
        views = declared_views(self._app, self._settings.full_name)
        usage = Usage(self.log, self._schemas, self.outlet.fresh_id)
        for plan in plans:
            await usage.note(plan.name, (view for view in views if view.subscription == plan.name))
            await self._start_consumer(plan, resources)
        await self._name_unserved(plans)

    async def _enroll(self) -> None:
        """Register what this app may publish, before it does. Raises ContractError where that breaks somebody."""
        for topic in dict.fromkeys((*self._app.owns, *self._app.publishes_to)):
            for name, contract in topic.contracts.items():
                full, rule = self._settings.full_name(topic.name), topic.schemas.evolution
                self._schema_ids[topic.name, name] = await enroll(self.registry, full, contract.reading, rule)

    async def _enter(self, lifespan: Lifespan) -> Any:
        try:
            return await self._stack.enter_async_context(lifespan(self._app))
        except Exception as error:
            raise PostlineError(
                f"App {self._app.name!r} can't start: its lifespan failed with {type(error).__qualname__}: "
                f"{str(error).removesuffix('.')}.",
                remedy="Mend what it opens; the error above this one says where.",
            ) from error

    def checked_plans(self) -> list[Plan]:
        problems = list(self._catalog.problems)
        problems += [
            f"App {self._app.name!r} owns topic {topic.name!r}, whose contract names {topic.owner!r} as owner."
            for topic in self._app.owns
            if topic.owner != self._app.name
        ]
        plans = []
        for subscription in self._app.subscriptions.values():
            try:
                plan = self._plan(subscription)
            except SettingsError as error:
                problems.append(str(error))
                continue
            problems += [f"Subscription {subscription.name!r}: {problem}" for problem in plan.check()]
            plans.append(plan)
        if problems:
            raise SettingsError(
                "\n".join([f"App {self._app.name!r} can't start:", *problems]), remedy="Mend what is listed above."
            )
        return plans

    def _plan(self, subscription: Subscription) -> Plan:
        full = self._settings.full_name
        plan = subscription.plan(self._app.name, full(subscription.topic.name), full(subscription.name))
        aliases = tuple(full(alias) for alias in plan.aliases)
        sizes = self._settings.subscription(subscription.name).overrides()
        if plan.batch is None:
            sizes.pop("batch", None)
        return replace(plan, aliases=aliases, **sizes)

    def _route_of(self, cls: type) -> Route:
        contract = self._catalog.contract_for(cls)
        topic, spec = self._catalog.topics[contract.topic], self.topology.specs[contract.topic]
        schema_id = self._schema_ids.get((topic.name, contract.name), 0)
        framed = topic.schemas.framed and schema_id
        return Route(
            topic=spec.name,
            type_name=contract.name,
            partitions=spec.partitions,
            encode=contract.reading.framing(schema_id) if framed else contract.encode,
            key_of=contract.key_of,
            placed_by=contract.placed_by,
            partition_of=Partitioner(spec.partitions).partition_of,
            content_type=topic.format.content_type,
            flags=(0 if framed else schema_id << SCHEMA_ID_SHIFT) | FLAG_STRUCTURED * topic.schemas.structured,
            bytes_max=min(topic.message_bytes_max, spec.message_bytes_max or topic.message_bytes_max),
        )

    def thousands(self, messages: Iterable[Any], id_of: Callable[[Any], str] | None) -> Iterator[list[Append]]:
        """The records of messages, as many together as one commit takes."""
        fresh, rest = self.outlet.fresh, iter(messages)
        while some := list(islice(rest, _PUBLISH_MANY_RECORDS)):
            yield [fresh(message, id_of(message)) for message in some] if id_of else [fresh(each) for each in some]

    async def _name_unserved(self, plans: Sequence[Plan]) -> None:
        served = {name for plan in plans for name in (plan.name, *plan.aliases)}
        for info in await self.log.subscriptions():
            if info.service != self._app.name or info.name in served or await self.log.members(info.name):
                continue
            _log.warning(
                "subscription %s of service %s is not served by this version, nor by a running one, and keeps its "
                "position: serve it, rename it by aliases=, or, if nobody will need it, "
                "`postline subscriptions remove %s`",
                *(info.name, self._app.name, info.name),
            )

    async def _start_consumer(self, plan: Plan, resources: Any) -> None:
        clock = self._environment.clock
        envelope = Envelope(id=self.outlet.fresh_id(), source=self._app.name, time_ms=clock.now_ms())
        announced = await announce_types(self.log, plan, envelope)
        around = Surroundings(plan, self.log, clock, self.outlet, self._environment.random, self.registry)
        around.resources = resources
        consumer = Consumer(around, self._executor, self._settings.instance)
        self.consumers.append(consumer)
        await consumer.start()
        if not announced:
            await announce_types(self.log, plan, envelope)

    async def wait_failed(self) -> BaseException:
        """The error of the first consumer that can't go on."""
        futures = [consumer.failed for consumer in self.consumers if consumer.failed is not None]
        if not futures:
            await asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).result()

    async def stop(self, grace_seconds: float) -> None:
        results = await asyncio.gather(
            *(consumer.stop(grace_seconds) for consumer in self.consumers), return_exceptions=True
        )
        await self._close()
        for result in results:
            if isinstance(result, PostlineError):
                _log.error("app %s: a subscription did not stop cleanly: %s", self._app.name, result)
            elif isinstance(result, BaseException):
                raise result

    async def abort(self) -> None:
        await asyncio.gather(*(consumer.abort() for consumer in self.consumers), return_exceptions=True)
        await self._close()

    async def _close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
        try:
            await self._stack.aclose()
        finally:
            await self.registry.close()
            if self._owns_log:
                await self.log.close()
