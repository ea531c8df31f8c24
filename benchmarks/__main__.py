"""`python -m benchmarks`: runs the raw limit, Postline and the peers in one run, and prints how they compare."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

import apsw
import msgspec
from rich.console import Console

from benchmarks import consuming, importing, large, latency, locking, publishing
from benchmarks.results import Result, as_json, show
from benchmarks.running import Options

_BENCHMARKS = {
    "consume": consuming.consume,
    "consume-publish": consuming.consume_publish,
    "slow-handler": consuming.slow_handler,
    "handlers": consuming.handlers,
    "callers": publishing.callers,
    "one-at-a-time": publishing.one_at_a_time,
    "publish-many": publishing.many,
    "latency": latency.latency,
    "lock-hold": locking.lock_hold,
    "import": importing.import_time,
    "large": large.large,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = ", ".join(_BENCHMARKS)
    parser.add_argument("--quick", action="store_true", help="a fifth of the work, one round each")
    parser.add_argument("--only", action="append", choices=_BENCHMARKS, metavar="NAME", help=f"one of: {names}")
    parser.add_argument("--large", action="store_true", help="also with 10 million records in the file (5 GB of disk)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run what was asked for; gives the exit code."""
    arguments = _arguments()
    if arguments.child:
        result = _BENCHMARKS[arguments.only[0]](Options(quick=arguments.quick))
        sys.stdout.buffer.write(msgspec.json.encode(result))
        return 0
    wanted = arguments.only or [name for name in _BENCHMARKS if name != "large" or arguments.large]
    results = []
    for number, name in enumerate(wanted, 1):
        print(f"[{number}/{len(wanted)}] {name}", file=sys.stderr, flush=True)
        results.append(_apart(name, arguments.quick))
    if arguments.json:
        print(as_json(_machine(), results))
        return 0
    console = Console() if sys.stdout.isatty() else Console(width=140)
    show(results, console)
    console.print(", ".join(f"{what} {value}" for what, value in _machine().items()))
    return 0


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
        "fdatasync_ms": round(latency.fdatasync_seconds()[0] * 1000, 3),
        "load": os.getloadavg()[0],
    }


def _processor() -> str:
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
