"""How long `import postline` takes, and what it pulls in."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import Options, directory

__all__ = ["import_time"]

_OPTIONAL = (
    *("pydantic", "rich", "click", "confluent_kafka", "starlette", "sqlalchemy", "opentelemetry"),
    *("fastavro", "google.protobuf", "httpx", "aiohttp", "uvicorn"),
)
_TIMED = (
    "import sys, time; began = time.perf_counter(); import postline; print(time.perf_counter() - began); "
    f"print(' '.join(name for name in {_OPTIONAL!r} if name in sys.modules))"
)


def import_time(options: Options) -> Result:
    """In fresh processes, their start-up not counted, files warm."""
    result = Result("import", "import postline")
    seconds, extras = [], ""
    with directory() as place:
        # Its own bytecode: an environment that forbids to write any would have every process compile everything.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": place, "PYTHONDONTWRITEBYTECODE": ""}
        for _ in range(1 + (5 if options.quick else 15)):
            command = [sys.executable, "-c", _TIMED]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            taken, extras = done.stdout.splitlines()
            seconds.append(float(taken))
    del seconds[0]  # that one wrote the bytecode
    found = statistics.median(seconds) * 1000
    result.figures.append(Figure("import postline, median", found, "ms"))
    result.ratios.append(Ratio("import time", found, 120, at_least=False, unit="ms"))
    result.notes.append(f"optional packages imported with it: {extras or 'none'}")
    return result
