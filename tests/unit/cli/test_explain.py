"""`postline explain`: the worst case of each handler, and what is doubtful."""

from __future__ import annotations

import pytest

from tests.unit.cli.conftest import Project

SYSTEM = '''
"""A service of each kind."""
from datetime import timedelta
from msgspec import Struct
from postline import App, Breaker, CommandTopic, Context, DeadLetterPolicy, Dedup, ForeignTopic, Retry, Topic

orders = Topic("sales.orders", owner="sales", key="id", retention=timedelta(minutes=10))
notes = Topic("sales.notes", owner="sales", key="id", priorities={"high": 0.7, "normal": 0.3})
ledger = CommandTopic("ledger", owner="sales", key="id")
clicks = ForeignTopic("web.clicks")

@orders.event("sales.Ordered")
class Ordered(Struct):
    id: str

@notes.event("sales.Noted")
class Noted(Struct):
    id: str

class Booked(Struct):
    id: str

@ledger.command("ledger.Book", reply=Booked)
class Book(Struct):
    id: str

@ledger.query("ledger.Balance", reply=Booked)
class Balance(Struct):
    id: str

@clicks.reads("web.Clicked")
class Clicked(Struct):
    id: str

app = App("sales", owns=[orders, notes, ledger])
billing = app.subscribe(
    "billing", orders, start="earliest", timeout=20,
    retry=Retry(immediate=1, delays=(60, 600), jitter=0.5),
    dead_letters=DeadLetterPolicy(max_age=timedelta(days=7), alarm_count=10, alarm_age=timedelta(hours=1)),
)

@billing.on(Ordered, breaker=Breaker(failures=3, errors=(OSError,)), dry_run=True)
async def bill(order: Ordered, ctx: Context) -> Noted | None: ...

seen = app.subscribe("seen", clicks, start="latest", order="none", batch=10)

@seen.on(Clicked)
def count(clicks: list[Clicked]) -> None: ...

once = app.subscribe("once", clicks, start="latest", after="continue", dedup=Dedup(by_id=True))

@once.on(Clicked)
def count_once(click: Clicked) -> None: ...

books = app.serve(ledger)

@books.on(Book)
async def book(command: Book) -> Booked: ...

@books.on(Balance)
async def balance(query: Balance, ctx: Context) -> Booked: ...

@app.task(retry=Retry(immediate=0, delays=()))
async def mail(to: str) -> None: ...

@app.cron("0 3 * * *", name="nightly", tz="Europe/Berlin")
async def nightly() -> None: ...
'''

GOOD = """
from msgspec import Struct
from postline import App, Topic

orders = Topic("sales.orders", owner="sales", key="id")

@orders.event("sales.Ordered")
class Ordered(Struct):
    id: str

app = App("sales", owns=[orders])

@app.subscribe("billing", orders, start="earliest").on(Ordered)
async def bill(order: Ordered) -> None: ...
"""


@pytest.fixture
def system(project: Project) -> Project:
    project.write("system_app.py", SYSTEM)
    project.write("good_app.py", GOOD)
    return project


def explained(project: Project, *more: str) -> dict:
    result = project.run("explain", "system_app:app", "--json", *more)
    assert (result.code, result.err) == (0, "")
    return result.json


def handler_of(found: dict, message: str) -> dict:
    return next(h for each in found["subscriptions"] for h in each["handlers"] if h["message"] == message)


def test_the_worst_case_counts_attempts_jitter_and_time_limits(system: Project) -> None:
    retry = handler_of(explained(system), "sales.Ordered")["retry"]
    assert retry["attempts_max"] == 4
    assert retry["seconds_max"] == 660 * 1.5 + 4 * 20


def test_each_handler_says_what_it_is_and_what_it_publishes(system: Project) -> None:
    found = explained(system)
    kinds = {h["message"]: h["kind"] for each in found["subscriptions"] for h in each["handlers"]}
    assert kinds["sales.Ordered"] == "event"
    assert (kinds["ledger.Book"], kinds["ledger.Balance"]) == ("command", "query")
    assert kinds["sales.mail"] == "task"
    bill = handler_of(found, "sales.Ordered")
    assert bill["returns"] == ["sales.Noted"]
    assert "ledger.commands" in bill["may_publish_to"]
    assert not any("replies" in name or "tickets" in name for name in bill["may_publish_to"])
    assert handler_of(found, "ledger.Book")["returns"] == ["ledger.Booked"]
    (nightly,) = found["schedules"]
    assert (nightly["name"], nightly["function"]) == ("nightly", "system_app:nightly")
    assert "0 3 * * *" in nightly["rule"]


def test_a_breaker_a_dry_run_and_what_becomes_of_dead_letters_are_told(system: Project) -> None:
    found = explained(system)
    bill, count = handler_of(found, "sales.Ordered"), handler_of(found, "web.Clicked")
    assert bill["breaker"] == {"failures": 3, "probe_seconds": 1.0, "probe_seconds_max": 60.0, "errors": ["OSError"]}
    assert (count["breaker"], bill["dry_run"], count["dry_run"]) == (None, True, False)
    names = ("dead_letters_discarded_seconds", "dead_letters_alarm_count", "dead_letters_alarm_seconds")
    told = {each["name"]: [each[name] for name in names] for each in found["subscriptions"]}
    assert (told["billing"], told["seen"]) == ([604_800, 10, 3_600], [None, None, None])


def test_what_may_happen_twice_is_said_of_all_but_queries(system: Project) -> None:
    found = explained(system)
    assert handler_of(found, "ledger.Balance")["effects_twice"] == []
    assert handler_of(found, "ledger.Balance")["may_publish_to"] == []
    assert len(handler_of(found, "sales.mail")["effects_twice"]) == 1  # one attempt, but a process may die
    assert any("batch" in line for line in handler_of(found, "web.Clicked")["effects_twice"])


def test_doubtful_things_are_named_with_their_remedy(system: Project) -> None:
    warnings = {(each["code"], each["about"]) for each in explained(system)["warnings"]}
    assert warnings == {
        ("no-dedup", "seen"),
        ("order-lost", "seen"),
        ("order-lost", "once"),
        ("retention-short", "billing"),
        ("nobody-consumes", "sales.notes"),
    }
    assert all(each["remedy"] for each in explained(system)["warnings"])


def test_a_window_shorter_than_the_ladder_is_named(system: Project) -> None:
    system.write("system_app.py", SYSTEM.replace("delays=(60, 600)", "delays=(300 * 86_400,)"))
    codes = [(each["code"], each["about"]) for each in explained(system)["warnings"]]
    assert ("window-short", "billing") in codes


def test_strict_fails_for_a_warning_and_passes_without(system: Project) -> None:
    failed = system.run("explain", "system_app:app", "--strict", "--json")
    assert failed.code == 1
    lines = [line for line in failed.err.splitlines() if line.startswith("warning: [")]
    assert [line.split("]")[0] for line in lines] == [f"warning: [{each['code']}" for each in failed.json["warnings"]]
    assert all(" fix: " in line for line in lines)
    assert "warning: [" not in system.run("explain", "system_app:app", "--json").err
    result = system.run("explain", "good_app:app", "--strict", "--json")
    assert (result.code, result.json["warnings"]) == (0, [])


def test_people_read_it_as_text(system: Project) -> None:
    result = system.run("explain", "system_app:app", "--table")
    assert result.code == 0
    assert "event sales.Ordered -> system_app:bill" in result.out
    assert "attempts   4 at most (then 1 at once; after 1.0m, 10.0m), over 17.8m, each of 20.0s at most" in result.out
    assert "breaker    opens after 3 failures in a row of OSError; then one attempt every 1.0s to 1.0m" in result.out
    assert "dead letters discarded after 7.0d; an alarm if more than 10 or older than 1.0h" in result.out
    assert "warning [no-dedup] seen:" in result.out
    assert "  fix: " in result.out


def test_the_log_tells_how_subscriptions_stand_and_who_else_reads(project: Project) -> None:
    for line in ('{"customer":"ann","total":1}\n', '{"customer":"bob","total":2}\n'):
        given = project.run("publish", "shop.orders", "shop.OrderPlaced", "--app", "app.py", given=line)
        assert given.code == 0, given.err
    assert project.run("explain", "app.py", "--json").json["standings"] == {}  # nobody has subscribed yet
    project.handle_all()
    found = project.run("explain", "app.py", "--json").json
    assert found["standings"]["billing"]["lag_seconds"] == 0
    assert found["standings"]["billing"]["dead_letters_kept_seconds"] == 90 * 86_400
    assert project.run("explain", "app.py", "--json", "--declared").json["standings"] == {}
    project.write("other.py", (project.folder / "app.py").read_text().split("@billing")[0])
    codes = [each["code"] for each in project.run("explain", "other.py", "--json").json["warnings"]]
    assert "nobody-consumes" not in codes, "the log knows who reads it"
    codes = [each["code"] for each in project.run("explain", "other.py", "--json", "--declared").json["warnings"]]
    assert "nobody-consumes" in codes
