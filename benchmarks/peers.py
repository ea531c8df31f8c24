"""The peers, each measured the way its own documentation has it: huey at FULL, FastStream on Redis streams."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks.orders import Order, order
from benchmarks.results import Result
from benchmarks.servers import free_port, lacking, served

__all__ = ["faststream_consume", "faststream_publish", "huey_publish", "redis_server"]

_CALLERS = 100
_PIPELINE = 500


def huey_publish(number: int) -> float | None:
    """Tasks a second that one thread enqueues at synchronous=FULL; None where huey isn't installed.

    More threads gain nothing: each task is a transaction of its own.
    """
    try:
        from huey import SqliteHuey
    except ImportError:
        return None
    with tempfile.TemporaryDirectory(prefix="postline-bench-") as place:
        queue = SqliteHuey(filename=str(Path(place) / "huey.db"), fsync=True)

        @queue.task()
        def handle(data: bytes) -> None:
            pass

        encode = msgspec.json.Encoder().encode
        began = time.perf_counter()
        for each in range(number):
            handle(encode(order(each)))
        rate = number / (time.perf_counter() - began)
        queue.storage.close()
    return rate


@contextmanager
def redis_server(result: Result, synced: str = "everysec") -> Iterator[int | None]:
    """The port of a Redis of our own, its log flushed once a second, or "always"; None and a note if there is none."""
    if missing := lacking("faststream.redis", "faststream", "redis-server"):
        result.notes.append(f"FastStream on Redis skipped: {missing}")
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="postline-bench-") as place:
        command = ["redis-server", "--port", str(port), "--dir", place, "--save", "", "--bind", "127.0.0.1"]
        command += ["--appendonly", "yes", "--appendfsync", synced]
        with served(command, port):
            yield port


def faststream_consume(port: int, number: int) -> float:
    """Messages a second of a typed subscriber with a no-op handler, from the first to the last."""
    return asyncio.run(_faststream_consume(port, number))


async def _faststream_consume(port: int, number: int) -> float:
    from fast_depends.msgspec import MsgSpecSerializer
    from faststream.redis import RedisBroker, StreamSub
    from redis.asyncio import Redis

    done, seen, began = asyncio.Event(), 0, 0.0
    broker = RedisBroker(f"redis://127.0.0.1:{port}", logger=None, serializer=MsgSpecSerializer())

    @broker.subscriber(
        stream=StreamSub("orders", group="billing", consumer="one", max_records=100, polling_interval=10)
    )
    async def handle(message: Order) -> None:
        nonlocal seen, began
        if not seen:
            began = time.perf_counter()
        seen += 1
        if seen == number:
            done.set()

    redis = Redis(port=port)
    await redis.xgroup_create("orders", "billing", id="0", mkstream=True)
    await broker.connect()
    for start in range(0, number, _PIPELINE):
        async with redis.pipeline() as pipe:
            for each in range(start, min(start + _PIPELINE, number)):
                await broker.publish(order(each), stream="orders", pipeline=pipe)
            await pipe.execute()
    await broker.start()
    await done.wait()
    rate = number / (time.perf_counter() - began)
    await broker.stop()
    await redis.aclose()
    return rate


def faststream_publish(port: int, number: int) -> float:
    """Awaited publishes a second of 100 concurrent callers; Redis has them in memory when it answers."""
    return asyncio.run(_faststream_publish(port, number))


async def _faststream_publish(port: int, number: int) -> float:
    from fast_depends.msgspec import MsgSpecSerializer
    from faststream.redis import RedisBroker

    logging.getLogger("faststream").disabled = True
    broker = RedisBroker(f"redis://127.0.0.1:{port}", logger=None, serializer=MsgSpecSerializer())

    async def caller(first: int) -> None:
        for each in range(first, number, _CALLERS):
            await broker.publish(order(each), stream="published")

    await broker.connect()
    began = time.perf_counter()
    await asyncio.gather(*(caller(first) for first in range(_CALLERS)))
    rate = number / (time.perf_counter() - began)
    await broker.stop()
    return rate
