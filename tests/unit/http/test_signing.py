"""Signatures: against the public package of Standard Webhooks in both directions, and what `verify` refuses."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from postline.clock import SystemClock
from postline.errors import SettingsError, SignatureRefused
from postline.http.signing import Secret, secrets_of, signed_headers, verify

KEY = Secret(b"k" * 24)
NOW_MS = 1_700_000_000_000
NOW = NOW_MS // 1000


def test_the_published_example_has_its_signature():
    secret = Secret.read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.binary(min_size=24, max_size=64), st.text(), st.text("abcdef0123456789-_", min_size=1))
def test_the_public_package_takes_what_is_signed_and_signs_what_is_taken(key: bytes, text: str, message_id: str):
    secret, public = Secret(key), Webhook(Secret(key).text())
    body, now = text.encode("utf-8", "replace"), SystemClock().now_ms() // 1000
    headers = signed_headers([secret], message_id, now, body)
    public.verify(body, headers, json_parse=False)
    theirs = public.sign(message_id, datetime.fromtimestamp(now, UTC), body.decode())
    assert theirs == headers["webhook-signature"]
    assert verify(secret, {**headers, "webhook-signature": theirs}, body) == message_id


def test_secrets_are_read_as_they_are_written_and_never_shown():
    fresh = Secret.fresh()
    assert Secret.read(fresh.text()) == fresh
    assert Secret.read(fresh.text().rstrip("=")) == fresh
    assert fresh.text().removeprefix("whsec_")[:8] not in repr(fresh) + str(fresh) + f"{[fresh]}"


@pytest.mark.parametrize("size", [0, 23, 65])
def test_a_secret_of_another_size_is_refused(size: int):
    with pytest.raises(SettingsError):
        Secret(b"k" * size)


def test_a_secrets_text_is_not_taken_for_its_key():
    text: Any = Secret.fresh().text()
    with pytest.raises(SettingsError, match="no str") as refused:
        Secret(text)
    assert "Secret.read" in refused.value.remedy
    assert text not in str(refused.value)


def test_while_secrets_are_rotated_all_sign_and_any_is_taken():
    old, new = KEY, Secret(b"n" * 32)
    headers = signed_headers(secrets_of([old.text(), new]), "m", NOW, b"{}")
    for known in (old, new, [new, old]):
        assert verify(known, headers, b"{}", now_ms=NOW_MS) == "m"
    with pytest.raises(SignatureRefused):
        verify(Secret(b"x" * 32), headers, b"{}", now_ms=NOW_MS)


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "other"},
        {"webhook-id": ""},
        {"webhook-timestamp": str(NOW + 1)},
        {"webhook-timestamp": "soon"},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": "1" * 500},
        {"webhook-timestamp": "\u0661\u0667"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,AAAA"},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v2," + "A" * 44},
        {"webhook-signature": "é"},
        {"webhook-signature": " ".join(["v1,AAAA"] * 10_000)},
    ],
)
def test_a_message_that_was_changed_is_refused(change: dict[str, str]):
    headers = signed_headers([KEY], "m", NOW, b"{}") | change
    with pytest.raises(SignatureRefused):
        verify(KEY, headers, b"{}", now_ms=NOW_MS)


def test_another_body_is_refused():
    with pytest.raises(SignatureRefused):
        verify(KEY, signed_headers([KEY], "m", NOW, b"{}"), b"{ }", now_ms=NOW_MS)


@pytest.mark.parametrize("seconds", [-301, 301])
def test_a_replay_and_a_message_from_the_future_are_refused(seconds: int):
    headers = signed_headers([KEY], "m", NOW, b"{}")
    with pytest.raises(SignatureRefused):
        verify(KEY, headers, b"{}", now_ms=NOW_MS + seconds * 1000)
    assert verify(KEY, headers, b"{}", now_ms=NOW_MS + seconds * 1000, tolerance_seconds=400) == "m"


def test_names_of_headers_may_be_in_any_case():
    headers = {name.title(): value for name, value in signed_headers([KEY], "m", NOW, b"").items()}
    assert verify(KEY, headers, b"", now_ms=NOW_MS) == "m"
