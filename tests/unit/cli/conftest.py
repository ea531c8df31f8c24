"""A project of its own for each test, and the command line run in this process."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from postline.app import Environment, open_environment
from postline.cli import main
from postline.clock import SystemClock
from postline.log.sqlite import SqliteLog

APP = """
from pathlib import Path
from msgspec import Struct
from postline import App, Context, Retry, Topic

orders = Topic("shop.orders", owner="shop", key="customer", partitions=2)

@orders.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    customer: str
    total: int

app = App("shop", owns=[orders])
billing = app.subscribe("billing", orders, start="earliest", state=int, retry=Retry(immediate=0, delays=()))

@billing.on(OrderPlaced)
async def bill(order: OrderPlaced, ctx: Context) -> None:
    if order.total < 0 and not Path("mended").exists():
        raise ValueError("negative")
    ctx.state.put((ctx.state.get() or 0) + order.total)
"""


class Result(NamedTuple):
    """What a run of the command line gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


class Project:
    """A directory with an app, and `postline` run in it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.file = folder / "postline.db"
        self._monkeypatch = monkeypatch
        self._capfd = capfd

    def run(self, *arguments: str, given: str = "") -> Result:
        """`postline …` with `given` on standard input."""
        source = self.folder / ".stdin"
        source.write_text(given)
        self._capfd.readouterr()
        with source.open() as stream:
            self._monkeypatch.setattr(sys, "stdin", stream)
            code = main(arguments)
        return Result(code, *self._capfd.readouterr())

    def write(self, name: str, text: str) -> None:
        """Put a file there."""
        (self.folder / name).write_text(text)

    def handle_all(self, app: str = "app.py") -> None:
        """Let the app run until it has handled everything."""
        from postline.cli.loading import load_app

        loaded = load_app(app)

        async def work(log: SqliteLog) -> None:
            await loaded.start(Environment(log, open_environment().settings))
            while not await loaded.caught_up():
                await asyncio.sleep(0.005)
            await loaded.stop()

        self.on_log(work)

    def on_log(self, work: Callable[[SqliteLog], Awaitable[None]]) -> None:
        """Do something on the project's log, opened in this process."""

        async def run() -> None:
            log = SqliteLog(str(self.file), clock=SystemClock())
            await log.start()
            try:
                await work(log)
            finally:
                await log.close()

        asyncio.run(run())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Project]:
    """A project with a small shop; modules that it imports are forgotten at the end."""
    for name in ("POSTLINE_URL", "POSTLINE_NAMESPACE", "POSTLINE_CONFIG", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    made = Project(tmp_path, monkeypatch, capfd)
    made.write("app.py", APP)
    yield made
    for name in [name for name in set(sys.modules) - before if not name.startswith("postline")]:
        del sys.modules[name]


@pytest.fixture
def broken(project: Project) -> Project:
    """The shop after some orders: ann's first one is a dead letter with two behind it, bob's are done."""
    lines = [("ann", -1), ("bob", 1), ("ann", 2), ("bob", 3), ("ann", 4)]
    given = "".join(json.dumps({"customer": customer, "total": total}) + "\n" for customer, total in lines)
    assert project.run("publish", "shop.orders", "shop.OrderPlaced", "--app", "app.py", given=given).code == 0
    project.handle_all()
    return project
