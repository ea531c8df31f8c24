"""What brokers need on this machine: Java, and the jars of Apache Kafka in `.kafka/libs`, by Maven from `pom.xml`."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.brokers.waiting import BrokerError

__all__ = ["HOME", "LIBS", "can_install_jars", "find_java", "install", "jars_are_there", "locked", "missing"]

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".kafka"
LIBS = HOME / "libs"
POM = Path(__file__).with_name("pom.xml")

JAVA_MIN = 17
_PACKAGES = {"java": "default-jre-headless", "mvn": "maven", "kcat": "kcat"}
# Asked for once in vain is enough.
_NO_KCAT = HOME / "no-kcat"
Say = Callable[[str], None]


@cache
def find_java() -> Path | None:
    """The Java to run brokers with (JAVA_HOME's, else the PATH's); None when there is none of version 17 or newer."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin" if home else None) or shutil.which("java")
    if found is None:
        return None
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    return Path(found) if version and int(version[1]) >= JAVA_MIN else None


def jars_are_there() -> bool:
    """Whether the jars that the pom asks for are installed."""
    stamp = LIBS / "pom.sha256"
    return stamp.exists() and stamp.read_text(encoding="ascii") == _wanted()


def can_install_jars() -> bool:
    """Whether jars could be installed with what is on this machine already."""
    return find_java() is not None and shutil.which("mvn") is not None


def missing() -> str:
    """Why no broker can start here, in words for whoever has to mend it; empty when one can."""
    if find_java() is None:
        return f"no Java {JAVA_MIN} or newer here: run `scripts/kafka install`"
    return "" if jars_are_there() else "the jars of Apache Kafka are not installed: run `scripts/kafka install`"


def install(say: Say, *, system: bool = True) -> None:
    """Install what is missing: with `system` also Java, Maven and kcat by apt, where that is allowed.

    Safe to run twice at a time, and quick when nothing is missing. BrokerError says what to install by hand.
    """
    HOME.mkdir(exist_ok=True)
    with locked(HOME / "install.lock"):
        failures = _install_programs(say) if system else []
        if reason := _programs_missing():
            raise BrokerError("\n".join([reason, *failures]))
        if not jars_are_there():
            _install_jars(say)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone with what the file stands for, among all processes of this machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _wanted() -> str:
    return hashlib.sha256(POM.read_bytes()).hexdigest()


def _programs_missing() -> str:
    """What has to be installed before the jars can be used, or fetched when they are missing."""
    wanted = []
    if find_java() is None:
        wanted.append(f"Java {JAVA_MIN} or newer (a headless runtime is enough)")
    if not jars_are_there() and shutil.which("mvn") is None:
        wanted.append("Apache Maven")
    if not wanted:
        return ""
    packages = f"{_PACKAGES['java']} {_PACKAGES['mvn']}"
    return (
        f"missing: {' and '.join(wanted)}. On Debian and Ubuntu: `apt-get install {packages}`;"
        " with Homebrew: `brew install openjdk maven`. Then run `scripts/kafka install` again"
    )


def _install_programs(say: Say) -> list[str]:
    """Install by apt-get what is missing, and give what failed."""
    lacking = [name for name, there in _there().items() if not there]
    if not lacking:
        return []
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        if "kcat" in lacking:
            say("kcat is not here; only the tests of interoperability use it")
        return []
    say(f"installing {', '.join(_PACKAGES[name] for name in lacking)} by apt-get")
    # One at a time: kcat is a nicety that some releases don't have.
    failures = [_apt("update", "-qq")]
    failures += [_apt("install", "-y", "-qq", "--no-install-recommends", _PACKAGES[name]) for name in lacking]
    find_java.cache_clear()
    if shutil.which("kcat") is None:
        _NO_KCAT.touch()
        say("apt-get has no kcat; only the tests of interoperability use it")
    return [failure for failure in failures if failure]


def _there() -> dict[str, bool]:
    return {
        "java": find_java() is not None,
        "mvn": jars_are_there() or shutil.which("mvn") is not None,
        "kcat": shutil.which("kcat") is not None or _NO_KCAT.exists(),
    }


def _apt(*arguments: str) -> str:
    """Run apt-get; what it said if it failed."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["apt-get", *arguments], env=environment, capture_output=True, text=True, check=False)
    return f"apt-get {' '.join(arguments)} failed: {done.stderr.strip()}" if done.returncode else ""


def _install_jars(say: Say) -> None:
    say("fetching the jars of Apache Kafka with Maven")
    fresh = HOME / "libs.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fetch = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={fresh}"]
    done = subprocess.run(["mvn", "-B", "-q", "-f", str(POM), *fetch], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BrokerError(f"Maven fetched no jars; check the network and run it again. It said:\n{done.stdout[-2000:]}")
    (fresh / "pom.sha256").write_text(_wanted(), encoding="ascii")
    shutil.rmtree(LIBS, ignore_errors=True)
    fresh.rename(LIBS)
