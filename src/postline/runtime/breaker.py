"""A circuit breaker that makes records wait: while a backend is down one attempt at a time looks whether it is back."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from postline.clock import Clock, Timer
from postline.errors import DecodeError, SettingsError
from postline.logs.events import event
from postline.runtime.intents import DeadLetter, Discard, RetryLater
from postline.runtime.retry import Retry

__all__ = ["Breaker", "Circuit"]

_log = logging.getLogger("postline.runtime")

#: What a handler says of the record itself, and of no backend.
_VERDICTS = (DeadLetter, Discard, RetryLater, DecodeError)

#: Pool, partition and lane.
_Entry = tuple[Any, Any, Any]


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """After `failures` attempts in a row that failed, one probe at a time: at first after `probe_seconds`, then later.

    The time between probes doubles up to `probe_seconds_max`. Only `errors` count, and none that are never retried.
    Handlers of one subscription that are given the same breaker stand and fall together, in each process.
    Raises SettingsError for what makes no sense.
    """

    failures: int = 5
    probe_seconds: float = 1.0
    probe_seconds_max: float = 60.0
    errors: tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        if self.failures < 1 or not 0 < self.probe_seconds <= self.probe_seconds_max or not self.errors:
            raise SettingsError(
                f"Breaker can't be used: failures={self.failures}, probe_seconds={self.probe_seconds}, "
                f"probe_seconds_max={self.probe_seconds_max}, errors={self.errors}.",
                remedy="Give at least one failure and one type of error, and probe times above zero.",
            )

    def problems(self, retry: Retry) -> list[str]:
        """What does not fit this policy, in sentences; [] if they go together."""
        if retry.attempts_max >= self.failures:
            return []
        attempts = f"a record is given up after {retry.attempts_max} attempts"
        opening = f"before its breaker opens after {self.failures} failures"
        return [f"{attempts}, {opening}; allow more attempts, or fewer failures."]

    def counts(self, error: BaseException, retry: Retry) -> bool:
        """Whether the backend may be at fault for an error."""
        if not isinstance(error, self.errors) or isinstance(error, _VERDICTS):
            return False
        return not isinstance(error, retry.policy_for(error).never)


class Circuit:
    """One backend's state for one subscription in one process, and the lanes that wait for it. Event loop only."""

    def __init__(self, breaker: Breaker, clock: Clock, name: str, title: str) -> None:
        #: `name` names the message types that need it, and `title` also whose they are.
        self.breaker, self.name, self._title = breaker, name, title
        #: Whether records wait for the backend to come back.
        self.open = False
        #: No success yet, or a failure since the last one: the next success has to be told.
        self.troubled = True
        #: Wall-clock milliseconds of when it opened, and what the backend's last error was.
        self.since_ms, self.error = 0, ""
        #: Told when it has opened or closed.
        self.on_change: list[Callable[[Circuit], None]] = []
        self._clock = clock
        self._failures = 0
        self._proven = False
        self._probe_seconds, self._next_probe = breaker.probe_seconds, 0.0
        self._waiting: deque[_Entry] = deque()
        self._probe: _Entry | None = None
        self._timer: Timer | None = None

    @property
    def waits_for_time(self) -> bool:
        """Whether lanes wait until it is time to look again."""
        return self._timer is not None

    # -- lanes ----------------------------------------------------------------------------------

    def holds_back(self, lane: Any) -> bool:
        """Whether a lane that needs the backend must wait now; it need not if it is its turn to look."""
        return self.open and (self._probe is None or self._probe[2] is not lane)

    def set_aside(self, entry: _Entry) -> None:
        """The lane waits, still marked active, until it is queued again: to look, or because the backend is back."""
        self._waiting.append(entry)
        self._look_in_time()

    def probe_over(self) -> None:
        """The attempt that looked has ended, whatever it said; if it said nothing, the next one looks at once."""
        self._probe = None
        self._look_in_time()

    def forget(self, owned: object) -> None:
        """Let go of the lanes of a partition that goes away."""
        self._waiting = deque(entry for entry in self._waiting if entry[1] is not owned)
        if self._probe is not None and self._probe[1] is owned:
            self._probe = None
        self._look_in_time()

    def close(self) -> None:
        """Look no more."""
        self._waiting.clear()
        self._look_in_time()

    def _look_in_time(self) -> None:
        wanted = self.open and self._probe is None and bool(self._waiting)
        if wanted and self._timer is None:
            seconds = max(0.0, self._next_probe - self._clock.monotonic())
            self._timer = self._clock.call_later(seconds, self._look)
        elif not wanted and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._waiting:
            self._probe = self._waiting.popleft()
            pool, owned, lane = self._probe
            pool.enqueue(owned, lane)

    # -- what attempts say --------------------------------------------------------------------

    def succeeded(self) -> None:
        """The backend answered: everybody may pass."""
        self._failures, self.troubled, self._proven = 0, False, True
        self._probe_seconds = self.breaker.probe_seconds
        if not self.open:
            return
        self.open = False
        _log.info(
            "%s: the backend is back, %d keys that waited go on",
            self._title,
            len(self._waiting),
            extra=event("breaker.closed", waiting=len(self._waiting), breaker=self._title),
        )
        waiting, self._waiting = self._waiting, deque()
        self._look_in_time()
        for pool, owned, lane in waiting:
            pool.enqueue(owned, lane)
        self._tell()

    def failed(self, error: str, *, probing: bool) -> bool:
        """The backend did not answer as it should; whether the record is to wait for it, as if it hadn't been tried."""
        self._failures, self.troubled, self.error = self._failures + 1, True, error
        if self.open:
            if probing:  # attempts that were under way when it opened say nothing new
                self._probe_seconds = min(self._probe_seconds * 2, self.breaker.probe_seconds_max)
                self._next_probe = self._clock.monotonic() + self._probe_seconds
                self._tell()
            return True
        if self._failures < self.breaker.failures:
            return False
        _log.error(
            "%s: %d failures in a row, so records wait until one gets through: %s",
            *(self._title, self._failures, error),
            extra=event("breaker.opened", failures=self._failures, breaker=self._title),
        )
        self._open(self._clock.now_ms(), error, self._probe_seconds)
        return True

    def take_over(self, since_ms: int, error: str) -> bool:
        """The last owner of a partition found it open: look at once, unless this process knows better."""
        if not (self.open or self._proven):
            self._open(since_ms, error, 0.0)
        return self.open

    def _open(self, since_ms: int, error: str, seconds: float) -> None:
        self.open = self.troubled = True
        self.since_ms, self.error = since_ms, error
        self._next_probe = self._clock.monotonic() + seconds
        self._tell()

    def _tell(self) -> None:
        for told in self.on_change:
            told(self)
