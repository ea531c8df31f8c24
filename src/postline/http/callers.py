"""Who is let in: the hook that names the caller, this machine alone without one, and how often each may ask."""

from __future__ import annotations

import inspect
import ipaddress
import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import TypeAlias

from starlette.requests import Request

from postline.clock import Clock
from postline.http.problems import Problem, busy
from postline.logs.events import event

__all__ = ["Authenticate", "Callers", "is_loopback"]

_log = logging.getLogger("postline.http")

#: Names who asks by what the request carries; None refuses. May be a coroutine.
Authenticate: TypeAlias = Callable[[Request], "str | Awaitable[str | None] | None"]

#: Who asks from this machine where no hook says who it is.
LOCAL = "local"
#: Callers whose rate is remembered; the one that asked longest ago is forgotten first.
_REMEMBERED_MAX = 10_000
#: A request that carries one came through a proxy: that it comes from this machine says nothing then.
_FORWARDED = frozenset(
    name.encode()
    for name in (
        *("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via"),
        *("x-client-ip", "true-client-ip", "cf-connecting-ip"),
    )
)


class Callers:
    """Names callers and counts what they ask. Event loop only."""

    def __init__(
        self,
        authenticate: Authenticate | None,
        challenge: str,
        rate: tuple[float, int] | None,
    ) -> None:
        self._authenticate, self._challenge = authenticate, challenge
        self._rates = _Rates(*rate) if rate is not None else None

    @property
    def authenticates(self) -> bool:
        """Whether somebody says who asks."""
        return self._authenticate is not None

    async def admit(self, request: Request) -> str:
        """The principal that asks. Raises Problem (401, 403) for who is not let in."""
        if self._authenticate is None:
            _require_local(request)
            return LOCAL
        try:
            found = self._authenticate(request)
            principal = await found if inspect.isawaitable(found) else found
        except Exception as error:
            _log.exception("the hook authenticate= failed: nobody is let in", extra=event("http.authenticate_failed"))
            raise Problem(500, "", "Internal Server Error") from error
        if not principal:
            raise Problem(401, "", "Unauthorized", headers={"WWW-Authenticate": self._challenge})
        return principal

    def count(self, principal: str, clock: Clock) -> None:
        """Count one request of a principal. Raises Problem (429) beyond the rate, with when to come again."""
        if self._rates is None:
            return
        seconds = self._rates.take(principal, clock.monotonic())
        if seconds > 0:
            raise busy("The rate of requests is limited for each caller.", math.ceil(seconds))


class _Rates:
    """A bucket of tokens for each caller."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second, self._burst = per_second, burst
        #: What is left, and when that was counted.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, principal: str, now: float) -> float:
        """Seconds until there is a token; 0 if one was taken."""
        left, at = self._left.pop(principal, (float(self._burst), now))
        left = min(float(self._burst), left + (now - at) * self._per_second)
        taken = left >= 1
        self._left[principal] = (left - 1 if taken else left, now)
        if len(self._left) > _REMEMBERED_MAX:
            self._left.popitem(last=False)
        return 0 if taken else (1 - left) / self._per_second


def _require_local(request: Request) -> None:
    """Raise Problem (403) for who does not ask from this machine, or from a page of somebody else's.

    A page in a browser here can reach this machine under a name of its own; it can't change the Host that it sends.
    """
    client, raw = request.scope.get("client"), request.scope["headers"]
    hosts = [value for name, value in raw if name == b"host"]
    forwarded = any(name in _FORWARDED for name, _ in raw)
    if client is None or not is_loopback(client[0]) or forwarded or len(hosts) != 1 or not _names_here(hosts[0]):
        raise Problem(
            403,
            "local-only",
            "Forbidden",
            "Only this machine is served, under the name localhost, until the gateway is given authenticate=.",
        )


@lru_cache(maxsize=256)
def _names_here(host: bytes) -> bool:
    """Whether a Host names this machine, with a port or without."""
    text = host.decode("latin-1")
    return is_loopback(text.strip("[]")) or is_loopback(text.rpartition(":")[0].strip("[]"))


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether an address, or the name localhost, means this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool(address.is_loopback or (mapped is not None and mapped.is_loopback))
