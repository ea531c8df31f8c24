"""`TestContext`: a real context on a stand-in for its partition, so that a handler can be called directly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from postline.contracts import Catalog, Kind
from postline.errors import UsageError
from postline.ids import derived_id
from postline.log.port import Append, Record
from postline.message import Envelope
from postline.runtime.context import Context
from postline.runtime.control import cancel_record
from postline.runtime.delays import pack_append

__all__ = ["DirectContext", "TestContext"]

_TEST_MS = 1_700_000_000_000


class _FakeDesk:
    """Stands in for an owned partition: remembers what was published, keeps state in a dict."""

    dry_run = False

    def __init__(self, subscription: str, topic: str, resources: Any, envelope: Envelope, catalog: Catalog) -> None:
        self.subscription, self.topic, self.partition = subscription, topic, 0
        self.resources = resources
        self.published: list[Any] = []
        self.notes: list[str] = []
        self.stored: dict[bytes, bytes] = {}
        self._envelope = envelope
        self._catalog = catalog
        self._kind: Kind | None = None

    def envelope(self, record: Record) -> Envelope:
        return self._envelope

    def output(
        self, context: Context[Any], message: Any, headers: Mapping[str, str] | None, priority: str | None = None
    ) -> Append:
        """As the outlet does: the contract is asked, if there are contracts to be asked."""
        name, topic, key, value = type(message).__qualname__, "", None, b""
        if self._catalog.topics:
            contract = self._catalog.contract_for(type(message))
            name, topic, key, value = (
                contract.name,
                contract.topic,
                contract.key_of(message),
                contract.encode(message),
            )
        ordinal = context.next_ordinal(name, key)
        own = derived_id(self.subscription, context.message_id, name, str(key), str(ordinal))
        envelope = Envelope(
            id=own,
            type=name,
            correlation_id=context.correlation_id,
            causation_id=context.message_id,
            headers=dict(headers) if headers else {},
        )
        self.published.append(message)
        return Append(topic, 0, key, value, envelope)

    def pack(self, append: Append) -> bytes:
        return pack_append(append, 1)

    def cancellation(self, context: Context[Any], token: str) -> Append:
        return cancel_record(token, Envelope(id=derived_id(self.subscription, context.message_id, token)))

    def command(
        self, context: Context[Any], command: Any, times: tuple[int | None, int | None], priority: str | None = None
    ) -> Append:
        """As `output`; the request id is the message's id."""
        return self.output(context, command, None)

    def promise(self, context: Context[Any]) -> str:
        context.promised = True
        return f"later-{context.message_id}"

    def later(self, token: str, reply: Any) -> Append:
        self.published.append(reply)
        return Append("test.control", 0, token.encode(), None, Envelope(id=token))

    async def progress(self, context: Context[Any], note: str) -> None:
        self.notes.append(note)

    def log_fields(self, context: Context[Any]) -> dict[str, Any]:
        return {"subscription": self.subscription, "topic": self.topic, "offset": context.offset}

    def log_hide(self, context: Context[Any]) -> None:
        return None

    def now_ms(self) -> int:
        return _TEST_MS

    def stored_state(self, key: bytes) -> bytes | None:
        return self.stored.get(key)

    def encode_state(self, value: Any) -> bytes:
        self._kind = Kind(type(value))
        return self._kind.encode(value)

    def decode_state(self, data: bytes) -> Any:
        assert self._kind is not None, "what was stored was encoded first"
        return self._kind.decode(data)


class DirectContext(Context[Any]):
    """A context for calling one handler by hand; made by `TestContext`."""

    @property
    def published(self) -> list[Any]:
        """The messages that were published through it, in order."""
        assert isinstance(self.desk, _FakeDesk)
        return self.desk.published


def TestContext(  # noqa: N802 - reads as the class it stands for
    *,
    key: bytes | str | None = "key",
    state: Any = None,
    states: Mapping[str, Any] | None = None,
    resources: Any = None,
    attempt: int = 1,
    envelope: Envelope | None = None,
    topics: Catalog | None = None,
    subscription: str = "test",
) -> DirectContext:
    """A context for a direct call of a handler: `await bill(order, ctx)`, then look at `ctx.published`.

    `state` is what the key's state was before; `states` (key to value, None where there is none)
    makes it the context of a batch handler with these keys. With `topics=Catalog([...])` published
    messages are checked against their contracts, without it anything may be published.
    """
    if states is not None and state is not None:
        raise UsageError("TestContext was given state= and states=.", remedy="Use states= for batch handlers alone.")
    own = key.encode() if isinstance(key, str) else key
    if states is not None:
        own = next((name.encode() for name in states), own)
    desk = _FakeDesk(subscription, "test", resources, envelope or Envelope(id="test"), topics or Catalog([]))
    before = dict(states) if states is not None else {} if own is None else {own.decode(): state}
    for name, value in before.items():
        if value is not None:
            desk.stored[name.encode()] = desk.encode_state(value)
    record: Record = (0, _TEST_MS, own, desk._envelope.type, b"", 0, None)
    batch_keys = None if states is None else frozenset(name.encode() for name in states)
    return DirectContext(desk, record, attempt, batch_keys=batch_keys)


TestContext.__test__ = False  # type: ignore[attr-defined]
