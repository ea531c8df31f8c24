"""What one client of the gateway may take up."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one client may take up."""

    body_bytes_max: int = 1 << 20
    #: How long a client may take to send a command's body.
    body_seconds_max: float = 30.0
    #: The longest that `Prefer: wait=` is heeded for.
    wait_seconds_max: float = 30.0
    #: How long a query is waited for whose client prefers nothing.
    query_wait_seconds: float = 10.0
    #: Requests a second of each principal, and how many at once above that; None is no limit. In each process.
    rate: tuple[float, int] | None = None
    #: Event streams that are open at a time, in each process.
    streams_max: int = 1_000
    #: How often a stream that has nothing to tell shows that it is alive; at most 15 s keeps proxies content.
    heartbeat_seconds: float = 15.0
