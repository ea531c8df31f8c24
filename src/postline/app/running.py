"""An app between start and stop: where its parts are wired."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, Protocol

from postline.app.commanding import Commanding, command_topics
from postline.app.environment import Environment
from postline.app.prioritizing import crews_of, doubled, renamings, sibling_plans, with_siblings
from postline.app.published import Published, append_all
from postline.app.relays import Relay
from postline.app.telling import AppLife, name_unserved
from postline.clock import Clock
from postline.commands import Accepted, Claims, Leaving, Requests, Serving
from postline.contracts import Catalog, MessageContract, Partitioner, Topic
from postline.contracts.commands import CommandTopic
from postline.contracts.relaying import Relaying
from postline.errors import PostlineError, SettingsError, UsageError
from postline.events import Subscription
from postline.log.port import FLAG_STRUCTURED, SCHEMA_ID_SHIFT, Append
from postline.message import Envelope
from postline.operations import Operations, Request
from postline.registry import (
    SCHEMAS_TOPIC,
    DeclaredBounds,
    Registry,
    Usage,
    View,
    enroll,
    open_registry,
    schemas_topic,
    view_of,
)
from postline.registry.unread import ForeignReading, require_readable
from postline.runtime.announce import announce_types
from postline.runtime.consumer import Consumer
from postline.runtime.crew import Crew
from postline.runtime.delays import DelayToken, due_of, order_of
from postline.runtime.gates import Gates
from postline.runtime.limits import Limit, Limiter
from postline.runtime.outlet import Outlet, Route
from postline.runtime.plan import Plan
from postline.runtime.surroundings import Surroundings
from postline.runtime.topology import Topology
from postline.schedules import Schedules

__all__ = [
    "HANDLER_THREAD",
    "Companion",
    "Declared",
    "Lifespan",
    "Running",
    "declared_views",
    "foreign_readings",
]

#: In the name of every thread that runs plain handlers.
HANDLER_THREAD = " handler"

_PUBLISH_MANY_RECORDS = 1_000
#: So long a request to an owner in this process takes in memory, where no time passes.
_TURNS_OF_THE_LOOP = 100


class Declared(Protocol):
    """What an app declares: its name, topics and subscriptions."""

    name: str
    owns: tuple[Topic, ...]
    publishes_to: tuple[Topic, ...]
    subscriptions: dict[str, Subscription]
    #: Of all attempts in this process.
    limit: Limit
    schedules: Schedules | None
    #: Those among the topics' makers that are command topics.
    commands: tuple[CommandTopic, ...]
    companions: list[Companion]


#: `App(lifespan=…)`: called with the app at start; what it yields is `ctx.resources`.
Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]

#: Entered with the app at start, and with whether its subscriptions run here; left once they have stopped.
Companion = Callable[[Any, bool], AbstractAsyncContextManager[None]]


def declared_views(app: Declared, full_name: Callable[[str], str] = str) -> list[View]:
    """What the app's subscriptions read as they are declared now, which its start tells the owners of their topics."""
    return [
        view_of(reading, name, topic=full_name(each.topic.name), service=app.name, subscription=full_name(each.name))
        for each in app.subscriptions.values()
        for name, reading in each.readings.items()
    ]


def foreign_readings(app: Declared, full_name: Callable[[str], str] = str) -> list[ForeignReading]:
    """How the app's subscriptions read the types of topics that it does not own."""
    owned = {topic.name for topic in app.owns}
    return [
        ForeignReading(full_name(subscription.name), full_name(subscription.topic.name), reading)
        for subscription in app.subscriptions.values()
        if subscription.topic.name not in owned
        for reading in dict.fromkeys(subscription.readings.values())
    ]


class Running:
    """An app between start and stop: its log, outlet, resources and consumers. Event loop only."""

    def __init__(self, app: Declared, environment: Environment, owns_log: bool) -> None:
        self._app = app
        self._life = AppLife(app.name)
        self._environment = environment
        self._owns_log = owns_log
        self.log = environment.log
        self._settings = environment.settings
        commands = command_topics(app.commands, app.subscriptions.values())
        spread = [topic for each in commands for topic in each.topics]
        topics = [*app.owns, *app.publishes_to, *spread, *(sub.topic for sub in app.subscriptions.values())]
        self._catalog = Catalog(topics)
        published = (*app.owns, *app.publishes_to)
        self._schemas = environment.settings.full_name(SCHEMAS_TOPIC)
        shared = [schemas_topic(self._schemas)] if self._catalog.topics else []
        settings, written = environment.settings, with_siblings(published)
        self.topology = Topology(environment.log, app.name, self._catalog, settings, written, shared, app.commands)
        self.outlet = Outlet(app.name, self._route_of, environment.clock, environment.random)
        self.gates = Gates(environment.log, environment.clock, self.topology.bounds())
        self.relay = Relay(Relaying(published), self.outlet, self.gates, environment.log)
        renamed = renamings(app.subscriptions.values(), settings.full_name)
        self._claims = Claims(environment.log, self._schemas, self.outlet.fresh_id)
        self.commanding = Commanding(commands, self.topology, self.outlet, self._claims, renamed)
        self.consumers: list[Consumer] = []
        self._crews: dict[str, Crew] = {}
        self.registry: Registry = open_registry(environment.settings, self.log, environment.clock, self.outlet.fresh_id)
        #: Ids of the schemas that this app publishes under, by topic and type.
        self._schema_ids: dict[tuple[str, str], int] = {}
        self._stack = AsyncExitStack()
        self._resources: Any = None
        #: Limits the app as a whole.
        self._door: Limiter | None = None
        #: Subscriptions that came while it runs, by full name. Whoever added them watches whether they fail.
        self._added: dict[str, Subscription] = {}
        self._adding = asyncio.Lock()
        self._leaving = False
        self._executor = ThreadPoolExecutor(max_workers=32, thread_name_prefix=app.name + HANDLER_THREAD)

    async def start(self, consume: bool, lifespan: Lifespan | None) -> None:
        """Check everything, make topics, register contracts, and begin. Raises as `App.start`."""
        plans = self.checked_plans()
        self.gates.check()
        await self.log.start()
        await self.log.require_standing()
        await self.topology.prepare(plans if consume else [], creates_missing=self._environment.creates_missing)
        await self._enroll()
        await self._tell_bounds()
        if consume:
            await require_readable(self.registry, foreign_readings(self._app, self._settings.full_name))
        self._resources = resources = await self._enter(lifespan) if lifespan else None
        if not consume:
            await self._enter_companions(consume)
            return
        views = declared_views(self._app, self._settings.full_name)
        usage = Usage(self.log, self._schemas, self.outlet.fresh_id, self._environment.clock.now_ms)
        clock, limit = self._environment.clock, self._app.limit
        self._door = Limiter(limit, clock) if limit else None
        self._crews = crews_of(plans, clock, self._door)
        for plan in plans:
            await self._claim(plan)
            await usage.note(plan.name, (view for view in views if view.subscription == plan.name))
            await self._start_consumer(plan, resources)
        await self._enter_companions(consume)
        running = [*plans, *(consumer.plan for consumer in self.consumers)]
        served = {name for plan in running for name in (plan.name, *plan.aliases)}
        await name_unserved(self.log, self._app.name, served)
        self._life.started(self.log, [plan.name for plan in plans])

    async def _enter_companions(self, consume: bool) -> None:
        for companion in self._app.companions:
            await self._stack.enter_async_context(companion(self._app, consume))

    async def add(self, subscription: Subscription) -> list[Consumer]:
        """Run one more subscription from now on. Raises SettingsError, LogError; UsageError once the app stops."""
        async with self._adding:
            self._require_staying()
            plans = sibling_plans(self._plan(subscription), subscription.topic, self._settings.full_name)
            for plan in plans:
                plan.require()
            await self.topology.prepare_more(plans)
            name = plans[0].declared_as
            self._added[name] = subscription
            self._crews |= crews_of(plans, self._environment.clock, self._door)
            try:
                for plan in plans:
                    await self._start_consumer(plan, self._resources)
            except BaseException:
                await self._drop(name, 0)
                raise
            return [consumer for consumer in self.consumers if consumer.plan.declared_as == name]

    async def remove(self, subscription: Subscription, grace_seconds: float) -> None:
        """Run an added subscription no more; it keeps its position. Idempotent."""
        async with self._adding:
            await self._drop(self._settings.full_name(subscription.name), grace_seconds)

    async def _drop(self, name: str, grace_seconds: float) -> None:
        if self._added.pop(name, None) is None:
            return
        dropped = [consumer for consumer in self.consumers if consumer.plan.declared_as == name]
        self.consumers = [consumer for consumer in self.consumers if consumer not in dropped]
        await asyncio.gather(*(consumer.stop(grace_seconds) for consumer in dropped))
        self._crews.pop(name, None)

    def _require_staying(self) -> None:
        if self._leaving:
            raise UsageError(f"App {self._app.name!r} stops.", remedy="Add subscriptions while it runs.")

    async def _enroll(self) -> None:
        """Register what this app may publish, before it does. Raises ContractError where that breaks somebody."""
        for topic in dict.fromkeys((*self._app.owns, *self._app.publishes_to)):
            for name, contract in topic.contracts.items():
                full, rule = self._settings.full_name(topic.name), topic.schemas.evolution
                self._schema_ids[topic.name, name] = await enroll(self.registry, full, contract.reading, rule)

    async def _tell_bounds(self) -> None:
        """Let whoever looks on know how far subscriptions of the app's topics may lag."""
        full = self._settings.full_name
        if owned := [full(topic.name) for topic in self._app.owns]:
            declared = DeclaredBounds(self.log, self._schemas)
            await declared.note(owned, self.topology.bounds(), self.outlet.fresh_id)

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
        """The subscriptions as plans. Raises SettingsError with every contradiction at once."""
        problems = [*self._catalog.problems, *self.topology.problems()]
        problems += [f"App {self._app.name!r}: {problem}" for problem in self._app.limit.problems()]
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
            found = sibling_plans(plan, subscription.topic, self._settings.full_name)
            problems += [f"Subscription {subscription.name!r}: {problem}" for problem in found[0].check()]
            plans += found
        problems += doubled(plans)
        if problems:
            raise SettingsError(
                "\n".join([f"App {self._app.name!r} can't start:", *problems]), remedy="Mend what is listed above."
            )
        return plans

    def plan_named(self, name: str) -> Plan:
        """The plan of this full name. Raises UsageError if the app has none, SettingsError as `checked_plans`."""
        plans = {plan.name: plan for plan in self.checked_plans()}
        if name in plans:
            return plans[name]
        raise UsageError(
            f"App {self._app.name!r} has no subscription {name!r}; it has {', '.join(sorted(plans)) or 'none'}.",
            remedy="Name one of these, or the app that serves it: module:app.",
        )

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
        topic = self._catalog.topics[contract.topic]
        siblings = {priority: self._route_to(sibling, contract) for priority, sibling in topic.siblings.items()}
        return replace(self._route_to(topic, contract), siblings=siblings)

    def _route_to(self, sibling: Topic, contract: MessageContract) -> Route:
        topic, spec = self._catalog.topics[contract.topic], self.topology.specs[sibling.name]
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
            schema_id=schema_id,
            flags=(0 if framed else schema_id << SCHEMA_ID_SHIFT) | FLAG_STRUCTURED * topic.schemas.structured,
            **self.commanding.sending(sibling, contract.cls),
            bytes_max=min(topic.message_bytes_max, spec.message_bytes_max or topic.message_bytes_max),
        )

    def thousands(
        self, messages: Iterable[Any], id_of: Callable[[Any], str] | None, priority: str | None = None
    ) -> Iterator[list[Append]]:
        """The records of messages, as many together as one commit takes."""
        fresh, rest, number = partial(self.outlet.fresh, priority=priority), iter(messages), self.at_once
        while some := list(islice(rest, number)):
            yield [fresh(message, id_of(message)) for message in some] if id_of else [fresh(each) for each in some]

    @property
    def at_once(self) -> int:
        """Most records that are stored together."""
        return min(_PUBLISH_MANY_RECORDS, self.gates.records_at_once)

    async def store(self, appends: Sequence[Append]) -> list[Published]:
        """Store these, all or none, once there is room; where they went. Raises BackPressure with nothing stored."""
        if self.gates.bounded:
            await self.gates.room_for(appends)
        return await append_all(self.log, appends)

    async def accept(
        self, topic: CommandTopic, command: Any, request_id: str, accepted: Accepted, priority: str | None
    ) -> Accepted:
        """As `App.accept`, once there is room."""
        if self.gates.bounded:
            await self.gates.room(self.outlet.command_route(command, priority).topic, 1)
        return await self.requests(topic).accept(command, request_id, accepted, priority)

    async def put_off(
        self, append: Append, delay: timedelta | float | None, at: datetime | None, *, own_id: bool
    ) -> Published:
        """Have a record leave later; durable when this returns. Raises UsageError."""
        due = due_of(delay, at, self._environment.clock.now_ms())
        schedules = self._app.schedules
        if schedules is None:
            raise UsageError(
                f"App {self._app.name!r} has no schedules, so that publish(…, delay=) has nowhere to keep a message.",
                remedy=f"Say App({self._app.name!r}, …, schedules=True); in a handler, ctx.publish needs none.",
            )
        own = append.envelope.id
        message = schedules.delayed(append, self.outlet.partitions_of(append.topic), due, own_id=own_id)
        asked = self.outlet.fresh(message, own if own_id else None)
        (offset,) = await self.log.append((asked,))
        subscription = self._settings.full_name(schedules.topic.name)
        token = str(DelayToken(subscription, asked.partition, due.at_ms, order_of(offset, 0), own))
        return Published(own, asked.topic, asked.partition, offset, token)

    async def cancel(self, token: str, wait_seconds: float) -> bool | None:
        """As `App.cancel`."""
        operations = Operations(self.log, self._environment.clock, self._environment.random, source=self._app.name)
        request = await operations.cancel(token)
        for _ in range(_TURNS_OF_THE_LOOP):
            if self._obeyed_here(request):
                break
            await asyncio.sleep(0)
        if not request.live or not await operations.obeyed(request, wait_seconds):
            return None
        return await operations.cancelled(token)

    def _obeyed_here(self, request: Request) -> bool:
        """Whether a consumer of this process has done, and committed, what was asked."""
        for consumer in self.consumers:
            if consumer.plan.name == request.subscription:
                return all(
                    (owned := consumer.owned.get(partition)) is not None
                    and owned.control_offset > offset
                    and not (owned.unit or owned.committing)
                    for partition, offset in request.asked.items()
                )
        return False

    async def _start_consumer(self, plan: Plan, resources: Any) -> None:
        clock = self._environment.clock
        envelope = Envelope(id=self.outlet.fresh_id(), source=self._app.name, time_ms=clock.now_ms())
        announced = await announce_types(self.log, plan, envelope)
        plan = self.commanding.answering(self.by_full_name(plan.declared_as), plan)
        around = Surroundings(plan, self.log, clock, self.outlet, self._environment.random, self.registry)
        around.resources, around.gates = resources, self.gates
        around.watches = self._environment.watches
        around.later = self.later
        consumer = Consumer(around, self._executor, self._settings.instance, self._crews[plan.declared_as])
        self.consumers.append(consumer)
        await consumer.start()
        if not announced:
            await announce_types(self.log, plan, envelope)

    async def _claim(self, plan: Plan) -> None:
        subscription = self.by_full_name(plan.declared_as)
        if isinstance(subscription, Serving):
            claim = subscription.claim(self._app.name, plan.topic, plan.name)
            now_ms = self._environment.clock.now_ms()
            await self._claims.take(claim, aliases=plan.aliases, takes_over=subscription.takes_over, now_ms=now_ms)

    def by_full_name(self, name: str) -> Subscription:
        """The subscription that is declared, or was added, under the name that the log has."""
        if (added := self._added.get(name)) is not None:
            return added
        return next(each for each in self._app.subscriptions.values() if self._settings.full_name(each.name) == name)

    def full_name(self, name: str) -> str:
        """A name as the namespace makes it."""
        return self._settings.full_name(name)

    @property
    def clock(self) -> Clock:
        """The clock that everything here goes by."""
        return self._environment.clock

    def requests(self, topic: CommandTopic) -> Requests:
        """What the app sends to one command topic."""
        return self.commanding.requests(topic, (self.log, self._environment.clock, self.registry))

    def leaving(self, delay: timedelta | float | None, at: datetime | None) -> Leaving:
        """When a command leaves that is put off. Raises UsageError for what is no time."""
        due = due_of(delay, at, self._environment.clock.now_ms())
        return Leaving(due.at_ms, lambda append: self.put_off(append, delay, at, own_id=True))

    def later(self, token: str, reply: Any) -> Append:
        """The record that gives a later reply."""
        return self.commanding.later(token, reply, self._environment.clock.now_ms())

    async def wait_failed(self) -> BaseException:
        """The error of the first consumer that can't go on."""
        declared = [consumer for consumer in self.consumers if consumer.plan.declared_as not in self._added]
        futures = [consumer.failed for consumer in declared if consumer.failed is not None]
        if not futures:
            await asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).result()

    async def stop(self, grace_seconds: float) -> None:
        """As `App.stop`; raises what no PostlineError is."""
        self._leaving = True
        self._life.stopping(grace_seconds)
        async with self._adding:  # whoever is being added is stopped with the others
            pass
        results = await asyncio.gather(
            *(consumer.stop(grace_seconds) for consumer in self.consumers), return_exceptions=True
        )
        await self._close()
        for result in results:
            if isinstance(result, PostlineError):
                self._life.stop_failed(result)
            elif isinstance(result, BaseException):
                raise result
        self._life.stopped()

    async def abort(self) -> None:
        """As `App.abort`."""
        self._leaving = True
        await asyncio.gather(*(consumer.abort() for consumer in self.consumers), return_exceptions=True)
        await self._close()
        self._life.aborted()

    async def _close(self) -> None:
        self.gates.close()
        self._executor.shutdown(wait=False, cancel_futures=True)
        try:
            await self._stack.aclose()
        finally:
            await self.commanding.close()
            await self.registry.close()
            if self._owns_log:
                await self.log.close()
