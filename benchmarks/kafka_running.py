"""What benchmarks on Kafka share: a broker of their own, logs with names that nobody used before, and a stopwatch."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from benchmarks.orders import order, orders
from benchmarks.running import directory, running, until_caught_up
from postline import App
from postline import app as composition
from postline.app import Environment
from postline.clock import SystemClock
from postline.settings import load_settings

__all__ = ["Stopwatch", "bootstrap", "broker", "consumed", "filled", "fresh", "open_log"]

_BOOTSTRAP = "POSTLINE_BENCHMARKS_BROKER"
#: The part of the records that is handled before the clock runs: first transactions and first fetches are slow.
_WARM_SHARE = 5


@contextmanager
def broker() -> Iterator[None]:
    """A broker of Java's and Kafka's own choices, for the benchmarks that are started meanwhile; its data goes."""
    from tests.brokers.cluster import Cluster
    from tests.brokers.fixtures import remove_stale
    from tests.brokers.install import HOME

    remove_stale()
    cluster = Cluster(HOME / f"tests-{os.getpid()}-bench", tests=False)
    try:
        cluster.start()
        os.environ[_BOOTSTRAP] = cluster.bootstrap
        yield
    finally:
        cluster.stop(remove=True, gently=False)


def bootstrap() -> str:
    """Where the broker is."""
    return os.environ[_BOOTSTRAP]


def fresh(what: str) -> str:
    """A name that nobody has used."""
    return f"{what}-{uuid.uuid4().hex[:12]}"


@asynccontextmanager
async def open_log(namespace: str) -> AsyncIterator[Environment]:
    """The Kafka engine with its defaults, names under `namespace`, as an environment for apps."""
    with directory() as place:
        url = f"kafka://{bootstrap()}?create_topics=true&cache_dir={place}"
        settings = load_settings({"POSTLINE_NAMESPACE": namespace}, Path(place), url=url)
        log = composition.open_log(settings, SystemClock())
        await log.start()
        try:
            yield Environment(log, settings)
        finally:
            await log.close()


async def filled(environment: Environment, number: int) -> str:
    """Publish `number` orders; gives the name of their topic on the cluster."""
    shop = App("shop", owns=[orders])
    async with running(shop, environment):
        await shop.publish_many(order(each) for each in range(number))
    return environment.settings.full_name(orders.name)


class Stopwatch:
    """Counts messages, and takes the time from a fifth of them to the last."""

    def __init__(self, number: int) -> None:
        self._number, self._warm = number, number // _WARM_SHARE
        self._seen = 0
        self._began = 0.0
        self.done = asyncio.Event()

    def count(self, messages: int = 1) -> None:
        """So many were handled."""
        before = self._seen
        self._seen = seen = before + messages
        if before < self._warm <= seen:
            self._began = time.perf_counter()
        if seen >= self._number:
            self.done.set()

    @property
    def seen(self) -> int:
        """How many were handled."""
        return self._seen

    def rate(self) -> float:
        """Messages a second until now, those left out that came before the clock ran."""
        return (self._number - self._warm) / (time.perf_counter() - self._began)


async def consumed(app: App, environment: Environment, watch: Stopwatch) -> float:
    """Records a second of an app whose handlers count, to the last commit."""
    async with running(app, environment):
        await watch.done.wait()
        await until_caught_up(app)
        rate = watch.rate()
    for name in app.subscriptions:
        await environment.log.remove_subscription(environment.settings.full_name(name))
    return rate
