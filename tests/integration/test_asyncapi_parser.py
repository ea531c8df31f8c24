"""The official AsyncAPI parser, which npm installs, accepts the documents that Postline writes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postline.contracts.asyncapi import document
from tests.unit.contracts.test_asyncapi import BILLING, SHOP

CHECK = Path(__file__).parents[1] / "asyncapi"
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="session")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parser's script, with what it needs beside it; without node, or npm's packages, tests skip and say so."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("the official AsyncAPI parser needs node and npm, which are not installed")
    folder = tmp_path_factory.mktemp("asyncapi")
    shutil.copytree(CHECK, folder, dirs_exist_ok=True)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm could not install the official AsyncAPI parser: {done.stderr.strip()[-300:]}")
    return folder / "validate.mjs"


def checked(checker: Path, content: Any) -> subprocess.CompletedProcess[str]:
    path = checker.parent / "document.json"
    path.write_bytes(msgspec.json.encode(content))
    return subprocess.run(["node", str(checker), str(path)], capture_output=True, text=True, check=False)


def test_documents_of_a_service_and_of_a_system_are_valid(checker: Path) -> None:
    for services in ([SHOP], [BILLING], [SHOP, BILLING]):
        done = checked(checker, document(services, url="kafka://broker:9092"))
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_check_finds_what_is_wrong(checker: Path) -> None:
    made = document([SHOP])
    del made["info"]["version"]
    done = checked(checker, made)
    assert done.returncode == 1
    assert "version" in done.stdout
