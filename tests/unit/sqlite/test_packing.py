"""Envelopes come back from their bytes as they were."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postline.errors import DecodeError, EncodeError
from postline.log.sqlite.packing import pack, unpack
from postline.message import Envelope

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_HEX_ID = st.binary(min_size=16, max_size=16).map(bytes.hex)
_ID = st.one_of(_HEX_ID, _HEX_ID.map(str.upper), st.text("0123456789abcdef ", min_size=32, max_size=32), _TEXT)

_ENVELOPE = st.builds(
    Envelope,
    id=_ID,
    source=_TEXT,
    type=_TEXT,
    time_ms=st.integers(-(2**63), 2**63 - 1),
    content_type=st.one_of(st.just("application/json"), _TEXT),
    correlation_id=_ID,
    causation_id=_ID,
    headers=st.dictionaries(_TEXT, _TEXT, max_size=4),
)


@given(_ENVELOPE)
def test_an_envelope_comes_back_equal(envelope: Envelope) -> None:
    assert unpack(envelope.type, pack(envelope)) == envelope


def test_an_ordinary_envelope_takes_less_than_forty_bytes() -> None:
    envelope = Envelope(id="0" * 31 + "1", source="shop", type="shop.OrderPlaced", time_ms=1_700_000_000_000)
    assert len(pack(envelope)) < 40


@pytest.mark.parametrize("wrong", [Envelope(id="\ud800"), Envelope(headers={"a": "\udfff"}), Envelope(time_ms=2**70)])
def test_what_is_no_text_or_number_is_refused(wrong: Envelope) -> None:
    with pytest.raises(EncodeError):
        pack(wrong)


@given(
    st.one_of(
        st.binary(),
        st.lists(st.one_of(st.integers(-5, 5), st.none(), _TEXT, st.binary(max_size=4))).map(msgspec.msgpack.encode),
    )
)
def test_whatever_the_bytes_are_there_is_an_envelope_of_text_or_a_decode_error(packed: bytes) -> None:
    with contextlib.suppress(DecodeError):
        pack(unpack("shop.OrderPlaced", packed))


@pytest.mark.parametrize("packed", [b"", b"\xc1", b"\x91\x05", b"\x91\xa1\xff", b"\x91" * 100_000, None, "text"])
def test_bytes_that_are_no_envelope_are_a_decode_error(packed: bytes) -> None:
    with pytest.raises(DecodeError, match=r"envelope of a 'shop\.OrderPlaced' record") as caught:
        unpack("shop.OrderPlaced", packed)
    assert caught.value.__cause__ is not None
