"""`postline schedules`: what waits is listed and cancelled."""

from __future__ import annotations

from tests.unit.cli.conftest import Project

APP = """
from msgspec import Struct
from postline import App, Context, Topic

orders = Topic("shop.orders", owner="shop", key="customer", partitions=2)

@orders.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    customer: str
    total: int

app = App("shop", owns=[orders])
billing = app.subscribe("billing", orders, start="earliest")

@billing.on(OrderPlaced)
async def bill(order: OrderPlaced, ctx: Context) -> None:
    if order.total:
        ctx.publish(OrderPlaced(order.customer, 0), delay=3600 * order.total)

@app.every(3600, name="hourly")
async def hourly() -> None: ...
"""


def waiting(project: Project) -> Project:
    """A shop where messages of ann and bob wait, ann's longer."""
    project.write("app.py", APP)
    given = '{"customer": "ann", "total": 2}\n{"customer": "bob", "total": 1}\n'
    assert project.run("publish", "shop.orders", "shop.OrderPlaced", "--app", "app.py", given=given).code == 0
    project.handle_all()
    return project


def test_what_waits_is_listed_the_earliest_first(project: Project) -> None:
    billing, schedules = waiting(project).run("schedules").json
    assert [each["key"] for each in billing["delayed"]] == ["bob", "ann"]
    assert {(each["type"], each["topic"]) for each in billing["delayed"]} == {("shop.OrderPlaced", "shop.orders")}
    assert [(each["name"], each["rule"]) for each in schedules["schedules"]] == [("hourly", "every 1:00:00")]
    drawn = project.run("schedules", "list", "billing", "--limit", "1", "--table").out
    assert "bob" in drawn
    assert "ann" not in drawn
    assert "billing has more delayed messages" in drawn
    assert "hourly" in project.run("schedules", "--table").out


def test_one_is_cancelled_by_its_token_when_a_worker_runs(project: Project) -> None:
    (billing, _) = waiting(project).run("schedules").json
    token = billing["delayed"][0]["token"]
    asked = project.run("schedules", "cancel", token)
    assert (asked.code, asked.json) == (0, {"subscription": "billing", "status": "asked"})
    assert "Where no worker runs" in project.run("schedules", "cancel", "--help").out
    project.handle_all()
    (billing, _) = project.run("schedules").json
    assert [each["key"] for each in billing["delayed"]] == ["ann"]
    told = project.run("schedules", "cancel", token, "--table").out
    assert "takes effect when a worker comes to it" in told


def test_what_is_no_token_is_refused(project: Project) -> None:
    result = waiting(project).run("schedules", "cancel", "nonsense")
    assert result.code == 2
    assert "no token of a delayed message" in result.err


def test_the_topic_of_schedules_is_no_matter_of_contracts(project: Project) -> None:
    project.write("app.py", APP)
    document = project.run("contracts", "asyncapi", "app.py").json
    assert "schedules" not in " ".join(document["channels"])
    assert project.run("contracts", "snapshot", "app.py").code == 0
    assert [path.name for path in project.folder.rglob("shop.*.json")] == ["shop.orders.json"]
    assert project.run("contracts", "check", "app.py").code == 0


def test_nothing_waits_in_a_log_without_timers(broken: Project) -> None:
    assert broken.run("schedules").json == []
    assert "Nothing waits" in broken.run("schedules", "--table").out
