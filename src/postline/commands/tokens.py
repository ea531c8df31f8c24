"""Tokens of later replies: which command is answered, and where its partition's owner is reached."""

from __future__ import annotations

import base64
import binascii

import msgspec

from postline.errors import UsageError

__all__ = ["ReplyToken"]


class ReplyToken(msgspec.Struct, frozen=True, array_like=True):
    """Names one command that was promised a reply. Text of it is safe in addresses and file names; it is no secret."""

    subscription: str
    partition: int
    #: The command's wire name, so that a wrong reply is refused where it is given.
    command: str
    client_id: str
    request_id: str
    #: Of the command in its partition, by which it is told whether its attempt still runs.
    offset: int | None = None

    def text(self) -> str:
        """What `ctx.reply_later` gives out."""
        return base64.urlsafe_b64encode(_ENCODER.encode(self)).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> ReplyToken:
        """The token of a text. Raises UsageError for any other text."""
        try:
            return _DECODER.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (msgspec.MsgspecError, binascii.Error, ValueError, TypeError) as error:
            raise UsageError(
                f"{text!r:.80} is no token of a later reply.", remedy="Give what ctx.reply_later() returned, unchanged."
            ) from error


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(ReplyToken)
