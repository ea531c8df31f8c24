"""What the official AsyncAPI parser needs: Node.js, and the packages of package-lock.json in `build/asyncapi`, by npm.

`python -m tests.asyncapi.install` fetches them; so does the first test that asks.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["HOME", "install", "require_parser"]

HOME = Path(__file__).resolve().parents[2] / "build" / "asyncapi"
_FILES = [Path(__file__).with_name(name) for name in ("package.json", "package-lock.json", "validate.mjs")]
_STAMP = HOME / "files.sha256"
_COMMAND = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]


def install() -> str:
    """Fetch what is not there yet; in words for whoever has to mend it why that failed, empty if it is there."""
    if missing := [name for name in ("node", "npm") if shutil.which(name) is None]:
        return f"the official AsyncAPI parser needs {' and '.join(missing)}: install Node.js 20 or newer"
    with _locked():
        return "" if _is_there() else _fetched()


def require_parser() -> Path:
    """The script that validates documents. Skips the test where it can't run, and says why."""
    if reason := install():
        pytest.skip(reason)
    return HOME / "validate.mjs"


def _fetched() -> str:
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    for path in _FILES:
        shutil.copy(path, HOME)
    done = subprocess.run(_COMMAND, cwd=HOME, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"npm fetched no AsyncAPI parser; check the network and run it again. It said: {done.stderr[-500:]}"
    _STAMP.write_text(_wanted(), encoding="ascii")
    return ""


def _is_there() -> bool:
    return _STAMP.exists() and _STAMP.read_text(encoding="ascii") == _wanted()


def _wanted() -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in _FILES)).hexdigest()


@contextmanager
def _locked() -> Iterator[None]:
    """Tests of several processes fetch once."""
    HOME.parent.mkdir(exist_ok=True)
    with (HOME.parent / "asyncapi.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(install() or 0)
