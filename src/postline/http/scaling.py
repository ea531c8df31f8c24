"""`GET /scale`: how many processes services should have, for an autoscaler outside."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from postline.app import App
from postline.clock import Clock
from postline.errors import PostlineError
from postline.http.hosting import is_running
from postline.log.port import Log
from postline.monitor import Adviser, Monitor, Policy, SubscriptionView, declared_name

__all__ = ["Scaling"]

_WORKERS_MAX = 1000
#: How long the log may take, with the second between a first question's looks: KEDA waits for three.
_ANSWER_SECONDS = 2.8


class Scaling:
    """Answers for apps of this process, from what their logs say of all processes. Event loop only."""

    def __init__(self, apps: Iterable[App], clock: Clock) -> None:
        self._apps, self._clock = list(apps), clock
        self._adviser: Adviser | None = None

    async def answer(self, query: bytes) -> tuple[int, Any]:
        """Status and content: 400 for a query that says nothing, 503 while the log can't be read."""
        try:
            policy = _policy(query)
        except ValueError as error:
            return 400, {"status": "refused", "reason": str(error)}
        if any(not is_running(app) for app in self._apps):
            self._adviser = None
            return 503, {"status": "not ready", "reason": "not all apps run"}
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return 200, await self._advising().advice(policy)
        except (PostlineError, TimeoutError) as error:
            return 503, {"status": "not ready", "reason": f"the log does not answer ({type(error).__name__})"}

    def _advising(self) -> Adviser:
        if self._adviser is None:
            logs = {id(app.log): app.log for app in self._apps}
            sources = [(Monitor(log, self._clock), partial(self._runs, log)) for log in logs.values()]
            self._adviser = Adviser(sources, self._clock)
        return self._adviser

    def _runs(self, log: Log, view: SubscriptionView) -> bool:
        """Whether one of the apps has declared it, whether or not its handlers run in this process."""
        return any(
            app.log is log and view.service == app.name and declared_name(view) in map(app.full_name, app.subscriptions)
            for app in self._apps
        )


def _policy(query: bytes) -> Policy:
    """`min`, `max` and `drain_seconds`. Raises ValueError with what is wrong."""
    said = dict(parse_qsl(query.decode("ascii", "replace"), keep_blank_values=True))
    if unknown := set(said) - {"min", "max", "drain_seconds"}:
        raise ValueError(f"{min(unknown)!r} is none of min, max, drain_seconds")
    least, most = _number(said, "min", 1), _number(said, "max", _WORKERS_MAX)
    if least > most:
        raise ValueError("min is above max")
    drain = said.get("drain_seconds", "60")
    try:
        seconds = float(drain)
    except ValueError:
        seconds = 0.0
    if not 0.5 <= seconds <= 604_800:
        raise ValueError(f"drain_seconds: {drain!r} is no number from 0.5 to 604800")
    return Policy(workers_min=least, workers_max=most, drain_seconds=seconds)


def _number(said: dict[str, str], name: str, default: int) -> int:
    text = said.get(name, str(default))
    if not (text.isdecimal() and text.isascii() and len(text) <= 4 and 1 <= int(text) <= _WORKERS_MAX):
        raise ValueError(f"{name}: {text!r} is no number from 1 to {_WORKERS_MAX}")
    return int(text)
