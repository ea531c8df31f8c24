"""Services as real processes on a file, started, watched and stopped as a user would."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from postline import App, Topic
from postline.app import open_environment
from postline.clock import SystemClock
from postline.monitor import Monitor

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


class Service:
    """A `postline run` process and what it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.said += line.decode()

    async def wait_for(self, words: str, times: int = 1) -> None:
        """Until it has said `words` so often; AssertionError if it ends before."""
        while self.said.count(words) < times:
            assert self.process.returncode is None, self.said
            await asyncio.sleep(0.01)

    async def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        """Its exit code, once it and all that it started have nothing more to say."""
        code = await self.process.wait()
        await self._reading
        return code


@asynccontextmanager
async def running_service(*targets: str, url: str, **variables: str) -> AsyncIterator[Service]:
    """`postline run` with these targets; stopped by SIGTERM at the end, and its exit code checked."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "postline", "run", *targets, "--url", url),
        cwd=EXAMPLES,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **variables},
        stderr=asyncio.subprocess.PIPE,
    )
    service = Service(process)
    try:
        await service.wait_for(": running", times=len(targets))
        yield service
        code = await service.stop()
        assert code == 0, service.said
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def publisher(url: str, topics: Iterable[Topic]) -> AsyncIterator[App]:
    """Another service that publishes to these topics from this process."""
    app = App("outside", publishes_to=topics, url=url)
    environment = open_environment(url)
    await app.start(environment, consume=False)
    try:
        yield app
    finally:
        await app.stop()
        await environment.log.close()


async def handled(app: App, service: Service, subscription: str, **outcomes: int) -> None:
    """Wait until the audit of a subscription shows exactly these outcomes, balanced."""
    monitor = Monitor(app.log, SystemClock())
    audit = await monitor.audit(subscription)
    while (found := {name.replace("-", "_"): n for name, n in audit.outcomes.items() if n}) != outcomes:
        assert service.process.returncode is None, f"{found}\n{service.said}"
        await asyncio.sleep(0.02)
        audit = await monitor.audit(subscription)
    assert audit.balanced


async def run_program(*arguments: str, **variables: str) -> str:
    """Run a Python program of the examples to its end; gives what it printed, its exit code must be 0."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        cwd=EXAMPLES,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **variables},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()
