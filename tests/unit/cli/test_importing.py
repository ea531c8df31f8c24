"""`postline contracts import`: files that refer to others, and what is told of what could not be said."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest

from tests.unit.cli.conftest import Project


@pytest.fixture(autouse=True)
def findable(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of the project can be imported, each time anew."""
    monkeypatch.syspath_prepend(project.folder)


def imported(project: Project, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """The topic of the module that is made."""
    result = project.run("contracts", "import", *arguments, "--topic", "shop.orders", "-o", "made_orders.py")
    assert result.code == 0, result.err
    monkeypatch.delitem(importlib.import_module("sys").modules, "made_orders", raising=False)
    return importlib.import_module("made_orders").topic


def test_schemas_in_other_files_are_read_from_beside(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("events", "common"):
        (project.folder / folder).mkdir()
    project.write("events/order.schema.json", '{"properties": {"by": {"$ref": "common/user.schema.json"}}}')
    project.write("common/user.schema.json", '{"properties": {"name": {"$ref": "name.json"}}}')
    project.write("common/name.json", '{"type": "string"}')
    topic = imported(project, monkeypatch, "events/order.schema.json")
    assert topic.reading_of("order").decode(b'{"by":{"name":"ann"}}').by.name == "ann"


def test_imports_of_protos_are_read_from_beside(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.folder / "shop").mkdir()
    project.write("shop/money.proto", 'syntax = "proto3"; package shop; message Money { string amount = 1; }')
    project.write(
        "shop/order.proto",
        'syntax = "proto3"; package shop;\nimport "shop/money.proto";\nmessage Order { Money total = 1; }',
    )
    topic = imported(project, monkeypatch, "shop/order.proto")
    assert topic.reading_of("shop.Order").decode(b"\x0a\x03\x0a\x011").total.amount == "1"


def test_messages_that_contain_each_other_are_all_declared(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write(
        "all.proto",
        """syntax = "proto3";
        message A { B b = 1; }
        message B { A a = 1; Part part = 2; }
        message Part { string x = 1; }
        message Alone { string x = 1; }
        """,
    )
    topic = imported(project, monkeypatch, "all.proto")
    assert sorted(topic.type_name_of(cls) for cls in topic.classes) == ["A", "Alone", "B"]


def test_what_is_left_out_is_told(project: Project) -> None:
    properties = {f"p{n}": {"type": "integer", "default": "x"} for n in range(12)}
    project.write("order.json", json.dumps({"title": "Order", "properties": properties}))
    result = project.run("contracts", "import", "order.json", "--topic", "shop.orders")
    assert result.code == 0
    assert "note: order.json: Order.p0: its default 'x' is not of its type" in result.err
    assert "note: order.json: 2 more of that kind" in result.err
    assert "class Order(Struct" in result.out


@pytest.mark.parametrize(
    ("files", "arguments", "said"),
    [
        ({"a.json": '{"properties": {}}'}, ["--topic", "-"], "'-' can't be a topic's name"),
        ({"a.json": '{"properties": {}}'}, ["--type", "a b"], "'a b' can't be a wire name"),
        ({"a.json": '{"$ref": "https://example.com/b.json"}'}, [], "refers to another document"),
        ({"a.json": "[" * 5000 + "]" * 5000}, [], "It nests too deeply"),
        (
            {"a.json": '{"title": "T", "properties": {"a": {}}}', "b.json": '{"title": "T", "properties": {}}'},
            [],
            "T diff",
        ),
        ({"a.json": '{"properties": {"a\\"b": {}}}'}, [], "can't have a field that is called"),
        ({"a.proto": 'syntax = "proto3"; import "b.proto"; message A {}'}, [], "b.proto, which is not at hand"),
        ({"a.json": "{}", "b.avsc": "{}"}, [], "of several formats"),
        ({"a.json": '{"title": "A", "properties": {}}'}, ["-o", "nowhere/a.py"], "nowhere/a.py can't be written"),
        ({"a.proto": 'syntax = "proto3"; message A {} message B {}'}, ["--type", "x"], "There are 2 types: A, B"),
    ],
)
def test_what_can_not_be_imported_is_refused(
    project: Project, files: dict[str, str], arguments: list[str], said: str
) -> None:
    for name, text in files.items():
        project.write(name, text)
    topic = [] if "--topic" in arguments else ["--topic", "shop.orders"]
    result = project.run("contracts", "import", *files, *topic, *arguments)
    assert result.code == 2
    assert said in result.err


def test_a_file_that_is_no_text_is_refused(project: Project) -> None:
    (project.folder / "a.proto").write_bytes(b"\xff\xfe")
    result = project.run("contracts", "import", "a.proto", "--topic", "shop.orders")
    assert result.code == 2
    assert "It is no text in UTF-8" in result.err
