"""`crash_points` on real processes: a planted bug is found where it stands, and its mended form passes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from examples.crash_points import PaymentReceived, booked, feed
from postline import App, CommandTopic, Context, Topic, UsageError
from postline.testing import CrashReport, crash_points
from postline.testing.crashing import Point
from tests.brokers.cluster import Cluster

HERE = "tests.integration.test_crash_points"


def kinds(report: CrashReport) -> list[str]:
    """Where processes that died changed the effects."""
    return [each.point.kind for each in report.findings]


def test_a_handler_that_doubles_its_effect_is_found_with_its_place_and_the_remedy() -> None:
    async def one(app: App) -> None:
        await app.publish(PaymentReceived("ann", 500))

    report = crash_points("examples.crash_points:blind", one, booked)
    # How commits are put together is the machine's matter: there may be one while the handler runs.
    commits = {"before the commit", "after the commit"}
    assert set(kinds(report)) - commits == {"after sqlite3 commit", "after the handler"}
    with pytest.raises(AssertionError) as failed:
        report.require()
    said = str(failed.value)
    assert f"{len(report.findings)} of {len(report.killed)} crash points change the effects" in said
    assert "in examples.crash_points.book (" in said
    assert "examples/crash_points.py:" in said
    assert "('ann', 500), ('ann', 500)" in said
    assert "ctx.idempotency_key" in said
    record = next(each.point for each in report.findings if each.point.kind == "after sqlite3 commit")
    assert record.record.startswith("shop.payments ")
    assert record.attempt == 1


def test_its_mended_form_passes_at_every_boundary(crash_points: Callable[..., CrashReport]) -> None:
    report = crash_points("examples.crash_points:careful", feed, booked, max_points=12)
    assert report.effects[0] == [("ann", 500), ("bob", 70)]
    assert {each.kind for each in report.points} >= {
        *("before the handler", "after the handler", "before the commit", "after the commit"),
        *("before sqlite3 execute", "after sqlite3 execute", "before sqlite3 commit", "after sqlite3 commit"),
    }
    assert len(report.killed) >= 8


@pytest.mark.timeout(300)
def test_on_brokers_too_the_bug_is_found_and_nothing_is_left_there(kafka_one: Cluster, tmp_path: Path) -> None:
    async def one(app: App) -> None:
        await app.publish(PaymentReceived("ann", 500))

    url = f"{kafka_one.url}?create_topics=true&cache_dir={tmp_path}"
    before = set(AdminClient({**kafka_one.client}).list_topics(timeout=30).topics)
    report = crash_points("examples.crash_points:blind", one, booked, url=url, max_points=6)
    assert report.effects[0] == [("ann", 500)]
    assert len(report.killed) >= 4  # how commits are put together is the broker's and the machine's matter
    assert any("examples/crash_points.py:" in str(finding) for finding in report.findings)
    assert set(AdminClient({**kafka_one.client}).list_topics(timeout=30).topics) - before <= {"__consumer_offsets"}


# -- apps of these tests ---------------------------------------------------------------------------------

ORDERS = Topic("shop.orders", owner="shop", key="customer", partitions=1)
BILLS = Topic("shop.bills", owner="shop", key="customer", partitions=1)


@ORDERS.event("shop.Ordered")
class Ordered(Struct, frozen=True):
    customer: str
    total: int


@BILLS.event("shop.Billed")
class Billed(Struct, frozen=True):
    customer: str
    running: int


billing = App("shop", owns=[ORDERS, BILLS])


@billing.subscribe("billing", ORDERS, start="earliest", state=int).on(Ordered)
async def bill(order: Ordered, ctx: Context) -> Billed:
    running = (ctx.state.get() or 0) + order.total
    ctx.state.put(running)
    await charge(order)
    return Billed(order.customer, running)


async def charge(order: Ordered) -> None:
    """A backend of the tests: it writes down each call that came through."""
    descriptor = os.open("charged", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, f"{order.customer} {order.total}\n".encode())
    os.close(descriptor)


LEDGER = CommandTopic("ledger", owner="bank", key="account", partitions=1)


class Booked(Struct, frozen=True):
    balance: int


@LEDGER.command("ledger.Book", reply=Booked)
class Book(Struct, frozen=True):
    account: str
    amount: int


bank = App("bank", owns=[LEDGER])


@bank.serve(LEDGER, state=int).on(Book)
def book(command: Book, ctx: Context) -> Booked:
    ctx.state.put((ctx.state.get() or 0) + command.amount)
    return Booked(ctx.state.get())


mailer = App("mailer")


def deliver(customer: str) -> None:
    with Path("mailed").open("a") as mailed:
        mailed.write(customer)


@mailer.task()
async def mail(customer: str) -> None:
    deliver(customer)


broken = App("shop", owns=[ORDERS, BILLS])


@broken.subscribe("billing", ORDERS, start="earliest").on(Ordered)
def fail(order: Ordered) -> None:
    raise SystemExit("no")


moody = App("shop", owns=[ORDERS, BILLS])


@moody.subscribe("billing", ORDERS, start="earliest").on(Ordered)
def sometimes(order: Ordered) -> None:
    """Calls the backend in the first two processes that run alone."""
    runs = Path(os.environ["RUNS_OF_THE_TEST"])
    with runs.open("a") as counted:
        counted.write("1")
    if runs.stat().st_size <= 2:
        deliver("")


async def order(app: App) -> None:
    """Two orders of one customer."""
    await app.publish_many([Ordered("ann", 5), Ordered("ann", 7)])


async def ask(app: App) -> None:
    """Two commands."""
    for amount in (5, 7):
        await app.send(Book("a", amount))


def charged(directory: Path) -> Sequence[str]:
    """Each call that the backend saw."""
    return (directory / "charged").read_text().split("\n") if (directory / "charged").exists() else []


async def test_what_postline_stores_is_once_and_a_call_that_is_not_is_found_also_in_an_async_test() -> None:
    sound = crash_points(f"{HERE}:billing", order, max_points=5)
    sound.require()
    assert [value for _, _, value in sound.effects[1]["shop.bills"]] == [
        b'{"customer":"ann","running":5}',
        b'{"customer":"ann","running":12}',
    ]

    async def one(app: App) -> None:
        await app.publish(Ordered("ann", 5))

    calls = crash_points(f"{HERE}:billing", one, charged, inside=[f"{HERE}:charge"])
    assert f"after {HERE}:charge" in kinds(calls)
    await asyncio.sleep(0)


def test_commands_are_done_once(crash_points: Callable[..., CrashReport]) -> None:
    report = crash_points(f"{HERE}:bank", ask, max_points=5)
    assert len(report.killed) >= 4
    assert any(f"{HERE}.book" in each.place for each in report.killed)


def test_tasks_which_lie_elsewhere_in_each_run_are_killed_at_each_boundary_all_the_same() -> None:
    async def one(app: App) -> None:
        await mail.send("ann")

    report = crash_points(f"{HERE}:mailer", one, lambda directory: (directory / "mailed").read_text())
    assert report.missed == []
    assert {"after the handler", "before the commit"} <= set(kinds(report))
    found = next(each.point for each in report.findings if each.point.kind == "after the handler")
    assert found.record == "mailer.tasks.commands without a key"
    assert found.place.startswith(f"{HERE}.mail ({__file__}:")


def test_a_boundary_of_a_handler_that_is_not_reached_again_fails_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def one(app: App) -> None:
        await app.publish(Ordered("ann", 5))

    monkeypatch.setenv("RUNS_OF_THE_TEST", str(tmp_path / "runs"))
    report = crash_points(f"{HERE}:moody", one, inside=[f"{HERE}:deliver"])
    assert [each.kind for each in report.missed] == [f"before {HERE}:deliver", f"after {HERE}:deliver"]
    assert len(report.killed) > len(report.missed)
    with pytest.raises(AssertionError, match="2 boundaries of handlers were not reached again") as failed:
        report.require()
    assert f"missed before {HERE}:deliver of shop.orders 0:0, attempt 1, in {HERE}.sometimes (" in str(failed.value)
    report.require(missed=True)


def test_a_commit_that_is_not_reached_again_is_left_out() -> None:
    commit = Point("before the commit", "", "shop.orders 0 to 2", 0, 1, "")
    CrashReport([commit], [commit], None, missed=[]).require()
    CrashReport([commit] * 3, [commit] * 2, None, missed=[commit]).require()
    with pytest.raises(AssertionError, match="Only 1 processes were killed"):
        CrashReport([commit] * 2, [commit], None, missed=[commit]).require(missed=True)


def test_an_app_that_fails_by_itself_is_no_finding() -> None:
    with pytest.raises(UsageError, match="names no app"):
        crash_points("examples.crash_points:payments", feed)
    with pytest.raises(UsageError, match="names no app: No module named"):
        crash_points("nowhere_at_all:app", feed)
    with pytest.raises(UsageError, match="exit code"):
        crash_points(f"{HERE}:broken", order, timeout_seconds=30)


def test_effects_that_differ_by_themselves_are_refused() -> None:
    seen: list[int] = []

    def counting(directory: Path) -> Any:
        seen.append(len(seen))
        return seen[-1]

    with pytest.raises(UsageError, match="Two executions without a crash differ"):
        crash_points(f"{HERE}:billing", order, counting)
