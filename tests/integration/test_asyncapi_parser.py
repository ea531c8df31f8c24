"""The official AsyncAPI parser, which npm installs, accepts the documents that Postline writes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest

from postline import Schemas, Topic
from postline.contracts.asyncapi import Commanded, Service, document
from tests.asyncapi.install import require_parser
from tests.unit.commands.ledger import Ledger
from tests.unit.contracts.protobuf_samples import Order
from tests.unit.contracts.test_asyncapi import BILLING, SHOP, STATES

pytestmark = pytest.mark.timeout(300)

Checked: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def checked(tmp_path: Path) -> Checked:
    """What the parser says of documents."""
    script = require_parser()

    def check(*documents: Any) -> subprocess.CompletedProcess[str]:
        paths = [tmp_path / f"{number}.json" for number in range(len(documents))]
        for path, each in zip(paths, documents, strict=True):
            path.write_bytes(msgspec.json.encode(each))
        return subprocess.run(["node", script, *paths], capture_output=True, text=True, check=False)

    return check


def of_every_type(format: Any, *, structured: bool = False) -> Service:
    """A service whose messages have fields of every type."""
    name = f"all.{format}" + ".whole" * structured
    topic = Topic(name, owner="all", schemas=Schemas(format=format, structured=structured))
    topic.event(f"{name}.Order")(Order)
    return Service(name, [topic], [])


def test_documents_of_a_service_and_of_a_system_are_valid(checked: Checked) -> None:
    everything = [SHOP, BILLING, Service("states", [STATES], []), *map(of_every_type, ("json", "avro", "protobuf"))]
    everything += [of_every_type(format, structured=True) for format in ("json", "avro")]
    ledger = Ledger()
    told = [Service("ledger", [ledger.balances], [], [Commanded(ledger.topic, serves=True)])]
    told.append(Service("shop", [], [], [Commanded(ledger.topic, serves=False)]))
    everything += told
    urls = ("", "kafka://broker:9092,other:9092", "sqlite:///shop.db")
    systems: list[list[Service]] = [[SHOP], [BILLING], everything]
    done = checked(*(document(services, url=url) for services, url in zip(systems, urls, strict=True)))
    assert done.returncode == 0, done.stdout + done.stderr


WRONG: list[tuple[tuple[str, ...], Any, str]] = [
    (("info",), {"title": "without a version"}, "version"),
    (("channels", "shop.orders", "bindings", "kafka", "partitions"), -1, "partitions"),
    (("channels", "shop.orders", "messages", "shop.OrderPlaced"), {"$ref": "#/none"}, "'#/none' does not exist"),
    (("operations", "shop.send.shop.orders", "action"), "sned", "action"),
    (("components", "schemas", "shop.OrderPlaced", "type"), "objcet", "type"),
]


def with_fault(path: tuple[str, ...], value: Any) -> Any:
    """The shop's document with another value at a place."""
    made = part = json.loads(msgspec.json.encode(document([SHOP])))
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    return made


def test_the_parser_finds_what_is_wrong(checked: Checked) -> None:
    done = checked(*(with_fault(path, value) for path, value, _ in WRONG))
    assert (done.returncode, done.stderr) == (1, "")
    for number, (_, _, said) in enumerate(WRONG):
        found = "".join(line for line in done.stdout.splitlines() if f"{number}.json: " in line)
        assert said in found, number


def test_without_node_tests_are_skipped_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.asyncapi.install.shutil.which", lambda name: None)
    with pytest.raises(pytest.skip.Exception, match="needs node and npm"):
        require_parser()
