"""Resources opened once for a service, and a function around every call of its handlers.

Run it: `postline run lifespan_and_middleware.py`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from postline import App, Context, Topic

signups = Topic("site.signups", owner="greeter", key="email")


@signups.event("site.SignedUp")
class SignedUp(Struct, frozen=True):
    email: str


@dataclass
class Resources:
    """What handlers work with; a real one would hold a connection pool and an HTTP client."""

    greeting: str
    sent: list[str] = field(default_factory=list)
    attempts: Counter[str] = field(default_factory=Counter)


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[Resources]:
    resources = Resources(greeting="Welcome")
    yield resources  # handlers run between here…
    print(f"{app.name}: sent {len(resources.sent)} greetings")  # …and here


async def counted(call_next: Callable[[Any, Any], Awaitable[Any]], message: Any, ctx: Context[Resources]) -> Any:
    """Around every attempt: what it raises is the attempt's failure, what it returns is published."""
    ctx.resources.attempts[type(message).__name__] += 1
    return await call_next(message, ctx)


app = App("greeter", owns=[signups], lifespan=lifespan)
greeting = app.subscribe("greeting", signups, start="earliest", middleware=[counted])


@greeting.on(SignedUp)
async def greet(signup: SignedUp, ctx: Context[Resources]) -> None:
    ctx.resources.sent.append(f"{ctx.resources.greeting}, {signup.email}")
