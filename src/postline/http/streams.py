"""`/topics/{name}/events`: a topic as server-sent events, from where the client stands."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from postline.app import App
from postline.contracts import Topic
from postline.errors import ContractError, DecodeError, LogError
from postline.http.limits import Limits
from postline.http.patience import unless_set
from postline.http.problems import Problem, busy
from postline.http.topic_reader import Chosen, TopicReader, read_rule
from postline.log.port import Bounds
from postline.logs.events import event

__all__ = ["EVENT_STREAM", "Streams"]

_log = logging.getLogger("postline.http")

EVENT_STREAM = "text/event-stream"
#: After so many milliseconds a browser whose stream broke asks again.
_RETRY_MS = 2_000
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
#: What is read of a partition at a time, and is all that a stream has in memory.
_PAGE_RECORDS, _PAGE_BYTES = 100, 1 << 18
#: A client that takes nothing for so long is disconnected; it knows where it was.
_SLOW_SECONDS = 30.0
#: The offsets to go on from, by partition: Last-Event-ID.
_PLACE = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18}){0,9999}")


class Streams:
    """Streams of the topics that are exposed. Event loop only."""

    def __init__(
        self,
        app: App,
        topics: Iterable[Topic],
        limits: Limits,
        ending: asyncio.Event,
        *,
        reveal: bool,
        slow_seconds: float = _SLOW_SECONDS,
    ) -> None:
        self._app, self._limits, self._ending, self._slow_seconds = app, limits, ending, slow_seconds
        # Of a topic with priorities each is a topic of its own.
        spread = [each for topic in topics for each in (topic.siblings.values() or (topic,))]
        self._readers = {topic.name: TopicReader(topic, reveal=reveal) for topic in spread}
        self._turns = asyncio.Lock()
        self._open = 0

    @property
    def topics(self) -> list[Topic]:
        """What can be followed, under the names that are asked for."""
        return [reader.topic for reader in self._readers.values()]

    async def events(self, request: Request, principal: str) -> Response:
        """The topic's messages from `Last-Event-ID` on; without it from now on, or `from=earliest`. Raises Problem."""
        reader = self._readers.get(request.path_params["name"])
        if reader is None:
            raise Problem(404, "unknown-topic", "Not Found", "There is no such topic for you.")
        chosen, query = _chosen(reader, request), request.query_params
        start = query.get("from", "latest")
        if start not in ("latest", "earliest"):
            raise Problem(400, "from", "Bad Request", "Say from=latest or from=earliest.")
        if request.method == "HEAD":
            return Response(headers=_HEADERS, media_type=EVENT_STREAM)
        if self._open >= self._limits.streams_max:
            raise busy("Too many event streams are open.", 5)
        # Browsers send the header by themselves; a new EventSource can only be given a URL.
        place = request.headers.get("last-event-id", "").strip() or query.get("last-event-id", "")
        # What is stored and shows later nobody has been told of yet: from now on means with it.
        bounds = await self._app.log.bounds(self._app.spec_of(reader.topic).name, stable=not place)
        offsets = _offsets(place, start, bounds)
        stream = _Stream(self._app, reader, chosen, offsets, self._turns)
        return _Bounded(self._told(stream), self._slow_seconds, reader.topic.name)

    async def _told(self, stream: _Stream) -> AsyncGenerator[bytes, None]:
        self._open += 1
        try:
            # The id at once: who breaks off before the first event goes on from here all the same.
            yield b"retry: %d\nid: %s\n\n" % (_RETRY_MS, stream.place)
            while not self._ending.is_set():
                told = False
                async for some in stream.page():
                    told = True
                    yield some
                if not told:
                    yield b"id: %s\n: alive\n\n" % stream.place
                    await unless_set(self._ending, stream.wait(self._limits.heartbeat_seconds))
        except LogError as error:
            _log.warning(
                "a stream of %s ends, since the log can't be read: %s",
                stream.topic,
                error,
                extra=event("stream.ended", topic=stream.topic),
            )
            yield _named("end", {"reason": "the log can't be read now"})
        finally:
            self._open -= 1


class _Stream:
    """One client's place in a topic."""

    def __init__(self, app: App, reader: TopicReader, chosen: Chosen, offsets: list[int], turns: asyncio.Lock) -> None:
        self._app, self._reader, self._chosen, self._offsets, self._turns = app, reader, chosen, offsets, turns
        self.topic = app.spec_of(reader.topic).name

    @property
    def place(self) -> bytes:
        """Where it stands, as the client keeps it."""
        return ".".join(map(str, self._offsets)).encode()

    async def page(self) -> AsyncIterator[bytes]:
        """The next of each partition, in its order; nothing if there is none, or none that was chosen."""
        for partition, bounds in enumerate(await self._app.log.bounds(self.topic)):
            while len(self._offsets) <= partition:
                self._offsets.append(0)  # a partition that was added has all of its records before us
            if self._offsets[partition] < bounds.end:
                async for some in self._of(partition, bounds):
                    yield some

    async def _of(self, partition: int, bounds: Bounds) -> AsyncIterator[bytes]:
        offset = self._offsets[partition]
        if offset < bounds.start:
            self._offsets[partition] = bounds.start
            yield self._marked(_named("lost", {"partition": partition, "from": offset, "to": bounds.start}))
        # Neither a log nor a client that keeps up makes a stream wait, so it has to let others go ahead; and so many
        # streams as there are do so one after another, or there would be a page of each before anybody else's turn.
        async with self._turns:
            await asyncio.sleep(0)
        log = self._app.log
        records = await log.read(
            self.topic, partition, self._offsets[partition], limit=_PAGE_RECORDS, max_bytes=_PAGE_BYTES
        )
        await self._reader.learn(records, self._app.schemas)
        for record in records:
            self._offsets[partition] = record[0] + 1
            place = f"{self.topic}/{partition}/{record[0]}"
            try:
                found = self._reader.event(record, place, log, self._chosen)
            except DecodeError as error:
                _log.error(
                    "a stream of %s leaves a record out: %s",
                    *(place, error),
                    extra=event("stream.record_left_out", topic=self.topic, partition=partition, offset=record[0]),
                )
                yield self._marked(_named("unreadable", {"partition": partition, "offset": record[0]}))
                continue
            if found is not None:
                yield self._marked(b"data: %s\n\n" % found)
        if not records:
            self._offsets[partition] = bounds.end  # nothing but a gap

    def _marked(self, event: bytes) -> bytes:
        return b"id: %s\n%s" % (self.place, event)

    async def wait(self, seconds: float) -> None:
        """Until there may be more, or it is time to show that the stream is alive."""
        bounds = await self._app.log.bounds(self.topic)
        if not any(each.end > offset for offset, each in zip(self._offsets, bounds, strict=False)):
            await self._app.log.wait_for_appends(self.topic, seconds)


class _Bounded(StreamingResponse):
    """A stream that keeps nothing for a client that does not take it: it is disconnected, and comes again."""

    def __init__(self, content: AsyncGenerator[bytes, None], slow_seconds: float, topic: str) -> None:
        super().__init__(content, headers=_HEADERS, media_type=EVENT_STREAM)
        self._content = content
        self._slow_seconds, self._topic = slow_seconds, topic

    async def stream_response(self, send: Send) -> None:
        """Send as it comes. Raises TimeoutError, upon which servers close the connection."""

        async def in_time(message: Any) -> None:
            try:
                async with asyncio.timeout(self._slow_seconds):  # the network's time is real, whatever the clock's is
                    await send(message)
            except TimeoutError:
                _log.warning(
                    "a stream of %s is cut off: its client took nothing for %g s",
                    self._topic,
                    self._slow_seconds,
                    extra=event("stream.cut_off", topic=self._topic),
                )
                raise

        try:
            await super().stream_response(in_time)
        finally:
            await self._content.aclose()  # at once: its place is free again


def _chosen(reader: TopicReader, request: Request) -> Chosen:
    query = request.query_params
    types = [name for text in query.getlist("types") for name in text.split(",") if name]
    try:
        return reader.chosen(types, read_rule(query.get("filter", "")))
    except ContractError as error:
        raise Problem(400, "filter", "The filter can't be used", str(error)) from error


def _offsets(place: str, start: str, bounds: list[Bounds]) -> list[int]:
    """Where a stream begins. A place beyond the end is of a topic that was made again, which is read from its start."""
    if not place:
        return [each.end if start == "latest" else each.start for each in bounds]
    if not _PLACE.fullmatch(place) or place.count(".") >= len(bounds):
        raise Problem(400, "last-event-id", "Bad Request", "Last-Event-ID is none that this stream gave.")
    known = [int(each) for each in place.split(".")]
    return [offset if offset <= each.end else each.start for offset, each in zip(known, bounds, strict=False)]


def _named(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))
