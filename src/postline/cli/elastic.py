"""As many workers as the backlog needs: looks at the log, decides, and tells the supervisor and whoever reads along."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol

import click

from postline.app import App, open_log
from postline.cli.opening import settings_for
from postline.clock import Clock, SystemClock
from postline.errors import PostlineError, UsageError
from postline.monitor import Look, Monitor, Policy, Scale, Source, SubscriptionView, advance, declared_name, loads_in

__all__ = ["Elastic", "WorkerRange", "policy_of", "scaling_options", "workers_option"]

_RANGE = re.compile(r"([0-9]{1,4})(?:\.\.([0-9]{1,4}))?")
_WORKERS_MAX = 1000
#: How often is looked: ten times in the target, but within these.
_LOOK_SECONDS_MIN, _LOOK_SECONDS_MAX = 0.25, 5.0


class WorkerRange(NamedTuple):
    """What `--workers` says: as many at least, and at most."""

    least: int
    most: int


def workers_option(command: Any) -> Any:
    """Let a command be told how many workers: `4`, or `1..8`."""
    return click.option(
        "--workers",
        metavar="N|MIN..MAX",
        callback=_read,
        help="So many processes, restarted when they die; of a range as many as the backlog needs.",
    )(command)


def _read(ctx: click.Context, param: click.Parameter, text: str | None) -> WorkerRange | None:
    if text is None:
        return None
    found = _RANGE.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no number, nor a range such as 1..8.", ctx, param)
    least, most = int(found[1]), int(found[2] or found[1])
    if not 1 <= least <= most <= _WORKERS_MAX:
        raise click.BadParameter(f"{text!r} is not within 1..{_WORKERS_MAX}, the lower number first.", ctx, param)
    return WorkerRange(least, most)


def scaling_options(command: Any) -> Any:
    """Let a command be told by which times the number of workers changes."""
    for name, default, least, text in (
        ("--cool-down-seconds", 120.0, 0.0, "how long fewer must have been enough before one is taken away."),
        ("--drain-seconds", 60.0, 0.5, "in what time a backlog shall be handled."),
    ):
        command = click.option(
            name,
            default=default,
            show_default=str(int(default)),
            type=click.FloatRange(least, 604_800),
            metavar="SECONDS",
            callback=_keep,
            expose_value=False,
            help=f"With MIN..MAX: {text}",
        )(command)
    return command


def policy_of(ctx: click.Context, workers: WorkerRange) -> Policy:
    """What the options say. Raises UsageError for times without a range."""
    times = {name: float(ctx.meta[f"{__name__}.{name}"]) for name in ("drain_seconds", "cool_down_seconds")}
    given = [name for name in times if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT]
    if given and workers.least == workers.most:
        raise UsageError(
            f"--{given[0].replace('_', '-')} says when the number of workers changes, and there is but one number.",
            remedy="Give a range, such as --workers 1..8.",
        )
    return Policy(workers_min=workers.least, workers_max=workers.most, **times)


def _keep(ctx: click.Context, param: click.Parameter, seconds: float) -> None:
    ctx.meta[f"{__name__}.{param.name}"] = seconds


class Team(Protocol):
    """Workers whose number can be changed."""

    @property
    def workers(self) -> int:
        """How many there shall be."""

    @property
    def leaving(self) -> int:
        """How many have not ended yet, although they shall."""

    def resize(self, workers: int) -> None:
        """Have so many."""


def _is_of(declared: set[tuple[str, str]], view: SubscriptionView) -> bool:
    return (view.service, declared_name(view)) in declared


class Elastic:
    """Changes the number of workers of these apps by what their subscriptions have to do."""

    #: A log that does not answer is asked again after so long.
    away_seconds = 5.0

    def __init__(self, policy: Policy, apps: Sequence[App], url: str | None, report: Callable[[str], None]) -> None:
        self._policy, self._apps, self._url, self._report = policy, apps, url, report
        self._clock: Clock = SystemClock()
        self._scale = Scale()
        #: Why nothing could be seen at the last look; "" if it could.
        self._blind = ""

    async def steer(self, team: Team) -> None:
        """Look and decide until cancelled. A log that is away is told once, and the number stays meanwhile."""
        every = min(_LOOK_SECONDS_MAX, max(_LOOK_SECONDS_MIN, self._policy.drain_seconds / 10))
        while True:
            try:
                async with self._opened() as logs:
                    while True:
                        await self._look(team, logs)
                        await self._clock.sleep(every)
            except PostlineError as error:
                self._tell_blind(error, team)
            await self._clock.sleep(self.away_seconds)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[list[Source]]:
        """A monitor for each log, and which of its subscriptions these apps have declared."""
        declared: dict[str, set[tuple[str, str]]] = {}
        found: list[Source] = []
        async with AsyncExitStack() as stack:
            for app in self._apps:
                settings = settings_for(self._url, app.url)
                names = declared.setdefault(settings.url.text, set())
                if not names:
                    log = open_log(settings, self._clock)
                    stack.push_async_callback(log.close)
                    await log.start()
                    found.append((Monitor(log, self._clock), partial(_is_of, names)))
                names.update((app.name, settings.full_name(name)) for name in app.subscriptions)
            yield found

    async def _look(self, team: Team, logs: Sequence[Source]) -> None:
        began = self._clock.monotonic()
        loads = await loads_in(logs)
        self._blind, at = "", self._clock.monotonic()
        look = Look(at=at, workers=team.workers, loads=loads, took=at - began)
        self._scale, decision = advance(self._policy, self._scale, look)
        # Never more processes than the most, also while some of them still leave.
        desired = min(decision.desired, self._policy.workers_max - team.leaving)
        if desired != team.workers:
            self._report(f"workers {team.workers} -> {desired}: {decision.reason}")
            team.resize(desired)

    def _tell_blind(self, error: PostlineError, team: Team) -> None:
        if not self._blind:
            self._report(f"can't see how far services are behind: {error.message}; there stay {team.workers} workers")
        self._blind = error.message
