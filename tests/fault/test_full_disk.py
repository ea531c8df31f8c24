"""A disk that is really full, as far as a process in a mount namespace of its own can tell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def _story(module: str, place: Path) -> dict[str, Any]:
    """Run it where it may mount a small disk on `place`; what it found."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("no mount namespaces here")
    ran = subprocess.run(
        ["unshare", "-rm", sys.executable, "-m", module, str(place)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_a_full_disk_loses_nothing_lets_positions_pass_and_recovers(tmp_path: Path) -> None:
    found = _story("tests.fault.full_disk", tmp_path)
    assert found["refused_after"] > 1_000
    assert found["kept"] == found["refused_after"] == found["offset_afterwards"]
    assert (found["refused_commits"], found["position"], found["integrity"]) == (0, 299, "ok")
    assert found["refused_while_full"]
    assert found["reserve"] == 4 << 20


def test_a_service_goes_on_where_it_was_once_its_disk_has_room(tmp_path: Path) -> None:
    found = _story("tests.fault.full_disk_app", tmp_path)
    assert found["refused after"] > 300
    assert found["refused while full"]
    # Invoices of handlers that had run found no room: not one was stored then, and each exactly once afterwards.
    assert found["invoices while full"] == 0
    assert found["invoiced"] == found["acknowledged"]
    assert all(found["totals"])
    assert (found["runs"], found["done"], found["balanced"]) == (1, len(found["acknowledged"]), True)
    assert found["integrity"] == ["ok"]


def test_a_backup_or_restore_whose_disk_fills_up_leaves_nothing_but_the_last_good_one(tmp_path: Path) -> None:
    found = _story("tests.fault.full_target", tmp_path)
    assert "needs" in found["foreseen"]
    assert "no room left" in found["half-way"]
    assert "no room left" in found["restored half-way"]
    assert (found["left"], found["last good one"]) == (["backup.db"], True)
    assert found["offset"] == 5_100
