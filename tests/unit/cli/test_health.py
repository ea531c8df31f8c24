"""`postline health` and what `postline lag` says of causes."""

from __future__ import annotations

import json

import pytest

from postline.app import Environment, open_environment
from postline.cli.loading import load_app
from postline.cli.probing import place_of_worker
from postline.clock import SystemClock
from postline.log.sqlite import SqliteLog
from postline.monitor import Monitor
from tests.unit.cli.conftest import Project


def test_what_goes_on_is_healthy(broken: Project) -> None:
    result = broken.run("health")
    assert (result.code, result.json["healthy"]) == (0, True)
    assert [each["status"] for each in result.json["subscriptions"]] == ["ok"]


def test_a_subscription_that_nobody_handles_stands_still_for_that_cause(broken: Project) -> None:
    line = json.dumps({"customer": "bob", "total": 1}) + "\n"
    broken.run("publish", "shop.orders", "shop.OrderPlaced", "--app", "app.py", given=line)
    result = broken.run("health", "billing", "--over", "0.1")
    assert (result.code, result.json["healthy"]) == (1, False)
    (billing,) = result.json["subscriptions"]
    assert billing["status"] == "stalled"
    assert [cause["kind"] for cause in billing["causes"]] == ["no member", "held"]
    told = broken.run("health", "--over", "0.1", "--table").out
    assert "billing: no process handles it" in told
    assert "2 wait behind others of their key; 1 dead letters" in told


AWAY = """
from postline import Breaker, Retry
from app import App, OrderPlaced, orders

app = App("shop", owns=[orders])

@app.subscribe("billing", orders, start="earliest", retry=Retry(immediate=0, delays=(60,))).on(
    OrderPlaced, breaker=Breaker(failures=1, probe_seconds=60)
)
async def bill(order: OrderPlaced) -> None:
    raise ConnectionError("the bank does not answer")
"""


def test_an_open_breaker_is_told_from_another_process_even_when_its_own_has_gone(project: Project) -> None:
    project.write("away.py", AWAY)
    app = load_app("away.py")

    async def work(log: SqliteLog) -> None:
        await app.start(Environment(log, open_environment().settings))
        monitor = Monitor(log, SystemClock())
        while not (await monitor.subscription("billing")).causes:
            await SystemClock().sleep(0.005)
        await app.abort()

    line = json.dumps({"customer": "ann", "total": 1}) + "\n"
    project.run("publish", "shop.orders", "shop.OrderPlaced", "--app", "app.py", given=line)
    project.on_log(work)
    result = project.run("health", "--over", "0.1")
    assert result.code == 1
    causes = {cause["kind"]: cause for cause in result.json["subscriptions"][0]["causes"]}
    assert causes["breaker"]["name"] == "shop.OrderPlaced"
    assert causes["breaker"]["detail"] == "ConnectionError: the bank does not answer"
    assert "billing: breaker open for shop.OrderPlaced, since" in project.run("lag", "--table").out


def test_a_log_that_does_not_answer_is_the_finding(project: Project) -> None:
    result = project.run("health")
    assert (result.code, result.json["healthy"]) == (1, False)
    assert "There is no log at" in result.json["log_error"]
    assert "the log does not answer: There is no log at" in project.run("health", "--table").out


def test_each_of_several_workers_has_probes_of_its_own() -> None:
    assert [place_of_worker(("0.0.0.0", 8081), slot)[1] for slot in range(2)] == ["0.0.0.0:8081", "0.0.0.0:8082"]
    assert place_of_worker(("127.0.0.1", 0), 5) == ["--health", "127.0.0.1:0"]


@pytest.mark.parametrize("place", ["web", ":8081", "127.0.0.1:", "127.0.0.1:99999"])
def test_a_place_for_probes_that_is_none_is_wrong_usage(project: Project, place: str) -> None:
    result = project.run("run", "app.py", "--health", place)
    assert result.code == 2
    assert "is no port, nor HOST:PORT" in result.err
