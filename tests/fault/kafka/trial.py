"""A trial: worker and publisher processes on brokers, killed and started again while things break beneath them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from postline.app import open_environment
from postline.clock import SystemClock
from postline.errors import LogUnavailable
from postline.log.port import Log
from postline.monitor import Monitor, SubscriptionView
from tests.brokers.cluster import Cluster
from tests.brokers.ready import silent
from tests.brokers.waiting import until
from tests.conformance.engines import empty
from tests.fault.journal import Entry, entries, open_work, path_of
from tests.fault.kafka.plan import ENOUGH, Plan, hold_of
from tests.fault.kafka.reader import Reader
from tests.fault.kafka.services import SUBSCRIPTIONS, invoices, orders

__all__ = ["Stuck", "Trial", "running"]

_ROOT = Path(__file__).resolve().parents[3]
_CLOCK = SystemClock()
_STUCK_SECONDS = 60.0
_POLL_SECONDS = 0.02
_PROGRESS_SECONDS = 3.0
_ANSWER_SECONDS = 20.0


class Stuck(AssertionError):
    """Nothing goes on although something is left to do, or a process ended by itself."""


class Place:
    """Where one process after another does the same work."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.life = 0
        self.process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Of the process of now."""
        assert self.process is not None
        return self.process.pid


class Trial:
    """Runs one plan in a directory; only its own children are ever signalled."""

    def __init__(self, cluster: Cluster, plan: Plan, directory: Path) -> None:
        self.cluster, self.plan, self.directory = cluster, plan, directory
        self.random = plan.random_of("trial")
        self.workers = [Place(f"worker-{number}") for number in range(plan.workers)]
        self.publishers = [Place(f"publisher-{number}") for number in range(plan.publishers)]
        #: How many kills hit a process of each role, and what it had begun by then.
        self.kills, self.within = Counter[str](), Counter[str]()
        self.reader: Reader
        plan.save(directory)

    @property
    def url(self) -> str:
        """The log, for all processes of the trial."""
        given = {"create_topics": "true", "cache_dir": str(self.directory / "cache"), **self.plan.options}
        return self.cluster.url + "?" + "&".join(f"{name}={value}" for name, value in given.items())

    # -- processes --------------------------------------------------------------------------------

    async def start(self, place: Place) -> None:
        """Start the next life of a process; returns at once."""
        place.life += 1
        role, _, number = place.name.partition("-")
        if role == "worker":
            apps = ("tests.fault.kafka.served:billing", "tests.fault.kafka.served:ledger")
            command = ["postline", "run", *apps, "--supervised", "--url", self.url]
        else:
            command = ["tests.fault.kafka.publisher", str(self.directory), number, str(place.life), self.url]
        with (self.directory / f"{place.name}.stderr").open("ab") as errors:
            place.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *command),
                stdin=asyncio.subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                cwd=_ROOT,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(sys.path),
                    "FAULT_DIRECTORY": str(self.directory),
                    "FAULT_SLOT": place.name,
                    "FAULT_LIFE": str(place.life),
                    "POSTLINE_INSTANCE": "trial",
                },
            )

    async def start_all(self) -> None:
        """Workers, then, with the topics there, a reader of what is committed, and publishers."""
        for place in self.workers:
            await self.start(place)
        for place in self.workers:
            await self.until(lambda place=place: "billing: running" in self.said(place), f"{place.name} runs")  # type: ignore[misc]
        await self.until(self._topics_are_there, "the topics are there")
        for place in self.publishers:
            await self.start(place)
        self.reader = Reader(self.cluster.bootstrap, (orders.name, invoices.name))

    def _topics_are_there(self) -> bool:
        return "ledger: running" in self.said(self.workers[0])

    async def kill(self, place: Place) -> None:
        """SIGKILL."""
        assert place.process is not None
        place.process.kill()
        if await place.process.wait() != -signal.SIGKILL:
            raise Stuck(f"{place.name} ended by itself:\n{self.said(place)[-4000:]}")
        self.kills[place.name.partition("-")[0]] += 1
        self.within.update(set(open_work(self.directory, place.name, place.life) or ["nothing"]))

    async def kill_and_start(self, place: Place) -> None:
        """SIGKILL, and its supervisor starts it again."""
        await self.kill(place)
        await self.start(place)

    async def kill_somebody(self) -> Place:
        """Kill a worker or a publisher in the middle of its work, and start it again."""
        place = self.random.choice([*self.workers, *self.workers, *self.publishers])
        await self.progress(place)
        await self.kill_and_start(place)
        return place

    def signal(self, place: Place, sent: signal.Signals) -> None:
        """SIGSTOP or SIGCONT."""
        assert place.process is not None
        place.process.send_signal(sent)

    async def stop(self, place: Place) -> None:
        """SIGTERM; it has to end well."""
        assert place.process is not None
        with contextlib.suppress(ProcessLookupError):
            place.process.terminate()
        await self.ended(place)

    async def ended(self, place: Place) -> None:
        """It ends, without an error."""
        assert place.process is not None
        try:
            async with asyncio.timeout(_STUCK_SECONDS):
                code = await place.process.wait()
        except TimeoutError:
            raise Stuck(f"{place.name} does not come to its end:\n{self.said(place)[-4000:]}") from None
        if code:
            raise Stuck(f"{place.name} ended with {code}:\n{self.said(place)[-4000:]}")
        place.process = None

    async def end_all(self) -> None:
        """Kill whatever still runs."""
        for place in (*self.workers, *self.publishers):
            if place.process is not None and place.process.returncode is None:
                place.process.kill()
                await place.process.wait()

    # -- seeing -----------------------------------------------------------------------------------

    def said(self, place: Place) -> str:
        """All that the processes of a place have said."""
        return (self.directory / f"{place.name}.stderr").read_text(errors="replace")

    def journal(self, place: Place, mark: str) -> list[Entry]:
        """What a place's processes wrote down under a mark."""
        return [entry for entry in entries(self.directory, place.name) if entry.mark == mark]

    def written(self, place: Place) -> int:
        """How much this life has written down."""
        with contextlib.suppress(FileNotFoundError):
            return path_of(self.directory, place.name, place.life).stat().st_size
        return 0

    async def until(
        self, condition: Callable[[], object], what: str, seconds: float = _STUCK_SECONDS, *, alive: bool = True
    ) -> None:
        """Wait for a condition, which may be async; Stuck if it takes too long or a process ends by itself."""

        async def holds() -> object:
            answer = condition()
            return await answer if isinstance(answer, Awaitable) else answer

        end = _CLOCK.monotonic() + seconds
        while not await holds():
            if alive:
                self.require_alive()
            if _CLOCK.monotonic() > end:
                await self._write_stacks()
                raise Stuck(f"it never came to this: {what}\n{self._last_words()}")
            await asyncio.sleep(_POLL_SECONDS)

    async def _write_stacks(self) -> None:
        """Have every worker that can say where its threads stand; what they say is in their files."""
        for place in self.workers:
            if place.process is not None and place.process.returncode is None and "running" in self.said(place):
                said = len(self.said(place))
                place.process.send_signal(signal.SIGUSR1)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        while len(self.said(place)) == said:
                            await asyncio.sleep(_POLL_SECONDS)

    def _last_words(self) -> str:
        places = (*self.workers, *self.publishers)
        return "\n".join(f"{place.name} said:\n{self.said(place)[-6000:]}" for place in places if place.life)

    def require_alive(self) -> None:
        """Stuck if a process ended by itself."""
        for place in (*self.workers, *self.publishers):
            if place.process is not None and place.process.returncode is not None:
                code, words = place.process.returncode, self.said(place)[-4000:]
                raise Stuck(f"{place.name} ended by itself with {code}:\n{words}")

    async def progress(self, *places: Place, some_bytes: int = 6_000) -> None:
        """Wait until each has written down some more; not for ever, for it may have nothing to do."""
        for place in places:
            # Now and then one that only just starts.
            if self.random.random() > 0.1:
                await self.until(lambda: self.written(place) > 200, f"{place.name} works")  # noqa: B023
            wanted = self.written(place) + self.random.randrange(1, some_bytes)
            with contextlib.suppress(Stuck):
                await self.until(lambda: self.written(place) >= wanted, "progress", _PROGRESS_SECONDS)  # noqa: B023
            self.require_alive()

    async def acknowledged(self, more: int) -> None:
        """Wait until so many more orders are acknowledged."""
        await self._more(self.publishers, "ack", more)

    async def billed(self, more: int, *places: Place) -> None:
        """Wait until so many more orders were handled, by anybody or by one of these."""
        await self._more(places or self.workers, "ok", more)

    async def _more(self, places: Sequence[Place], mark: str, more: int) -> None:
        wanted = self._marks(places, mark) + more
        await self.until(lambda: self._marks(places, mark) >= wanted, f"{more} more {mark} of {places[0].name}")

    def _marks(self, places: Sequence[Place], mark: str) -> int:
        """How often these have written a mark, counted quickly."""
        files = [path_of(self.directory, each.name, life) for each in places for life in range(1, each.life + 1)]
        return sum(path.read_bytes().count(f" {mark} ".encode()) for path in files if path.exists())

    @asynccontextmanager
    async def log(self) -> AsyncIterator[Log]:
        """The log, open for somebody who looks on."""
        environment = open_environment(self.url)
        await environment.log.start()
        try:
            yield environment.log
        finally:
            await environment.log.close()

    # -- standing in transactions -----------------------------------------------------------------

    async def hold(self, place: Place, *, partitions: int = 1) -> None:
        """Have a worker stand in the middle of a transaction with invoices of so many partitions."""
        before = self._marks([place], "stands")
        hold_of(self.directory, place.name).write_text(str(partitions))
        await self.until(lambda: self._marks([place], "stands") > before, f"{place.name} stands in a transaction")

    def let_go(self, place: Place) -> None:
        """Let it go on."""
        hold_of(self.directory, place.name).unlink()

    # -- the end ----------------------------------------------------------------------------------

    async def come_to_rest(self) -> None:
        """No more publishing; wait until everything is handled, then stop the workers politely."""
        (self.directory / ENOUGH).touch()
        for place in self.publishers:
            await self.ended(place)
        async with self.log() as log:
            monitor = Monitor(log, _CLOCK)
            last: list[SubscriptionView] = []

            async def handled() -> bool:
                # Twice: what is upstream may have put something downstream after that was looked at.
                for name in SUBSCRIPTIONS * 2:
                    try:
                        view = await monitor.subscription(name)
                    except LogUnavailable:
                        return False
                    last[:] = [*last[-1:], view]
                    if (view.lag_records, view.lag_seconds, view.held) != (0, 0.0, 0):
                        return False
                return True

            try:
                await self.until(handled, "everything is handled")
            except Stuck as stuck:
                raise Stuck(f"{last}\n{stuck}") from stuck
        for place in self.workers:
            if place.process is not None:
                await self.stop(place)


def _nobody_left(bootstrap: str) -> None:
    """Wait until the coordinator has given up the members of the trial before, which were killed."""
    admin = AdminClient({"bootstrap.servers": bootstrap}, logger=silent)

    def left() -> list[str]:
        groups = [each.group_id for each in admin.list_consumer_groups().result(_ANSWER_SECONDS).valid]
        told = admin.describe_consumer_groups(groups) if groups else {}
        return [name for name, future in told.items() if _members(future)]

    until(lambda: not left(), _STUCK_SECONDS, lambda: f"members that are dead stay in {left()}")


def _members(future: Any) -> int:
    try:
        return len(future.result(_ANSWER_SECONDS).members)
    except KafkaException:
        return 0  # it is gone meanwhile


@asynccontextmanager
async def running(cluster: Cluster, plan: Plan, directory: Path) -> AsyncIterator[Trial]:
    """A trial with everything at work, on a cluster that is emptied first; what still runs at the end is killed."""
    await asyncio.to_thread(_nobody_left, cluster.bootstrap)
    await asyncio.to_thread(empty, cluster.bootstrap)
    trial = Trial(cluster, plan, directory)
    try:
        await trial.start_all()
        yield trial
    finally:
        await trial.end_all()
        if hasattr(trial, "reader"):
            trial.reader.close()
