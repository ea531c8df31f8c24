"""A request as its status resource shows it: how it stands, its result, or the problem that it ended in."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Literal, TypeAlias

import msgspec
from starlette.responses import Response

from postline.commands import Outcome, Standing
from postline.contracts.commands import CommandTopic
from postline.contracts.replies import TimedOut
from postline.http.exposed import Exposure
from postline.http.problems import Problem

__all__ = ["ENDED", "JSON", "RETRY_SECONDS", "State", "StatusWriter", "links", "status_response"]

State: TypeAlias = Literal["pending", "running", "succeeded", "refused", "failed", "timed-out", "cancelled"]
ENDED: tuple[State, ...] = ("succeeded", "refused", "failed", "timed-out", "cancelled")
JSON = "application/json"
#: When a client that only looks now and then should look again.
RETRY_SECONDS = 1


class StatusWriter:
    """Writes statuses as JSON."""

    def __init__(self, exposure: Exposure) -> None:
        self._exposure = exposure

    def state_of(self, standing: Standing) -> State:
        """How a request stands. It is known to run once its handler told of its progress."""
        if standing.outcome is not None:
            state = standing.outcome.state
            return "pending" if state == "open" else state
        return "running" if standing.note else "pending"

    def document(self, topic: CommandTopic, standing: Standing, name: str, url: str) -> bytes:
        """The status resource of a request; `name` is its id as its URL ends, `url` its URL."""
        told: dict[str, Any] = {"id": name, "status": self.state_of(standing)}
        if standing.accepted is not None:
            told |= {"command": standing.accepted.command}
        if standing.note:
            told["note"] = standing.note
        if standing.outcome is not None:
            told |= self._ended(topic, standing.outcome, url)
        return msgspec.json.encode(told | {"links": links(url)})

    def _ended(self, topic: CommandTopic, outcome: Outcome, url: str) -> dict[str, Any]:
        if outcome.state == "succeeded":
            kind, value = self._exposure.written(topic, outcome.reply)
            return {"result": msgspec.Raw(value), "result_type": kind}
        problem = self._problem(outcome).document(url)
        if outcome.state == "refused":
            kind, value = self._exposure.written(topic, outcome.reply)
            problem |= {"refusal": msgspec.Raw(value), "refusal_type": kind}
        return {"problem": problem}

    def _problem(self, outcome: Outcome) -> Problem:
        match outcome.state:
            case "refused":
                return Problem(422, "refused", "The service refused the command")
            case "cancelled":
                return Problem(409, "cancelled", "The command was cancelled before it was begun")
            case "timed-out":
                said = outcome.reply.said if isinstance(outcome.reply, TimedOut) else ""
                return Problem(504, "timed-out", "The command was not done in time", said)
        # What its exception says is the service's own matter: it lies with the dead letter.
        return Problem(500, "failed", "The service could not do it")


def links(url: str) -> dict[str, str]:
    """Where a request can be asked for; its URL also takes DELETE."""
    return {"self": url, "events": f"{url}/events", "cancel": url}


def status_response(body: bytes, headers: dict[str, str], if_none_match: str, *, ended: bool) -> Response:
    """The answer with a status, or 304 if the client has that one already."""
    tag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    told = {"ETag": tag, "Cache-Control": "no-store", **headers}
    if not ended:
        told["Retry-After"] = str(RETRY_SECONDS)
    known = [each.strip().removeprefix("W/") for each in if_none_match.split(",")]
    if tag in known or "*" in known:
        return Response(status_code=304, headers=told)
    return Response(body, 200, told, JSON)
