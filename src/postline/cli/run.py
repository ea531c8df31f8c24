"""`postline run`: services in this process, or in several that are kept alive."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from functools import partial
from typing import Any

import click

from postline.app import HANDLER_THREAD
from postline.cli.elastic import Elastic, WorkerRange, policy_of, scaling_options, workers_option
from postline.cli.loading import load_apps
from postline.cli.logged import LogOptions, Report, ending_in_json, log_options
from postline.cli.opening import settings_for, url_option
from postline.cli.probing import Place, health_option, place_of_worker
from postline.cli.service import serve
from postline.errors import UsageError

__all__ = ["command"]

#: What a thread that has nothing to do needs to end.
_IDLE_THREAD_SECONDS = 0.2

_EPILOG = """\b
Examples:
  postline run app.py
  postline run shop:app billing:app
  postline run shop:app --workers 4 --url sqlite:///shop.db
  postline run shop:app --workers 1..8 --drain-seconds 30
  postline run shop:app --watch
  postline run shop:app --log-format json  # one object to a line, for a collector of logs
  postline run shop:app --health 8081      # /healthz and /readyz, for this machine

\b
SIGTERM or SIGINT: no new attempts, those that run may end within --grace, commit, leave. Another
one, a second later or more, lets go at once; what was not committed is handled again.
Exit codes: 0 stopped; 2 wrong usage or settings; 3 the log could not do it; 4 a service failed;
130 ended by a second signal.
"""


@click.command(epilog=_EPILOG)
@click.argument("targets", metavar="APP...", nargs=-1, required=True)
@workers_option
@scaling_options
@click.option("--watch", is_flag=True, help="Restart when a source file below here changes; for development.")
@click.option("--grace", default=10.0, show_default=True, metavar="SECONDS", help="For attempts that run at the stop.")
@log_options
@health_option
@click.option("--supervised", is_flag=True, hidden=True)
@url_option
def command(
    targets: tuple[str, ...],
    workers: WorkerRange | None,
    watch: bool,
    grace: float,
    health: Place | None,
    supervised: bool,
    url: str | None,
    **logs: Any,
) -> int:
    """Run services until told to stop.

    APP is module:name, or a file; without a name it is `app`, or the only app there. Apps on one
    log share it. The log is made if it does not exist.
    """
    logging_as = LogOptions(logs["log_level"], logs["log_format"], logs["log_sample"])
    policy = policy_of(click.get_current_context(), workers or WorkerRange(1, 1))
    report = logging_as.begin()
    if not (workers or watch):
        with ending_in_json(report):
            code = asyncio.run(serve(load_apps(targets), url, grace, report, supervised, health))
        _end_beside_stuck_threads(code, report)
        return code
    from postline.cli.supervisor import Supervisor

    elastic = policy.workers_min < policy.workers_max
    if elastic and watch:
        raise UsageError("--watch restarts a fixed number of workers.", remedy="Leave it out, or give one number.")
    if workers:
        with ending_in_json(report):
            _refuse_memory(targets, url)
    arguments = ["run", *targets, "--supervised", "--grace", str(grace), *logging_as.arguments()]
    arguments += ["--url", url] if url else []
    own = None if health is None else partial(place_of_worker, health)
    supervisor = Supervisor(
        arguments,
        policy.workers_min,
        watch=watch,
        grace_seconds=grace,
        report=report,
        own_arguments=own,
        steer=Elastic(policy, load_apps(targets), url, report).steer if elastic else None,
    )
    return asyncio.run(supervisor.run())


def _end_beside_stuck_threads(code: int, report: Report) -> None:
    """End the process here if a plain handler still runs: the interpreter would wait for its thread, maybe for ever.

    Everything is committed and closed by now, and what that handler returns would be dropped.
    """
    handlers = [thread for thread in threading.enumerate() if HANDLER_THREAD in thread.name]
    for thread in handlers:
        thread.join(_IDLE_THREAD_SECONDS)
    if stuck := [thread.name for thread in handlers if thread.is_alive()]:
        report(f"ending although handlers still run in threads: {', '.join(stuck)}; their records are handled again")
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _refuse_memory(targets: tuple[str, ...], url: str | None) -> None:
    for app in load_apps(targets):
        if settings_for(url, app.url).url.in_memory:
            raise UsageError(
                f"App {app.name!r} would run on a log in memory, which several processes can't share.",
                remedy="Name a file, e.g. --url sqlite:///postline.db, or leave --workers out.",
            )
