"""The composition root: an app's declarations, and what a program asks of it while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, TypeVar, Unpack
from zoneinfo import ZoneInfo

from postline.app.commanding import command_topics
from postline.app.environment import Environment, open_environment
from postline.app.published import Published
from postline.app.relays import Relay
from postline.app.running import Companion, Lifespan, Running
from postline.clock import Clock
from postline.commands import Accepted, ReplySubscription, Requests, ServeOptions, Serving, Ticket, serving
from postline.contracts import ForeignTopic, Topic
from postline.contracts.commands import CommandTopic
from postline.contracts.relaying import CloudEvent
from postline.errors import BackPressure, UsageError
from postline.events import Policy, PolicyOptions, Start, Subscription
from postline.log.needs import Need, TopicSpec
from postline.log.port import Log
from postline.queues import Queue, Queueing
from postline.routing import Routing
from postline.runtime.calls import HANDLING
from postline.runtime.consumer import Consumer
from postline.runtime.limits import Limit, Rate
from postline.runtime.versions import SchemaSource
from postline.schedules import Cron, Every, Missed, Periodic, Rule, Schedules

__all__ = ["App", "need_of"]

_DEFAULT_GRACE_SECONDS = 10.0
_CANCEL_SECONDS = 5.0

DEFAULT_TIMEOUT_SECONDS = 30.0

ScheduledT = TypeVar("ScheduledT", bound=Callable[..., Any])
SubscriptionT = TypeVar("SubscriptionT", bound=Subscription)


def need_of(app: App, environment: Environment, principal: str = "") -> Need:
    """What the app needs of the log, which is not asked. Raises SettingsError with every contradiction at once."""
    running = Running(app, environment, owns_log=False)
    return running.topology.need(running.checked_plans(), principal)


class App(Routing, Queueing):
    """One service: its name, the topics it owns, and its subscriptions.

    Nothing happens before `start` (or `async with app:`, or `postline run`). One event loop. `owns` lists exactly the
    topics whose owner is this service; `publishes_to` those of others that it publishes to. `url` is used where neither
    settings nor environment name a log. `schedules` gives it the topic and subscription `<name>.schedules`, for
    `publish(…, delay=)`; `every` and `cron` do so by themselves. `concurrency` and `rate` limit the attempts of all its
    subscriptions together, in each process: how many run at once, and begin in a time.
    """

    def __init__(
        self,
        name: str,
        *,
        owns: Iterable[Topic | CommandTopic] = (),
        publishes_to: Iterable[Topic | CommandTopic] = (),
        lifespan: Lifespan | None = None,
        url: str | None = None,
        concurrency: int | None = None,
        rate: Rate | None = None,
        schedules: bool = False,
    ) -> None:
        self.name = name
        self.limit = Limit(concurrency, rate)
        self.url = url
        owns, publishes_to = tuple(owns), tuple(publishes_to)
        self.owns = tuple(_spread(owns))
        self.publishes_to = tuple(_spread(publishes_to))
        self.commands = tuple(each for each in (*owns, *publishes_to) if isinstance(each, CommandTopic))
        self.subscriptions: dict[str, Subscription] = {}
        #: What begins and ends with the app, after its subscriptions have begun and until they have stopped.
        self.companions: list[Companion] = []
        #: By the names that `task(queue=…)` gives.
        self.queues: dict[str, Queue] = {}
        self.lifespan = lifespan
        self._running: Running | None = None
        self.schedules: Schedules | None = None
        if schedules:
            self._with_schedules()

    def subscribe(
        self, name: str, topic: Topic | ForeignTopic, *, start: Start | None = None, **options: Unpack[PolicyOptions]
    ) -> Subscription:
        """Declare a durable subscription; put its `.on(Type)` above the handlers.

        `start` says where it begins when it is new: "earliest", "latest", or a datetime with a
        time zone. It must be said. The options are `postline.events.Policy`'s. Raises UsageError
        for a name that this app has already, or without `start`.
        """
        if start is None:
            raise _without_start(name)
        return self._added(Subscription(name, topic, start, Policy(**options)))

    def serve(self, topic: CommandTopic, **options: Unpack[ServeOptions]) -> Serving:
        """Handle the commands and queries of `topic`; put its `.on(Command)` above the handlers.

        It is a durable subscription named as the topic, from the first command on. One service at a time serves it:
        another one's start is refused with SubscriptionConflict, unless it says whom it `takes_over` from. Then members
        of both work until the old ones are stopped, each command with one of them, and the old service can't start
        again. With a `name` it shares the topic with others of other names: each command with one of them, by its type
        or by rules in `.on(…, where=)` that exclude each other. A reply that `ctx.reply_later` promised is
        waited for until its command's expiry, without one `reply_within`; then its outcome is a timeout. The options
        are `postline.events.Policy`'s.
        """
        return self._added(serving(topic, options))

    def replies(
        self, name: str, topic: CommandTopic, *, start: Start | None = None, **options: Unpack[PolicyOptions]
    ) -> ReplySubscription:
        """Handle the replies to what this service's handlers send by `ctx.send`, as messages; others' are filtered.

        As `subscribe`. `Fault`, `TimedOut` and `Cancelled` can be handled beside the declared replies and refusals.
        """
        if start is None:
            raise _without_start(name)
        return self._added(ReplySubscription(name, topic, start, Policy(**options)))

    def take_up(self, queue: Queue) -> None:
        """Own a queue's topic and serve it; `queue` and `task` do this. Raises UsageError for a name in use."""
        self._added(queue)
        self.owns += queue.commands.topics
        self.commands += (queue.commands,)

    def _added(self, subscription: SubscriptionT) -> SubscriptionT:
        if subscription.name in self.subscriptions:
            raise UsageError(
                f"App {self.name!r} has two subscriptions named {subscription.name!r}.", remedy="Rename one."
            )
        self.subscriptions[subscription.name] = subscription
        return subscription

    # -- schedules ----------------------------------------------------------------------------

    def _with_schedules(self) -> Schedules:
        if self.schedules is None:
            schedules = self.schedules = Schedules(self.name)
            self.owns += (schedules.topic,)
            subscription = self.subscribe(schedules.topic.name, schedules.topic, start="earliest", after="continue")
            subscription.timers, subscription.taken_up = schedules.timers, schedules.periodics.taken_up
            subscription.on(schedules.topic.delayed)(schedules.take)
            subscription.on(schedules.topic.run)(schedules.periodics.run)
        return self.schedules

    def every(
        self, interval: timedelta | float, *, name: str, missed: Missed = "once"
    ) -> Callable[[ScheduledT], ScheduledT]:
        """Run the decorated function at multiples of an interval (seconds or timedelta) since 1970, in UTC.

        See `cron` for everything else. Raises UsageError.
        """
        return self._scheduled(name, Every(interval), missed)

    def cron(
        self, expression: str, *, name: str, tz: str | ZoneInfo = "UTC", missed: Missed = "once"
    ) -> Callable[[ScheduledT], ScheduledT]:
        """Run the decorated function when a cron expression says so in a time zone.

        It may be async or plain, takes a `Run` or nothing, and is given back unchanged; what it returns is published.
        Each planned time has one run in the whole group; a failed one is retried and given up as any message, and
        later ones of its name come after it. `missed` says what becomes of runs whose time passed while no worker was
        there: "once" makes up for them with the last one, "all" with each, "skip" with none. Daylight saving: an hour
        that is skipped runs as soon as it is over, one that comes twice runs the first time. A schedule that the code
        does not have any more stops; under another rule it begins anew. Raises UsageError, SettingsError.
        """
        return self._scheduled(name, Cron(expression, tz), missed)

    def _scheduled(self, name: str, rule: Rule, missed: Missed) -> Callable[[ScheduledT], ScheduledT]:
        def register(function: ScheduledT) -> ScheduledT:
            self._with_schedules().periodics.add(Periodic.of(function, name, rule, missed))
            return function

        return register

    async def cancel(self, token: str, *, wait: timedelta | float = _CANCEL_SECONDS) -> bool | None:
        """Cancel a delayed message, by the token that publishing it gave back; may be repeated.

        True: it will not leave. False: it has left, so nothing was cancelled. None: nobody has answered within `wait`
        (seconds or timedelta); the request is durable and will be obeyed. Raises UsageError for what is no token,
        UnknownSubscription, LogError.
        """
        running = self._for_publishing("app.cancel", "ctx.cancel")
        return await running.cancel(token, wait.total_seconds() if isinstance(wait, timedelta) else wait)

    # -- publishing ---------------------------------------------------------------------------

    async def publish(
        self,
        message: Any,
        *,
        id: str | None = None,
        headers: Mapping[str, str] | None = None,
        priority: str | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
    ) -> Published:
        """Publish one message; it is durable when this returns.

        `priority` is one of its topic's, "normal" unless it is said; a repetition must have the same.

        With `delay` (seconds or timedelta) or `at` (a datetime with a time zone) it leaves then, and what is checked is
        checked now; `Published` says where it waits and by which token it is cancelled. That needs
        `App(…, schedules=True)`.

        Where its topic has a bound it may wait, and raise BackPressure with nothing stored. If it raises anything but
        that, MessageError or UsageError, or is cancelled, the outcome is unknown: repeat it with the same `id`, whose
        duplicates every subscription drops. An own id is one message of this service, whatever its type:
        "order-placed-17" rather than "17".
        """
        running = self._for_publishing()
        append = running.outlet.fresh(message, id, headers, priority)
        if delay is not None or at is not None:
            return await running.put_off(append, delay, at, own_id=id is not None)
        if running.gates.bounded:
            await running.gates.room(append.topic, 1)
        (offset,) = await running.log.append((append,))
        return Published(append.envelope.id, append.topic, append.partition, offset)

    async def publish_many(
        self,
        messages: Iterable[Any],
        *,
        id_of: Callable[[Any], str] | None = None,
        priority: str | None = None,
    ) -> list[Published]:
        """Publish messages in order, many to a commit; all are durable when this returns.

        Each thousand (or a tenth of the smallest bound of the app's topics, if that is less) is stored whole or not at
        all; `id_of` gives the own id that makes repeating safe, `priority` is that of all. Where there is no room in
        time it raises BackPressure, whose `published` says how many were stored before.
        """
        running = self._for_publishing()
        published: list[Published] = []
        storing: asyncio.Task[list[Published]] | None = None
        try:
            # One thousand is made while the log stores the one before; never more, so that order is kept.
            for appends in running.thousands(messages, id_of, priority):
                if storing is not None:
                    published += await storing
                storing = asyncio.create_task(running.store(appends))
                await asyncio.sleep(0)
            return published + (await storing if storing is not None else [])
        except BaseException as error:
            if storing is not None:
                await asyncio.gather(storing, return_exceptions=True)
            if isinstance(error, BackPressure):
                error.published = len(published)
            raise

    async def relay(self, events: Iterable[CloudEvent], *, topic: str = "") -> list[Published]:
        """Publish events that came from elsewhere, with their own ids, sources, times and extensions.

        An event's type says which contract of `owns` and `publishes_to` its data is checked by; with `topic` it has to
        be one of that topic. Nothing comes so into what the library keeps for itself. All are durable when this
        returns. Repeating is safe: of events with the same source and id every subscription handles the first. Raises
        LogError; ContractError and BackPressure with nothing stored.
        """
        return await self.relaying().store(events, topic)

    def relaying(self) -> Relay:
        """What stores events from elsewhere, for surfaces that note whose they are. Raises UsageError."""
        return self._for_publishing("app.relay").relay

    # -- commands -----------------------------------------------------------------------------

    async def request(
        self,
        command: Any,
        *,
        timeout: timedelta | float = DEFAULT_TIMEOUT_SECONDS,
        request_id: str | None = None,
        priority: str | None = None,
    ) -> Any:
        """Send a command or query and wait for its reply.

        After `timeout` (seconds or timedelta) the command expires, unless an attempt is running then, and
        RequestTimeout is raised with the ticket left open. Repeating a request with its `request_id`, in any process of
        this service, gives the first outcome and does nothing twice. Raises Refused for a business refusal,
        HandlerFault if the service could not do it, RequestIdReused if another command has that id, and as `publish`.
        """
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        ticket = await self.send(command, request_id=request_id, timeout=seconds, priority=priority)
        return await ticket.outcome(seconds)

    async def send(
        self,
        command: Any,
        *,
        request_id: str | None = None,
        timeout: timedelta | float | None = None,
        priority: str | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
    ) -> Ticket:
        """Send a command; it is durable when this returns. The ticket can be awaited, asked, cancelled or dropped.

        `priority` is one of its topic's, "normal" unless it is said. A repetition goes by that of its first sending,
        whatever it says itself.

        With `delay` or `at` it leaves then, as a message of `publish` does, which needs `App(…, schedules=True)`. A
        command that no attempt has begun within `timeout` of leaving expires. Where its topic has a bound it may wait,
        and raise BackPressure with nothing stored. See `request` for `request_id` and errors.
        """
        running = self._for_publishing("app.send", "ctx.send")
        topic = running.commanding.topic_of(command)
        if running.gates.bounded:
            await running.gates.room(running.outlet.command_route(command, priority).topic, 1)
        leaving = None if delay is None and at is None else running.leaving(delay, at)
        return await running.requests(topic).send(command, request_id, timeout, leaving, priority)

    async def send_many(
        self, commands: Iterable[Any], *, timeout: timedelta | float | None = None, priority: str | None = None
    ) -> list[Ticket]:
        """Send commands of one topic in order, many to a commit; all are durable when this returns.

        Each thousand (or less, as `publish_many` says) is stored whole or not at all. Raises as `send`, and
        ContractError for a command of another topic; `published` of a BackPressure says how many were stored before.
        """
        running = self._for_publishing("app.send_many", "ctx.send")
        rest = iter(commands)
        for first in rest:
            requests = running.requests(running.commanding.topic_of(first))
            return await requests.send_many(chain((first,), rest), timeout, running.store, running.at_once, priority)
        return []

    def ticket(self, request_id: str, *, of: CommandTopic | None = None) -> Ticket:
        """The ticket of a request that this service sent before, in this process or another.

        `of` names the command topic where the app knows several.
        """
        running = self._require_running()
        return running.requests(of or running.commanding.only_topic()).ticket(request_id)

    def requests(self, topic: CommandTopic) -> Requests:
        """What this service sends to a command topic, for surfaces that send for others, as the HTTP gateway does.

        Raises UsageError while the app is not running.
        """
        return self._for_publishing("app.requests", "ctx.send").requests(topic)

    async def accept(
        self, topic: CommandTopic, command: Any, request_id: str, accepted: Accepted, priority: str | None = None
    ) -> Accepted:
        """Send a command for somebody behind this service, and store the note of whose it is in the same step.

        Durable when this returns; `requests(topic)` tells what becomes of it. Gives and raises as `Requests.accept`.
        """
        running = self._for_publishing("app.accept", "ctx.send")
        return await running.accept(topic, command, request_id, accepted, priority)

    async def reply(self, token: str, reply: Any) -> None:
        """Give the reply or refusal that a handler's `ctx.reply_later()` promised; durable when this returns.

        The first one counts, repeating is safe. Raises UsageError for what is no token, ContractError for no reply.
        """
        running = self._for_publishing("app.reply", "ctx.reply")
        await running.log.append((running.later(token, reply),))

    def _for_publishing(self, called: str = "app.publish", instead: str = "ctx.publish") -> Running:
        if (subscription := HANDLING.get()) is not None:
            raise UsageError(
                f"{called} was called in a handler of subscription {subscription!r}, or in a task that one began.",
                remedy=f"Call {instead} before the handler ends: it leaves together with the record's settlement, or "
                "not at all. What shall publish by itself begins in the app's lifespan.",
            )
        return self._require_running()

    def _require_running(self) -> Running:
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
        running = self._running = Running(self, environment, own)
        try:
            await running.start(consume, self.lifespan)
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
        finally:
            await self._close_queues()

    async def abort(self) -> None:
        """Let go at once: what was not committed is handled again by whoever comes next."""
        running, self._running = self._running, None
        if running is not None:
            await running.abort()
            await self._close_queues()

    async def _close_queues(self) -> None:
        for queue in self.queues.values():
            await queue.close()

    async def wait_failed(self) -> BaseException:
        """Wait until a subscription can't go on; gives its error."""
        return await self._require_running().wait_failed()

    async def caught_up(self) -> bool:
        """Whether all subscriptions have settled or held, and committed, all that the log has."""
        return all([await consumer.caught_up() for consumer in self._require_running().consumers])

    @property
    def command_topics(self) -> list[CommandTopic]:
        """The command topics that it lists or serves."""
        return command_topics(self.commands, self.subscriptions.values())

    @property
    def consumers(self) -> list[Consumer]:
        """The subscriptions at work in this process; none while it is not running."""
        return [] if self._running is None else self._running.consumers

    @property
    def log(self) -> Log:
        """The log it runs on. Raises UsageError while it is not running."""
        return self._require_running().log

    @property
    def clock(self) -> Clock:
        """The clock it goes by. Raises UsageError while it is not running."""
        return self._require_running().clock

    @property
    def schemas(self) -> SchemaSource:
        """Who knows the schemas that records were written under. Raises UsageError while it is not running."""
        return self._require_running().registry

    def full_name(self, name: str) -> str:
        """A topic's or subscription's name as the log has it. Raises UsageError while the app is not running."""
        return self._require_running().full_name(name)

    def spec_of(self, topic: Topic | ForeignTopic) -> TopicSpec:
        """A topic that it declares, as the log has it. Raises UsageError while it is not running."""
        return self._require_running().topology.specs[topic.name]

    async def add(self, subscription: Subscription) -> list[Consumer]:
        """Run one more subscription, to a topic that the app knows, from now on and until the app stops.

        It is for surfaces whose users subscribe at run time: such a one is theirs to watch, and its failure doesn't end
        the app. Raises SettingsError, LogError; UsageError while the app is not running.
        """
        return await self._require_running().add(subscription)

    async def remove(self, subscription: Subscription, grace_seconds: float = _DEFAULT_GRACE_SECONDS) -> None:
        """Run a subscription that was added no more; it keeps its position in the log. Idempotent."""
        await self._require_running().remove(subscription, grace_seconds)

    async def __aenter__(self) -> App:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()


def _spread(topics: Iterable[Topic | CommandTopic]) -> Iterator[Topic]:
    for each in topics:
        yield from each.topics if isinstance(each, CommandTopic) else (each,)


def _without_start(name: str) -> UsageError:
    return UsageError(
        f"Subscription {name!r} does not say where it starts when it is new.",
        remedy='Say start="earliest" to handle what is there already, or start="latest" for what comes now.',
    )
