"""Every example does what it says: in memory on a virtual clock, and as processes on a file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from examples import (
    batch_archive,
    best_quote,
    dedup_and_retries,
    flood,
    foreign_view,
    global_order,
    lifespan_and_middleware,
    shop,
    thumbnails,
    totals_per_customer,
    trouble,
)
from examples.dedup_and_retries import BankBusy, NoSuchAccount, PaymentReceived
from examples.totals_per_customer import AccountClosed, Bought, CustomerTotals
from postline import Topic
from postline.clock import SystemClock
from postline.monitor import Monitor
from postline.runtime.control import ControlOp
from postline.testing import TestApp
from tests.integration.processes import EXAMPLES, handled, publisher, run_program, running_service


async def test_shop_sums_up_and_holds_the_key_of_what_it_cannot_bill():
    async with TestApp(shop.app) as t:
        await t.publish(shop.OrderPlaced("o-1", "ann", 40))
        await t.publish(shop.OrderPlaced("o-2", "bob", -1))
        await t.publish(shop.OrderPlaced("o-3", "bob", 5))
        await t.publish(shop.OrderPlaced("o-4", "ann", 2))
        await t.advance(minutes=1)
        assert [(i.order, i.running_total) for i in t.published(shop.InvoiceIssued)] == [("o-1", 40), ("o-4", 42)]
        (letter,) = t.dead_letters("billing")
        assert (letter.key, letter.attempts, letter.holds) == (b"bob", 5, True)
        await t.discard("billing", letter)
        await t.settle()
        assert [i.running_total for i in t.published(shop.InvoiceIssued) if i.customer == "bob"] == [5]
        assert t.audit()["billing"] == {"done": 3, "discarded": 1}


@pytest.fixture
def archive(tmp_path, monkeypatch) -> batch_archive.Archive:
    place = tmp_path / "archive.db"
    monkeypatch.setenv("ARCHIVE", str(place))
    return batch_archive.Archive(place)


def rows(archive: batch_archive.Archive, query: str) -> list[Any]:
    with closing(sqlite3.connect(archive.path)) as connection:
        return connection.execute(query).fetchall()


async def test_the_archive_holds_each_order_once_though_all_is_handled_twice(archive):
    orders = [batch_archive.OrderPlaced(f"o-{i}", f"c-{i % 7}", i) for i in range(50)]
    async with TestApp(batch_archive.app) as t:
        await t.publish_many(orders)
        await t.settle()
        assert rows(archive, "SELECT count(*), sum(total) FROM orders") == [(50, 1225)]
        with archive.transaction() as connection:
            connection.execute("DELETE FROM orders WHERE number < 'o-3'")
        for subscription in ("archiving", "posting"):
            await t.control(subscription, ControlOp(op="reset", offset=0))
        await t.settle()
        assert rows(archive, "SELECT count(*), sum(total) FROM orders") == [(50, 1225)]
        assert rows(archive, "SELECT count(*), sum(amount) FROM postings") == [(50, 1225)]


async def test_the_cheapest_of_all_quotes_is_awarded_the_load():
    async with TestApp(best_quote.app) as t:
        await t.publish_many([best_quote.Load("l-1", 4), best_quote.Load("l-2", 501)])
        await t.settle()
        awarded = {each.load: each for each in t.published(best_quote.Award)}
        assert awarded == {
            "l-1": best_quote.Award("l-1", "river", 3_600),
            "l-2": best_quote.Award("l-2", "river", 450_900),
        }
        assert t.published(best_quote.HeavyLoad) == [best_quote.HeavyLoad("l-2", 501)]


async def test_an_upload_is_published_once_an_hour_and_scaled_in_other_processes():
    async with TestApp(thumbnails.app, patience_seconds=60) as t:
        assert [each.path for each in await thumbnails.upload(["cat.jpg", "dog.jpg"])] == ["cat.jpg@80", "dog.jpg@80"]
        for by in ("kim", "lou"):
            assert await thumbnails.publish.request("cat.jpg", by=by) == 2
        await t.settle()
        assert t.audit() == {"photos.pictures": {"done": 4}, "photos.tasks": {"done": 1, "duplicate": 1}}


async def test_thumbnails_run_as_processes_that_share_the_work(tmp_path):
    url = f"sqlite:///{tmp_path}/photos.db"
    async with running_service("thumbnails.py", url=url) as service, publisher(url, []) as outside:
        said = await run_program("thumbnails.py", "cat.jpg", "dog.jpg", POSTLINE_URL=url)
        assert said.split() == ["cat.jpg@80", "dog.jpg@80"]
        await handled(outside, service, "photos.pictures", done=2)


async def test_totals_are_kept_by_customer_and_forgotten_when_the_account_is_closed():
    async with TestApp(totals_per_customer.app) as t:
        await t.publish_many([Bought("ann", 4), Bought("bob", 1), Bought("ann", 6), AccountClosed("bob")])
        await t.settle()
        assert t.state("summing", "ann") == CustomerTotals("ann", 2, 10)
        assert t.state("summing", "bob") is None
        assert t.published(CustomerTotals) == [CustomerTotals("bob", 1, 1)]


async def test_a_foreign_view_reads_its_own_fields_and_filters_other_types():
    async with TestApp(foreign_view.warehouse, foreign_view.shipping) as t:
        await t.publish(foreign_view.ParcelPacked("o-1", 800, "kim"))
        await t.publish(foreign_view.ParcelCounted("o-1"))
        await t.publish(foreign_view.ParcelPacked("o-1", 1200, "kim", shelf="b"))
        await t.settle()
        assert [label.postage for label in t.published(foreign_view.LabelPrinted)] == [4, 9]
        assert t.audit()["shipping-labels"] == {"done": 2, "filtered": 1}


class ScriptedBank(dedup_and_retries.Bank):
    """Raises what it is told to, in order, then books."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.booked: list[tuple[str, str]] = []
        super().__init__(self._book)

    async def _book(self, payment: PaymentReceived, key: str) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.booked.append((payment.reference, key))


@pytest.fixture
def bank(monkeypatch) -> ScriptedBank:
    bank = ScriptedBank()
    monkeypatch.setattr(dedup_and_retries, "Bank", lambda: bank)
    return bank


async def test_a_repeated_payment_is_booked_once_and_empty_ones_are_filtered(bank):
    async with TestApp(dedup_and_retries.app) as t:
        for reference, cents in [("r-1", 5), ("r-1", 5), ("r-2", 0), ("r-3", 7)]:
            await t.publish(PaymentReceived(reference, "a", cents))
        await t.settle()
        assert [reference for reference, _ in bank.booked] == ["r-1", "r-3"]
        assert t.audit()["booking"] == {"done": 2, "duplicate": 1, "filtered": 1}


async def test_failures_take_the_way_that_their_type_asks_for(bank):
    async with TestApp(dedup_and_retries.app) as t:
        bank.errors = [ConnectionError("down"), ConnectionError("down"), BankBusy(120)]
        await t.publish(PaymentReceived("r-1", "a", 5))
        await t.advance(seconds=29)
        assert len(bank.errors) == 2, "the first delay of 30 s is not over"
        await t.advance(minutes=1)
        assert not bank.errors
        assert not bank.booked, "the bank asked for two minutes"
        await t.advance(minutes=2)
        assert [reference for reference, _ in bank.booked] == ["r-1"]

        bank.errors = [NoSuchAccount("b")]
        await t.publish(PaymentReceived("r-2", "b", 5))
        await t.publish(PaymentReceived("r-3", "c", -5))
        await t.publish(PaymentReceived("r-4", "closed", 5))
        await t.settle()
        letters = t.dead_letters("booking")
        assert {letter.key: letter.attempts for letter in letters} == {b"b": 1, b"c": 1}
        await t.redrive("booking", *[letter for letter in letters if letter.key == b"b"])
        await t.settle()
        assert t.audit()["booking"] == {"done": 2, "discarded": 1, "dead-lettered": 1}
        assert len({key for _, key in bank.booked}) == 2


async def test_one_order_holds_over_all_keys():
    async with TestApp(global_order.app) as t:
        await t.publish_many([global_order.Transferred(f"a-{i % 5}", i) for i in range(40)])
        await t.settle()
        lines = t.published(global_order.JournalLine)
        assert [(line.number, line.cents) for line in lines] == [(i, i) for i in range(40)]


async def test_resources_last_as_long_as_the_service_and_middleware_sees_every_attempt(capsys):
    async with TestApp(lifespan_and_middleware.app) as t:
        await t.publish(lifespan_and_middleware.SignedUp("kim@example.org"))
        await t.settle()
        assert "greeter" not in capsys.readouterr().out
    assert capsys.readouterr().out == "greeter: sent 1 greetings\n"


async def test_a_flood_is_accepted_whole_and_counted_at_the_backends_pace():
    async with TestApp(flood.app) as t:
        submitted = await flood.submit(flood.app, 300)
        assert submitted == flood.Flood(accepted=300, refused=0)
        await t.settle()
        assert t.audit()["counting"] == {"done": 300}


@pytest.mark.parametrize("bound", [{}, {"BOUND": "20"}], ids=["unbounded", "bounded"])
async def test_a_flood_runs_as_processes_and_a_bound_slows_it(bound, tmp_path):
    url = f"sqlite:///{tmp_path}/votes.db"
    async with running_service("flood.py", url=url, **bound) as service, publisher(url, [flood.votes]) as outside:
        said = await run_program("flood.py", "400", POSTLINE_URL=url, **bound)
        assert said.startswith("400 votes accepted in ")
        assert said.endswith("refused, and sent again, 0 times\n") or bound
        view = await Monitor(outside.log, SystemClock()).subscription("counting")
        assert view.bound is None if not bound else view.bound is not None and view.bound.used <= 1.0
        await handled(outside, service, "counting", done=400)


async def test_shop_runs_as_a_process(tmp_path):
    url = f"sqlite:///{tmp_path}/shop.db"
    async with running_service("shop.py", url=url) as service, publisher(url, [shop.orders]) as outside:
        await outside.publish_many([shop.OrderPlaced(f"o-{i}", f"c-{i % 3}", i) for i in range(100)])
        await handled(outside, service, "billing", done=100)


async def test_two_services_that_share_no_code_run_in_one_process(tmp_path):
    url = f"sqlite:///{tmp_path}/shop.db"
    targets = ("foreign_view.py:shipping", "foreign_view.py:warehouse")
    async with running_service(*targets, url=url) as service, publisher(url, [foreign_view.parcels]) as outside:
        await outside.publish(foreign_view.ParcelPacked("o-1", 800, "kim"))
        await handled(outside, service, "shipping-labels", done=1)


PROCESSES: dict[str, tuple[list[Topic], list[Any], str]] = {
    "batch_archive.py": (
        [batch_archive.orders],
        [batch_archive.OrderPlaced(f"o-{i}", "ann", i) for i in range(20)],
        "archiving",
    ),
    "totals_per_customer.py": ([totals_per_customer.accounts], [Bought("ann", 1)] * 20, "summing"),
    "dedup_and_retries.py": (
        [dedup_and_retries.payments],
        [PaymentReceived(f"r-{i}", "ann", 1) for i in range(20)],
        "booking",
    ),
    "global_order.py": ([global_order.transfers], [global_order.Transferred("a", 1)] * 20, "journalling"),
    "lifespan_and_middleware.py": (
        [lifespan_and_middleware.signups],
        [lifespan_and_middleware.SignedUp("kim@example.org")] * 20,
        "greeting",
    ),
}


@pytest.mark.parametrize("name", PROCESSES)
async def test_the_other_examples_run_as_processes(name, tmp_path):
    topics, messages, subscription = PROCESSES[name]
    url = f"sqlite:///{tmp_path}/example.db"
    async with (
        running_service(name, url=url, ARCHIVE=str(tmp_path / "archive.db")) as service,
        publisher(url, topics) as outside,
    ):
        await outside.publish_many(messages)
        await handled(outside, service, subscription, done=20)


def test_no_example_goes_untested():
    tested = {"flood.py", "shop.py", "foreign_view.py", "script.py", "best_quote.py", "thumbnails.py", *PROCESSES}
    tested |= {"crash_points.py", "trouble.py"}  # the first by test_crash_points.py
    assert {path.name for path in EXAMPLES.glob("*.py")} <= tested


async def test_the_troubled_shop_holds_a_key_behind_an_order_below_zero_and_goes_on_once_it_is_mended(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    async with TestApp(trouble.app) as t:
        await t.publish_many(
            [trouble.OrderPlaced("c1", -5), trouble.OrderPlaced("c1", 7), trouble.OrderPlaced("c2", 1)]
        )
        await t.advance(seconds=5)
        assert len(t.dead_letters("billing")) == 1
        assert (t.audit()["billing"]["done"], t.audit()["billing"]["held"]) == (1, 1)
        (tmp_path / "mended").touch()
        await t.redrive("billing")
        await t.settle()
        assert t.audit()["billing"]["done"] == t.audit()["mailing"]["done"] == t.audit()["archive"]["done"] == 3


async def test_a_script_may_publish_its_file_twice(tmp_path):
    url = f"sqlite:///{tmp_path}/shop.db"
    (tmp_path / "orders.csv").write_text("o-1,ann,40\no-2,bob,1\no-3,ann,2\n")
    async with running_service("shop.py", url=url) as service, publisher(url, [shop.orders]) as outside:
        for _ in range(2):
            said = await run_program("script.py", str(tmp_path / "orders.csv"), POSTLINE_URL=url)
            assert said == "3 orders are durable\n"
        await handled(outside, service, "billing", done=3, duplicate=3)
