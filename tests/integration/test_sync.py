"""`postline.sync`: synchronous programs publish durably, from threads and forked children, with a clean end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec import Struct

from postline import App, CommandTopic, EncodeError, RequestTimeout, Topic, UsageError, sync
from postline.app import Environment
from postline.clock import SystemClock
from postline.errors import PublishTimeout
from postline.log.sqlite import SqliteLog
from postline.settings import LogUrl, Settings

ROOT = Path(__file__).resolve().parents[2]

orders = Topic("shop.orders", owner="shop", key="customer")


@orders.event("shop.Order")
class Order(Struct, frozen=True):
    id: str
    customer: str


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POSTLINE_URL", f"sqlite:///{tmp_path}/orders.db")
    return tmp_path / "orders.db"


@pytest.fixture
def shop(file: Path) -> Iterator[sync.Connection]:
    with sync.connect(App("shop", owns=[orders])) as connection:
        yield connection


def stored(file: Path) -> list[str]:
    """The ids of all orders in the file."""

    async def read() -> list[str]:
        log = SqliteLog(str(file), clock=SystemClock())
        await log.start()
        try:
            ids = [r for p in range(8) for r in await log.read("shop.orders", p, 0, limit=10_000, max_bytes=1 << 30)]
            return sorted(orders.decoder_of("shop.Order")(r[4] or b"").id for r in ids)
        finally:
            await log.close()

    return asyncio.run(read())


def test_what_publish_returned_for_is_in_the_file(shop: sync.Connection, file: Path):
    published = shop.publish(Order("1", "c"), id="one", headers={"tenant": "north"})
    assert (published.id, published.topic, published.offset) == ("one", "shop.orders", 0)
    assert [p.offset for p in shop.publish_many(Order(str(n), "c") for n in range(2, 5))] == [1, 2, 3]
    assert stored(file) == ["1", "2", "3", "4"]


def test_a_command_is_sent_with_a_priority_and_repeated_where_the_first_lies(file: Path):
    prints = CommandTopic("prints", owner="printer", key="id", partitions=1, priorities={"high": 0, "normal": 0})
    prints.command("prints.Print")(type("Print", (Struct,), {"__annotations__": {"id": str}}))
    (printed,) = prints.commands.classes
    with sync.connect(App("shop", publishes_to=[prints])) as connection:
        for priority in ("high", "normal"):
            connection.send(printed("a"), request_id="r-1", priority=priority)
        with pytest.raises(RequestTimeout):
            connection.request(printed("a"), priority="high", timeout_seconds=0.01)

    async def stored() -> list[int]:
        log = SqliteLog(str(file), clock=SystemClock())
        await log.start()
        try:
            return [(await log.bounds(name))[0].end for name in ("prints.commands", "prints.commands.high")]
        finally:
            await log.close()

    assert asyncio.run(stored()) == [0, 3]


def test_many_threads_publish_through_one_connection(shop: sync.Connection, file: Path):
    def publish(number: int) -> None:
        for n in range(10):
            shop.publish(Order(f"{number}-{n}", f"c{number}"))

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(stored(file))) == 80


def test_all_connections_of_a_process_share_one_thread(shop: sync.Connection, file: Path):
    with sync.connect(App("shop", owns=[orders])) as second:
        second.publish(Order("1", "c"))
        shop.publish(Order("2", "c"))
        assert [thread.name for thread in threading.enumerate()].count("postline-sync") == 1
    assert stored(file) == ["1", "2"]


def test_nothing_is_opened_before_the_first_call(file: Path):
    with sync.connect(App("shop", owns=[orders])):
        assert not file.exists()


def test_a_closed_connection_opens_again_at_the_next_call(shop: sync.Connection, file: Path):
    shop.publish(Order("1", "c"))
    shop.close()
    shop.close()
    shop.publish(Order("2", "c"))
    assert stored(file) == ["1", "2"]


def test_a_call_inside_an_event_loop_is_refused_with_the_way_out(shop: sync.Connection):
    async def view() -> None:
        shop.publish(Order("1", "c"))

    with pytest.raises(UsageError, match=r"inside a running event loop.*await app\.publish"):
        asyncio.run(view())


def test_errors_of_messages_reach_the_caller(shop: sync.Connection):
    with pytest.raises(EncodeError):
        shop.publish(Order("1", ""))


def test_a_start_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("POSTLINE_URL", f"sqlite:///{tmp_path}/missing/orders.db")
    with sync.connect(App("shop", owns=[orders])) as shop:
        with pytest.raises(Exception, match="missing"):
            shop.publish(Order("1", "c"))
        (tmp_path / "missing").mkdir()
        shop.publish(Order("1", "c"))
    assert stored(tmp_path / "missing" / "orders.db") == ["1"]


def test_a_log_that_does_not_answer_in_time_leaves_an_unknown_outcome(shop: sync.Connection, file: Path):
    import apsw

    shop.publish(Order("1", "c"))
    other = apsw.Connection(str(file))
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(PublishTimeout, match="same id"):
            shop.publish(Order("2", "c"), id="two", timeout_seconds=0.05)
    finally:
        other.execute("ROLLBACK")
        other.close()
    shop.publish(Order("2", "c"), id="two")
    assert set(stored(file)) == {"1", "2"}


async def test_a_plain_handler_may_not_publish_around_its_context(file: Path):
    refused: list[str] = []
    shop = sync.connect(App("shop", owns=[orders]))
    app = App("reader")
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    @app.subscribe("reader", orders, start="earliest").on(Order)
    def handle(order: Order) -> None:
        try:
            shop.publish(Order("2", "c"))
        except UsageError as error:
            refused.append(error.message)
        loop.call_soon_threadsafe(done.set)

    await asyncio.to_thread(shop.publish, Order("1", "c"))
    log = SqliteLog(str(file), clock=SystemClock())
    await app.start(Environment(log, Settings(url=LogUrl("sqlite"))))
    await done.wait()
    await app.stop()
    await log.close()
    await asyncio.to_thread(shop.close)
    assert "app.publish was called in a handler" in refused[0]


PROGRAM = """
import os, sys, threading
from msgspec import Struct
from postline import App, Topic, sync
orders = Topic("shop.orders", owner="shop", key="customer")

@orders.event("shop.Order")
class Order(Struct):
    id: str
    customer: str

shop = sync.connect(App("shop", owns=[orders]))
"""

FORKS = """
shop.publish(Order("parent before", "c"))
children = []
for n in range(3):
    pid = os.fork()
    if pid == 0:
        shop.publish(Order(f"child {n}", "c"))
        sys.exit(0)
    children.append(pid)
shop.publish(Order("parent after", "c"))
codes = [os.waitpid(pid, 0)[1] for pid in children]
assert codes == [0, 0, 0], codes
shop.publish(Order("parent at last", "c"))
"""

FORKS_WHILE_PUBLISHING = """
def keep_publishing():
    for n in range(50):
        shop.publish(Order(f"thread {n}", "c"))

thread = threading.Thread(target=keep_publishing)
thread.start()
for n in range(5):
    pid = os.fork()
    if pid == 0:
        shop.publish(Order(f"child {n}", "c"))
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
thread.join()
"""


#: From 3.12 on Python warns of forking beside threads, which is what this is about.
FORKING = ("-W", "ignore::DeprecationWarning")


PARENT_ENDS_FIRST = """
shop.publish(Order("parent", "c"))
ready, go = os.pipe(), os.pipe()
if os.fork() == 0:
    shop.publish(Order("child before", "c"))
    os.write(ready[1], b"1")
    os.close(go[1])
    os.read(go[0], 1)  # ends when the parent does
    for n in range(20):
        shop.publish(Order(f"child {n:02}", "c"))
    sys.exit(0)
os.read(ready[0], 1)
shop.publish(Order("parent at last", "c"))
"""


def run_program(text: str, *options: str) -> SimpleNamespace:
    command = [sys.executable, "-W", "error", *options, "-c", PROGRAM + text]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)
    return SimpleNamespace(code=ran.returncode, errors=ran.stderr)


def test_forked_children_start_their_own_thread_and_the_parent_goes_on(file: Path):
    ran = run_program(FORKS, *FORKING)
    assert (ran.code, ran.errors) == (0, "")
    expected = ["parent before", "parent after", "parent at last", *(f"child {n}" for n in range(3))]
    assert stored(file) == sorted(expected)


def test_forking_while_other_threads_publish_loses_nothing(file: Path):
    ran = run_program(FORKS_WHILE_PUBLISHING, *FORKING)
    assert (ran.code, ran.errors) == (0, "")
    assert len(stored(file)) == 55


def test_what_a_child_publishes_after_its_parents_end_is_durable(file: Path):
    ran = run_program(PARENT_ENDS_FIRST, *FORKING)  # which waits for the child too: it has the same standard error
    assert (ran.code, ran.errors) == (0, "")
    assert len(stored(file)) == 23


FORK_OF_A_RUNNING_APP = """
import asyncio

async def serve():
    app = App("shop", owns=[orders])
    await app.start(consume=False)
    pid = os.fork()
    if pid == 0:
        return None
    await app.stop()
    return os.waitpid(pid, 0)[1]

if (status := asyncio.new_event_loop().run_until_complete(serve())) is None:
    try:
        shop.publish(Order("1", "c"))
    except Exception as error:
        os._exit(7 if "was open when this process was forked" in str(error) else 1)
    os._exit(2)
assert os.waitstatus_to_exitcode(status) == 7, status
shop.publish(Order("2", "c"))
"""


def test_a_log_that_was_open_at_the_fork_is_refused_in_the_child_instead_of_losing_what_it_writes(file: Path):
    ran = run_program(FORK_OF_A_RUNNING_APP, "-W", "ignore")
    assert (ran.code, ran.errors) == (0, "")
    assert stored(file) == ["2"]


def test_a_program_that_never_closes_ends_cleanly_and_lets_go_of_the_log(file: Path):
    ran = run_program('shop.publish(Order("1", "c"))')
    assert (ran.code, ran.errors) == (0, "")
    assert not Path(f"{file}-wal").exists(), "the last one to close takes the WAL over"
    assert stored(file) == ["1"]
