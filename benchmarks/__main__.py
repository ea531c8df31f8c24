"""`python -m benchmarks`: runs the raw limit, Postline and the peers in one run, and prints how they compare."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import apsw
import msgspec
from rich.console import Console

from benchmarks.latency import fdatasync_seconds
from benchmarks.results import Result, as_json, show
from benchmarks.running import Options
from tests.brokers.waiting import BrokerError

#: Each by name: its module here, and its function.
_ON_A_FILE = {
    "consume": ("consuming", "consume"),
    "consume-publish": ("consuming", "consume_publish"),
    "slow-handler": ("consuming", "slow_handler"),
    "redrive": ("redriving", "redrive"),
    "handlers": ("consuming", "handlers"),
    "breaker": ("consuming", "breaker"),
    "watchdog": ("watching", "watchdog"),
    "logging": ("logging_lines", "logging_lines"),
    "callers": ("publishing", "callers"),
    "one-at-a-time": ("publishing", "one_at_a_time"),
    "publish-many": ("publishing", "many"),
    "tasks": ("tasks", "tasks"),
    "latency": ("latency", "latency"),
    "lock-hold": ("locking", "lock_hold"),
    "schema-ids": ("contracts", "schema_ids"),
    "resolution": ("contracts", "resolution"),
    "contracts-check": ("contracts", "check"),
    "http-intake": ("http_intake", "http_intake"),
    "import": ("importing", "import_time"),
    "flood": ("flood", "flood"),
    "requests": ("requests", "requests"),
    "timers": ("timers", "timers"),
    "migrate": ("migrating", "between_files"),
    "monitoring": ("monitoring", "monitoring"),
    "scaling": ("scaling", "scaling"),
    "large": ("large", "large"),
}
_ON_KAFKA = {
    "kafka-consume": ("kafka_consuming", "consume"),
    "kafka-consume-publish": ("kafka_consuming", "consume_publish"),
    "kafka-callers": ("kafka_publishing", "callers"),
    "kafka-publish-many": ("kafka_publishing", "many"),
    "kafka-migrate": ("migrating", "to_kafka_and_back"),
    "kafka-latency": ("kafka_latency", "latency"),
    "kafka-monitoring": ("monitoring", "kafka_monitoring"),
}
_ALL = {**_ON_A_FILE, **_ON_KAFKA}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = ", ".join(_ALL)
    parser.add_argument("--quick", action="store_true", help="a fifth of the work, one round each")
    parser.add_argument("--only", action="append", choices=_ALL, metavar="NAME", help=f"one of: {names}")
    parser.add_argument("--kafka", action="store_true", help="those on Kafka, on a broker that is started for them")
    parser.add_argument("--large", action="store_true", help="also with 10 million records in the file (5 GB of disk)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run what was asked for; gives the exit code."""
    arguments = _arguments()
    if arguments.child:
        sys.stdout.buffer.write(msgspec.json.encode(_measured(arguments.only[0], arguments.quick)))
        return 0
    wanted = arguments.only or _chosen(arguments)
    try:
        results = _all_apart(wanted, arguments.quick)
    except BrokerError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(as_json(_machine(), results))
        return 0
    console = Console() if sys.stdout.isatty() else Console(width=140)
    show(results, console)
    console.print(", ".join(f"{what} {value}" for what, value in _machine().items()))
    return 0


def _chosen(arguments: argparse.Namespace) -> list[str]:
    if arguments.kafka:
        return list(_ON_KAFKA)
    return [name for name in _ON_A_FILE if name != "large" or arguments.large]


def _measured(name: str, quick: bool) -> Result:
    module, function = _ALL[name]
    result: Result = getattr(importlib.import_module(f"benchmarks.{module}"), function)(Options(quick=quick))
    return result


def _all_apart(wanted: list[str], quick: bool) -> list[Result]:
    """Run them one after the other, with a broker where one of them needs it."""
    results = []
    with _broker() if set(wanted) & set(_ON_KAFKA) else nullcontext():
        for number, name in enumerate(wanted, 1):
            print(f"[{number}/{len(wanted)}] {name}", file=sys.stderr, flush=True)
            results.append(_apart(name, quick))
    return results


def _broker() -> AbstractContextManager[None]:
    from benchmarks.kafka_running import broker

    return broker()


def _apart(name: str, quick: bool) -> Result:
    """Run one benchmark in a process of its own, so that none disturbs the next."""
    command = [sys.executable, "-m", "benchmarks", "--child", "--only", name, *(["--quick"] if quick else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout, type=Result)


def _machine() -> dict[str, object]:
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "fdatasync_ms": round(fdatasync_seconds()[0] * 1000, 3),
        "load": os.getloadavg()[0],
    }


def _processor() -> str:
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
