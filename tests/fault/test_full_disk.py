"""A disk that is really full, as far as a process in a mount namespace of its own can tell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def test_a_full_disk_loses_nothing_lets_positions_pass_and_recovers(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("no mount namespaces here")
    ran = subprocess.run(
        ["unshare", "-rm", sys.executable, "-m", "tests.fault.full_disk", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["refused_after"] > 1_000
    assert found["kept"] == found["refused_after"] == found["offset_afterwards"]
    assert (found["refused_commits"], found["position"], found["integrity"]) == (0, 299, "ok")
    assert found["refused_while_full"]
    assert found["reserve"] == 4 << 20
