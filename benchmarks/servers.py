"""Servers that peers need: had from the system's packages if need be, on a free port of this machine, for a while."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = ["free_port", "lacking", "served"]


def lacking(module: str, extra: str, program: str) -> str:
    """Why a peer's client or server can't be had, after trying; "" if they can."""
    try:
        importlib.import_module(module)
    except ImportError:
        return f"{extra} is not installed (scripts/bench installs it)."
    if not shutil.which(program) and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        command = ["apt-get", "install", "-y", "-qq", program]
        subprocess.run(command, check=False, env=environment, capture_output=True)
    return "" if shutil.which(program) else f"there is no {program} (apt-get install {program})."


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(command: Sequence[str], port: int) -> Iterator[int]:
    """The port of a server that runs meanwhile; it answers by then."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _until_it_answers(port, command[0])
            yield port
        finally:
            server.terminate()


def _until_it_answers(port: int, program: str) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"{program} does not answer on port {port}")
