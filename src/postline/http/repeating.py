"""`Repeating`: a request under an `Idempotency-Key` is stored once; its repetitions find the note of the first.

Source: draft-ietf-httpapi-idempotency-key-header-07, section 2.7: 409 while the first is under way, 422
for another body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from postline.commands import Accepted
from postline.errors import RequestIdReused
from postline.http.idempotency import IDEMPOTENCY_KEY
from postline.http.problems import RETRY_SECONDS, Problem

__all__ = ["Repeating"]


class Repeating:
    """Tells first requests from repeated ones. Event loop only."""

    def __init__(self, what: str, remedy: str = "Repeat the first one unchanged, or use a new key.") -> None:
        """`what` is asked for under keys, as problems call it; `remedy` is what they advise."""
        self._what, self._remedy = what, remedy
        #: Ids of requests that are being stored.
        self._accepting: set[str] = set()

    async def accepted(
        self,
        request_id: str,
        fingerprint: bytes,
        known: Callable[[], Awaitable[Accepted | None]],
        store: Callable[[], Awaitable[Accepted]],
    ) -> Accepted:
        """The note of the first request of this id: the one that is `known`, else what `store` has stored now.

        Of two processes that store at once, `store` settles whose the first is, and gives its note to both.
        Raises Problem: 409 while another one is being stored here, 422 if the first one had another fingerprint.
        """
        if request_id in self._accepting:
            raise Problem(
                409,
                "being-accepted",
                "The first request with this key is being accepted",
                "Send it again in a moment.",
                headers={"Retry-After": str(RETRY_SECONDS)},
            )
        self._accepting.add(request_id)
        try:
            accepted = await known() or await store()
        except RequestIdReused as error:  # by one that another process accepts now, or a killed one accepted
            raise self._reused() from error
        finally:
            self._accepting.discard(request_id)
        if accepted.fingerprint != fingerprint:
            raise self._reused()
        return accepted

    def _reused(self) -> Problem:
        return Problem(
            422,
            "key-reused",
            f"The {IDEMPOTENCY_KEY} was used for another {self._what}",
            self._remedy,
        )
