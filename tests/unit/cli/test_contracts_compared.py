"""`postline contracts check` and `diff` against what is registered, and with those who read it."""

from __future__ import annotations

import json
import subprocess

import pytest

from postline.log.sqlite import SqliteLog
from tests.unit.cli.conftest import APP, Project

LOOSE = APP.replace("partitions=2", 'partitions=2, schemas=Schemas(evolution="NONE")').replace(
    "Retry, Topic", "Retry, Schemas, Topic"
)
BROKEN = APP.replace("total: int", "total: int\n    currency: str")
MENDED = APP.replace("total: int", 'total: int\n    currency: str = "EUR"')
READER = """
from msgspec import Struct
from postline import App, ForeignTopic

view = ForeignTopic("shop.orders")

@view.reads("shop.OrderPlaced")
class Order(Struct):
    customer: str
    total: int

app = App("packing")

@app.subscribe("packing", view, start="earliest").on(Order)
async def pack(order: Order) -> None: ...
"""
#: The owner does not handle its own messages: only others read them.
BARE = LOOSE.partition("billing =")[0]
LESS = BARE.replace("    total: int\n", "")


@pytest.fixture
def registered(project: Project) -> Project:
    """The shop, whose first version is registered."""
    project.handle_all()
    return project


@pytest.fixture
def read(project: Project) -> Project:
    """A shop without a rule, and a consumer of another service that has run."""
    project.write("app.py", BARE)
    project.write("reader.py", READER)
    project.handle_all()
    project.handle_all("reader.py")
    project.write("less.py", LESS)
    return project


def save(project: Project) -> None:
    assert project.run("contracts", "snapshot", "app.py").code == 0
    assert project.run("contracts", "usage", "--save", "contracts/readers.json").code == 0


def records(project: Project) -> int:
    """How many records the registry's topic has."""
    ends: list[int] = []

    async def work(log: SqliteLog) -> None:
        ends.append(len(await log.read("postline.schemas", 0, 0)))

    project.on_log(work)
    return ends[0]


# -- what is registered -------------------------------------------------------------------------------


def test_what_the_start_would_refuse_is_refused_and_nothing_is_registered(registered: Project) -> None:
    before = records(registered)
    registered.write("next.py", BROKEN)
    result = registered.run("contracts", "check", "next.py", "--registry")
    (found,) = result.json
    assert (result.code, found["topic"], found["type"]) == (1, "shop.orders", "shop.OrderPlaced")
    assert [(each["version"], each["direction"], each["breaks"][0]["path"]) for each in found["findings"]] == [
        (1, "backward", "currency")
    ]
    assert records(registered) == before


def test_a_start_that_is_refused_for_what_it_breaks_answers_no(registered: Project) -> None:
    registered.write("next.py", BROKEN)
    line = '{"customer":"ann","total":1,"currency":"EUR"}\n'
    result = registered.run("publish", "shop.orders", "shop.OrderPlaced", "--app", "next.py", given=line)
    assert (result.code, "currency: the reader wants it" in result.err) == (1, True)


def test_what_breaks_nobody_passes_and_shows_as_a_difference(registered: Project) -> None:
    before = records(registered)
    registered.write("next.py", MENDED)
    assert registered.run("contracts", "check", "next.py", "--registry").code == 0
    (changed,) = registered.run("contracts", "diff", "next.py", "--registry").json
    assert [(each["path"], each["said"]) for each in changed["changes"]] == [
        ("currency", "added: text, 'EUR' by default")
    ]
    assert registered.run("contracts", "diff", "app.py", "--registry").json == []
    assert records(registered) == before


def test_another_format_is_refused_as_nobody_reads_it_and_shows_as_a_difference(registered: Project) -> None:
    rule = 'schemas=Schemas(format="avro", evolution="BACKWARD_TRANSITIVE")'
    registered.write("next.py", LOOSE.replace('schemas=Schemas(evolution="NONE")', rule))
    result = registered.run("contracts", "check", "next.py", "--registry")
    assert (result.code, "the reader reads avro, the writer writes json" in result.err) == (1, True)
    (changed,) = registered.run("contracts", "diff", "next.py", "--registry").json
    assert [each["said"] for each in changed["changes"]] == ["its encoding was 'json' and is 'avro'"]


@pytest.mark.parametrize(("rule", "code"), [("BACKWARD", 0), ("BACKWARD_TRANSITIVE", 1), ("NONE", 0)])
def test_versions_count_as_the_topics_rule_says(project: Project, rule: str, code: int) -> None:
    # The first version is of no rule and text, the second a number, which the third reads alone.
    for version, kind in (("first", "str"), ("second", "int")):
        project.write(f"{version}.py", BARE.replace("total: int", f"total: {kind}"))
        project.handle_all(f"{version}.py")
    project.write("third.py", BARE.replace("total: int", "total: float").replace("NONE", rule))
    result = project.run("contracts", "check", "third.py", "--registry")
    assert (result.code, [each["version"] for found in result.json for each in found["findings"]]) == (code, [1] * code)


def test_a_subscription_of_the_app_itself_is_deployed_with_the_change(project: Project) -> None:
    project.write("app.py", LOOSE)
    project.handle_all()
    project.write("next.py", LOOSE.replace("total: int", "total: float"))
    assert project.run("contracts", "check", "next.py", "--registry").code == 0
    project.write("reader.py", READER.replace("total: int", "total: str"))
    result = project.run("contracts", "check", "next.py", "reader.py", "--registry")
    assert (result.code, [each["service"] for each in result.json[0]["consumers"]]) == (1, ["packing"])


def test_a_version_that_was_registered_once_is_not_judged_again(registered: Project) -> None:
    registered.write("second.py", MENDED)
    registered.handle_all("second.py")
    assert registered.run("contracts", "check", "app.py", "--registry").code == 0


def test_of_a_topic_nothing_of_which_is_registered_nothing_breaks_and_that_is_said(project: Project) -> None:
    project.run("topics", "apply", "app.py")
    result = project.run("contracts", "check", "app.py", "--registry")
    assert (result.code, result.json) == (0, [])
    assert "nothing is registered of shop.orders yet" in result.err
    assert project.run("contracts", "diff", "app.py", "--registry").json[0]["changes"][0]["said"] == "is new"


def test_a_log_or_topics_that_are_not_there_are_named(project: Project) -> None:
    missing = project.run("contracts", "check", "app.py", "--registry")
    assert (missing.code, "There is no log at" in missing.err) == (3, True)
    project.handle_all()
    project.write("other.py", APP.replace("shop.orders", "shop.others"))
    other = project.run("contracts", "check", "other.py", "--registry")
    assert (other.code, "has no topic shop.others" in other.err, "fix:" in other.err) == (3, True, True)
    elsewhere = project.run("contracts", "diff", "app.py", "--registry", "--url", "sqlite:///elsewhere.db")
    assert (elsewhere.code, "elsewhere.db" in elsewhere.err) == (3, True)


def test_a_registry_that_is_down_is_named(registered: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTLINE_REGISTRY", "http://user:secret@127.0.0.1:9")
    result = registered.run("contracts", "check", "app.py", "--registry")
    assert (result.code, "127.0.0.1:9 does not answer" in result.err) == (3, True)
    assert "secret" not in result.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--registry", "--against", "HEAD"), "--registry and --against"),
        (("--url", "sqlite:///postline.db"), "--url names a log"),
    ],
)
@pytest.mark.parametrize("command", ["check", "diff"])
def test_what_to_compare_with_is_said_once(
    registered: Project, command: str, options: tuple[str, ...], said: str
) -> None:
    result = registered.run("contracts", command, "app.py", *options)
    assert (result.code, said in result.err) == (2, True)


def test_under_a_namespace_its_own_topics_are_compared(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTLINE_NAMESPACE", "staging")
    project.handle_all()
    project.write("next.py", BROKEN)
    assert project.run("contracts", "check", "next.py", "--registry").code == 1
    save(project)
    (view,) = json.loads((project.folder / "contracts" / "readers.json").read_bytes())
    assert (view["topic"], view["subscription"]) == ("shop.orders", "billing")
    monkeypatch.delenv("POSTLINE_NAMESPACE")
    assert project.run("contracts", "check", "next.py", "--registry").code == 3


def test_a_topic_of_others_that_is_published_to_is_judged_as_at_the_start(registered: Project) -> None:
    text = BROKEN.partition("app = App")[0] + 'app = App("gateway", publishes_to=[orders])\n'
    registered.write("gateway.py", text)
    assert registered.run("contracts", "check", "gateway.py", "--registry").code == 1


# -- who reads it -------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["registry", "file"])
def test_a_change_that_the_rule_allows_and_a_consumer_does_not_is_refused_by_its_name(
    read: Project, source: str
) -> None:
    options = ["--registry"] if source == "registry" else []
    if source == "file":
        save(read)
    result = read.run("contracts", "check", "less.py", *options, "--json")
    (found,) = result.json
    assert (result.code, found["findings"], found["problems"]) == (1, [], [])
    (consumer,) = found["consumers"]
    assert (consumer["type"], consumer["service"], consumer["subscription"]) == (
        "shop.OrderPlaced",
        "packing",
        "packing",
    )
    assert [each["path"] for each in consumer["breaks"]] == ["total"]
    shown = read.run("contracts", "check", "less.py", *options, "--table")
    assert "shop.OrderPlaced on shop.orders breaks packing (packing), which reads it:\n  total:" in shown.err
    passed = read.run("contracts", "check", "app.py", *options, "--table")
    assert (passed.code, passed.out) == (0, "1 message type breaks nobody; subscriptions that read them: 1.\n")


def test_without_views_the_rule_alone_is_judged(read: Project) -> None:
    save(read)
    (read.folder / "contracts" / "readers.json").unlink()
    assert read.run("contracts", "check", "less.py").code == 0


def test_what_breaks_the_rule_names_who_reads_the_field(registered: Project) -> None:
    registered.write("reader.py", READER)
    registered.handle_all("reader.py")
    registered.write("next.py", APP.replace("    total: int", "    total: str").partition("billing =")[0])
    result = registered.run("contracts", "check", "next.py", "--registry", "--json")
    (found,) = result.json
    assert [why["read_by"] for each in found["findings"] for why in each["breaks"]] == [["packing (packing)"]] * 2
    assert [each["service"] for each in found["consumers"]] == ["packing"]
    shown = registered.run("contracts", "check", "next.py", "--registry", "--table")
    assert "\n    read by packing (packing)\n" in shown.err
    diff = registered.run("contracts", "diff", "next.py", "--registry", "--table")
    assert "total: was integer, is text; read by packing (packing)\n" in diff.out


def test_a_renamed_field_names_who_reads_its_former_name(read: Project) -> None:
    text = BARE.replace("total: int", 'amount: Annotated[int, was("total")]')
    imports = "from typing import Annotated\nfrom postline.contracts import was\n"
    read.write("next.py", imports + text)
    (changed,) = read.run("contracts", "diff", "next.py", "--registry", "--json").json
    assert changed["changes"] == [{"path": "amount", "said": "renamed from total", "read_by": ["packing (packing)"]}]
    assert read.run("contracts", "check", "next.py", "--registry").code == 1


@pytest.mark.parametrize("options", [("--registry",), ()])
def test_a_removed_type_names_who_reads_it(read: Project, options: tuple[str, ...]) -> None:
    save(read)
    read.write("next.py", BARE.replace('"shop.OrderPlaced"', '"shop.Placed"'))
    result = read.run("contracts", "check", "next.py", *options, "--json")
    (consumer,) = [each for found in result.json for each in found["consumers"]]
    assert (result.code, consumer["type"], consumer["service"]) == (1, "shop.OrderPlaced", "packing")
    changed = read.run("contracts", "diff", "next.py", *options, "--json").json
    assert {each["type"]: each["changes"][0]["said"] for each in changed} == {
        "shop.Placed": "is new",
        "shop.OrderPlaced": "is not declared any more",
    }
    assert changed[1]["changes"][0]["read_by"] == ["packing (packing)"]


def test_a_removed_type_that_nobody_reads_starts_and_passes(registered: Project) -> None:
    registered.write("next.py", APP.replace('"shop.OrderPlaced"', '"shop.Placed"').partition("billing =")[0])
    registered.run("subscriptions", "remove", "billing", "--yes")
    assert registered.run("contracts", "check", "next.py", "--registry").code == 0


def test_a_consumer_that_reads_former_names_is_known_under_them(read: Project) -> None:
    read.write("ahead.py", READER.replace('"shop.OrderPlaced"', '"shop.Placed", aliases=["shop.OrderPlaced"]'))
    read.handle_all("ahead.py")
    read.write("next.py", BARE.replace('"shop.OrderPlaced"', '"shop.Placed", aliases=["shop.OrderPlaced"]'))
    assert read.run("contracts", "check", "next.py", "--registry").code == 0
    assert read.run("contracts", "check", "less.py", "--registry").code == 1


def test_a_consumer_with_an_upcast_for_what_is_written_is_not_broken(read: Project) -> None:
    newer = READER.replace(
        "app = App",
        """@view.reads("shop.OrderPlaced")
class Euros(Struct):
    customer: str
    euros: float

@view.upcast(Order, Euros)
def euros(order: Order) -> Euros:
    return Euros(order.customer, order.total / 100)

app = App""",
    )
    newer = newer.replace('@view.reads("shop.OrderPlaced")\nclass Order', "class Order").replace(
        ".on(Order)", ".on(Euros)"
    )
    read.write("newer.py", newer.replace("pack(order: Order)", "pack(order: Euros)"))
    read.handle_all("newer.py")
    assert read.run("contracts", "check", "app.py", "--registry").code == 0
    assert read.run("contracts", "check", "less.py", "--registry").code == 1


def test_a_damaged_file_of_readers_is_named(read: Project) -> None:
    save(read)
    (read.folder / "contracts" / "readers.json").write_text("{")
    result = read.run("contracts", "check", "app.py")
    assert (result.code, "contracts/readers.json" in result.err) == (2, True)


def test_a_topic_called_readers_keeps_its_snapshot(project: Project) -> None:
    project.write("app.py", APP.replace("shop.orders", "readers"))
    assert project.run("contracts", "snapshot", "app.py").code == 0
    assert project.run("contracts", "check", "app.py").code == 0


# -- views of others' topics --------------------------------------------------------------------------

#: A field that the owner never wrote.
AHEAD = READER.replace("    total: int\n", "    vat: int\n")


@pytest.mark.parametrize("options", [("--registry",), ()])
def test_a_view_that_cannot_read_its_owners_records_is_refused(read: Project, options: tuple[str, ...]) -> None:
    save(read)
    read.write("ahead.py", AHEAD)
    result = read.run("contracts", "check", "ahead.py", *options)
    (found,) = result.json
    assert (result.code, found["topic"], found["findings"], found["problems"]) == (1, "shop.orders", [], [])
    (consumer,) = found["consumers"]
    assert {name: consumer[name] for name in ("type", "service", "subscription", "version")} == {
        "type": "shop.OrderPlaced",
        "service": "packing",
        "subscription": "packing",
        "version": 1,
    }
    assert [each["path"] for each in consumer["breaks"]] == ["vat"]
    assert "breaks packing (packing), which reads it in version 1:\n  vat: the reader wants it" in result.err
    assert "Give vat a default" in result.err
    passed = read.run("contracts", "check", "reader.py", *options, "--table")
    assert (passed.code, passed.out, passed.err) == (0, "1 message type of others can be read.\n", "")


def test_a_view_with_nothing_to_compare_it_with_passes_and_that_is_said(project: Project) -> None:
    project.write("ahead.py", AHEAD)
    result = project.run("contracts", "check", "ahead.py", "--table")
    assert (result.code, result.out) == (0, "Nothing was compared.\n")
    assert "nothing is in the snapshots about shop.OrderPlaced on shop.orders, which packing reads" in result.err
    project.run("topics", "apply", "app.py")
    registry = project.run("contracts", "check", "ahead.py", "--registry")
    assert (registry.code, registry.json) == (0, [])
    assert "nothing is registered of shop.OrderPlaced on shop.orders" in registry.err


def test_a_view_of_a_topic_that_is_checked_with_it_counts_against_what_is_declared_now(read: Project) -> None:
    save(read)
    read.write("ahead.py", AHEAD)
    read.write("next.py", BARE.replace("total: int", "total: int\n    vat: int"))
    assert read.run("contracts", "check", "next.py", "ahead.py").code == 0
    assert read.run("contracts", "check", "app.py", "ahead.py").code == 1


def test_older_versions_that_a_view_cannot_read_are_named_and_pass(read: Project) -> None:
    save(read)
    read.write("next.py", BARE.replace("total: int", "total: int\n    vat: int"))
    assert read.run("contracts", "snapshot", "next.py", "--force").code == 0
    read.write("ahead.py", AHEAD)
    result = read.run("contracts", "check", "ahead.py")
    assert (result.code, result.json) == (0, [])
    assert "subscription packing can't read version 1 of shop.OrderPlaced on shop.orders" in result.err


def test_a_view_is_compared_with_the_revision_and_else_with_what_lies_here(read: Project) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
        subprocess.run(["git", *who, *arguments], cwd=read.folder, check=True, capture_output=True)

    git("init", "-q")
    git("commit", "-qm", "empty", "--allow-empty")
    save(read)
    read.write("ahead.py", AHEAD)
    assert read.run("contracts", "check", "ahead.py", "--against", "HEAD").code == 1
    git("add", "contracts")
    git("commit", "-qm", "contracts")
    (read.folder / "contracts" / "shop.orders.json").unlink()
    assert read.run("contracts", "check", "ahead.py", "--against", "HEAD").code == 1
    assert read.run("contracts", "check", "ahead.py").code == 0
