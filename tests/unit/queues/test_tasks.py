"""Tasks: functions that are sent to workers, and what becomes of them."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from msgspec import Struct

from postline import (
    App,
    Context,
    ContractError,
    HandlerFault,
    Rate,
    Refused,
    RequestTimeout,
    Retry,
    SettingsError,
    Topic,
    UsageError,
)
from postline.contracts.cloudevents import REQUEST_ID
from postline.testing import TestApp

ONCE = Retry(immediate=0, delays=())


class Thumbnail(Struct, frozen=True):
    """What a task returns."""

    path: str
    width: int


@pytest.fixture
def app() -> App:
    return App("images")


# -- sending --------------------------------------------------------------------------------------


async def test_a_task_is_still_the_function_and_can_be_sent(app: App) -> None:
    @app.task
    async def resize(path: str, width: int = 80) -> Thumbnail:
        """Make it small."""
        return Thumbnail(path, width)

    assert await resize("cat.jpg", width=3) == Thumbnail("cat.jpg", 3)
    assert resize.__doc__ == "Make it small."
    assert resize.name == "images.resize"
    async with TestApp(app) as t:
        ticket = await resize.send("cat.jpg", width=7)
        assert await ticket.result() == Thumbnail("cat.jpg", 7)
        assert await resize.request(path="dog.jpg") == Thumbnail("dog.jpg", 80)
        assert (await resize.ticket(ticket.request_id).status()).state == "succeeded"
        assert t.audit()["images.tasks"] == {"done": 2}


async def test_plain_functions_run_in_threads_and_may_return_anything(app: App) -> None:
    @app.task
    def sizes(paths: list[str], *, at_least: int = 0) -> dict[str, int | None]:
        return {path: len(path) if len(path) >= at_least else None for path in paths}

    @app.task(name="forget")
    def forget_all() -> None:
        return None

    assert sizes(["a"]) == {"a": 1}
    async with TestApp(app):
        assert await sizes.request(["a", "bc"], at_least=2) == {"a": None, "bc": 2}
        await forget_all.request()


async def test_the_context_is_the_workers(app: App) -> None:
    @app.task
    async def whoami(ctx: Context, suffix: str) -> str:
        return f"{ctx.client_id}{suffix}"

    async with TestApp(app):
        assert await whoami.request("!") == "images!"
        with pytest.raises(TypeError, match=r"task images\.whoami"):
            whoami.message(suffix="!", ctx=1)


async def test_many_are_sent_together_in_order(app: App) -> None:
    ran: list[int] = []

    @app.task(queue=app.queue("counting", partitions=1, concurrency=1))
    async def count(number: int) -> int:
        ran.append(number)
        return number

    @app.task
    async def other() -> None: ...

    async with TestApp(app):
        tickets = await count.send_many(count.message(each) for each in range(2_500))
        assert [await ticket.result() for ticket in tickets] == list(range(2_500))
        assert ran == list(range(2_500))
        assert await count.send_many([]) == []
        with pytest.raises(ContractError, match="declares no message type"):
            await count.send_many([count.message(1), other.message()])
        with pytest.raises(UsageError, match="no command"):
            await count.send_many([None])


async def test_a_handler_sends_tasks_with_its_own_settlement(app: App) -> None:
    orders = Topic("images.uploads", owner="images")
    ran: list[tuple[str, str]] = []

    @orders.event("images.Uploaded")
    class Uploaded(Struct, frozen=True):
        path: str

    app = App("images", owns=[orders])

    @app.task
    async def resize(ctx: Context, path: str) -> None:
        ran.append((path, ctx.envelope.headers[REQUEST_ID]))

    @app.subscribe("uploads", orders, start="earliest").on(Uploaded)
    async def uploaded(event: Uploaded, ctx: Context) -> None:
        with pytest.raises(UsageError, match=r"ctx\.send"):
            await resize.send(event.path)
        sent.append(ctx.send(resize.message(event.path)))

    sent: list[str] = []
    async with TestApp(app) as t:
        await app.publish(Uploaded("cat.jpg"))
        await t.settle()
        assert ran == [("cat.jpg", sent[0])]
        await resize.ticket(sent[0]).result()


async def test_another_service_sends_by_the_message(app: App) -> None:
    @app.task
    async def resize(path: str) -> int:
        return len(path)

    shop = App("shop", publishes_to=[resize.topic])
    async with TestApp(app, shop):
        reply = await shop.request(resize.message("cat.jpg"))
        assert reply.value == 7
        await app.stop()
        with pytest.raises(UsageError, match="not running"):
            await resize.send("cat.jpg")


async def test_arguments_of_a_wrong_type_are_refused_before_anything_is_stored(app: App) -> None:
    @app.task
    async def resize(path: str, width: int) -> None:
        return None

    async with TestApp(app) as t:
        with pytest.raises(ContractError, match="width"):
            await resize.send("cat.jpg", width="wide")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="width"):
            await resize.send("cat.jpg")  # type: ignore[call-arg]
        assert t.log_records("images.tasks.commands") == []


# -- outcomes -------------------------------------------------------------------------------------


async def test_each_task_has_its_own_retries(app: App) -> None:
    attempts: list[str] = []

    @app.task(retry=Retry(immediate=2, delays=(60,)))
    async def stubborn() -> None:
        attempts.append("stubborn")
        raise RuntimeError("no")

    @app.task(retry=ONCE)
    async def timid() -> None:
        attempts.append("timid")
        raise RuntimeError("never")

    async with TestApp(app) as t:
        with pytest.raises(HandlerFault, match=r"RuntimeError: never\. It lies among"):
            await timid.request()
        assert attempts == ["timid"]
        ticket = await stubborn.send()
        await t.settle()
        assert attempts.count("stubborn") == 3
        await t.advance(minutes=2)
        with pytest.raises(HandlerFault, match="RuntimeError: no"):
            await ticket.result()
        assert attempts.count("stubborn") == 4
        assert len(t.dead_letters("images.tasks")) == 2


async def test_each_async_task_has_its_own_time_limit(app: App) -> None:
    @app.task(timeout=5, retry=ONCE)
    async def slow(clock: str) -> str:
        await t.clock.sleep(60)
        return clock

    @app.task
    async def patient() -> str:
        await t.clock.sleep(60)
        return "done"

    t = TestApp(app)
    async with t:
        limited, unlimited = await slow.send("x"), await patient.send()
        await t.advance(seconds=90)
        with pytest.raises(HandlerFault, match="longer than its limit of 5 s"):
            await limited.result()
        assert await unlimited.result() == "done"


async def test_a_call_that_nobody_begins_expires(app: App) -> None:
    ran: list[int] = []

    @app.task(expires=timedelta(minutes=1))
    async def greet(number: int) -> None:
        ran.append(number)

    t = TestApp(app)
    async with t:
        await t.stop(app)
        await app.start(t.environment(), consume=False)
        late, longer = await greet.send(1), await greet.options(expires=3600).send(2)
        await app.stop()
        await t.advance(minutes=2)
        await t.start(app)
        await t.settle()
        assert ran == [2]
        with pytest.raises(RequestTimeout, match="expired"):
            await greet.ticket(late.request_id).result()
        await greet.ticket(longer.request_id).result()
        assert t.audit()["images.tasks"] == {"done": 1, "expired": 1}


async def test_a_cancelled_call_is_not_begun(app: App) -> None:
    @app.task(queue=app.queue("one", concurrency=1, partitions=1))
    async def wait(seconds: int) -> None:
        await t.clock.sleep(seconds)

    t = TestApp(app)
    async with t:
        first, second = await wait.send(10), await wait.send(20)
        await second.cancel()
        await t.advance(seconds=60)
        await first.result()
        with pytest.raises(Refused, match="Cancelled"):
            await second.result()
        assert (await second.status()).state == "cancelled"


async def test_a_value_where_none_was_said_to_come_is_a_failure(app: App) -> None:
    @app.task(retry=ONCE)
    async def quiet() -> None:
        return 7  # type: ignore[return-value]

    async with TestApp(app):
        with pytest.raises(HandlerFault, match="its signature says None"):
            await quiet.request()


# -- unique ---------------------------------------------------------------------------------------


async def test_of_equal_calls_in_one_window_the_first_is_run(app: App) -> None:
    ran: list[tuple[str, int]] = []

    @app.task(unique=timedelta(minutes=10))
    async def refresh(shop: str, page: int = 1) -> int:
        ran.append((shop, page))
        return len(ran)

    async with TestApp(app, start_ms=1_200_000_000) as t:
        tickets = [await refresh.send("a"), await refresh.send("a", page=1), await refresh.send("b")]
        assert [await ticket.result() for ticket in tickets] == [1, 1, 2]
        await t.advance(minutes=10)
        assert await refresh.request("a") == 3
        assert ran == [("a", 1), ("b", 1), ("a", 1)]
        assert t.audit()["images.tasks"] == {"done": 3, "duplicate": 1}


async def test_what_is_unique_may_be_a_part_of_the_arguments(app: App) -> None:
    uploads = Topic("images.uploads", owner="images")

    @uploads.event("images.Uploaded")
    class Uploaded(Struct, frozen=True):
        path: str

    app = App("images", owns=[uploads])
    ran: list[str] = []

    @app.task(unique=timedelta(hours=1), unique_by=lambda path, why: path)
    async def index(path: str, why: str) -> None:
        ran.append(why)

    @app.subscribe("uploads", uploads, start="earliest").on(Uploaded)
    async def uploaded(event: Uploaded, ctx: Context) -> None:
        ctx.send(index.message(event.path, why="upload"))

    async with TestApp(app) as t:
        await index.request("a", why="first")
        await index.request("a", why="second")
        await app.publish(Uploaded("a"))
        await t.settle()
        assert ran == ["first"]


# -- what is refused --------------------------------------------------------------------------------


def refused_signatures() -> list[Any]:
    def anything(*paths: str) -> None: ...
    def named(**options: str) -> None: ...
    def untyped(path) -> None: ...
    def silent(path: str): ...
    def late_context(path: str, ctx: Context) -> None: ...
    def unwritable(path: object, lock: type) -> None: ...
    def wrong_default(width: int = "wide") -> None: ...  # type: ignore[assignment]
    async def generator(path: str) -> Any:
        yield path

    return [
        pytest.param(anything, r"\*paths", id="variadic"),
        pytest.param(named, r"\*\*options", id="variadic by name"),
        pytest.param(untyped, "'path' without a type", id="untyped"),
        pytest.param(silent, "does not say what it returns", id="no result"),
        pytest.param(late_context, "takes the context as 'ctx'", id="late context"),
        pytest.param(unwritable, "can't be written", id="unwritable"),
        pytest.param(wrong_default, "default for 'width'", id="default"),
        pytest.param(generator, "no plain or async function", id="generator"),
        pytest.param(Thumbnail, "no plain or async function", id="class"),
    ]


@pytest.mark.parametrize(("function", "said"), refused_signatures())
def test_a_signature_that_is_no_contract_is_refused(app: App, function: Any, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        app.task(function)


def test_contradictions_are_refused_where_they_are_declared(app: App) -> None:
    def one(path: str) -> None: ...

    app.task(one)
    for queue in ("tasks", "others"):
        with pytest.raises(UsageError, match=r"two tasks named 'images\.one'"):
            app.task(queue=queue)(one)
    with pytest.raises(UsageError, match="declared already"):
        app.queue("tasks")
    with pytest.raises(UsageError, match="unique_by"):
        app.task(name="two", unique_by=lambda path: path)(one)
    with pytest.raises(UsageError, match="can't be unique"):
        app.task(name="three", unique=timedelta(days=30))(one)
    with pytest.raises(UsageError, match="timeout of 0"):
        app.task(name="zero", timeout=0)(one)
    with pytest.raises(UsageError, match="no time to wait"):
        app.task(name="never", expires=-1)(one)
    with pytest.raises(UsageError, match="no queue of app"):
        app.task(name="four", queue=App("other").queue("x"))(one)


async def test_a_limit_on_a_plain_function_is_refused_at_start(app: App) -> None:
    @app.task(timeout=5)
    def plain() -> None: ...

    with pytest.raises(SettingsError, match="a thread can't be stopped"):
        async with TestApp(app):
            pass


async def test_a_renamed_task_runs_what_waits_under_its_old_name() -> None:
    ran: list[str] = []

    def version(renamed: bool) -> App:
        app = App("images")

        async def shrink(path: str) -> str:
            ran.append(path)
            return path

        aliases = ["images.resize"] if renamed else []
        versions[renamed] = app.task(name="shrink" if renamed else "resize", aliases=aliases)(shrink)
        return app

    versions: dict[bool, Any] = {}
    old, new = version(False), version(True)
    async with TestApp(old) as t:
        await t.stop(old)
        await old.start(t.environment(), consume=False)
        ticket = await versions[False].send("cat.jpg")
        await old.stop()
        await t.start(new)
        await t.settle()
        assert ran == ["cat.jpg"]
        assert await versions[True].ticket(ticket.request_id).result() == "cat.jpg"


# -- later --------------------------------------------------------------------------------------------


async def test_a_delayed_call_leaves_when_it_is_due_and_its_expiry_counts_from_there() -> None:
    app = App("images", schedules=True)
    ran: list[str] = []

    @app.task(expires=timedelta(minutes=1))
    async def remind(whom: str) -> str:
        ran.append(whom)
        return whom

    async with TestApp(app) as t:
        ticket = await remind.options(delay=timedelta(hours=1)).send("anna")
        dropped = await remind.options(delay=timedelta(hours=1)).send("bob")
        await dropped.cancel()
        await t.advance(minutes=59)
        assert ran == []
        await t.advance(minutes=2)
        assert ran == ["anna"]
        assert await ticket.result() == "anna"
        assert (await dropped.status()).state == "cancelled"


async def test_a_handler_delays_a_call_without_schedules() -> None:
    uploads = Topic("images.uploads", owner="images")

    @uploads.event("images.Uploaded")
    class Uploaded(Struct, frozen=True):
        path: str

    app = App("images", owns=[uploads])
    ran: list[str] = []

    @app.task(expires=timedelta(minutes=1))
    async def index(path: str) -> None:
        ran.append(path)

    @app.subscribe("uploads", uploads, start="earliest").on(Uploaded)
    async def uploaded(event: Uploaded, ctx: Context) -> None:
        for number in range(3):
            ctx.send(index.message(f"{event.path}{number}"), delay=3600)

    async with TestApp(app) as t:
        await app.publish(Uploaded("a"))
        await t.settle()
        assert ran == []
        await t.advance(hours=1, seconds=1)
        assert sorted(ran) == ["a0", "a1", "a2"]
        with pytest.raises(UsageError, match="schedules=True"):
            await index.options(delay=5).send("b")


# -- limits --------------------------------------------------------------------------------------------


async def test_a_queue_and_a_task_have_rates_and_limits_on_concurrency(app: App) -> None:
    began: list[float] = []
    running: list[int] = []

    @app.task(queue=app.queue("slow", rate=Rate(1, per_seconds=10)))
    async def call(number: int) -> None:
        began.append(t.clock.monotonic())

    @app.task(concurrency=2)
    async def narrow(number: int) -> None:
        running.append(number)
        await t.clock.sleep(60)
        running.remove(number)

    t = TestApp(app)
    async with t:
        await call.send_many(call.message(each) for each in range(4))
        await narrow.send_many(narrow.message(each) for each in range(5))
        await t.advance(seconds=50)
        assert len(running) == 2
        assert [later - earlier for earlier, later in pairwise(began)] == pytest.approx([10, 10, 10])
        await t.advance(minutes=10)
        assert t.audit()["images.tasks"] == {"done": 5}


async def test_the_limit_of_an_async_task_does_not_hold_for_a_plain_one_that_follows(app: App) -> None:
    one = app.queue("one", concurrency=1, partitions=1)
    release = threading.Event()
    ran: list[str] = []

    @app.task(queue=one, timeout=5)
    async def limited() -> None:
        return None

    @app.task(queue=one)
    def plain() -> None:
        ran.append("began")
        release.wait()

    t = TestApp(app)
    async with t:
        first, second = await limited.send(), await plain.send()
        await first.result()
        while not ran:
            await asyncio.sleep(0)
        for _ in range(20):
            t.clock.move_to(t.clock.monotonic() + 1)
            await asyncio.sleep(0)
        release.set()
        await second.result()
        assert ran == ["began"]
