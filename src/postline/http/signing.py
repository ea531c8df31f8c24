"""Signatures of webhooks as Standard Webhooks has them: secrets, what a sender writes, and what a receiver checks.

Source: "Standard Webhooks", 1.0.0, https://github.com/standard-webhooks/standard-webhooks. Only its symmetric
scheme, v1, is written and checked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from postline.clock import SystemClock
from postline.errors import SettingsError, SignatureRefused
from postline.ids import random_bytes

__all__ = ["ID", "SIGNATURE", "TIMESTAMP", "Secret", "Secrets", "secrets_of", "signed_headers", "verify"]

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
_PREFIX, _VERSION = "whsec_", "v1,"
_KEY_BYTES_MIN, _KEY_BYTES_MAX = 24, 64
_FRESH_BYTES = 32
_TOLERANCE_SECONDS = 300
#: More signatures than anybody rotates through; each costs the receiver a comparison.
_SIGNATURES_MAX = 32


class Secret:
    """A key that sender and receiver share. It shows itself to nobody: `repr` and `str` have no part of it."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if not isinstance(key, bytes):  # its text would do for the length, and fail at the first signature
            raise SettingsError(
                f"A webhook's secret is no {type(key).__name__}.", remedy="Read its text by `Secret.read(text)`."
            )
        if not _KEY_BYTES_MIN <= len(key) <= _KEY_BYTES_MAX:
            raise SettingsError(
                f"A webhook's secret has {len(key)} bytes.",
                remedy=f"Use {_KEY_BYTES_MIN} to {_KEY_BYTES_MAX} random bytes, as `Secret.fresh()` makes them.",
            )
        self._key = key

    @staticmethod
    def read(text: str) -> Secret:
        """The secret that `whsec_` and base64 write. Raises SettingsError, without telling any of it."""
        coded = text.removeprefix(_PREFIX)
        try:
            key = base64.b64decode(coded + "=" * (-len(coded) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise SettingsError(
                "A webhook's secret is no base64.", remedy=f"Write it as {_PREFIX} and base64 of its bytes."
            ) from None
        if not text.startswith(_PREFIX):
            raise SettingsError(f"A webhook's secret does not begin with {_PREFIX}.", remedy="Give it as it was made.")
        return Secret(key)

    @staticmethod
    def fresh() -> Secret:
        """A new one of 32 random bytes from the system."""
        return Secret(random_bytes(_FRESH_BYTES))

    def text(self) -> str:
        """It as it is handed to the other side, and kept."""
        return _PREFIX + base64.b64encode(self._key).decode()

    def sign(self, message_id: str, timestamp: int, body: bytes) -> str:
        """The signature of one message, with its version; `timestamp` in seconds since 1970."""
        return _VERSION + base64.b64encode(self._digest(message_id, str(timestamp), body)).decode()

    def matches(self, signature: str, message_id: str, timestamp: str, body: bytes) -> bool:
        """Whether it made this signature; takes the same time whatever the signature is."""
        own = _VERSION.encode() + base64.b64encode(self._digest(message_id, timestamp, body))
        return hmac.compare_digest(own, signature.encode("utf-8", "replace"))

    def _digest(self, message_id: str, timestamp: str, body: bytes) -> bytes:
        return hmac.digest(self._key, f"{message_id}.{timestamp}.".encode("utf-8", "replace") + body, hashlib.sha256)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._key, other._key)

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return "Secret(…)"


#: One secret, or several while they are rotated: a sender signs by all, a receiver takes what any has signed.
Secrets: TypeAlias = str | Secret | Iterable[str | Secret]


def secrets_of(given: Secrets) -> tuple[Secret, ...]:
    """The secrets, read. Raises SettingsError for none, or for one that is not sound."""
    each = (given,) if isinstance(given, str | Secret) else tuple(given)
    if not each:
        raise SettingsError("A webhook has no secret to sign with.", remedy="Give one: Secret.fresh() makes it.")
    return tuple(one if isinstance(one, Secret) else Secret.read(one) for one in each)


def signed_headers(secrets: Iterable[Secret], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a message, signed by each of the secrets."""
    signatures = " ".join(secret.sign(message_id, timestamp, body) for secret in secrets)
    return {ID: message_id, TIMESTAMP: str(timestamp), SIGNATURE: signatures}


def verify(
    secrets: Secrets,
    headers: Mapping[str, str],
    body: bytes,
    *,
    tolerance_seconds: float = _TOLERANCE_SECONDS,
    now_ms: int | None = None,
) -> str:
    """For receivers: the id of a message that its sender signed not long ago. Drop repetitions of an id.

    `body` is as it came, before anything reads it. Raises SignatureRefused for a message that is forged, changed, or
    more than `tolerance_seconds` older or younger than `now_ms` (the system's clock), and SettingsError for a secret
    that is none.
    """
    known = secrets_of(secrets)
    lower = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp, signatures = (lower.get(name, "") for name in (ID, TIMESTAMP, SIGNATURE))
    if not (message_id and timestamp and signatures):
        raise SignatureRefused(f"The message lacks one of {ID}, {TIMESTAMP} and {SIGNATURE}.", remedy="Answer it 400.")
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        raise SignatureRefused(f"The message's {TIMESTAMP} is no number of seconds.", remedy="Answer it 400.")
    given = signatures.split(" ")[:_SIGNATURES_MAX]
    found = [secret.matches(each, message_id, timestamp, body) for secret in known for each in given]
    if not any(found):
        raise SignatureRefused("No signature of the message is by a known secret.", remedy="Answer it 401.")
    now_seconds = (SystemClock().now_ms() if now_ms is None else now_ms) / 1000
    if abs(now_seconds - int(timestamp)) > tolerance_seconds:
        raise SignatureRefused(
            f"The message was signed {now_seconds - int(timestamp):.0f} s ago, beyond {tolerance_seconds:g} s.",
            remedy="It may be a replay: answer it 400; if all are so, set the clock.",
        )
    return message_id
