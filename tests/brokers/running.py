"""A command that runs while a cluster does, which is started for it, disturbed if that is asked for, and stopped."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from tests.brokers.cluster import Cluster
from tests.brokers.waiting import BrokerError

__all__ = ["run_with"]

#: Longer than a cluster with short time limits takes to give a dead broker's partitions to others.
_DOWN_SECONDS = 5.0
_UP_SECONDS = 5.0


def run_with(cluster: Cluster, command: Sequence[str], *, kill_brokers: bool, say: Callable[[str], None]) -> int:
    """Run a command with the cluster's URL as POSTLINE_URL; gives its exit code, or 1 if a broker did not come back.

    A cluster that runs already is left running; one that was there keeps its data.
    """
    there, running = Cluster.found(cluster.directory) is not None, cluster.is_running
    try:
        if not running:
            say(f"starting {cluster.layout.brokers} broker(s), data in {cluster.directory}")
            cluster.start()
        with _killing(cluster, kill_brokers, say):
            code = _ended({**os.environ, "POSTLINE_URL": cluster.url}, command)
        if running:
            cluster.start()  # whoever had it running gets back what lies dead at the end
        return code
    except BrokerError as error:
        say(str(error))
        return 1
    finally:
        if not running:
            cluster.stop(remove=not there, gently=there)


def _ended(environ: dict[str, str], command: Sequence[str]) -> int:
    """The exit code of a command; the signals that would end us are its own to obey."""
    with subprocess.Popen(command, env=environ) as process:

        def hand_on(number: int, _: FrameType | None) -> None:
            process.send_signal(number)

        # Ctrl-C reaches it from the terminal itself.
        before = {signal.SIGTERM: signal.signal(signal.SIGTERM, hand_on)}
        before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            code = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return code if code >= 0 else 128 - code


@contextmanager
def _killing(cluster: Cluster, wanted: bool, say: Callable[[str], None]) -> Iterator[None]:
    """Kill broker after broker meanwhile; each is back and in sync before the next. BrokerError if one isn't."""
    over = threading.Event()
    failures: list[BrokerError] = []

    def work() -> None:
        try:
            _kill_in_turn(cluster, over, say)
        except BrokerError as error:
            failures.append(error)

    killer = threading.Thread(target=work, name="killer of brokers")
    if wanted:
        killer.start()
    try:
        yield
    finally:
        over.set()
        if wanted:
            killer.join()
    if failures:
        raise failures[0]


def _kill_in_turn(cluster: Cluster, over: threading.Event, say: Callable[[str], None]) -> None:
    for number in itertools.cycle(cluster.numbers):
        if over.wait(_UP_SECONDS):
            return
        say(f"SIGKILL of broker {number}")
        cluster.kill(number)
        if over.wait(_DOWN_SECONDS):
            return
        cluster.restart(number)
        say(f"broker {number} is back and in sync")
