"""Topics on a real cluster: planned, made and mended by operators, checked by apps, and given more partitions."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)
from msgspec import Struct

from postline import App, CommandTopic, Context, Retry, Topic
from postline.app import Environment, need_of, open_log
from postline.clock import SystemClock
from postline.contracts import Partitioner
from postline.errors import LogRefused, TopicMismatch, UnknownTopic, UsageError
from postline.log.needs import Change, ChangeKind, Need, StateEntry
from postline.log.port import Log
from postline.monitor import Monitor, SubscriptionView
from postline.operations import Operations
from postline.runtime.placing import state_placer
from postline.runtime.topology import merged
from postline.settings import LogUrl, Settings, TopicSettings, parse_url
from tests.brokers.cluster import Cluster
from tests.brokers.fixtures import cluster_for_tests
from tests.conformance.apps import eventually

ORDERS = Topic("shop.orders", owner="shop", key="customer", partitions=2, retention=timedelta(days=14))
INVOICES = Topic("billing.invoices", owner="billing", key="customer", partitions=2)
CUSTOMERS = [f"customer-{number}" for number in range(12)]
LOOK_SECONDS = 0.6


@ORDERS.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    """What is published; `number` counts within the customer."""

    customer: str
    number: int


@INVOICES.event("billing.InvoiceIssued")
class InvoiceIssued(Struct, frozen=True):
    """What handling an order leads to."""

    customer: str
    number: int
    #: All numbers of the customer so far, as its state knows them.
    seen: list[int]


def shop_app() -> App:
    """The owner of the orders."""
    return App("shop", owns=[ORDERS])


def billing_app(name: str = "billing", aliases: Sequence[str] = (), fails: Callable[[int], bool] | None = None) -> App:
    """Reads the orders, keeps state for each customer, and publishes what it has seen."""
    app = App("billing", owns=[INVOICES])
    retry = Retry(immediate=0, delays=())

    @app.subscribe(name, ORDERS, start="earliest", state=list[int], retry=retry, aliases=tuple(aliases)).on(OrderPlaced)
    async def bill(order: OrderPlaced, ctx: Context) -> InvoiceIssued:
        if fails is not None and fails(order.number):
            raise ValueError("as asked")
        seen = [*(ctx.state.get() or []), order.number]
        ctx.state.put(seen)
        return InvoiceIssued(order.customer, order.number, seen)

    return app


class Place:
    """A namespace of its own on a cluster."""

    def __init__(self, cluster: Cluster, cache: Path, **options: str) -> None:
        self.cluster, self._options = cluster, {"cache_dir": str(cache), **options}
        self.namespace = f"t{uuid.uuid4().hex[:8]}"
        self.admin = AdminClient({"bootstrap.servers": cluster.internal_bootstrap})

    def name(self, name: str) -> str:
        """The full name."""
        return f"{self.namespace}.{name}"

    def environment(self, user: str = "", partitions: int = 2) -> Environment:
        """What an app runs on; its log is not started."""
        url = parse_url(self.cluster.url_for(user) if user else self.cluster.url)
        settings = Settings(
            url=LogUrl("kafka", servers=url.servers, options={**url.options, **self._options}),
            namespace=self.namespace,
            instance="one",
            topics={"shop.orders": TopicSettings(partitions=partitions)},
        )
        clock = SystemClock()
        return Environment(open_log(settings, clock), settings, clock)

    @asynccontextmanager
    async def opened(self, **how: Any) -> AsyncIterator[Environment]:
        """The environment with its log open."""
        environment = self.environment(**how)
        await environment.log.start()
        try:
            yield environment
        finally:
            await environment.log.close()

    @asynccontextmanager
    async def running(self, *apps: App, **how: Any) -> AsyncIterator[Environment]:
        """Apps at work on one log."""
        async with self.opened(**how) as environment:
            started: list[App] = []
            try:
                for app in apps:
                    await app.start(environment)
                    started.append(app)
                yield environment
            finally:
                for app in started:
                    await app.stop()

    async def applied(self, *apps: App, principal: str = "", **how: Any) -> list[Change]:
        """Plan and apply; gives what was done."""
        async with self.opened(**how) as environment:
            changes = await environment.log.plan(needs(apps, environment, principal))
            await environment.log.apply(changes)
        return [change for change in changes if change.open]

    async def planned(self, *apps: App, principal: str = "", **how: Any) -> list[Change]:
        """What is to be done."""
        async with self.opened(**how) as environment:
            found = await environment.log.plan(needs(apps, environment, principal))
        return [change for change in found if change.open]

    def topics(self) -> set[str]:
        """The names there are, without the namespace."""
        names = self.admin.list_topics(timeout=20).topics
        return {name.removeprefix(self.namespace + ".") for name in names if name.startswith(self.namespace + ".")}

    def change(self, name: str, **settings: str) -> None:
        """As an operator with Kafka's own tools does."""
        entries = [
            ConfigEntry(key.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
            for key, value in settings.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, self.name(name), incremental_configs=entries)
        self.admin.incremental_alter_configs([resource])[resource].result(20)

    def increase(self, name: str, partitions: int) -> None:
        """As an operator with Kafka's own tools does."""
        self.admin.create_partitions([NewPartitions(self.name(name), partitions)])[self.name(name)].result(20)


def needs(apps: Sequence[App], environment: Environment, principal: str = "") -> Need:
    return merged([need_of(app, environment, principal) for app in apps])


@pytest.fixture
def place(kafka_one: Cluster, tmp_path: Path) -> Place:
    """A namespace that nobody has used."""
    return Place(kafka_one, tmp_path / "cache")


def kinds(changes: Sequence[Change]) -> set[ChangeKind]:
    return {change.kind for change in changes}


async def handled_all(app: App) -> None:
    await eventually(app.caught_up, f"{app.name} has handled everything")


async def publish(place: Place, orders: Sequence[OrderPlaced], ids: bool = False, **how: Any) -> None:
    """As the shop, several at once and one by one."""
    shop = shop_app()
    async with place.opened(**how) as environment:
        await shop.start(environment, consume=False)
        id_of = (lambda order: f"{order.customer}-{order.number}") if ids else None
        await shop.publish_many(orders, id_of=id_of)
        await shop.stop()


async def invoices(log: Log, place: Place) -> dict[str, list[InvoiceIssued]]:
    """All that was issued, by customer, in the order of each partition."""
    found: dict[str, list[InvoiceIssued]] = defaultdict(list)
    name = place.name("billing.invoices")
    for partition, bounds in enumerate(await log.bounds(name)):
        for record in await log.read(name, partition, bounds.start, limit=10_000):
            invoice = INVOICES.contracts["billing.InvoiceIssued"].decode(record[4] or b"")
            found[invoice.customer].append(invoice)
    return found


async def billing_view(environment: Environment, place: Place) -> SubscriptionView:
    return await Monitor(environment.log, environment.clock).subscription(place.name("billing"))


# -- plan and apply -----------------------------------------------------------------------------

EVERYTHING = {
    "postline.catalog",
    "postline.schemas",
    "shop.orders",
    "billing.invoices",
    "billing.control",
    "billing.dead-letters",
    "billing.state",
}


async def test_what_apps_need_is_shown_made_once_and_then_there(place: Place):
    apps = (shop_app(), billing_app())
    first = await place.planned(*apps)
    assert {change.name for change in first} == {place.name(name) for name in EVERYTHING}
    assert kinds(first) == {ChangeKind.CREATE}
    assert place.topics() == set()
    assert await place.applied(*apps) == first
    assert place.topics() == EVERYTHING
    assert await place.applied(*apps) == await place.planned(*apps) == []
    state = ConfigResource(ResourceType.TOPIC, place.name("billing.state"))
    told = place.admin.describe_configs([state])[state].result(20)
    assert told["cleanup.policy"].value == "compact"
    async with place.running(*apps) as environment:
        listed = {spec.name for spec in await environment.log.topics()}
        hidden = {place.name(name) for name in ("postline.catalog", "postline.schemas", "billing.state")}
        assert {place.name(name) for name in EVERYTHING} - listed == hidden


async def test_topics_are_made_only_for_services_that_are_named(place: Place):
    changes = await place.planned(billing_app())
    (missing,) = [change for change in changes if change.kind is ChangeKind.MISSING]
    assert (missing.name, "'shop'" in missing.said) == (place.name("shop.orders"), True)
    with pytest.raises(UnknownTopic, match="so that nothing was done"):
        await place.applied(billing_app())
    assert place.topics() == set()


async def test_what_was_altered_by_other_means_is_shown_and_mended(place: Place):
    apps = (shop_app(), billing_app())
    await place.applied(*apps)
    place.change("shop.orders", retention_ms="3600000")
    place.change("billing.state", cleanup_policy="delete")
    place.change("billing.invoices", segment_ms="123456")
    changes = {change.name: change for change in await place.planned(*apps)}
    assert set(changes) == {place.name(name) for name in ("shop.orders", "billing.state", "billing.invoices")}
    (retention,) = changes[place.name("shop.orders")].details
    assert (retention.name, retention.before, retention.after) == ("retention.ms", "3600000", "1209600000")
    assert [changes[place.name(name)].binding for name in ("billing.state", "billing.invoices")] == [True, False]
    await place.applied(*apps)
    assert await place.planned(*apps) == []


async def test_the_state_of_a_subscription_is_not_made_anew_in_silence(place: Place):
    apps = (shop_app(), billing_app())
    await place.applied(*apps)
    async with place.running(*apps):
        pass
    place.admin.delete_topics([place.name("billing.state")])[place.name("billing.state")].result(20)
    (lost,) = await place.planned(*apps)
    assert (lost.kind, "is gone" in lost.said) == (ChangeKind.MISMATCH, True)
    with pytest.raises(TopicMismatch, match="is gone"):
        async with place.running(*apps):
            pass


# -- at start -----------------------------------------------------------------------------------


async def test_an_app_does_not_start_before_its_topics_are_there_and_names_all_of_them(place: Place):
    with pytest.raises(UnknownTopic) as refused:
        async with place.running(billing_app()):
            pass
    for name in EVERYTHING:
        assert place.name(name) in refused.value.message
    assert "postline topics apply" in refused.value.remedy
    assert place.topics() == set()


async def test_only_the_owner_minds_how_long_a_topic_keeps_its_records(place: Place):
    await place.applied(shop_app(), billing_app())
    place.change("shop.orders", retention_ms="3600000")
    async with place.running(billing_app()):
        pass
    with pytest.raises(TopicMismatch, match=r"retention\.ms 3600000 → 1209600000"):
        async with place.running(shop_app()):
            pass


async def test_the_owner_says_once_what_one_copy_means(
    kafka_three: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    place = Place(kafka_three, tmp_path / "cache", replication="1")
    await place.applied(shop_app())
    with caplog.at_level(logging.WARNING, "postline"):
        async with place.running(shop_app()):
            pass
    (told,) = [record.getMessage() for record in caplog.records if "one copy" in record.getMessage()]
    assert place.name("shop.orders") in told


# -- rights -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[Cluster]:
    """A cluster that grants nothing by itself."""
    yield from cluster_for_tests("topics", sasl=True)


@pytest.mark.slow
async def test_an_app_runs_with_the_rights_that_are_planned_and_no_others(guarded: Cluster, tmp_path: Path):
    place = Place(guarded, tmp_path / "cache")
    shop, billing = shop_app(), billing_app(fails=lambda number: number == 3)
    await place.applied(shop, user="admin")
    with pytest.raises(LogRefused, match="topics plan"):
        async with place.running(billing, user="shop"):
            pass
    done = await place.applied(billing, principal="User:shop", user="admin")
    assert kinds(done) == {ChangeKind.CREATE, ChangeKind.ACL}
    assert await place.planned(billing, principal="User:shop", user="admin") == []
    rounds = [OrderPlaced(customer, number) for number in range(5) for customer in CUSTOMERS]
    await publish(place, rounds, user="admin")
    async with place.running(billing, user="shop"):
        await billing.publish(InvoiceIssued(CUSTOMERS[0], 0, []))
        await handled_all(billing)
    renamed = billing_app("accounting", aliases=("billing",))
    done = await place.applied(renamed, principal="User:shop", user="admin")
    assert kinds(done) == {ChangeKind.CREATE, ChangeKind.ACL}
    async with place.running(renamed, user="shop"):
        await handled_all(renamed)
    async with place.opened(user="admin") as environment:
        (view,) = await Monitor(environment.log, environment.clock).subscriptions()
        assert (view.name, view.lag_records, view.dead_letters) == (place.name("accounting"), 0, len(CUSTOMERS))


@pytest.mark.slow
async def test_commands_of_every_priority_are_sent_answered_and_cancelled_with_the_rights_that_are_planned(
    guarded: Cluster, tmp_path: Path
):
    place = Place(guarded, tmp_path / "cache")
    prints = CommandTopic("prints", owner="printer", key="order", partitions=2, priorities={"high": 0, "normal": 0})

    class Print(Struct, frozen=True):
        order: str

    prints.command("prints.Print")(Print)
    printer, client = App("printer", owns=[prints]), App("client", publishes_to=[prints])

    @printer.serve(prints).on(Print)
    async def print_it(command: Print) -> None:
        """Nothing but the reply."""

    await place.applied(printer, user="admin")
    async with place.running(printer, user="admin"):
        done = await place.applied(client, principal="User:shop", user="admin")
        assert kinds(done) == {ChangeKind.ACL}
        async with place.running(client, user="shop"):
            for priority in ("high", "normal"):
                ticket = await client.send(Print("o-1"), priority=priority, request_id=f"r-{priority}")
                await ticket.outcome(60)
                again = await client.send(Print("o-1"), request_id=f"r-{priority}")
                await again.outcome(60)
                await again.cancel()


# -- partitions that others added ---------------------------------------------------------------


async def test_partitions_that_others_added_are_left_alone_with_an_alarm(
    place: Place, caplog: pytest.LogCaptureFixture
):
    shop, billing = shop_app(), billing_app()
    await place.applied(shop, billing)
    await publish(place, [OrderPlaced(customer, 0) for customer in CUSTOMERS])
    place.increase("shop.orders", 5)
    producer = Producer({"bootstrap.servers": place.cluster.internal_bootstrap})
    producer.produce(place.name("shop.orders"), value=b"{}", key=b"x", partition=4)
    assert producer.flush(20) == 0
    with caplog.at_level(logging.WARNING, "postline"):
        async with place.running(shop, billing) as environment:
            await shop.publish_many([OrderPlaced(customer, 1) for customer in CUSTOMERS])
            await handled_all(billing)
            view = await billing_view(environment, place)
            topic = await Monitor(environment.log, environment.clock).topic(place.name("shop.orders"))
            assert {
                customer: len(of) for customer, of in (await invoices(environment.log, place)).items()
            } == dict.fromkeys(CUSTOMERS, 2)
    assert (len(view.partitions), view.topic_partitions, view.beyond, view.lag_records) == (2, 5, 1, 0)
    assert (topic.partitions, len(topic.bounds), topic.beyond) == (2, 5, 1)
    told = [record.getMessage() for record in caplog.records if "topics repartition" in record.getMessage()]
    assert sum("others added some" in each for each in told) == 2  # one for each app
    assert any("leaves partitions [2, 3, 4]" in each for each in told)


# -- repartitioning -----------------------------------------------------------------------------


async def repartition(place: Place, partitions: int, look_seconds: float = LOOK_SECONDS) -> None:
    async with place.opened() as environment:
        operations = Operations(environment.log, environment.clock, random.Random(1))
        plan = await operations.plan_repartition(place.name("shop.orders"), partitions, look_seconds)
        await operations.repartition(plan)


async def drained(place: Place, rounds: range, ids: bool = False, partitions: int = 2) -> None:
    """Publish some orders of every customer and have them handled; then nobody is at work."""
    await publish(
        place, [OrderPlaced(customer, n) for n in rounds for customer in CUSTOMERS], ids, partitions=partitions
    )
    billing = billing_app()
    async with place.running(billing, partitions=partitions):
        await handled_all(billing)


async def check_order_and_state(place: Place, rounds: int) -> None:
    """Every customer's state has seen all numbers in order, and lies where its records go."""
    async with place.opened() as environment:
        for customer, issued in (await invoices(environment.log, place)).items():
            assert [each.number for each in issued] == list(range(rounds)), customer
            assert issued[-1].seen == list(range(rounds)), customer
        view = await billing_view(environment, place)
        where = Partitioner(len(view.partitions)).partition_of
        for each in view.partitions:
            entries = await environment.log.peek_state(place.name("billing"), each.partition, "state")
            assert {where(key) for key, _ in entries} <= {each.partition}
        audit = await Monitor(environment.log, environment.clock).audit(place.name("billing"))
        assert audit.balanced


async def test_more_partitions_keep_the_order_and_the_state_of_every_key_and_drop_late_duplicates(place: Place):
    await place.applied(shop_app(), billing_app())
    await drained(place, range(3), ids=True)
    await repartition(place, 5)
    shop, billing = shop_app(), billing_app()
    async with place.running(shop, billing, partitions=5) as environment:
        assert len((await billing_view(environment, place)).partitions) == 5
        again = [OrderPlaced(customer, number) for number in range(2, 5) for customer in CUSTOMERS]
        for order in again:
            await shop.publish(order, id=f"{order.customer}-{order.number}")
        await handled_all(billing)
    await check_order_and_state(place, 5)
    assert await place.planned(shop, billing, partitions=5) == []
    await repartition(place, 6)
    await drained(place, range(5, 6), partitions=6)
    await check_order_and_state(place, 6)
    async with place.opened() as environment:
        audit = await Monitor(environment.log, environment.clock).audit(place.name("billing"))
        assert (audit.outcomes["done"], audit.outcomes["duplicate"]) == (6 * len(CUSTOMERS), len(CUSTOMERS))


async def test_a_topic_at_work_keeps_its_partitions_and_says_why(place: Place):
    shop, billing = shop_app(), billing_app(fails=lambda number: number == 1)
    await place.applied(shop, billing)
    await publish(place, [OrderPlaced(CUSTOMERS[0], 0)])
    async with place.running(billing):
        await handled_all(billing)
        with pytest.raises(UsageError, match="has 1 live members"):
            await repartition(place, 4)
    await publish(place, [OrderPlaced(CUSTOMERS[0], 1), OrderPlaced(CUSTOMERS[0], 2)])
    with pytest.raises(UsageError, match="has 2 records or more to read yet"):
        await repartition(place, 4)
    async with place.running(billing):
        await handled_all(billing)
    with pytest.raises(UsageError, match=r"holds 1 records(.|\n)*has 1 dead letters"):
        await repartition(place, 4)
    with pytest.raises(UsageError, match="can't have fewer"):
        await repartition(place, 1)
    assert len(place.admin.list_topics(timeout=20).topics[place.name("shop.orders")].partitions) == 2


async def test_somebody_who_publishes_meanwhile_is_noticed_and_all_stays_as_it_was(place: Place):
    await place.applied(shop_app(), billing_app())
    await drained(place, range(2))
    looking = asyncio.ensure_future(repartition(place, 4, look_seconds=60))
    async with place.opened() as environment:

        async def under_way() -> bool:
            try:
                await environment.log.create_topic(needs([shop_app()], environment).topics[0])
            except TopicMismatch:
                return True
            return False

        await eventually(under_way, "the repartitioning has begun")
    producer = Producer({"bootstrap.servers": place.cluster.internal_bootstrap})
    producer.produce(place.name("shop.orders"), value=b"{}", key=b"x", partition=0)
    producer.flush(20)
    with pytest.raises(UsageError, match="Something was published"):
        await looking
    await publish(place, [OrderPlaced(customer, 2) for customer in CUSTOMERS])
    billing = billing_app()
    async with place.running(billing) as environment:
        await handled_all(billing)
        assert len((await billing_view(environment, place)).partitions) == 2


async def interrupted(place: Place, after: int) -> None:
    """A repartitioning to 5 that dies when so many entries have been looked at."""
    async with place.opened() as environment:
        operations = Operations(environment.log, environment.clock, random.Random(1))
        plan = await operations.plan_repartition(place.name("shop.orders"), 5, LOOK_SECONDS)
        placer, looked_at = state_placer(plan.before, plan.partitions, plan.ends), [0]

        def dying(entry: StateEntry, count: int) -> Sequence[StateEntry]:
            looked_at[0] += 1
            if looked_at[0] > after:
                raise RuntimeError("it dies here")
            return placer(entry, count)

        with pytest.raises(RuntimeError, match="dies here"):
            await environment.log.repartition(plan, dying)


async def test_one_that_was_interrupted_keeps_everybody_out_and_is_gone_on_with(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("postline.log.kafka.repartition._PAGE", 4)
    await place.applied(shop_app(), billing_app())
    await drained(place, range(3))
    await interrupted(place, after=9)
    for app in (shop_app(), billing_app()):
        for partitions in (2, 5):
            with pytest.raises(TopicMismatch, match=r"more partitions|has not ended"):
                async with place.running(app, partitions=partitions):
                    pass
    with pytest.raises(TopicMismatch, match="has not ended"):
        await repartition(place, 6)
    await repartition(place, 5)
    await drained(place, range(3, 5), partitions=5)
    await check_order_and_state(place, 5)


async def test_one_that_was_interrupted_can_be_taken_back(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("postline.log.kafka.repartition._PAGE", 4)
    await place.applied(shop_app(), billing_app())
    await drained(place, range(3))
    await interrupted(place, after=9)
    await repartition(place, 2)
    await drained(place, range(3, 5))
    await check_order_and_state(place, 5)
