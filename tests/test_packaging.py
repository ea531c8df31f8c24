"""What is shipped is whole: the wheel carries every file of the package, and the locks every dependency."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def project() -> dict[str, Any]:
    """The `[project]` table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def test_the_wheel_has_every_module_statement_and_the_typing_marker(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    built = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        (entry_points,) = (name for name in inside if name.endswith("entry_points.txt"))
        assert "postline = postline.cli:main" in archive.read(entry_points).decode()
    source = ROOT / "src"
    shipped = [path for path in source.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    expected = {path.relative_to(source).as_posix() for path in shipped} | {"postline/py.typed"}
    assert expected - inside == set()
    assert any(name.endswith("licenses/LICENSE") for name in inside)


def pins(text: str) -> dict[str, int]:
    """Each pinned package of a lock, with how many hashes it is held to."""
    entries = re.findall(r"(?m)^([\w.-]+)==\S+((?: \\\n    --hash=sha256:[0-9a-f]{64})*)", text)
    return {name: hashes.count("--hash") for name, hashes in entries}


@pytest.mark.parametrize("lock", ["dev", "benchmarks"])
def test_a_lock_pins_and_hashes_what_is_needed(lock: str) -> None:
    pinned = pins((ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8"))
    asked = (ROOT / "requirements" / f"{lock}.in").read_text(encoding="utf-8").splitlines()
    needed = [*project()["dependencies"], *(line for line in asked if not line.startswith(("#", "-")))]
    names = {re.split(r"[^\w.-]", line)[0] for line in needed if line}
    assert names - pinned.keys() == set(), "run scripts/lock"
    assert [name for name, hashes in pinned.items() if not hashes] == []


def test_the_supported_pythons_are_the_declared_ones() -> None:
    declared = [c.rpartition(" ")[2] for c in project()["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert declared == ["3.11", "3.12", "3.13", "3.14"]
    assert project()["requires-python"] == ">=3.11"


def test_a_pin_without_a_hash_would_be_noticed() -> None:
    assert pins(f"a==1 \\\n    --hash=sha256:{'0' * 64}\nb==2\n    # via a\n") == {"a": 1, "b": 0}
