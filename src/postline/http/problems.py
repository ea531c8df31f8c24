"""Refusals as RFC 9457 problem details: which error becomes which, and where in the JSON the fault lies."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from postline.errors import BackPressure, ContractError, LogError, MessageTooLarge, PostlineError, UsageError

__all__ = ["PROBLEM_TYPE", "Problem", "busy", "invalid", "problem_of", "problem_response", "slow"]

PROBLEM_TYPE = "application/problem+json"
_URN = "urn:postline:problem:"
RETRY_SECONDS = 1

#: In msgspec's words, where the fault lies: "… - at `$.lines[0].amount`"; "`key` in `$…`" speaks of a key.
_PATH = re.compile(r" - at (?:`key` in )?`\$([^`]*)`")
#: pydantic tells all faults at once.
_SEVERAL = re.compile(r"(?<=`); ")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\['((?:[^'\\]|\\.)*)'\]")
_MISSING = re.compile(r"missing required field `([^`]+)`")


class Problem(Exception):
    """A refusal as it is answered: a status, a slug that names the type of problem, a title and what is wrong here."""

    def __init__(
        self,
        status: int,
        slug: str,
        title: str,
        detail: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        faults: list[dict[str, str]] | None = None,
    ) -> None:
        super().__init__(detail or title)
        self.status, self.slug, self.title, self.detail = status, slug, title, detail
        self.headers = dict(headers or {})
        self.faults = faults or []

    def document(self, instance: str = "") -> dict[str, Any]:
        """The problem as JSON has it."""
        told = {"type": _URN + self.slug if self.slug else "about:blank", "title": self.title, "status": self.status}
        optional = {"detail": self.detail, "instance": instance, "errors": self.faults}
        return told | {name: value for name, value in optional.items() if value}


def problem_response(problem: Problem, instance: str = "") -> Response:
    """The answer that a problem is."""
    headers = {"Cache-Control": "no-store", **problem.headers}
    return Response(msgspec.json.encode(problem.document(instance)), problem.status, headers, PROBLEM_TYPE)


def problem_of(error: PostlineError) -> Problem:
    """The problem that an error is, for whoever asked over HTTP: nothing of the log's own is told."""
    match error:
        case BackPressure(retry_after_seconds=seconds):
            return busy("The service is behind with its commands; nothing was stored.", max(1, math.ceil(seconds)))
        case ContractError():
            said = "The service answers by another version of its contract than this gateway has."
            return Problem(502, "unreadable", "The outcome can't be read here", said)
        case LogError() | UsageError():  # the latter is that the app is not running
            return Problem(
                503,
                "unavailable",
                "Nothing can be stored now",
                "Whether it was stored is not known: send it again, with the same Idempotency-Key.",
                headers={"Retry-After": str(RETRY_SECONDS)},
            )
        case _:
            return Problem(500, "", "Internal Server Error")


def busy(detail: str, after_seconds: int) -> Problem:
    """Too much at a time; come again later."""
    return Problem(429, "busy", "Too many requests", detail, headers={"Retry-After": str(after_seconds)})


def slow() -> Problem:
    """A body that did not come in time."""
    headers = {"Connection": "close"}
    return Problem(408, "slow", "Request Timeout", "The body did not come in time.", headers=headers)


def invalid(error: ContractError) -> Problem:
    """What its contract refuses, with JSON pointers to the faults."""
    if isinstance(error, MessageTooLarge):
        return Problem(413, "too-large", "The command is too large", error.message)
    said = error.message if error.__cause__ is None else str(error.__cause__)
    faults = [_fault(each) for each in _SEVERAL.split(said)]
    return Problem(422, "invalid", "The command is not as its contract has it", error.message, faults=faults)


def _fault(said: str) -> dict[str, str]:
    found = _PATH.search(said)
    pointer = _pointer_of(found.group(1)) if found else ""
    if (missing := _MISSING.search(said)) is not None:
        pointer += "/" + _escaped(missing.group(1))
    return {"pointer": f"#{pointer}", "detail": _PATH.sub("", said).strip()}


def _pointer_of(path: str) -> str:
    steps = (name or number or key for name, number, key in _STEP.findall(path))
    return "".join("/" + _escaped(step) for step in steps)


def _escaped(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")
