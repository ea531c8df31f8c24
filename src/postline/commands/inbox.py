"""A client's ear: the replies to one service's commands, read while the client runs."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Awaitable, Callable

from postline.clock import Clock
from postline.commands.expected import Expected
from postline.commands.reading import ReplyReader
from postline.commands.tickets import Outcome
from postline.contracts import Partitioner
from postline.contracts.cloudevents import REQUEST_ID
from postline.errors import DecodeError, LogError, LogUnavailable
from postline.log.needs import TopicSpec
from postline.log.port import Log, Record, Tail
from postline.logs.events import event

__all__ = ["Inbox"]

_log = logging.getLogger("postline.commands")

#: Looks an outcome up among the tickets.
Find = Callable[[str], Awaitable[Outcome | None]]

_WAIT_SECONDS = 5.0
_READ_RECORDS = 1_000
_READ_BYTES = 1 << 20
_RETRY_SECONDS = 0.2


class Inbox:
    """Resolves what is expected as replies come. Event loop only.

    Each process reads the partition that its client's replies lie in, outside any group: there is no inbox to be made
    for a process, and none to be left behind. Who drops a ticket is not remembered.
    """

    def __init__(
        self, client_id: str, log: Log, clock: Clock, reader: ReplyReader, spec: TopicSpec, find: Find
    ) -> None:
        self._log, self._clock, self._reader, self._name = log, clock, reader, spec.name
        self._find = find
        self._key = client_id.encode("utf-8", "surrogatepass")
        self._partition = Partitioner(spec.partitions).partition_of(self._key)
        self._expected: weakref.WeakValueDictionary[str, Expected[Outcome]] = weakref.WeakValueDictionary()
        self._tail: Tail | None = None
        self._listening: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[None] | None = None

    @property
    def listening(self) -> bool:
        """Whether it stands there already."""
        return self._listening is not None

    async def open(self) -> None:
        """Stand where the replies to all that is sent from now on will come. Raises LogError."""
        if self._listening is not None:
            return
        if self._opening is None:
            self._opening = asyncio.create_task(self._begin(), name=f"{self._name} begins")
        await asyncio.shield(self._opening)

    async def _begin(self) -> None:
        try:
            # An outcome that is stored and not shown yet is not among the tickets either: its reply has to be heard.
            end = (await self._log.bounds(self._name, stable=True))[self._partition].end
            self._tail = self._log.tail(self._name, self._partition, end)
            self._listening = asyncio.create_task(self._listen(self._tail), name=f"{self._name} replies")
        finally:
            self._opening = None

    def expect(self, request_id: str) -> Expected[Outcome]:
        """What the outcome of a request will resolve; for as long as somebody holds it."""
        expected = self._expected.get(request_id)
        if expected is None:
            expected = self._expected[request_id] = Expected()
        return expected

    def take(self, outcome: Outcome) -> None:
        """An outcome has come."""
        if (expected := self._expected.get(outcome.request_id)) is not None:
            expected.resolve(outcome)

    async def _listen(self, tail: Tail) -> None:
        try:
            await self._take_on(tail)
        except Exception as error:  # noqa: BLE001 - raised by all who wait for a reply
            await tail.close()
            self._listening = None
            for expected in list(self._expected.values()):
                expected.fail(error)

    async def _take_on(self, tail: Tail) -> None:
        records: list[Record] = []
        while True:
            try:
                records = records or await tail.read(
                    limit=_READ_RECORDS, max_bytes=_READ_BYTES, wait_seconds=_WAIT_SECONDS
                )
                await self._take_all(records)
                records = []
            except LogError as error:
                if not error.retryable:
                    raise
                _log.warning(
                    "replies on %s can't be read, trying again: %s",
                    self._name,
                    error,
                    extra=event("replies.unreadable", topic=self._name),
                )
                await self._clock.sleep(_RETRY_SECONDS)

    async def _take_all(self, records: list[Record]) -> None:
        """Take them in; if the log can't answer, they can be given again."""
        ours = [record for record in records if record[2] == self._key] if self._expected else []
        if not self._reader.knows(ours):
            await self._reader.learn(ours)
        for record in ours:
            gone = self._take(record)
            if gone is not None:  # by the age of the request; it may have ended so late that its outcome is kept still
                self.take(await self._find(gone.request_id) or gone)

    def _take(self, record: Record) -> Outcome | None:
        """Resolve what a reply is to; one that tells that the outcome is not kept is given back."""
        try:
            envelope = self._log.envelope(record)
        except DecodeError as error:
            _log.error(
                "reply %s partition %d:%d is skipped: %s",
                self._name,
                self._partition,
                record[0],
                error,
                extra=event("reply.skipped", topic=self._name, partition=self._partition, offset=record[0]),
            )
            return None
        expected = self._expected.get(envelope.headers.get(REQUEST_ID, ""))
        if expected is None or expected.done:
            return None
        try:
            outcome = self._reader.outcome(record, envelope)
        except DecodeError as error:
            expected.fail(error)
            return None
        if outcome.is_gone:
            return outcome
        expected.resolve(outcome)
        return None

    async def close(self) -> None:
        """Listen no more; whoever still waits is told so by LogUnavailable. Idempotent."""
        tasks = [task for task in (self._opening, self._listening) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._tail is not None:
            await self._tail.close()
        for request_id, expected in list(self._expected.items()):
            expected.fail(
                LogUnavailable(
                    f"Nobody listens for the outcome of request {request_id} on {self._name}: the client has stopped.",
                    remedy="The request goes on; `await app.ticket(…).outcome()` finds it when it runs again.",
                )
            )
        self._opening = self._listening = None
