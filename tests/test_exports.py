"""The public face: every exported name exists and is explained, and importing it costs nothing optional."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src"

# What only some programs need: drivers of extras, and what only the command line draws with.
OPTIONAL = {
    "click",
    "confluent_kafka",
    "duckdb",
    "fastavro",
    "google.protobuf",
    "httpcore",
    "httpx",
    "opentelemetry",
    "psycopg",
    "pyarrow",
    "pydantic",
    "rich",
    "sqlalchemy",
    "starlette",
    "uvicorn",
}


def exported() -> list[str]:
    """The public names of the package."""
    return list(importlib.import_module("postline").__all__)


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter, for which warnings are errors, has loaded after a statement."""
    code = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-W", "error", "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout))


def test_the_public_names_are_sorted_and_named_once() -> None:
    assert exported() == sorted(set(exported()))


def test_every_public_name_exists_and_is_documented() -> None:
    postline = importlib.import_module("postline")
    missing = [name for name in exported() if not hasattr(postline, name)]
    assert missing == []
    mute = [name for name in exported() if not explained(getattr(postline, name), name)]
    assert mute == []


def explained(thing: object, name: str) -> bool:
    """Whether a class or function has a docstring written for it; what Python generates doesn't count."""
    if not (inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing)):
        return True  # a constant or an alias explains itself where it is defined
    own = thing.__doc__ or ""
    return bool(own.strip()) and not own.startswith(f"{name}(")


def test_a_generated_docstring_is_no_explanation() -> None:
    assert not explained(type("Point", (), {"__doc__": "Point(x: int)"}), "Point")
    assert not explained(type("Point", (), {}), "Point")
    assert explained(type("Point", (), {"__doc__": "A place."}), "Point")


def test_importing_postline_loads_nothing_optional() -> None:
    assert sorted(OPTIONAL & loaded_by("import postline")) == []


def test_using_every_public_name_loads_nothing_optional() -> None:
    # Names may be loaded on first use; none of them may need an extra to be looked at.
    assert sorted(OPTIONAL & loaded_by("from postline import *")) == []


@pytest.mark.parametrize("module", ["click", "pydantic"])
def test_what_is_optional_would_be_noticed(module: str) -> None:
    assert module in OPTIONAL & loaded_by(f"import {module}")


def test_the_package_carries_the_map_of_its_layers() -> None:
    text = (SOURCE / "postline" / "__init__.py").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^# +(\d) +\w", text) == list("9876543210")
