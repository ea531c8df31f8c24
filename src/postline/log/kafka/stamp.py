"""The stamp: what is stored in a committed offset's metadata, beside the position.

Kafka keeps 4,095 characters of metadata for each partition of a group. Epoch and commit number fence and resolve
unknown outcomes; the owner's transactional id lets its successor end a transaction that it left open.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode

import msgspec

from postline.errors import LogVersionError
from postline.message import UNREADABLE

__all__ = ["STAMP_CHARACTERS_MAX", "Stamp"]

STAMP_CHARACTERS_MAX = 4_000
_VERSION = 1
_PREFIX = f"postline{_VERSION}:"
_OURS = re.compile(r"postline([0-9]{1,6}):")


class Stamp(msgspec.Struct, array_like=True, frozen=True):
    """One partition of a subscription as last committed, but for its position."""

    #: Rises with every assignment.
    epoch: int
    #: Rises with every commit, so that one of unknown outcome can be recognised.
    number: int
    #: The transactional id of the member that wrote it.
    owner: str
    #: The runtime's progress value; None where it is too long to stand here and lies in the changelog instead.
    progress: bytes | None = b""

    def encode(self) -> str:
        """The metadata to commit, or as much of it as fits: the progress is left out if it would be too long."""
        text = self._written()
        if len(text) <= STAMP_CHARACTERS_MAX or self.progress is None:
            return text
        return msgspec.structs.replace(self, progress=None)._written()

    def _written(self) -> str:
        return _PREFIX + b64encode(_ENCODER.encode(self)).decode()

    @property
    def fits(self) -> bool:
        """Whether the progress has room in the metadata."""
        return self.progress is not None and len(self._written()) <= STAMP_CHARACTERS_MAX

    @staticmethod
    def decode(metadata: str | None, where: str) -> Stamp | None:
        """The stamp in an offset's metadata; None where another program committed the offset.

        Raises LogVersionError for a newer version's.
        """
        if not metadata or not (found := _OURS.match(metadata)):
            return None
        if int(found[1]) > _VERSION:
            raise LogVersionError(
                f"{where}: a newer version committed its offset: version {found[1]}, we read {_VERSION}.",
                remedy="Run the newer version of Postline that wrote it.",
            )
        try:
            return _DECODER.decode(b64decode(metadata[len(_PREFIX) :], validate=True))
        except (binascii.Error, *UNREADABLE):
            return None


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Stamp)
