"""One publisher of a trial: `python -m tests.fault.kafka.publisher DIRECTORY NUMBER LIFE URL`.

It publishes until it is enough, or until its standard input ends because whoever started it is gone.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from postline import App
from postline.app import open_environment
from postline.clock import SystemClock
from postline.errors import LogError
from tests.fault.journal import Journal, entries
from tests.fault.kafka.plan import ENOUGH, Plan, order_id
from tests.fault.kafka.services import Order, shop

_CLOCK = SystemClock()


class _Publisher:
    """One life of a publisher: goes on where the one before was killed."""

    def __init__(self, directory: Path, number: int, life: int) -> None:
        self.directory, self.slot = directory, f"publisher-{number}"
        self.plan = Plan.load(directory)
        self._customers = self.plan.customers_of(number)
        self._random = self.plan.random_of(self.slot, life)
        self._acknowledged: dict[str, int] = {}
        #: How often each order was published before, whatever came of it.
        self._copies = Counter[tuple[str, int]]()
        for entry in entries(directory, self.slot):
            if entry.mark in ("try", "ack"):
                customer, number_of = entry.fields[0], int(entry.fields[1])
                if entry.mark == "try":
                    self._copies[customer, number_of] += 1
                else:
                    self._acknowledged[customer] = max(number_of, self._acknowledged.get(customer, -1))
        self._journal = Journal(directory, self.slot, life)

    async def run(self, url: str) -> None:
        """Publish each customer's orders one after another."""
        app, environment = shop(), open_environment(url)
        await self._start(app, environment)
        self._journal.write("ready")
        async with asyncio.TaskGroup() as group:
            for index, customer in enumerate(self._customers):
                group.create_task(self._publish(app, customer, size=3 if index == 0 else 1))
        await app.stop()
        await environment.log.close()

    async def _start(self, app: App, environment: object) -> None:
        while True:
            try:
                await app.start(environment, consume=False)  # type: ignore[arg-type]
                return
            except LogError as error:
                if not error.retryable:
                    raise
                self._journal.write("refused", type(error).__name__)
                await _CLOCK.sleep(0.1)

    async def _publish(self, app: App, customer: str, size: int) -> None:
        """What was tried and not acknowledged is published again under the same ids, here and after a restart."""
        enough, number = self.directory / ENOUGH, self._acknowledged.get(customer, -1) + 1
        while self._copies[customer, number] or not enough.exists():
            messages = [self._message(customer, each) for each in range(number, number + size)]
            try:
                await self._publish_all(app, messages)
            except LogError as error:
                if not error.retryable:
                    raise
                self._journal.write("unanswered", customer, number, type(error).__name__)
                await _CLOCK.sleep(0.1)
                continue
            number += size
            await _CLOCK.sleep(self._random.uniform(0, self.plan.pause_seconds))

    def _message(self, customer: str, number: int) -> Order:
        message = Order(customer, number, self._copies[customer, number])
        self._copies[customer, number] += 1
        self._journal.write("try", customer, number, message.copy)
        return message

    async def _publish_all(self, app: App, messages: Sequence[Order]) -> None:
        if len(messages) > 1:
            answers = await app.publish_many(messages, id_of=lambda each: order_id(each.customer, each.number))
        else:
            answers = [await app.publish(messages[0], id=order_id(messages[0].customer, messages[0].number))]
        for message, answer in zip(messages, answers, strict=True):
            self._journal.write("ack", message.customer, message.number, message.copy, answer.partition, answer.offset)


async def _main(directory: str, number: str, life: str, url: str) -> None:
    working = asyncio.ensure_future(_Publisher(Path(directory), int(number), int(life)).run(url))
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.remove_reader(sys.stdin.fileno())
        working.cancel()

    loop.add_reader(sys.stdin.fileno(), stop)
    await working


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(_main(*sys.argv[1:]))
