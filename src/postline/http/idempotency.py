"""Idempotency keys and request ids: whose request it is, to which topic, and which repetition of what.

Source: draft-ietf-httpapi-idempotency-key-header-07. The key is a structured field's string; a bare token is taken too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from postline.http.problems import Problem
from postline.ids import derived_id

__all__ = ["IDEMPOTENCY_KEY", "KEY_PATTERN", "NAME_PATTERN", "RequestName", "mark_of", "read_key"]

IDEMPOTENCY_KEY = "Idempotency-Key"
_KEY_CHARACTERS_MAX = 255
_IN_QUOTES = r'"((?:[ !#-\[\]-~]|\\["\\]){1,255})"'
_WITHOUT = r"[A-Za-z0-9!#$%&'*+.^_`|~:/@=-]{1,255}"
_QUOTED, _BARE = re.compile(_IN_QUOTES), re.compile(_WITHOUT)
#: What a key looks like.
KEY_PATTERN = f"{_IN_QUOTES}|{_WITHOUT}"
_ESCAPED = re.compile(r"\\(.)")
_NAME = re.compile(r"([0-9a-f]{16})([0-9a-f]{8})([0-9a-f]{32})(?:-([0-9a-f]{1,12}))?")
#: What URLs of requests end with.
NAME_PATTERN = "[0-9a-f]{56}(-[0-9a-f]{1,12})?"


def read_key(values: Sequence[str]) -> str | None:
    """The key that a request carries; None if it has none. Raises Problem (400) for what is no key, or several."""
    if not values:
        return None
    text = values[0].strip(" \t")
    if len(values) == 1:
        found = _QUOTED.fullmatch(text)
        key = _ESCAPED.sub(r"\1", found.group(1)) if found else text if _BARE.fullmatch(text) else ""
        if key:
            return key
    raise Problem(
        400,
        "idempotency-key",
        f"The {IDEMPOTENCY_KEY} can't be read",
        f'Give one, of 1 to {_KEY_CHARACTERS_MAX} printable ASCII characters, in quotes: {IDEMPOTENCY_KEY}: "…".',
    )


class RequestName(NamedTuple):
    """A request as its URL names it.

    The id says of itself whose it is and to which command topic, so that no look-up is needed to refuse another's. The
    time is told beside it, so that one which retention has taken can be told from one that never was.
    """

    principal_mark: str
    topic_mark: str
    unique: str
    accepted_ms: int = 0

    @property
    def request_id(self) -> str:
        """What the request is called in the log."""
        return self.principal_mark + self.topic_mark + self.unique

    def text(self, accepted_ms: int) -> str:
        """How its URL ends."""
        return f"{self.request_id}-{accepted_ms:x}"

    @classmethod
    def read(cls, text: str) -> RequestName | None:
        """What a URL names; None for what no URL of ours ends with."""
        found = _NAME.fullmatch(text)
        if found is None:
            return None
        principal, topic, unique, time = found.groups()
        return cls(principal, topic, unique, int(time, 16) if time else 0)

    @classmethod
    def keyed(cls, principal: str, topic: str, route: str, key: str) -> RequestName:
        """The request of an idempotency key: the same for every repetition, another one for anybody else."""
        return cls(mark_of(principal, 8), mark_of(topic, 4), derived_id("gateway", principal, route, key))

    @classmethod
    def fresh(cls, principal: str, topic: str, unique: str) -> RequestName:
        """A request that nobody repeats."""
        return cls(mark_of(principal, 8), mark_of(topic, 4), unique)


def mark_of(name: str, size: int) -> str:
    """Stands for a principal's or a topic's name in an id."""
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=size).hexdigest()
