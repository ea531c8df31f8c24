"""Queues and their tasks, as operators see them: what waits, what is retried, and how calls ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

import msgspec

from postline.contracts.cloudevents import CLIENT_ID, EXPIRY, OUTCOME, REQUEST_ID
from postline.contracts.commands import COMMANDS, TICKETS
from postline.contracts.priorities import NORMAL, sibling_name
from postline.errors import DecodeError, UsageError
from postline.log.port import Log, PartitionInfo, Record
from postline.message import Envelope
from postline.monitor.reading import Monitor
from postline.monitor.views import HeldView, RecordId, RecordView, SubscriptionView
from postline.runtime.entries import JOINED, OFFSET_BYTES, UNIQUE, UniqueEntry, decode_entry, offset_of
from postline.runtime.outcomes import Outcome
from postline.runtime.progress import Progress

__all__ = ["QueueView", "TaskDetail", "TaskView", "Tasks"]

_STATES = {"success": "succeeded", "refusal": "refused", "fault": "failed", "timeout": "timed-out"}
_CANCELLED = "postline.Cancelled"


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """A queue, and how many of its tasks are where; counts of ends are since the last reset."""

    name: str
    service: str
    #: As `SubscriptionView.status`.
    status: str
    workers: int
    #: Waiting, or being run: the log does not tell these apart. An upper bound, as `lag_records` is.
    open: int
    #: Age of the oldest of them.
    lag_seconds: float
    retrying: int
    done: int
    failed: int
    expired: int
    cancelled: int
    duplicates: int
    #: Calls that wait for the outcome of an equal one that is under way; among the duplicates.
    joined: int
    #: Those among the failed that can be redriven.
    dead_letters: int
    #: Which of the queue's priorities this is, and its guaranteed share; "" where it has none.
    priority: str = ""
    share: float = 0.0


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a task."""

    request_id: str
    client: str
    #: The task's wire name.
    task: str
    #: "open" (waits or is being run), "retrying", "succeeded", "failed", "timed-out", "refused" or "cancelled".
    state: str
    #: Where it lies in its queue, as `3:1042`.
    id: str
    #: The queue's subscription that has it; queues with priorities have one for each.
    queue: str
    sent_ms: int
    expires: str = ""
    attempts: int = 0
    next_attempt_ms: int | None = None
    error: str = ""
    #: The request under way that it is equal to, and whose outcome it will get; "" for one that runs itself.
    same_as: str = ""


class TaskDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A call with its arguments and, once it has ended, its reply; sensitive fields are masked."""

    task: TaskView
    call: RecordView
    reply: RecordView | None


class _Part(NamedTuple):
    """A queue, or what it has of one priority: its subscription, and the topics of its calls and their tickets."""

    name: str
    calls: str
    tickets: str


class _Place(NamedTuple):
    partition: int
    record: Record
    envelope: Envelope
    queue: str = ""


class Tasks:
    """Reads queues without touching them. Event loop only."""

    def __init__(self, log: Log, monitor: Monitor) -> None:
        self._log, self._monitor = log, monitor

    async def queues(self) -> list[QueueView]:
        """All queues: command topics without keys. Raises LogUnavailable."""
        keyless = {topic.name for topic in await self._monitor.topics() if not topic.key}
        views = [each for each in await self._monitor.subscriptions() if each.topic in keyless]
        return [await self._queue(each) for each in views if each.topic == _calls_of(each)]

    async def _queue(self, view: SubscriptionView) -> QueueView:
        outcomes = (await self._monitor.audit(view.name)).outcomes
        return QueueView(
            name=view.name,
            service=view.service,
            status=view.status,
            workers=len(view.members),
            open=view.lag_records,
            lag_seconds=view.lag_seconds,
            retrying=view.held,
            done=outcomes[Outcome.DONE.label],
            failed=outcomes[Outcome.DEAD_LETTERED.label],
            expired=outcomes[Outcome.EXPIRED.label],
            cancelled=outcomes[Outcome.DISCARDED.label],
            duplicates=outcomes[Outcome.DUPLICATE.label],
            joined=len(await self._joined(view.name)),
            dead_letters=view.dead_letters,
            priority=view.priority.name if view.priority else "",
            share=view.priority.share if view.priority else 0.0,
        )

    async def _parts(self, queue: str) -> list[_Part]:
        """What a name means: a queue with all its priorities, or one of these."""
        parts = []
        for info in await self._log.subscriptions():
            base, _, priority = info.topic.partition(f"{COMMANDS}.")
            base, priority = base.removesuffix(COMMANDS), priority or NORMAL
            own = (sibling_name(base, priority), sibling_name(base + COMMANDS, priority))
            if queue in (base, info.name) and (info.name, info.topic) == own:
                parts.append(_Part(info.name, info.topic, base + TICKETS))
        return parts or [_Part(queue, queue + COMMANDS, queue + TICKETS)]

    async def _joined(self, queue: str) -> dict[str, str]:
        """By place, calls that wait for an equal one, and that one's request id."""
        found: dict[str, str] = {}
        for info in await self._log.partitions(queue):
            claims = dict(await self._state(queue, info.partition, UNIQUE))
            for key, _ in await self._state(queue, info.partition, JOINED):
                if (claim := claims.get(key[:-OFFSET_BYTES])) is not None:
                    place = RecordId(info.partition, offset_of(key[-OFFSET_BYTES:]))
                    found[str(place)] = decode_entry(claim, UniqueEntry).request
        return found

    async def _state(self, queue: str, partition: int, namespace: str) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        while page := await self._log.peek_state(queue, partition, namespace, after=found[-1][0] if found else b""):
            found += page
        return found

    async def open(self, queue: str, *, limit: int) -> list[TaskView]:
        """The tasks of a queue that have not ended, oldest first, `limit` at most. Raises UnknownSubscription."""
        found: list[TaskView] = []
        for part in await self._parts(queue):
            held = {each.id: each for each in await self._monitor.held(part.name)}
            found += [each async for each in self._held(part, held)]
            for info in await self._log.partitions(part.name):
                found += [_view(each) async for each in self._waiting(part, info, limit)]
        return sorted(found, key=lambda each: each.sent_ms)[:limit]

    async def _held(self, part: _Part, held: dict[str, HeldView]) -> AsyncIterator[TaskView]:
        for text, each in held.items():
            partition, offset = RecordId.parse(text)
            for record in await self._log.read_offsets(part.calls, partition, [offset]):
                view = _view(_Place(partition, record, self._log.envelope(record), part.name))
                yield msgspec.structs.replace(
                    view,
                    state="retrying",
                    attempts=each.attempts,
                    next_attempt_ms=each.next_attempt_ms,
                    error=each.error,
                )

    async def _waiting(self, part: _Part, info: PartitionInfo, limit: int) -> AsyncIterator[_Place]:
        """Those neither settled nor held, which lie from the position on."""
        ahead = Progress.decode(info.progress, info.position).ahead
        left = limit
        async for place in self._records(part.calls, info.partition, info.position):
            if not _covered(place.record[0], ahead):
                yield place._replace(queue=part.name)
                left -= 1
            if not left:
                return

    async def _records(self, topic: str, partition: int, offset: int) -> AsyncIterator[_Place]:
        while page := await self._log.read(topic, partition, offset):
            for record in page:
                try:
                    yield _Place(partition, record, self._log.envelope(record))
                except DecodeError:
                    continue  # it does not tell who asked; `postline dlq` shows it
            offset = page[-1][0] + 1

    async def find(self, queue: str, request_id: str) -> list[TaskDetail]:
        """The calls under a request id: several if several clients chose the same. Reads what the queue keeps.

        Raises UnknownTopic.
        """
        found: dict[str, TaskDetail] = {}
        for part in await self._parts(queue):
            async for each in self._found(part, request_id):
                found.setdefault(each.task.client, each)  # what comes later is a repetition
        return list(found.values())

    async def _found(self, part: _Part, request_id: str) -> AsyncIterator[TaskDetail]:
        replies = {each.envelope.headers.get(CLIENT_ID): each async for each in self._of(part.tickets, request_id)}
        held = {each.id: each for each in await self._monitor.held(part.name)}
        joined = await self._joined(part.name)
        async for place in self._of(part.calls, request_id):
            view = _view(place._replace(queue=part.name))
            reply = replies.get(view.client)
            if reply is not None:
                view = msgspec.structs.replace(view, state=_state(reply))
            elif (waiting := held.get(view.id)) is not None:
                view = msgspec.structs.replace(
                    view, state="retrying", attempts=waiting.attempts, next_attempt_ms=waiting.next_attempt_ms
                )
            else:
                view = msgspec.structs.replace(view, same_as=joined.get(view.id, ""))
            call = await self._shown(part.calls, place)
            answer = None if reply is None else await self._shown(part.tickets, reply)
            yield TaskDetail(task=view, call=call, reply=answer)

    async def only(self, queue: str, request_id: str, client: str | None) -> TaskView:
        """The one call that is meant. Raises UsageError if there is none, or `client` has to say which."""
        found = [each.task for each in await self.find(queue, request_id)]
        matching = [each for each in found if client in (None, each.client)]
        if len(matching) == 1:
            return matching[0]
        if not matching:
            raise UsageError(
                f"Queue {queue!r} has no call {request_id!r}.",
                remedy="`postline tasks list` shows those that wait; retention may have taken it.",
            )
        clients = ", ".join(each.client for each in matching)
        raise UsageError(f"Calls {request_id!r} of {clients} are there.", remedy="Say whose: --client NAME.")

    async def _of(self, topic: str, request_id: str) -> AsyncIterator[_Place]:
        for partition, bounds in enumerate(await self._log.bounds(topic)):
            async for place in self._records(topic, partition, bounds.start):
                told = place.envelope.headers
                is_note = topic.endswith(TICKETS) and OUTCOME not in told
                if told.get(REQUEST_ID) == request_id and not is_note:
                    yield place

    async def _shown(self, topic: str, place: _Place) -> RecordView:
        (view,) = await self._monitor.read(topic, {place.partition: place.record[0]}, limit=1)
        return view


def _calls_of(view: SubscriptionView) -> str:
    """The topic of a queue's calls, by its name, if it is the subscription of a queue."""
    if view.priority is None:
        return view.name + COMMANDS
    return sibling_name(view.priority.declared_as + COMMANDS, view.priority.name)


def _view(place: _Place) -> TaskView:
    told = place.envelope.headers
    return TaskView(
        request_id=told.get(REQUEST_ID, ""),
        client=told.get(CLIENT_ID, ""),
        task=place.record[3],
        state="open",
        id=str(RecordId(place.partition, place.record[0])),
        queue=place.queue,
        sent_ms=place.envelope.time_ms or place.record[1],
        expires=told.get(EXPIRY, ""),
    )


def _state(reply: _Place) -> str:
    outcome = reply.envelope.headers[OUTCOME]
    return "cancelled" if reply.record[3] == _CANCELLED else _STATES.get(outcome, outcome)


def _covered(offset: int, runs: Iterable[tuple[int, int, int]]) -> bool:
    return any(first <= offset <= last for first, last, _ in runs)
