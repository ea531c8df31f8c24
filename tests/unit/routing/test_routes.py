"""Routers: where messages go by rules, what they become, and what is refused when routes are declared."""

from __future__ import annotations

import pytest
from msgspec import Struct

from postline import App, Context, ContractError, ForeignTopic, Retry, Rule, Topic, UsageError, field
from postline.contracts import Sensitive
from postline.routing import Count, TapTopic
from postline.testing import TestApp
from tests.unit.routing.shop import OrderPlaced, Parked, Review, Total, copies, lines, orders, reviews

BIG, GERMAN = field("total") > 100, field("country") == "de"
ORDERS = [OrderPlaced("1", "ann", 500, "de"), OrderPlaced("2", "bob", 5, "de"), OrderPlaced("3", "cy", 5)]


def desk() -> App:
    return App("desk", owns=[reviews])


def parked(order: OrderPlaced) -> Parked:
    return Parked(order.customer, order.order)


async def test_the_first_rule_that_holds_says_where_a_message_goes():
    app = desk()
    router = app.route("sorting", orders, start="earliest")
    router.when(BIG, to=Review).when(GERMAN, to=parked)
    async with TestApp(app) as t:
        await t.publish_many(ORDERS)
        await t.settle()
        assert t.published(Review) == [Review("ann", 500)]
        assert t.published(Parked) == [Parked("bob", "2")]
        assert t.audit()["sorting"] == {"done": 2, "filtered": 1}


async def test_what_satisfies_no_rule_goes_where_otherwise_says():
    app = desk()
    app.route("sorting", orders, start="earliest").when(BIG, to=Review).otherwise(to=parked)
    async with TestApp(app) as t:
        await t.publish_many(ORDERS)
        await t.settle()
        assert {each.order for each in t.published(Parked)} == {"2", "3"}
        assert t.audit()["sorting"] == {"done": 3}


async def test_every_rule_that_holds_counts_if_asked_for():
    app = desk()
    router = app.route("sorting", orders, start="earliest", match="every")
    router.when(BIG, to=Review).when(GERMAN, to=parked).otherwise(to=lambda order: Parked(order.customer, "rest"))
    async with TestApp(app) as t:
        await t.publish_many(ORDERS)
        await t.settle()
        assert t.published(Review) == [Review("ann", 500)]
        assert {each.order for each in t.published(Parked)} == {"1", "2", "rest"}


async def test_a_list_of_recipients_may_be_fixed_or_made_for_the_message():
    app = desk()

    async def several(order: OrderPlaced, ctx: Context) -> list[Parked]:
        return [Parked(order.customer, f"{ctx.message_id}.{n}") for n in range(order.total)]

    app.route("fan-out", orders, start="earliest").to(Review, several, lambda order: None)
    async with TestApp(app) as t:
        await t.publish(OrderPlaced("1", "ann", 3), id="o1")
        await t.settle()
        assert len(t.published(Review)) == 1
        assert [each.order for each in t.published(Parked)] == ["o1.0", "o1.1", "o1.2"]


async def test_what_is_sent_on_belongs_to_the_conversation_and_keeps_its_senders_headers():
    app = desk()
    app.route("sorting", orders, start="earliest").to(Review, parked)
    async with TestApp(app) as t:
        await t.publish(ORDERS[0], id="o1", headers={"tenant": "t1", "traceparent": "00-1-2-03", "ce_subject": "x"})
        await t.settle()
        for kind in (Review, Parked):
            ((_, envelope),) = t.envelopes(kind)
            assert envelope.source == "desk"
            assert (envelope.causation_id, envelope.correlation_id) == ("o1", "o1")
            assert envelope.headers == {"tenant": "t1", "traceparent": "00-1-2-03"}


async def test_a_failing_target_sends_nothing_on_and_is_tried_again():
    app = desk()
    failing = True

    def fails(order: OrderPlaced) -> Parked:
        if failing:
            raise ConnectionError("no")
        return parked(order)

    app.route("sorting", orders, start="earliest", retry=Retry(immediate=0, delays=(1,), jitter=0)).to(Review, fails)
    async with TestApp(app) as t:
        await t.publish(ORDERS[0])
        await t.settle()
        assert t.published(Review) == []
        failing = False
        await t.advance(seconds=1)
        assert (len(t.published(Review)), len(t.published(Parked))) == (1, 1)


async def test_types_of_one_topic_are_routed_in_one_subscription():
    app = App("desk", owns=[lines], publishes_to=[orders])
    router = app.route("back", reviews, start="earliest")
    router.when(field("total") > 1, to=lambda review: OrderPlaced("r", review.customer), of=Review)
    router.otherwise(to=lambda each: OrderPlaced(each.order, each.customer), of=Parked)
    async with TestApp(app) as t:
        await t.publish_many([Parked("ann", "p"), Review("ann", 5.0), Review("ann", 0.5)])
        await t.settle()
        assert [each.order for each in t.published(OrderPlaced)] == ["p", "r"]


# -- what is refused ------------------------------------------------------------------------------


class Unknown(Struct):
    customer: str


def to_total(order: OrderPlaced) -> Total:
    return Total(order.order, order.total)


def of_review(review: Review) -> Parked:
    return Parked(review.customer, "")


@pytest.mark.parametrize(
    ("declare", "error", "said"),
    [
        (lambda r: r.when(field("totl") > 1, to=Review), ContractError, "no field 'totl'"),
        (lambda r: r.when(field("total") > "1", to=Review), ContractError, "compared with text"),
        (lambda r: r.when(lambda order: True, to=Review), UsageError, "as rule"),
        (lambda r: r.when(BIG, to=Review).when(field("total") > 200, to=Review), ContractError, "nothing gets as far"),
        (lambda r: r.when(BIG, to=Review).when(~BIG, to=Review).when(GERMAN, to=Review), ContractError, "gets as far"),
        (lambda r: r.when(BIG, to=[]), UsageError, "no target"),
        (lambda r: r.when(BIG, to=5), UsageError, "not callable"),
        (lambda r: r.when(BIG, to=OrderPlaced), ContractError, "come back for ever"),
        (lambda r: r.when(BIG, to=Unknown), ContractError, "no topic that the app publishes has type Unknown"),
        (lambda r: r.when(BIG, to=to_total), ContractError, "has type Total"),
        (lambda r: r.when(BIG, to=of_review), ContractError, "takes Review, and is given OrderPlaced"),
        (lambda r: r.otherwise(to=Review).otherwise(to=Review), UsageError, "twice"),
        (lambda r: r.otherwise(to=Review).when(BIG, to=Review), UsageError, "behind the one for all other"),
        (lambda r: r.when(BIG, to=Review).to(Parked), UsageError, "has rules"),
        (lambda r: r.when(BIG, to=Review, of=Review), ContractError, "declares no message type Review"),
    ],
)
def test_routes_that_can_not_be_are_refused_when_they_are_declared(declare, error, said):
    router = desk().route("sorting", orders, start="earliest")
    with pytest.raises(error, match=said):
        declare(router)


def test_a_function_may_say_what_it_likes_of_its_context():
    def given(order, ctx: Context) -> Parked:
        return Parked(order.customer, ctx.message_id)

    desk().route("sorting", orders, start="earliest").to(given)


def totals_of(orders: list[OrderPlaced]) -> list[Total]:
    return [to_total(each) for each in orders]


def again(order: OrderPlaced) -> list[OrderPlaced]:
    return [order]


def test_splits_and_aggregates_check_what_they_give():
    app = desk()
    with pytest.raises(ContractError, match="come back for ever"):
        app.split("again", orders, into=again, start="earliest")
    with pytest.raises(ContractError, match="takes Review"):
        app.split("other", orders, into=of_review, start="earliest")
    with pytest.raises(ContractError, match="has type Total"):
        app.aggregate("all", orders, start="earliest", key="customer", complete=Count(2), into=totals_of)


def test_a_topic_of_several_types_needs_the_one_named():
    with pytest.raises(UsageError, match="declares 2 types"):
        App("desk", owns=[reviews]).route("back", reviews, start="earliest").to(Parked)


def test_a_router_that_says_nothing_sensible_is_refused():
    with pytest.raises(UsageError, match='"every"'):
        desk().route("sorting", orders, start="earliest", match="all")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="does not say where it starts"):
        desk().route("sorting", orders)


async def test_a_rule_filters_a_subscription_and_is_checked_there():
    app = desk()
    billing = app.subscribe("billing", orders, start="earliest")
    seen: list[str] = []
    with pytest.raises(ContractError, match="no field 'amount'"):
        billing.on(OrderPlaced, where=field("amount") > 1)(lambda order: None)

    @billing.on(OrderPlaced, where=Rule.from_data({"field": "country", "in": ["de"]}))
    async def bill(order: OrderPlaced) -> None:
        seen.append(order.order)

    async with TestApp(app) as t:
        await t.publish_many(ORDERS)
        await t.settle()
        assert sorted(seen) == ["1", "2"]
        assert t.audit()["billing"] == {"done": 2, "filtered": 1}


# -- taps -----------------------------------------------------------------------------------------


async def test_a_tap_copies_records_as_they_were_with_where_they_came_from():
    app = App("desk", owns=[copies])
    app.tap("watching", orders, to=copies, start="earliest")
    async with TestApp(app) as t:
        placed = await t.publish(ORDERS[2], id="o3", headers={"tenant": "t1"})
        await t.settle()
        ((copy, envelope),) = t.envelopes(copies.Copy)
        assert (copy.id, copy.source, copy.type) == ("o3", "outside", "shop.OrderPlaced")
        assert (copy.topic, copy.partition, copy.offset) == ("shop.orders", placed.partition, placed.offset)
        assert (copy.key, copy.headers) == ("cy", {"tenant": "t1"})
        assert copy.message.startswith('{"order":"3","customer":"cy"')
        assert (envelope.source, envelope.causation_id) == ("desk", "o3")
        assert envelope.id != "o3"


async def test_a_tap_copies_all_types_and_keyless_records():
    keyless = Topic("shop.clicks", owner="shop")

    @keyless.event("shop.Click")
    class Click(Struct):
        page: str

    @keyless.event("shop.Scroll")
    class Scroll(Struct):
        to: int

    app = App("desk", owns=[copies])
    app.tap("watching", keyless, to=copies, start="earliest")
    async with TestApp(app) as t:
        await t.publish_many([Click("a"), Scroll(5)])
        await t.settle()
        assert {each.message for each in t.published(copies.Copy)} == {'{"page":"a"}', '{"to":5}'}


def test_what_is_sensitive_is_tapped_and_gathered_masked_or_not_at_all():
    secrets = Topic("shop.secrets", owner="shop", key="customer")

    @secrets.event("shop.Secret")
    class Secret(Struct):
        customer: str
        pin: Sensitive[str]

    masked = TapTopic("desk.masked", owner="desk", sensitive=True)
    app = App("desk", owns=[copies, masked])
    with pytest.raises(UsageError, match=r"shop\.Secret has sensitive fields"):
        app.tap("watching", secrets, to=copies, start="earliest")
    app.tap("watching-masked", secrets, to=masked, start="earliest")
    made = app.aggregate("all", secrets, start="earliest", key="customer", complete=Count(2), into=lambda parts: None)
    for topic, name in ((masked, "desk.masked.Copy"), (made.parts, "all.parts.Part")):
        assert [path for path, field in topic.reading_of(name).schema.paths() if field.sensitive] == ["message"]


def test_routing_takes_no_batches():
    with pytest.raises(UsageError, match="one by one"):
        desk().route("sorting", orders, start="earliest", batch=5)


async def test_a_view_of_anothers_topic_is_routed():
    foreign = ForeignTopic("shop.orders")

    @foreign.reads("shop.OrderPlaced")
    class Seen(Struct):
        customer: str
        order: str

    app = desk()
    app.route("sorting", foreign, start="earliest").when(field("order") == "1", to=Parked)
    async with TestApp(app, topics=[orders]) as t:
        await t.publish_many(ORDERS)
        await t.settle()
        assert t.published(Parked) == [Parked("ann", "1")]


def test_a_tap_needs_a_topic_of_the_app():
    with pytest.raises(UsageError, match="does not publish to"):
        App("desk").tap("watching", orders, to=copies, start="latest")
