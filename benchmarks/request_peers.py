"""Peers that answer requests: FastStream on NATS, which stores nothing of them, and Celery's results on Redis."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from benchmarks.results import Result
from benchmarks.servers import free_port, lacking, served

__all__ = ["celery_requests", "faststream_requests", "nats_server"]

_CELERY = """
from celery import Celery
app = Celery("bench", broker="redis://127.0.0.1:{port}/1", backend="redis://127.0.0.1:{port}/2")
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=64, broker_connection_retry_on_startup=True)

@app.task
def transfer(source, target, amount):
    return {{"left": amount}}
"""


class Asked(Struct, frozen=True):
    """The question."""

    source: str
    target: str
    amount: int
    note: str = "as agreed on the phone this morning, for the third quarter"


class Answered(Struct, frozen=True):
    """The answer."""

    left: int


@contextmanager
def nats_server(result: Result) -> Iterator[int | None]:
    """The port of a NATS server of our own; None, and a note, if it can't be had."""
    if missing := lacking("faststream.nats", "faststream[nats]", "nats-server"):
        result.notes.append(f"FastStream on NATS skipped: {missing}")
        yield None
        return
    port = free_port()
    with served(["nats-server", "-a", "127.0.0.1", "-p", str(port)], port):
        yield port


def faststream_requests(port: int, number: int, under_way: int) -> float:
    """Requests a second from one process to itself."""
    return asyncio.run(_faststream_requests(port, number, under_way))


async def _faststream_requests(port: int, number: int, under_way: int) -> float:
    from fast_depends.msgspec import MsgSpecSerializer
    from faststream.nats import NatsBroker

    broker = NatsBroker(f"nats://127.0.0.1:{port}", logger=None, serializer=MsgSpecSerializer())

    @broker.subscriber("transfers")
    async def transfer(asked: Asked) -> Answered:
        return Answered(asked.amount)

    async def caller(first: int) -> None:
        for each in range(first, number, under_way):
            answer = await broker.request(Asked("anna", "bob", each), "transfers", timeout=30)
            await answer.decode()

    await broker.start()
    began = time.perf_counter()
    await asyncio.gather(*(caller(first) for first in range(under_way)))
    rate = number / (time.perf_counter() - began)
    await broker.stop()
    return rate


def celery_requests(port: int, number: int) -> float | None:
    """Tasks a second whose results are awaited one by one; None where Celery isn't installed."""
    try:
        import celery  # noqa: F401
    except ImportError:
        return None
    with tempfile.TemporaryDirectory(prefix="postline-bench-") as place:
        path = Path(place) / "bench_celery.py"
        path.write_text(_CELERY.format(port=port))
        environment = {**os.environ, "PYTHONPATH": place}
        command = [sys.executable, "-m", "celery", "-A", "bench_celery", "worker", "--concurrency", "2", "-l", "ERROR"]
        with subprocess.Popen(command, env=environment, cwd=place, stdout=subprocess.DEVNULL) as worker:
            try:
                asked = [sys.executable, "-c", _ASKING, str(number)]
                return float(
                    subprocess.run(asked, env=environment, cwd=place, check=True, stdout=subprocess.PIPE).stdout
                )
            finally:
                worker.terminate()


_ASKING = """
import sys, time
from bench_celery import transfer
number = int(sys.argv[1])
transfer.delay("anna", "bob", 1).get(timeout=60)
began = time.perf_counter()
for each in range(number):
    transfer.delay("anna", "bob", each).get(timeout=60)
print(number / (time.perf_counter() - began))
"""
