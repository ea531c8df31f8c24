"""What an app says in its log of its own life, and of subscriptions that nobody serves."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

from postline.log.port import Log
from postline.logs.events import event
from postline.runtime.plan import REPLAY_INFIX

__all__ = ["AppLife", "name_unserved"]

_life = logging.getLogger("postline.lifecycle")
_log = logging.getLogger("postline")


class AppLife:
    """Tells of one app in this process."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._started = False

    def started(self, log: Log, subscriptions: Iterable[str]) -> None:
        """It runs."""
        names, self._started = list(subscriptions), True
        _life.info(
            "app %s runs on %s: %s",
            *(self._name, log.address, ", ".join(names) or "no subscriptions"),
            extra=event("app.started", app=self._name, log=log.address, subscriptions=names),
        )

    def stopping(self, grace_seconds: float) -> None:
        """It begins nothing more."""
        if self._started:
            _life.info(
                "app %s stops: attempts that run may end within %g s",
                *(self._name, grace_seconds),
                extra=event("app.stopping", app=self._name, grace_seconds=grace_seconds),
            )

    def stopped(self) -> None:
        """Everything is committed and left."""
        if self._started:
            _life.info("app %s has stopped", self._name, extra=event("app.stopped", app=self._name))

    def aborted(self) -> None:
        """It let go of everything at once."""
        if self._started:
            _life.warning(
                "app %s was aborted: what was not committed is handled again",
                self._name,
                extra=event("app.aborted", app=self._name),
            )

    def stop_failed(self, error: BaseException) -> None:
        """A subscription could not commit or leave."""
        _log.error(
            "app %s: a subscription did not stop cleanly: %s",
            *(self._name, error),
            extra=event("app.stop_failed", app=self._name),
        )


async def name_unserved(log: Log, service: str, served: Collection[str]) -> None:
    """Name the service's subscriptions that are none of these, and have no members. Raises LogError."""
    for info in await log.subscriptions():
        if REPLAY_INFIX in info.name or info.service != service or info.name in served or await log.members(info.name):
            continue
        _log.warning(
            "subscription %s of service %s is not served by this version, nor by a running one, and keeps its "
            "position: serve it, rename it by aliases=, or, if nobody will need it, "
            "`postline subscriptions remove %s`",
            *(info.name, service, info.name),
            extra=event("subscription.unserved", subscription=info.name, service=service),
        )
