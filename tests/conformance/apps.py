"""Real apps on an engine's handles: starting and ending them, publishing, waiting, and judging what they left."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct

from postline import App, Context, PostlineError, Retry, Topic
from postline.app import Environment
from postline.clock import SystemClock
from postline.log.port import Log, Record
from postline.monitor import AuditView, DeadLetterView, Monitor, RecordId, SubscriptionView
from postline.operations import Operations, Request
from postline.runtime.entries import USER_STATE
from postline.settings import LogUrl, Settings
from tests.conformance.harness import Engine, Unsupported, turns

__all__ = [
    "INVOICES",
    "NEVER",
    "ORDERS",
    "PATIENCE_SECONDS",
    "Before",
    "Billing",
    "Gate",
    "InvoiceIssued",
    "OrderPlaced",
    "Placed",
    "World",
    "all_records",
    "eventually",
    "order_of_keys",
    "orders",
    "some_turns",
    "started_once",
]

#: Conditions that never come true fail a test after this long, a rebalance included; nothing waits for it to pass.
PATIENCE_SECONDS = 40.0

#: No second attempt: what fails is given up at once.
NEVER = Retry(immediate=0, delays=())

ORDERS = Topic("shop.orders", owner="shop", key="customer", partitions=4)
INVOICES = Topic("billing.invoices", owner="billing", key="customer", partitions=4)


@ORDERS.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    """What is published; `number` counts within the customer."""

    customer: str
    number: int
    total: int = 1


@INVOICES.event("billing.InvoiceIssued")
class InvoiceIssued(Struct, frozen=True):
    """What handling one order leaves: exactly one of these, by the process named."""

    customer: str
    number: int
    running: int
    by: str = ""


#: What a handler does before its effect: fails, waits, or nothing.
Before: TypeAlias = Callable[[OrderPlaced, Context], Awaitable[None]]


def orders(count: int, *, customers: int = 12, first: int = 0) -> list[OrderPlaced]:
    """So many orders of customers in turn, from the one numbered `first` on; twelve use all partitions."""
    return [OrderPlaced(f"c{n % customers}", n // customers, n + 1) for n in range(first, first + count)]


async def some_turns(order: OrderPlaced, ctx: Context) -> None:
    """Take a number of loop turns that differs from order to order, so that successors would overtake."""
    del ctx
    await turns(zlib.crc32(f"{order.customer}/{order.number}".encode()) % 12)


class Gate:
    """Where handlers can be made to stand; open at first."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._passes = 0
        #: Handlers that stand there now.
        self.waiting = 0

    async def __call__(self, order: OrderPlaced, ctx: Context) -> None:
        """Pass if it is open, else stand."""
        await some_turns(order, ctx)
        await self.pass_through()

    async def pass_through(self) -> None:
        """Pass if it is open, else stand, whatever is handled."""
        if not self._open.is_set() and self._passes:
            self._passes -= 1
            return
        self.waiting += 1
        try:
            await self._open.wait()
        finally:
            self.waiting -= 1

    def shut(self, *, passes: int = 0) -> None:
        """Let only so many pass."""
        self._open.clear()
        self._passes = passes

    def open(self) -> None:
        """Let all pass."""
        self._open.set()

    async def until_somebody_waits(self) -> None:
        """Wait until a handler stands there."""
        await eventually(lambda: self.waiting, "a handler stands at the gate")


class Billing:
    """The service of most tests: bills each order once and keeps each customer's running total."""

    def __init__(self, by: str = "", before: Before = some_turns, **options: Any) -> None:
        self.app = App("billing", owns=[INVOICES])
        #: Every attempt that got past `before`, in the order in which they did.
        self.ran: list[OrderPlaced] = []
        said: dict[str, Any] = {"start": "earliest", "state": int, "retry": NEVER, **options}
        subscription = self.app.subscribe("billing", ORDERS, **said)

        @subscription.on(OrderPlaced)
        async def bill(order: OrderPlaced, ctx: Context) -> InvoiceIssued:
            await before(order, ctx)
            self.ran.append(order)
            running = (ctx.state.get() or 0) + order.total
            ctx.state.put(running)
            return InvoiceIssued(order.customer, order.number, running, by)

    @property
    def owned(self) -> list[int]:
        """The partitions that it has at this moment."""
        return sorted(partition for consumer in self.app.consumers for partition in consumer.owned)


class Placed(NamedTuple):
    """A message, and where it lies."""

    partition: int
    offset: int
    message: Any


async def all_records(log: Log, topic: str) -> list[tuple[int, Record]]:
    """A topic's records with their partitions, each partition whole and in order."""
    found: list[tuple[int, Record]] = []
    for partition, bounds in enumerate(await log.bounds(topic)):
        offset = bounds.start
        while page := await log.read(topic, partition, offset):
            found += [(partition, record) for record in page]
            offset = page[-1][0] + 1
    return found


async def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until the condition, which may be async, holds."""

    async def holds() -> object:
        answer = condition()
        return await answer if isinstance(answer, Awaitable) else answer

    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await holds():
                await SystemClock().sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"It never came to this: {what}") from None


def order_of_keys(placed: Iterable[Placed]) -> dict[str, list[int]]:
    """Each customer's numbers in the order in which they lie in the log; a customer has one partition."""
    numbers: dict[str, list[int]] = defaultdict(list)
    places: dict[str, int] = {}
    for partition, _, message in placed:
        assert places.setdefault(message.customer, partition) == partition, f"{message.customer} has two partitions"
        numbers[message.customer].append(message.number)
    return dict(numbers)


class World:
    """One log, somebody outside who publishes, looks and asks, and processes that come and go.

    Each process is an app on a handle of its own. Where the log is private to one handle, one app at a time can
    share it; Unsupported for more. What still runs at the end is let go of.
    """

    def __init__(self, engine: Engine, *topics: Topic) -> None:
        self.engine = engine
        self._topics = topics or (ORDERS,)
        self._handles: dict[App, Log] = {}
        self.publisher = App("shop", owns=self._topics)

    async def __aenter__(self) -> World:
        self.log = await self.engine.open()
        self.monitor = Monitor(self.log, self.engine.clock)
        self.operations = Operations(self.log, self.engine.clock, random.Random(1))
        await self.publisher.start(self._environment(self.log), consume=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for app in [*self._handles, self.publisher]:
            await app.abort()

    def _environment(self, log: Log) -> Environment:
        settings = Settings(url=LogUrl("test"))
        return Environment(log, settings, self.engine.clock, random.Random(len(self._handles)))

    # -- processes --------------------------------------------------------------------------------

    async def start(self, app: App) -> None:
        """A process begins: the app on another handle."""
        log = await self._another_handle()
        self._handles[app] = log
        await app.start(self._environment(log))

    async def _another_handle(self) -> Log:
        try:
            return await self.engine.open()
        except Unsupported:
            if self._handles:
                raise
            return self.log

    async def environment(self) -> Environment:
        """What one more process runs on: a handle of its own, where the log can have several."""
        try:
            return self._environment(await self.engine.open())
        except Unsupported:
            return self._environment(self.log)

    async def stop(self, app: App) -> None:
        """A process ends as a deployment ends it."""
        await app.stop()
        await self._close(app)

    async def abort(self, app: App) -> None:
        """A process ends at once, and what it didn't commit is left to others."""
        self.own_handle(app)
        await app.abort()
        await self._close(app)

    async def kill(self, app: App) -> None:
        """A process ends as SIGKILL ends it."""
        await self.engine.kill(self.own_handle(app))
        del self._handles[app]
        with suppress(PostlineError):
            await app.abort()

    def own_handle(self, app: App) -> Log:
        """The handle of a process; Unsupported if it shares that of the rest."""
        if self._handles[app] is self.log:
            raise Unsupported("a process that shares the log's only handle can't end without it")
        return self._handles[app]

    async def _close(self, app: App) -> None:
        log = self._handles.pop(app)
        if log is not self.log:
            await log.close()

    # -- doing and seeing -------------------------------------------------------------------------

    async def publish(self, messages: Sequence[Any]) -> None:
        """Publish these in order, as the shop."""
        await self.publisher.publish_many(messages)

    async def read(self, topic: Topic) -> list[Placed]:
        """All messages of a topic; each partition in order."""
        found = await all_records(self.log, topic.name)
        return [Placed(number, each[0], topic.decoder_of(each[3])(each[4] or b"")) for number, each in found]

    async def view(self, name: str = "billing") -> SubscriptionView:
        """How a subscription stands; the error of one that can't go on is raised."""
        for app in self._handles:
            for consumer in app.consumers:
                if consumer.failed is not None and consumer.failed.done():
                    raise consumer.failed.result()
        return await self.monitor.subscription(name)

    async def until_handled(self, name: str = "billing", *, held: int = 0, dead: int = 0) -> None:
        """Wait until no record is left that is neither settled nor held, and so many are held or dead letters."""
        last: list[SubscriptionView] = []

        async def handled() -> bool:
            view = await self.view(name)
            last[:] = [view]
            return (view.lag_records, view.lag_seconds, view.held, view.dead_letters) == (0, 0.0, held, dead)

        try:
            await eventually(handled, f"{name} is at the end with {held} held and {dead} dead letters")
        except AssertionError as error:
            raise AssertionError(f"{error}; it stood at {last}") from None

    async def obeyed(self, request: Request) -> None:
        """Wait until a request is obeyed."""
        assert await self.operations.obeyed(request, PATIENCE_SECONDS), f"nobody obeyed {request}"

    async def letters(self, name: str = "billing") -> list[DeadLetterView]:
        """The dead letters of a subscription."""
        return await self.monitor.dead_letters(name)

    async def redrive_all(self, name: str = "billing") -> None:
        """Run all dead letters again; returns when that is obeyed, not when they have run."""
        records = [RecordId.parse(letter.id) for letter in await self.letters(name)]
        await self.obeyed(await self.operations.redrive(name, records))

    async def totals(self, name: str = "billing") -> dict[str, int]:
        """The state of each key, over all partitions."""
        found: dict[str, int] = {}
        for info in await self.log.partitions(name):
            entries = await self.log.peek_state(name, info.partition, USER_STATE)
            assert not found.keys() & {key.decode() for key, _ in entries}, "a key has state in two partitions"
            found.update({key.decode(): msgspec.json.decode(data) for key, data in entries})
        return found

    # -- judging ----------------------------------------------------------------------------------

    async def balanced(self, name: str = "billing", **expected: int) -> AuditView:
        """The audit, which balances; the outcomes that are not 0 are these (`dead_lettered=1`)."""
        audit = await self.monitor.audit(name)
        assert audit.balanced, audit
        counts = {label.replace("-", "_").replace(" ", "_"): count for label, count in audit.outcomes.items() if count}
        wanted = {label: count for label, count in expected.items() if count}
        assert counts == wanted, f"the audit has {counts}, not {wanted}"
        return audit

    async def billed_once_and_in_order(self, published: Sequence[OrderPlaced]) -> list[Placed]:
        """Each order has exactly one invoice, each customer's in order with totals that run on; gives the invoices."""
        invoices = await self.read(INVOICES)
        found = Counter((each.message.customer, each.message.number) for each in invoices)
        wanted = Counter((order.customer, order.number) for order in published)
        assert found == wanted, f"lost: {wanted - found}, doubled or made up: {found - wanted}"
        totals: dict[str, int] = defaultdict(int)
        by_place = {(order.customer, order.number): order.total for order in published}
        for numbers in order_of_keys(invoices).values():
            assert numbers == sorted(numbers), f"out of order: {numbers}"
        for _, _, invoice in invoices:
            totals[invoice.customer] += by_place[invoice.customer, invoice.number]
            assert invoice.running == totals[invoice.customer], invoice
        stored = await self.totals()
        assert stored == totals, f"state has {stored}, not {dict(totals)}"
        return invoices

    @asynccontextmanager
    async def audited(self, name: str = "billing") -> AsyncIterator[list[AuditView]]:
        """Audit again and again meanwhile: it balances at every moment. Gives the list of the audits."""
        audits: list[AuditView] = []
        over = asyncio.Event()

        async def watch() -> None:
            while not over.is_set():
                audits.append(await self.monitor.audit(name))
                assert audits[-1].balanced, audits[-1]
                await turns(20)

        watching = asyncio.create_task(watch())
        try:
            yield audits
        finally:
            over.set()
            await watching


async def started_once(world: World) -> None:
    """A subscription that has handled 24 orders, and that nobody serves at this moment."""
    billing = Billing()
    await world.start(billing.app)
    await world.publish(orders(24))
    await world.until_handled()
    await world.stop(billing.app)
