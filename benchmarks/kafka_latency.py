"""From publish to handler on Kafka at 200/s between two processes."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.kafka_running import fresh, open_log
from benchmarks.latency import handle_timed, publish_timed
from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import Options, run

__all__ = ["latency"]


def latency(options: Options) -> Result:
    """Publishes carry the steady clock's time, which both processes share; the best of three rounds."""
    result = Result("kafka-latency", "publish to handler at 200/s across two processes")
    number = 400 if options.quick else 2_000
    p50, p99 = min(_round(number) for _ in range(options.rounds))
    result.figures.append(Figure("publish to handler p50", p50 * 1000, "ms"))
    result.figures.append(Figure("publish to handler p99", p99 * 1000, "ms"))
    result.ratios.append(Ratio("p50", p50 * 1000, 10, at_least=False, unit="ms"))
    result.ratios.append(Ratio("p99", p99 * 1000, at_least=False, unit="ms"))
    return result


def _round(number: int) -> tuple[float, float]:
    namespace = fresh("bench")
    command = [sys.executable, "-m", "benchmarks.kafka_latency", namespace, str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as consumer:
        assert consumer.stdout is not None
        if consumer.stdout.readline().strip() != "ready":
            raise RuntimeError("the consuming process did not start")
        run(lambda: publish_timed(open_log(namespace), number))
        p50, p99 = map(float, consumer.stdout.readline().split())
    return p50, p99


if __name__ == "__main__":
    run(lambda: handle_timed(open_log(sys.argv[1]), int(sys.argv[2])))
