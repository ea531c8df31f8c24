"""The one bridge for synchronous programs (Django, Flask, scripts): publish from any thread, durably.

    shop = sync.connect(app)                     # at import, in any process; nothing starts yet
    shop.publish(OrderPlaced(...), id="order-1") # the first call starts what is needed

All connections of a process share one background thread with an event loop. It starts with the
first call, again in each forked child, and ends with the program. Handlers don't run here: that is
what `postline run` is for.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

from postline.app import DEFAULT_TIMEOUT_SECONDS, App, Published
from postline.contracts import Topic
from postline.contracts.commands import CommandTopic
from postline.errors import PublishTimeout, UsageError

__all__ = ["Connection", "connect"]

T = TypeVar("T")

#: How much longer than a request's own limit its answer may take to come from the background thread.
_ANSWER_SECONDS = 5.0


class _Background:
    """This process's one thread with an event loop, and the connections whose work it does.

    A log that is open while a process forks is no good in the child, and neither are threads. So a
    fork waits until no call is under way, and everything is closed before it; parent and child
    open again when they next publish.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._hooked = False
        self._forking = False
        self._calls = 0
        self._open: dict[Connection, None] = {}

    def call(self, work: Callable[[], Coroutine[Any, Any, T]], timeout_seconds: float | None) -> T:
        """Run a coroutine on the loop and wait for it. Raises PublishTimeout."""
        with self._changed:
            self._changed.wait_for(lambda: not self._forking)
            self._calls += 1
            loop = self._running_loop()
        try:
            return _wait_for(asyncio.run_coroutine_threadsafe(work(), loop), timeout_seconds)
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify_all()

    def remember(self, connection: Connection) -> None:
        """It has been opened: close it before a fork and before the program ends."""
        self._open[connection] = None

    def forget(self, connection: Connection) -> None:
        """It is closed."""
        self._open.pop(connection, None)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if not self._hooked:
            self._hooked = True
            os.register_at_fork(
                before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._begin_anew
            )
            atexit.register(self._close)
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_turn, args=(self._loop,), name="postline-sync", daemon=True)
            self._thread.start()
        return self._loop

    def _before_fork(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._forking)
            self._forking = True
            self._changed.wait_for(lambda: self._calls == 0)
        self._close()

    def _after_fork(self) -> None:
        with self._changed:
            self._forking = False
            self._changed.notify_all()

    def _begin_anew(self) -> None:
        """In the child: the condition may be in the hands of a thread that stayed with the parent."""
        self._changed = threading.Condition()
        self._forking = False

    def _close(self) -> None:
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        try:
            for connection in list(self._open):
                _wait_for(asyncio.run_coroutine_threadsafe(connection.stop(), loop), None)
        finally:
            self._loop = self._thread = None
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _wait_for(future: concurrent.futures.Future[T], timeout_seconds: float | None) -> T:
    try:
        return future.result(timeout_seconds)
    except concurrent.futures.TimeoutError:
        if future.done():
            raise
        future.cancel()
        raise PublishTimeout(
            f"The log has not answered for {timeout_seconds:g} s, so the outcome is unknown.",
            remedy="Repeat the call with the same id=: subscriptions drop the duplicate if there is one.",
        ) from None
    except BaseException:
        future.cancel()
        raise


_BACKGROUND = _Background()


class Connection:
    """An app as synchronous code sees it. Thread-safe, and safe across fork; made by `connect`."""

    def __init__(self, app: App, url: str | None = None) -> None:
        self._declared = app
        self._url = url or app.url
        self._started: asyncio.Future[App] | None = None

    def publish(
        self,
        message: Any,
        *,
        id: str | None = None,
        headers: Mapping[str, str] | None = None,
        priority: str | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
        timeout_seconds: float | None = None,
    ) -> Published:
        """As `App.publish`: the message is durable when this returns; it blocks until then.

        Raises PublishTimeout after `timeout_seconds`, and UsageError inside an event loop.
        """
        told: dict[str, Any] = {"id": id, "headers": headers, "priority": priority, "delay": delay, "at": at}
        return self._call(lambda app: app.publish(message, **told), timeout_seconds)

    def cancel(self, token: str, *, timeout_seconds: float | None = None) -> bool | None:
        """As `App.cancel`: blocks until a worker has answered, for some seconds at most."""
        return self._call(lambda app: app.cancel(token), timeout_seconds)

    def publish_many(
        self,
        messages: Iterable[Any],
        *,
        id_of: Callable[[Any], str] | None = None,
        priority: str | None = None,
        timeout_seconds: float | None = None,
    ) -> list[Published]:
        """As `App.publish_many`: in order, many to a commit, all durable when this returns."""
        # Taken here, so that a generator runs in the caller's thread and not on the loop.
        taken = list(messages)
        return self._call(lambda app: app.publish_many(taken, id_of=id_of, priority=priority), timeout_seconds)

    def request(
        self,
        command: Any,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        request_id: str | None = None,
        priority: str | None = None,
    ) -> Any:
        """As `App.request`: send a command or query, and block until its reply is there.

        Raises Refused, HandlerFault and RequestTimeout, and UsageError inside an event loop.
        """
        # The request's own limit is the shorter one, and knows the request's id.
        return self._call(
            lambda app: app.request(command, timeout=timeout_seconds, request_id=request_id, priority=priority),
            timeout_seconds + _ANSWER_SECONDS,
        )

    def send(
        self,
        command: Any,
        *,
        request_id: str | None = None,
        priority: str | None = None,
        expires_seconds: float | None = None,
        timeout_seconds: float | None = None,
    ) -> str:
        """As `App.send`: the command is durable when this returns; gives the request's id, for `outcome`.

        One that no attempt has begun within `expires_seconds` expires. Raises PublishTimeout after `timeout_seconds`.
        """
        ticket = self._call(
            lambda app: app.send(command, request_id=request_id, timeout=expires_seconds, priority=priority),
            timeout_seconds,
        )
        return ticket.request_id

    def outcome(self, request_id: str, *, of: CommandTopic | None = None, timeout_seconds: float) -> Any:
        """The reply to a request that this service sent, in this process or another; blocks until it is there.

        Raises Refused, HandlerFault, and RequestTimeout, also after `timeout_seconds`.
        """
        return self._call(
            lambda app: app.ticket(request_id, of=of).outcome(timeout_seconds), timeout_seconds + _ANSWER_SECONDS
        )

    def close(self) -> None:
        """Let go of the log; the next call opens it again. Idempotent; done at exit by itself."""
        if self._started is not None:
            _BACKGROUND.call(self.stop, None)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _call(self, do: Callable[[App], Coroutine[Any, Any, T]], timeout_seconds: float | None) -> T:
        _refuse_event_loops()

        async def work() -> T:
            return await do(await self._app())

        return _BACKGROUND.call(work, timeout_seconds)

    async def stop(self) -> None:
        """As `close`, on the background loop."""
        started, self._started = self._started, None
        _BACKGROUND.forget(self)
        if started is not None:
            await (await started).stop()

    async def _app(self) -> App:
        """The app, started once for all threads of this process."""
        if self._started is None:
            self._started = asyncio.ensure_future(self._start())
        started = self._started
        try:
            return await asyncio.shield(started)
        except BaseException:
            if started.done() and self._started is started:
                self._started = None  # the next call tries again
            raise

    async def _start(self) -> App:
        declared = self._declared
        subscribed = [s.topic for s in declared.subscriptions.values() if isinstance(s.topic, Topic)]
        topics = {topic.name: topic for topic in (*declared.publishes_to, *subscribed) if topic not in declared.owns}
        of_commands = {topic for each in declared.command_topics for topic in each.topics}
        sent: list[Topic | CommandTopic] = [
            *(topic for topic in topics.values() if topic not in of_commands),
            *declared.command_topics,
        ]
        owned = [topic for topic in declared.owns if topic not in of_commands]
        app = App(declared.name, owns=owned, publishes_to=sent, url=self._url)
        app.schedules = declared.schedules  # its topic is among what the app owns
        await app.start(consume=False)
        _BACKGROUND.remember(self)
        return app


def connect(app: App, *, url: str | None = None) -> Connection:
    """A connection that publishes as `app`; it opens the log at the first call.

    `url` is used, as the app's own is, where neither settings nor environment name a log.
    """
    return Connection(app, url)


def _refuse_event_loops() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError(
        "postline.sync was called inside a running event loop, which it would block.",
        remedy="Await the app's own publish there: `async with app:` and `await app.publish(…)`.",
    )
