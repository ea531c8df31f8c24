"""What is kept of a command that is still to be answered."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from postline.message import Envelope

__all__ = ["Owed", "decode_owed", "encode_owed"]


class Owed(NamedTuple):
    """All that was said of the command, and whether it had an answer before."""

    #: Whole, since the reply needs all of it, and the command may be gone by then.
    cause: Envelope
    again: bool
    #: Until when a reply is waited for; 0 if that depends on something else.
    due_ms: int = 0


#: The bytes of it, and back.
encode_owed = msgspec.msgpack.Encoder().encode
decode_owed = msgspec.msgpack.Decoder(Owed).decode
