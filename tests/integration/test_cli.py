"""The command line as real processes: services that run, die, are restarted and told to stop; operators beside them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"

APP = """
import asyncio
from pathlib import Path
from msgspec import Struct
from postline import App, Context, Retry, Topic

orders = Topic("shop.orders", owner="shop", key="customer", partitions=4)
invoices = Topic("billing.invoices", owner="billing", key="customer", partitions=4)

@orders.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    customer: str
    total: int

@invoices.event("billing.InvoiceIssued")
class InvoiceIssued(Struct, frozen=True):
    customer: str
    total: int

shop = App("shop", owns=[orders])
app = App("billing", owns=[invoices], publishes_to=[orders])
billing = app.subscribe("billing", orders, start="earliest", retry=Retry(immediate=0, delays=()))

@billing.on(OrderPlaced)
async def bill(order: OrderPlaced, ctx: Context) -> InvoiceIssued:
    if order.total == -1 and not Path("mended").exists():
        raise ValueError("negative")
    if order.total == -2:
        Path("began").touch()
        await asyncio.Event().wait()
    return InvoiceIssued(order.customer, order.total)
"""


class Postline:
    """One `postline` process, and what it says on standard error."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.said += line.decode()

    async def wait_for(self, pattern: str, times: int = 1) -> list[Any]:
        """Until it has said this so often; gives what was found. AssertionError if it ends before."""
        while len(found := re.findall(pattern, self.said)) < times:
            assert self.process.returncode is None, self.said
            await asyncio.sleep(0.01)
        return found

    def tell(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal; not by asyncio, which polls first, and would lose the exit code of one that ends just then."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    async def ended(self) -> int:
        """Its exit code, once everything that it said has been read."""
        code = await self.process.wait()
        await self._reading
        return code


class Project:
    """A directory with the apps, in which `postline` is run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "app.py").write_text(APP)
        self._started: list[Postline] = []

    async def start(self, *arguments: str) -> Postline:
        """Start `postline …` and leave it running."""
        started = Postline(await self._execute(arguments, stdin=None))
        self._started.append(started)
        return started

    async def run(self, *arguments: str, given: str = "") -> tuple[int, str, str]:
        """Run `postline …` to its end: exit code, standard output, standard error."""
        process = await self._execute(arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        out, err = await process.communicate(given.encode())
        return process.returncode or 0, out.decode(), err.decode()

    async def _execute(self, arguments: tuple[str, ...], **streams: Any) -> asyncio.subprocess.Process:
        environment = {name: text for name, text in os.environ.items() if not name.startswith("POSTLINE_")}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "postline", *arguments),
            cwd=self.folder,
            env={**environment, "PYTHONPATH": str(SOURCE)},
            stderr=asyncio.subprocess.PIPE,
            **streams,
        )

    async def json(self, *arguments: str) -> Any:
        """What a command that must succeed writes."""
        code, out, err = await self.run(*arguments)
        assert code == 0, err
        return json.loads(out)

    async def publish(self, *orders: tuple[str, int]) -> None:
        """Publish orders through the shop's contract."""
        lines = "".join(json.dumps({"customer": customer, "total": total}) + "\n" for customer, total in orders)
        command = ("publish", "shop.orders", "shop.OrderPlaced", "--app", "app:shop")
        code, _, err = await self.run(*command, given=lines)
        assert code == 0, err

    async def outcomes(self) -> dict[str, int]:
        """What billing has done, from a balanced audit."""
        (audit,) = await self.json("audit", "billing")
        return {name: count for name, count in audit["outcomes"].items() if count}

    async def handled(self, service: Postline, **wanted: int) -> None:
        """Wait until billing's outcomes are these."""
        while (found := await self.outcomes()) != {name.replace("_", "-"): n for name, n in wanted.items()}:
            assert service.process.returncode is None, f"{found}\n{service.said}"

    async def kill_all(self) -> None:
        """End what still runs."""
        for started in self._started:
            if started.process.returncode is None:
                started.process.kill()
            await started.ended()


@pytest.fixture
async def project(tmp_path: Path) -> AsyncIterator[Project]:
    made = Project(tmp_path)
    yield made
    await made.kill_all()


@asynccontextmanager
async def serving(project: Project, *arguments: str) -> AsyncIterator[Postline]:
    """`postline run app:shop app:app …`, up and running; stopped cleanly at the end."""
    service = await project.start("run", "app:shop", "app:app", *arguments)
    await service.wait_for("billing: running")
    yield service
    service.tell()
    assert await service.ended() == 0, service.said
    assert "Traceback" not in service.said


async def test_a_service_says_where_its_log_is_and_stops_cleanly(project: Project) -> None:
    async with serving(project) as service:
        assert re.search(rf"log {re.escape(str(project.folder / 'postline.db'))}", service.said)
        await project.publish(("ann", 1), ("bob", 2))
        await project.handled(service, done=2)
    assert "stopped: committed and left" in service.said
    assert (await project.json("lag"))[0]["status"] == "no member"


async def test_an_operator_redrives_beside_a_running_service(project: Project) -> None:
    async with serving(project) as service:
        await project.publish(("ann", -1), ("ann", 2), ("bob", 3))
        await project.handled(service, done=1, dead_lettered=1, held=1)
        (project.folder / "mended").touch()
        answer = await project.json("dlq", "redrive", "billing", "--all", "--wait", "60")
        assert answer["status"] == "done"
        await project.handled(service, done=3)
        for command in ("pause", "resume"):
            assert (await project.json("subscriptions", command, "billing", "--wait", "60"))["status"] == "done"
        code, _, err = await project.run("subscriptions", "remove", "billing", "--yes")
        assert code == 2
        assert "live members" in err
        reset = await project.json("subscriptions", "reset", "billing", "--to-earliest", "--yes", "--wait", "60")
        assert reset["status"] == "done"
        await project.handled(service, done=3)


async def test_a_second_signal_aborts_what_the_first_one_waits_for(project: Project) -> None:
    service = await project.start("run", "app:shop", "app:app", "--grace", "600")
    await service.wait_for("billing: running")
    await project.publish(("ann", -2))
    while not (project.folder / "began").exists():
        await asyncio.sleep(0.01)
    service.tell(signal.SIGINT)
    await service.wait_for("stopping")
    # One that comes within a second of the first is taken for the same.
    while service.process.returncode is None:
        service.tell(signal.SIGINT)
        await asyncio.sleep(0.05)
    assert await service.ended() == 130
    assert "aborted" in service.said
    assert "Traceback" not in service.said
    assert await project.outcomes() == {}


async def test_a_killed_worker_is_restarted_and_nothing_is_lost(project: Project) -> None:
    async with serving(project, "--workers", "2") as service:
        await service.wait_for("billing: running", times=2)
        await project.publish(*((f"c{number % 7}", number) for number in range(200)))
        victim = int((await service.wait_for(r"worker 0 started as (\d+)"))[0])
        os.kill(victim, signal.SIGKILL)
        await service.wait_for("worker 0 was killed by SIGKILL")
        await service.wait_for("billing: running", times=3)
        await project.publish(*((f"c{number % 7}", number) for number in range(200)))
        await project.handled(service, done=400)
    assert "all workers have stopped" in service.said


async def test_workers_stop_by_themselves_when_their_supervisor_is_killed(project: Project) -> None:
    service = await project.start("run", "app:shop", "app:app", "--workers", "2")
    await service.wait_for("billing: running", times=2)
    service.tell(signal.SIGKILL)
    # The workers hold its standard error: it ends when they have.
    await service.ended()
    assert service.said.count("stopped: committed and left") == 2


async def test_a_changed_source_restarts_the_service(project: Project) -> None:
    async with serving(project, "--watch") as service:
        (project.folder / "app.py").write_text(APP.replace('"billing.InvoiceIssued"', '"billing.Invoice"'))
        await service.wait_for(r"changed: app\.py")
        await service.wait_for("billing: running", times=2)
        (project.folder / "app.py").write_text("nonsense(")
        await service.wait_for("exited with code 2; waiting for a change")
        (project.folder / "app.py").write_text(APP)
        await service.wait_for("billing: running", times=3)


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["one process", "workers"])
async def test_settings_that_contradict_each_other_end_the_start(project: Project, workers: list[str]) -> None:
    wrong = 'app.subscribe("other", orders, start="earliest", order="none", after="hold")\n'
    (project.folder / "wrong.py").write_text(APP + wrong)
    code, _, err = await project.run("run", "wrong:app", *workers)
    assert code == 2
    assert 'order="none" keeps no order' in err
    assert "Traceback" not in err


@pytest.mark.slow
async def test_workers_that_fail_again_and_again_are_given_up(project: Project) -> None:
    (project.folder / "failing.py").write_text(
        "from contextlib import asynccontextmanager\n"
        "from postline import App\n"
        "@asynccontextmanager\n"
        "async def lifespan(app):\n"
        "    raise RuntimeError('no database')\n"
        "    yield\n"
        "app = App('failing', lifespan=lifespan)\n"
    )
    code, _, err = await project.run("run", "failing")
    assert code == 4
    assert "RuntimeError: no database" in err
    code, _, err = await project.run("run", "failing", "--workers", "1")
    assert code == 4
    assert re.findall(r"restarting in ([0-9.]+) s", err) == ["0.1", "0.2", "0.4", "0.8", "1.6"]
    assert "exited with code 4; giving up" in err


async def test_two_services_with_one_subscription_name_are_told_apart(project: Project) -> None:
    async with serving(project):
        (project.folder / "other.py").write_text(
            APP.replace('App("billing"', 'App("intruder"')
            .replace('owner="billing"', 'owner="intruder"')
            .replace("billing.invoices", "intruder.invoices")
        )
        code, _, err = await project.run("run", "other:app")
        assert code == 3
        assert "Subscription 'billing' belongs to service 'billing'" in err
        assert "fix: Give the subscription another name" in err


async def test_an_unknown_topic_is_named(project: Project) -> None:
    (project.folder / "reader.py").write_text(
        "from msgspec import Struct\n"
        "from postline import App, ForeignTopic\n"
        "foreign = ForeignTopic('nobody.knows')\n"
        "@foreign.reads('a.B')\n"
        "class B(Struct): ...\n"
        "app = App('reader')\n"
        "subscription = app.subscribe('reading', foreign, start='earliest')\n"
        "@subscription.on(B)\n"
        "def read(b): ...\n"
    )
    code, _, err = await project.run("run", "reader:app")
    assert code == 3
    assert "needs topic 'nobody.knows'" in err
    assert "Traceback" not in err


async def test_a_changed_number_of_partitions_is_refused(project: Project) -> None:
    async with serving(project):
        pass
    (project.folder / "changed.py").write_text(APP.replace("partitions=4", "partitions=5"))
    code, _, err = await project.run("run", "changed:shop")
    assert code == 3
    assert "partitions are 4, the contract says 5" in err


async def test_a_log_in_memory_is_refused_with_workers(project: Project) -> None:
    code, _, err = await project.run("run", "app:app", "--workers", "2", "--url", "sqlite://")
    assert code == 2
    assert "several processes can't share" in err


async def test_apps_on_one_log_in_memory_share_it(project: Project) -> None:
    async with serving(project, "--url", "sqlite://") as service:
        assert service.said.count("log in memory") == 1


async def test_subscriptions_that_no_code_serves_are_named_at_start(project: Project) -> None:
    async with serving(project):
        pass
    # Of another length: Python takes a cached module for fresh if time (in seconds) and size are the same.
    (project.folder / "app.py").write_text(APP.replace('subscribe("billing"', 'subscribe("under-another-name"'))
    async with serving(project) as service:
        await service.wait_for("subscription billing of service billing is not served by this version")


async def test_tail_follows_until_it_is_interrupted(project: Project) -> None:
    async with serving(project):
        process = await project._execute(
            ("tail", "shop.orders", "--from", "earliest", "--follow"), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        for number in (1, 2):
            await project.publish(("ann", number))
            line = await process.stdout.readline()
            assert json.loads(line)["data"] == {"customer": "ann", "total": number}
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


async def test_a_reader_that_has_seen_enough_ends_the_command_quietly(project: Project) -> None:
    async with serving(project):
        await project.publish(*(("ann", number) for number in range(3_000)))
    command = f"{sys.executable} -m postline tail shop.orders --from earliest | head -n 1"
    process = await asyncio.create_subprocess_shell(
        command,
        cwd=project.folder,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (len(out.splitlines()), err) == (1, b"")
