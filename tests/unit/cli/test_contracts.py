"""`postline contracts`: written down, checked, compared and shown, from the working directory or a git revision."""

from __future__ import annotations

import importlib
import json
import subprocess

import pytest

from tests.unit.cli.conftest import APP, Project

BROKEN = APP.replace("total: int", "total: int\n    currency: str")
MENDED = APP.replace("total: int", 'total: int\n    currency: str = "EUR"')


@pytest.fixture
def written(project: Project) -> Project:
    """A project whose contracts were written down."""
    assert project.run("contracts", "snapshot", "app.py").code == 0
    return project


def change(project: Project, text: str) -> str:
    """Another version of the app, in a file of its own; gives its name."""
    project.write("next.py", text)
    return "next.py"


def git(project: Project, *arguments: str) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    subprocess.run(["git", *who, *arguments], cwd=project.folder, check=True, capture_output=True)


def test_a_snapshot_is_written_once(written: Project) -> None:
    path = written.folder / "contracts" / "shop.orders.json"
    before = path.read_bytes()
    again = written.run("contracts", "snapshot", "app.py")
    assert (again.code, again.out.split()[0]) == (0, "unchanged")
    assert path.read_bytes() == before
    assert json.loads(before)["types"].keys() == {"shop.OrderPlaced"}


def test_check_refuses_what_breaks_somebody_with_path_and_remedy(written: Project) -> None:
    result = written.run("contracts", "check", change(written, BROKEN), "--json")
    (found,) = result.json
    assert (result.code, found["topic"], found["type"]) == (1, "shop.orders", "shop.OrderPlaced")
    assert [each["path"] for each in found["findings"][0]["breaks"]] == ["currency"]
    assert "default" in found["findings"][0]["breaks"][0]["remedy"]
    shown = written.run("contracts", "check", "next.py", "--table")
    assert "shop.OrderPlaced on shop.orders breaks records of version 1" in shown.err


def test_check_lets_pass_what_breaks_nobody(written: Project) -> None:
    result = written.run("contracts", "check", change(written, MENDED))
    assert (result.code, result.json) == (0, [])


def test_what_breaks_somebody_is_not_written_down_unless_it_is_forced(written: Project) -> None:
    path = written.folder / "contracts" / "shop.orders.json"
    before = path.read_bytes()
    assert written.run("contracts", "snapshot", change(written, BROKEN)).code == 1
    assert path.read_bytes() == before
    assert written.run("contracts", "snapshot", "next.py", "--force").code == 0
    assert len(json.loads(path.read_bytes())["types"]["shop.OrderPlaced"]["versions"]) == 2


def test_check_compares_with_a_git_revision(written: Project) -> None:
    git(written, "init", "-q")
    git(written, "add", "contracts")
    git(written, "commit", "-qm", "contracts")
    assert written.run("contracts", "snapshot", change(written, BROKEN), "--force").code == 0
    assert written.run("contracts", "check", "next.py").code == 0
    assert written.run("contracts", "check", "next.py", "--against", "HEAD").code == 1
    unknown = written.run("contracts", "check", "next.py", "--against", "nowhere")
    assert unknown.code not in (0, 1)
    assert "nowhere" in unknown.err


def test_a_change_of_owner_or_key_is_refused(written: Project) -> None:
    result = written.run("contracts", "check", change(written, APP.replace('key="customer"', 'key="total"')), "--json")
    assert result.code == 1
    assert "key" in result.json[0]["problems"][0]


def test_diff_tells_every_change(written: Project) -> None:
    assert written.run("contracts", "diff", "app.py").json == []
    result = written.run("contracts", "diff", change(written, MENDED), "--json")
    assert result.json[0]["changes"] == [
        {"path": "currency", "said": "added: text, 'EUR' by default", "read_by": ["shop (billing)"]}
    ]


def test_a_type_nobody_has_written_down_is_new_and_breaks_nobody(written: Project) -> None:
    more = '@orders.event("shop.Cancelled")\nclass Cancelled(Struct):\n    customer: str\n\napp = App'
    result = written.run("contracts", "check", change(written, APP.replace("app = App", more)), "--table")
    assert (result.code, result.out) == (0, "2 message types break nobody; subscriptions that read them: 1.\n")
    (change_of,) = written.run("contracts", "diff", "next.py", "--json").json
    assert (change_of["type"], change_of["changes"][0]["said"]) == ("shop.Cancelled", "is new")


def test_a_topic_without_a_snapshot_is_refused_since_nothing_would_ever_be_compared(written: Project) -> None:
    result = written.run("contracts", "check", "app.py", "--directory", "elsewhere", "--json")
    (found,) = result.json
    assert (result.code, found["topic"], found["type"], found["findings"]) == (1, "shop.orders", "", [])
    assert "no snapshot at elsewhere/shop.orders.json" in found["problems"][0]
    assert "topic shop.orders: it has no snapshot at elsewhere/shop.orders.json" in result.err
    assert "`postline contracts snapshot`" in result.err


def test_a_topic_that_a_revision_has_no_snapshot_of_is_new_if_it_has_one_now(project: Project) -> None:
    git(project, "init", "-q")
    git(project, "commit", "-qm", "empty", "--allow-empty")
    missing = project.run("contracts", "check", "app.py", "--against", "HEAD")
    assert (missing.code, "no snapshot at contracts/shop.orders.json" in missing.err) == (1, True)
    assert project.run("contracts", "snapshot", "app.py").code == 0
    new = project.run("contracts", "check", "app.py", "--against", "HEAD", "--table")
    assert (new.code, new.out) == (0, "Nothing was compared.\n")
    assert "HEAD has no snapshot of shop.orders: it is new" in new.err


def test_a_topic_that_was_renamed_leaves_a_snapshot_behind_that_check_refuses(written: Project) -> None:
    change(written, APP.replace('"shop.orders"', '"shop.purchases"'))
    assert written.run("contracts", "snapshot", "next.py").code == 0
    (written.folder / "contracts" / "asyncapi.json").write_text('{"asyncapi": "3.0.0"}')
    result = written.run("contracts", "check", "next.py", "--json")
    (found,) = result.json
    assert (result.code, found["topic"], found["type"]) == (1, "shop.orders", "")
    assert "its snapshot lies at contracts/shop.orders.json, and no app declares it any more" in found["problems"][0]
    (written.folder / "contracts" / "shop.orders.json").unlink()
    assert written.run("contracts", "check", "next.py").code == 0


def test_a_snapshot_under_the_name_of_another_topic_is_refused(written: Project) -> None:
    folder = written.folder / "contracts"
    change(written, APP.replace('"shop.orders"', '"shop.purchases"'))
    (folder / "shop.orders.json").rename(folder / "shop.purchases.json")
    own = written.run("contracts", "check", "next.py")
    assert (own.code, "its topic was 'shop.orders' and is 'shop.purchases'" in own.err) == (1, True)
    written.write("view.py", LEAN.replace('"shop.orders"', '"shop.purchases"'))
    of_another = written.run("contracts", "check", "view.py")
    assert of_another.code not in (0, 1)
    assert "contracts/shop.purchases.json is the snapshot of topic shop.orders" in of_another.err


def test_the_report_stands_on_standard_error_also_beside_json(written: Project) -> None:
    result = written.run("contracts", "check", change(written, BROKEN))
    assert result.json[0]["type"] == "shop.OrderPlaced"
    assert "shop.OrderPlaced on shop.orders breaks records of version 1" in result.err
    assert result.err == written.run("contracts", "check", "next.py", "--table").err


def test_an_app_without_contracts_says_that_nothing_was_compared(project: Project) -> None:
    project.write("bare.py", 'from postline import App\napp = App("bare")\n')
    result = project.run("contracts", "check", "bare.py", "--table")
    assert (result.code, result.out) == (0, "Nothing was compared.\n")


@pytest.mark.parametrize(
    ("format_name", "said"),
    [
        ("words", "OrderPlaced.total: integer"),
        ("json", '"type": "integer"'),
        ("avro", '"long"'),
        ("protobuf", "int64 total"),
    ],
)
def test_show_writes_a_contract_in_each_format(project: Project, format_name: str, said: str) -> None:
    result = project.run("contracts", "show", "app.py", "shop.OrderPlaced", "--format", format_name)
    assert result.code == 0
    assert said in result.out


def test_show_refuses_a_type_that_is_not_declared(project: Project) -> None:
    result = project.run("contracts", "show", "app.py", "shop.Nothing")
    assert result.code == 2
    assert "shop.Nothing" in result.err


def test_a_damaged_snapshot_is_named(written: Project) -> None:
    (written.folder / "contracts" / "shop.orders.json").write_text("{")
    result = written.run("contracts", "check", "app.py")
    assert result.code not in (0, 1)
    assert "shop.orders.json" in result.err


# -- who reads what -----------------------------------------------------------------------------------

LEAN = """
from msgspec import Struct
from postline import App, ForeignTopic

view = ForeignTopic("shop.orders")

@view.reads("shop.OrderPlaced")
class Order(Struct):
    customer: str

app = App("packing")

@app.subscribe("packing", view, start="earliest").on(Order)
async def pack(order: Order) -> None: ...
"""


@pytest.fixture
def used(project: Project) -> Project:
    """The shop with two consumers that have run once: one reads all fields, one the customer alone."""
    project.write("lean.py", LEAN)
    project.handle_all()
    project.handle_all("lean.py")
    return project


def readers(project: Project, *arguments: str) -> dict[str, list[str]]:
    return {each["field"]: each["read_by"] for each in project.run("contracts", "usage", *arguments).json}


def test_usage_names_for_each_field_the_services_that_read_it(used: Project) -> None:
    assert readers(used) == {"customer": ["shop (billing)", "packing (packing)"], "total": ["shop (billing)"]}
    assert readers(used, "shop.nothing") == {}
    assert "packing (packing)" in used.run("contracts", "usage", "shop.orders", "--table").out


def test_usage_follows_a_consumer_that_reads_less(used: Project) -> None:
    used.write("lean2.py", LEAN.replace("    customer: str", '    note: str = ""'))
    used.handle_all("lean2.py")
    # Its version before may still be running.
    assert set(readers(used)["customer"]) == {"shop (billing)", "packing (packing)"}
    assert readers(used, "--unused") == {}


def test_a_log_without_contracts_has_no_usage(project: Project) -> None:
    project.run("topics", "apply", "app.py")
    assert readers(project) == {}


def test_sensitive_fields_are_masked_where_records_are_shown(project: Project) -> None:
    text = APP.replace(
        "from msgspec import Struct", "from msgspec import Struct\nfrom postline.contracts import Sensitive"
    )
    project.write("app.py", text.replace("    total: int", "    total: Sensitive[int]"))
    project.run(
        "publish", "shop.orders", "shop.OrderPlaced", "--app", "app.py", given='{"customer":"ann","total":-3}\n'
    )
    project.handle_all()
    shown = json.loads(project.run("tail", "shop.orders").out)
    assert shown["data"] == {"customer": "ann", "total": "***"}
    assert json.loads(project.run("tail", "shop.orders", "--reveal").out)["data"]["total"] == -3
    letter = project.run("dlq", "list", "billing").json
    record = letter[0]["dead_letters"][0]["id"] if "dead_letters" in letter[0] else letter[0]["id"]
    assert project.run("dlq", "show", "billing", record).json["record"]["data"]["total"] == "***"
    assert project.run("dlq", "show", "billing", record, "--reveal").json["record"]["data"]["total"] == -3


@pytest.mark.parametrize(
    ("field", "shown"),
    [("    customer: Sensitive[str]", "***"), ("    customer: str", "ann")],
    ids=["sensitive", "plain"],
)
def test_a_key_that_is_a_sensitive_field_is_masked_where_records_are_shown(
    project: Project, field: str, shown: str
) -> None:
    text = APP.replace("import Struct", "import Struct\nfrom postline.contracts import Sensitive")
    project.write("app.py", text.replace("    customer: str", field))
    project.run(
        "publish", "shop.orders", "shop.OrderPlaced", "--app", "app.py", given='{"customer":"ann","total":-3}\n' * 2
    )
    project.handle_all()
    assert all(json.loads(line)["key"] == shown for line in project.run("tail", "shop.orders").out.splitlines())
    assert json.loads(project.run("tail", "shop.orders", "--reveal").out.splitlines()[0])["key"] == "ann"
    # Who names a key has it already, and finds its records.
    assert json.loads(project.run("tail", "shop.orders", "--key", "ann").out.splitlines()[0])["key"] == "ann"
    (letter,) = project.run("dlq", "list", "billing").json[0]["dead_letters"]
    assert letter["key"] == shown
    assert len(project.run("dlq", "list", "billing", "--key", "ann").json[0]["dead_letters"]) == 1
    detail = project.run("dlq", "show", "billing", letter["id"])
    assert (detail.json["letter"]["key"], detail.json["record"]["key"]) == (shown, shown)
    assert [each["key"] for each in project.run("subscriptions", "show", "billing").json["held"]] == [shown]
    copies = [json.loads(line)["key"] for line in project.run("tail", "billing.dead-letters").out.splitlines()]
    assert copies == [shown]
    assert ("ann" in detail.out) is (shown == "ann")


LOOSENED = BROKEN.replace("partitions=2)", 'partitions=2, schemas=Schemas(evolution="NONE"))').replace(
    "from postline import App,", "from postline import App, Schemas,"
)


def test_a_rule_that_is_loosened_hides_no_break_of_the_same_change(written: Project) -> None:
    changed = change(written, LOOSENED)
    for command in ("check", "snapshot"):
        result = written.run("contracts", command, changed)
        assert result.code == 1
        assert "currency: the reader wants it, the writer does not write it" in result.err
    assert written.run("contracts", "snapshot", changed, "--force").code == 0
    # Written down, it is what later changes are judged by.
    assert written.run("contracts", "check", changed).code == 0


def test_a_rule_alone_may_be_loosened_and_then_counts(written: Project) -> None:
    written.write("looser.py", LOOSENED.replace("    currency: str\n", ""))
    assert written.run("contracts", "snapshot", "looser.py").code == 0
    (told,) = written.run("contracts", "diff", "app.py").json
    assert (told["topic"], told["type"]) == ("shop.orders", "")
    assert [each["said"] for each in told["changes"]] == ["its evolution was 'NONE' and is 'FULL_TRANSITIVE'"]
    assert written.run("contracts", "check", change(written, LOOSENED)).code == 0


def test_what_changes_of_the_topic_itself_is_shown(written: Project) -> None:
    changed = APP.replace('owner="shop", key="customer"', 'owner="store", key="total", schemas=Schemas(format="avro")')
    changed = changed.replace("import App,", "import App, Schemas,").replace('App("shop"', 'App("store"')
    shown = written.run("contracts", "diff", change(written, changed), "--table").out
    assert "topic shop.orders\n  its owner was 'shop' and is 'store'\n  its key was 'customer' and is 'total'" in shown
    assert "its encoding was 'json' and is 'avro'" in shown


def test_a_line_that_says_a_key_twice_is_refused(project: Project) -> None:
    line = '{"customer":"ann","customer":"bob","total":3}\n'
    result = project.run("publish", "shop.orders", "shop.OrderPlaced", "--app", "app.py", given=line)
    assert result.code == 1
    assert "It has the key 'customer' twice in one object" in result.err
    result = project.run("publish", "shop.orders", "shop.OrderPlaced", given=line)
    assert (result.code, "twice in one object" in result.err) == (1, True)


# -- importing ----------------------------------------------------------------------------------------

AVSC = """{"type": "record", "name": "Order", "namespace": "shop",
    "fields": [{"name": "id", "type": "string"}, {"name": "n", "type": "int"}]}"""
PROTO = """syntax = "proto3";
package shop;
message Order { string id = 1; int32 n = 3; Inner inner = 2; }
message Inner { string x = 1; }
"""
JSON_SCHEMA = """{"title": "Order", "type": "object", "required": ["id"],
    "properties": {"id": {"type": "string"}, "n": {"type": "integer"}}}"""


@pytest.mark.parametrize(
    ("name", "content", "type_name"),
    [("order.avsc", AVSC, "shop.Order"), ("order.proto", PROTO, "shop.Order"), ("order.json", JSON_SCHEMA, "Order")],
)
def test_typed_python_is_made_for_files_of_each_format(
    project: Project, monkeypatch: pytest.MonkeyPatch, name: str, content: str, type_name: str
) -> None:
    project.write(name, content)
    result = project.run("contracts", "import", name, "--topic", "shop.orders", "-o", "orders.py")
    assert result.code == 0, result.err
    monkeypatch.syspath_prepend(project.folder)
    (cls,) = (topic := importlib.import_module("orders").topic).classes
    assert topic.type_name_of(cls) == type_name
    assert {"id", "n"} <= set(cls.__struct_fields__)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("order.avsc", "{", "order.avsc: It is no JSON"),
        ("order.avsc", AVSC.replace('"n"', '"\udcff"'), "order.avsc: It is no text in UTF-8"),
        (
            "order.avsc",
            AVSC.replace('"namespace"', '"name": "Other", "namespace"'),
            "It has 'name' twice in one object",
        ),
        ("order.json", '{"properties": {"a": {}, "a": {}}}', "order.json: It has 'a' twice in one object"),
        ("order.avsc", '{"type":"record"}', "order.avsc: It is no Avro schema"),
        ("order.avsc", '"string"', "root is no record"),
        ("order.proto", "message {", "order.proto"),
        ("order.json", '{"type":"text"}', "there is no type 'text'"),
        ("order.txt", "", "of no known format"),
    ],
)
def test_a_file_that_is_no_schema_is_refused_by_name(project: Project, name: str, content: str, said: str) -> None:
    (project.folder / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    result = project.run("contracts", "import", name, "--topic", "shop.orders")
    assert result.code not in (0, 1)
    assert said in result.err


def test_a_view_in_another_format_than_the_snapshots_is_refused(written: Project) -> None:
    written.write("view.py", LEAN.replace('ForeignTopic("shop.orders")', 'ForeignTopic("shop.orders", format="avro")'))
    result = written.run("contracts", "check", "view.py")
    assert (result.code, "it is written as json, the reader reads avro" in result.err) == (1, True)
