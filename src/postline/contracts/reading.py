"""How values of one message class are read, whichever version of the contract wrote them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from postline.contracts.discretion import telling_of
from postline.contracts.formats import JSON, WHOLE_JSON, Codec, Format
from postline.contracts.frame import framed
from postline.contracts.json_faults import reading_fault
from postline.contracts.schema import Schema
from postline.errors import ContractError, DecodeError, EncodeError, PostlineError

__all__ = ["Reading", "Upcast"]


class Upcast(NamedTuple):
    """A step from an older class, which is kept for it, to a newer one."""

    old: Reading
    function: Callable[[Any], Any]


class Reading:
    """Reads values of one class. Thread-safe once declared; decoders are made anew at each call, for others to keep."""

    def __init__(
        self,
        cls: Any,
        name: str,
        format: Format = JSON,
        aliases: Sequence[str] = (),
        *,
        given: Schema | None = None,
        is_view: bool = False,
    ) -> None:
        self.cls, self.name, self.format = cls, name, format
        #: Wire names that the type had before.
        self.aliases = tuple(aliases)
        self.upcasts: list[Upcast] = []
        #: How values lie on the wire that name no schema, where the class doesn't say all of it.
        self._given = given
        self._is_view = is_view
        self.codec = self._codec()
        #: Reads values of this very version; raises what the format's library raises.
        self.decode = self.codec.decode

    def _codec(self) -> Codec:
        if self._given is None or not self._is_view:
            return self.format.codec(self.cls, self.name, lambda: self.schema)
        from postline.contracts.given import require_readable

        given = self._given
        require_readable(self.schema, given, self.name)
        encode, _ = self.format.codec(self.cls, self.name, lambda: given)
        return Codec(encode, self.format.decoder(self.cls, self.name, self.schema, given))

    @cached_property
    def schema(self) -> Schema:
        """What values of the class are by contract: what a service writes, or what a view reads of it.

        The class as a schema; of an owner's type with a schema given beside it, that one. Raises ContractError for
        what the model can't say, and where class and schema differ.
        """
        from postline.contracts.reflection import schema_of

        own = schema_of(self.cls, name=self.name)
        if self._given is None or self._is_view:
            return own
        from postline.contracts.given import joined

        return joined(own, self._given, self.name)

    def as_json(self) -> Reading:
        """The same for values that are written as JSON, as examples are; of versions of any format."""
        made = Reading(self.cls, self.name, WHOLE_JSON if self.format.whole else JSON, self.aliases)
        made.upcasts = [Upcast(each.old.as_json(), each.function) for each in self.upcasts]
        return made

    def fault(self, error: Exception, data: bytes, *writers: Schema) -> tuple[str, str, Exception | None]:
        """What is wrong with bytes that could not be read, what to do if it is known, and the cause if it may be told.

        Where a field is sensitive, here or in what wrote them, no value is told.
        """
        if isinstance(error, PostlineError):  # ours tell no value, or were told so before
            return error.message.removesuffix("."), error.remedy, error
        try:
            telling = telling_of(self.schema, *writers)
        except ContractError:
            telling = telling_of(*writers)  # a class without a schema marks nothing
        return (*self._said(error, data, writers), error) if telling is None else (telling(error), "", None)

    def _said(self, error: Exception, data: bytes, writers: Sequence[Schema]) -> tuple[str, str]:
        try:
            decode = self.decoder(writers[0]) if writers else self.decode
        except ContractError:  # of several writers it was another
            decode = self.decode
        return reading_fault(error, data, decode)

    @property
    def framed_with_indexes(self) -> bool:
        """Whether Confluent's frame carries the place of the message in its file, too."""
        return self.format.schema_type == "PROTOBUF"

    def framing(self, schema_id: int) -> Callable[[Any], bytes]:
        """What writes values in the frame of Confluent's serializers, with that id."""
        # A document of ours has the message first in its file.
        head, encode = framed(schema_id, b"", (0,) if self.framed_with_indexes else None), self.codec.encode
        return lambda value: head + encode(value)

    def reads(self, writer: Schema) -> bool:
        """Whether values written under that schema can be read, by an upcast if need be."""
        return self._way(writer) is not None

    def decoder(self, writer: Schema) -> Callable[[bytes], Any]:
        """What reads values that were written under another schema. Raises ContractError if nothing can."""
        way = self._way(writer)
        if way is None:
            from postline.contracts.compatibility import breaks

            first = breaks(self.schema, writer, whole=self.format.whole)[0]
            raise ContractError(
                f"{self.name} can't be read from the version that wrote it: {first.path or 'the value'}: {first.said}.",
                remedy=first.remedy,
            )
        decode, upcast = way
        if upcast is None:
            return decode
        return self._upcasting(decode, upcast)

    def _upcasting(self, decode: Callable[[bytes], Any], upcast: Upcast) -> Callable[[bytes], Any]:
        function, cls = upcast.function, self.cls

        def read(data: bytes) -> Any:
            made = function(decode(data))
            if not isinstance(made, cls):
                raise DecodeError(
                    f"The upcast {getattr(function, '__qualname__', function)} gave a {type(made).__qualname__}, "
                    f"not a {cls.__qualname__}.",
                    remedy="Return one for whatever the old class can be; then redrive.",
                )
            try:
                self.codec.encode(made)
            except EncodeError as error:
                raise DecodeError(
                    f"What the upcast {getattr(function, '__qualname__', function)} gave is no such value:"
                    f" {error.message}",
                    remedy="Return one that could be published; then redrive.",
                ) from error
            return made

        return read

    def _way(self, writer: Schema) -> tuple[Callable[[bytes], Any], Upcast | None] | None:
        if writer == (self._given if self._is_view and self._given is not None else self.schema):
            return self.decode, None
        from postline.contracts.compatibility import breaks

        if not breaks(self.schema, writer, whole=self.format.whole):
            return self.format.decoder(self.cls, self.name, self.schema, writer), None
        for upcast in self.upcasts:
            if upcast.old.reads(writer):
                return upcast.old.decoder(writer), upcast
        return None
