"""A service that is told to stop ends, even if a plain handler never does; the record is handled by the next one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.processes import Service

ROOT = Path(__file__).resolve().parents[2]

APP = """
import os, threading
from msgspec import Struct
from postline import App, Topic

orders = Topic("shop.orders", owner="shop", key="customer", partitions=1)

@orders.event("shop.Order")
class Order(Struct):
    customer: str

app = App("shop", owns=[orders])
subscription = app.subscribe("working", orders, start="earliest")

@subscription.on(Order)
def work(order):
    if os.environ.get("STUCK"):
        print("in it", flush=True, file=__import__("sys").stderr)
        threading.Event().wait()
"""


class Project:
    """A directory with an app."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Service] = []
        (folder / "app.py").write_text(APP)

    async def start(self, *arguments: str, given: bytes = b"", **variables: str) -> Service:
        """Start `postline …`."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "postline", *arguments),
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **variables},
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert process.stdin is not None
        process.stdin.write(given)
        process.stdin.close()
        self.started.append(Service(process))
        return self.started[-1]


@pytest.fixture
async def project(tmp_path: Path) -> AsyncIterator[Project]:
    """With one order published; what still runs is killed at the end."""
    made = Project(tmp_path)
    publishing = await made.start(
        "publish", "shop.orders", "shop.Order", "--app", "app", given=b'{"customer": "ann"}\n'
    )
    assert await publishing.process.wait() == 0, publishing.said
    yield made
    for service in made.started:
        if service.process.returncode is None:
            service.process.kill()
            await service.process.wait()


async def _handled_by_the_next(project: Project) -> None:
    after = await project.start("run", "app.py")
    await after.wait_for("running working")
    code = 1
    while code == 1:
        lag = await project.start("lag", "--fail-above", "0")
        code = await lag.process.wait()
    assert code == 0, lag.said
    assert await after.stop() == 0


def _terminate(service: Service) -> None:
    """Not by asyncio: its `send_signal` polls the process first, and whoever waits for it then loses its exit code."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(service.process.pid, signal.SIGTERM)


async def test_a_second_signal_ends_a_service_whose_plain_handler_never_ends(project: Project) -> None:
    service = await project.start("run", "app.py", "--grace", "600", STUCK="1")
    await service.wait_for("in it")
    service.process.send_signal(signal.SIGTERM)
    await service.wait_for("stopping")
    # One that comes within a second of the first is taken for the same.
    while service.process.returncode is None:
        _terminate(service)
        await asyncio.sleep(0.05)
    assert service.process.returncode == 130
    assert "handlers still run in threads: shop handler_0" in service.said
    await _handled_by_the_next(project)


async def test_the_end_of_grace_ends_a_service_whose_plain_handler_never_ends(project: Project) -> None:
    service = await project.start("run", "app.py", "--grace", "0.1", STUCK="1")
    await service.wait_for("in it")
    service.process.send_signal(signal.SIGTERM)
    assert await service.process.wait() == 0
    await _handled_by_the_next(project)


async def test_a_signal_that_arrives_again_and_again_changes_no_clean_end(project: Project) -> None:
    service = await project.start("run", "app.py")
    await service.wait_for("running working")
    # Much less than a second apart, until it is gone: also while the interpreter ends.
    while service.process.returncode is None:
        _terminate(service)
        await asyncio.sleep(0.001)
    assert service.process.returncode == 0, service.said
