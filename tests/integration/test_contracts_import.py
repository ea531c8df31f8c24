"""Typed Python for real schemas: imported, checked by mypy in strict mode and by ruff, and reading real payloads."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, given, settings

from postline.contracts.jsonschema_bundling import bundle
from postline.contracts.jsonschema_parsing import read_foreign
from postline.contracts.python_source import source_of
from postline.contracts.reflection import schema_of
from postline.contracts.schema import Schema
from postline.errors import ContractError
from tests.unit.contracts.protobuf_samples import Order
from tests.unit.contracts.schemas_drawn import any_schemas

SharedData = Callable[[str], Path]


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("made_"):
            del sys.modules[name]


def class_of(schema: Schema) -> Any:
    module = types.ModuleType(f"made_{len(sys.modules)}")
    sys.modules[module.__name__] = module
    exec(compile(source_of({"a.Type": schema}, topic="a"), module.__name__, "exec"), vars(module))
    (cls,) = module.topic.classes
    return cls


def schema_in(path: Path, root: Path) -> Schema:
    """The schema of a file, with those that it refers to beside it or under the root."""

    def read(other: str) -> Any:
        found = next((each for each in (path.parent / other, root / other) if each.is_file()), None)
        return found and msgspec.json.decode(found.read_bytes())

    return read_foreign(bundle(msgspec.json.decode(path.read_bytes()), read, path=path.name)).schema


def test_made_python_is_clean_for_mypy_and_ruff(tmp_path: Path) -> None:
    number = 0

    @settings(max_examples=25, deadline=None, database=None, derandomize=True, phases=[Phase.generate])
    @given(any_schemas())
    def write(schema: Schema) -> None:
        nonlocal number
        number += 1
        made = source_of({"shop.One": schema}, topic="shop.ones", owner="shop" if number % 2 else "")
        (tmp_path / f"made_{number}.py").write_text(made, "utf-8")

    write()
    (tmp_path / "made_order.py").write_text(source_of({"shop.Order": schema_of(Order)}, topic="shop.orders"), "utf-8")
    mypy = ["mypy", "--strict", "--no-incremental", "--config-file=", "."]
    ruff = ["ruff", "check", "--isolated", "--no-cache", "--target-version=py311", "--select=E4,E7,E9,F,I,UP", "."]
    for tool in (mypy, ruff):
        told = subprocess.run([sys.executable, "-m", *tool], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stdout + told.stderr


def test_json_schemas_of_iglu_become_classes(shared_data: SharedData) -> None:
    root = shared_data("schema_evo_iglu") / "schemas"
    made, refused = 0, []
    for path in sorted(each for each in root.rglob("*") if each.is_file() and "jsonschema" in each.parts)[::5]:
        try:
            schema = schema_in(path, root)
        except ContractError as error:
            refused.append(error.message)
            continue
        if schema.record is not None:
            class_of(schema)
            made += 1
    assert made > 100
    assert all("refers to another document" in each for each in refused)
    assert len(refused) < 3


def test_webhooks_of_github_are_read_whole_by_the_classes_of_their_schemas(shared_data: SharedData) -> None:
    folder = shared_data("github_webhooks")
    schemas, examples = folder / "payload-schemas" / "api.github.com", folder / "payload-examples" / "api.github.com"
    classes: dict[Path, Any] = {}
    read = 0
    for path in sorted(examples.rglob("*.json"))[::4]:
        payload = msgspec.json.decode(path.read_bytes())
        event = schemas / path.relative_to(examples).parts[0]
        names = (f"{payload.get('action')}.schema.json", "event.schema.json")
        found = next(event / name for name in names if (event / name).exists())
        if found not in classes:
            schema = schema_in(found, schemas)
            classes[found] = None if schema.record is None else class_of(schema)
        if classes[found] is not None:
            value = msgspec.json.decode(path.read_bytes(), type=classes[found])
            assert lost(payload, msgspec.to_builtins(value)) == []
            read += 1
    assert read > 50


def lost(expected: Any, found: Any, at: str = "$") -> list[str]:
    """Where something of what was expected is not there."""
    match expected, found:
        case dict(), dict():
            present = {name: each for name, each in expected.items() if each is not None}
            return [place for name, each in present.items() for place in lost(each, found.get(name), f"{at}.{name}")]
        case list(), list() if len(expected) == len(found):
            return [place for pair in zip(expected, found, strict=True) for place in lost(*pair, f"{at}[]")]
    # A time may be written in several ways.
    return [] if expected == found or (isinstance(found, str) and found[:10] == str(expected)[:10]) else [at]
