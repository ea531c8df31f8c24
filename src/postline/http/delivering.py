"""Delivering one message to one target: signed, posted, and what its answer means for the message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from postline.contracts.cloudevents import TRACE
from postline.errors import DeliveryFailed
from postline.http.calling import Answer
from postline.http.outgoing import STRUCTURED, EventWriter
from postline.http.signing import Secret, signed_headers
from postline.runtime.context import Context
from postline.runtime.intents import RetryLater
from postline.runtime.retry import Retry

__all__ = ["STANDARD_RETRY", "Deliver", "Gone", "Post", "Target", "retry_after_seconds"]

_HOUR = 3_600.0
#: When a message is tried again, as Standard Webhooks recommends: for about three days.
STANDARD_RETRY = Retry(
    immediate=0,
    delays=(5.0, 300.0, 1_800.0, 2 * _HOUR, 5 * _HOUR, 10 * _HOUR, 14 * _HOUR, 20 * _HOUR, 24 * _HOUR),
    jitter=0.1,
)
#: The longest that a target can put us off at a time.
_PUT_OFF_SECONDS_MAX = 24 * _HOUR
#: When a message whose target is gone is tried again, should somebody resume the subscription.
_GONE_SECONDS = 60.0

#: Posts once: url, headers and body to the answer. Raises DeliveryFailed.
Post: TypeAlias = Callable[[str, dict[str, str], bytes], Awaitable[Answer]]
#: Told of a target that wants no more messages (410); repeated, it changes nothing.
Gone: TypeAlias = Callable[[Context[Any], str], Awaitable[None]]


class Target(NamedTuple):
    """Where a message goes, and what it is signed with."""

    url: str
    secrets: tuple[Secret, ...]

    @property
    def place(self) -> str:
        """The URL as it may be told: what stands behind the host is a secret with many services."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{'/…' if parts.path.strip('/') or parts.query else ''}"


class Deliver:
    """The handler of a webhook's subscription: returns once the target has taken the message.

    Each attempt has the same `webhook-id` and the same body, with a timestamp and signatures of its own. Raises
    DeliveryFailed for an attempt that failed, RetryLater where the target says when to come again.
    """

    def __init__(
        self,
        post: Post,
        writer: EventWriter,
        target_of: Callable[[Context[Any]], Target | None],
        gone: Gone,
    ) -> None:
        self._post, self._writer, self._target_of, self._gone = post, writer, target_of, gone

    async def __call__(self, message: Any, ctx: Context[Any]) -> None:
        """One attempt."""
        target = self._target_of(ctx)
        if target is None:
            return
        body = self._writer.write(message, ctx.envelope, f"{ctx.topic}/{ctx.partition}/{ctx.offset}")
        headers = {"content-type": STRUCTURED, "user-agent": "Postline-Webhooks/1"}
        headers |= {name: value for name, value in ctx.envelope.headers.items() if name in TRACE and _is_plain(value)}
        headers |= signed_headers(target.secrets, ctx.idempotency_key, ctx.desk.now_ms() // 1000, body)
        answer = await self._post(target.url, headers, body)
        if not 200 <= answer.status < 300:
            await self._refused(answer, target, ctx)

    async def _refused(self, answer: Answer, target: Target, ctx: Context[Any]) -> None:
        if answer.status == 410:
            await self._gone(ctx, target.place)
            raise RetryLater(_GONE_SECONDS, f"{target.place} answered 410: it wants no more messages")
        if answer.status in (429, 503):
            seconds = retry_after_seconds(answer.headers.get("retry-after", ""), ctx.desk.now_ms())
            if seconds is not None:
                raise RetryLater(
                    min(seconds, _PUT_OFF_SECONDS_MAX),
                    f"{target.place} answered {answer.status} and asked to come again in {seconds:.0f} s",
                )
        moved = " (redirects are not followed)" if 300 <= answer.status < 400 else ""
        raise DeliveryFailed(
            f"{target.place} answered {answer.status}{moved}.", remedy="It is tried again; see what its owner logs."
        )


def retry_after_seconds(text: str, now_ms: int) -> float | None:
    """The seconds that a Retry-After means, of either form; None for what is none."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:12])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError):
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0.0, at.timestamp() - now_ms / 1000)


def _is_plain(value: str) -> bool:
    """Whether a text can be a header's value."""
    return value.isascii() and value.isprintable()
