"""What a handler may ask and do besides its message: publish, keyed state, identity, resources."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Protocol, overload

import msgspec

from postline.contracts.cloudevents import CLIENT_ID, REQUEST_ID
from postline.errors import UsageError
from postline.ids import derived_id
from postline.log.port import Append, Record
from postline.logs.handled import Hide
from postline.message import Envelope
from postline.runtime.delays import DelayToken, Due, Waiting, due_of, order_of

__all__ = ["Context", "Desk", "StateHandle", "milliseconds_of"]

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    ResourcesT = TypeVar("ResourcesT", default=Any)
else:  # PEP 696 defaults are for type checkers alone until Python 3.13
    from typing import TypeVar

    ResourcesT = TypeVar("ResourcesT")

_UNSEEN = Envelope()
_LONGEST_SECONDS = 366 * 86_400


class Desk(Protocol):
    """What a context works on: one owned partition (or a test's stand-in for it)."""

    subscription: str
    topic: str
    partition: int
    resources: Any
    #: Nothing that is done through its contexts is stored.
    dry_run: bool

    def envelope(self, record: Record) -> Envelope:
        """The record's envelope."""

    def output(
        self, context: Context[Any], message: Any, headers: Mapping[str, str] | None, priority: str | None = None
    ) -> Append:
        """The record that publishing `message` from this context makes."""

    def pack(self, append: Append) -> bytes:
        """What is kept of a record until it leaves, checked for size."""

    def cancellation(self, context: Context[Any], token: str) -> Append:
        """The record that asks for a delayed message to be cancelled."""

    def command(
        self, context: Context[Any], command: Any, times: tuple[int | None, int | None], priority: str | None = None
    ) -> Append:
        """The record that sending `command` from this context makes; when it expires, and leaves if not now, in ms."""

    def promise(self, context: Context[Any]) -> str:
        """The token of a reply that comes later."""

    def later(self, token: str, reply: Any) -> Append:
        """The record that gives a later reply."""

    async def progress(self, context: Context[Any], note: str) -> None:
        """Tell the client of the command how far it is."""

    def now_ms(self) -> int:
        """Wall-clock milliseconds."""

    def log_fields(self, context: Context[Any]) -> dict[str, Any]:
        """What lines that are logged in this attempt carry."""

    def log_hide(self, context: Context[Any]) -> Hide | None:
        """Hides what the record's contract marks as sensitive; None where it marks nothing."""

    def stored_state(self, key: bytes) -> bytes | None:
        """The key's state before this attempt."""

    def encode_state(self, value: Any) -> bytes:
        """The bytes of a state value."""

    def decode_state(self, data: bytes) -> Any:
        """The state value of these bytes."""


class Context(msgspec.Struct, Generic[ResourcesT], gc=False):
    """One attempt at one record. Valid while its handler runs; not for use after it returned.

    What is published and put through it is stored in one step with the record's settlement,
    or not at all.
    """

    desk: Desk
    record: Record
    #: Which attempt this is, from 1.
    attempt: int = 1
    outbox: list[Append] | None = None
    staged: dict[bytes, bytes | None] | None = None
    ordinals: dict[tuple[str, bytes | None], int] | None = None
    opened: Envelope = _UNSEEN
    #: The keys whose state a batch handler may use; None outside batches.
    batch_keys: frozenset[bytes] | None = None
    #: The attempt has ended: what were published or put now would be stored by nobody.
    closed: bool = False
    #: What was published to leave later.
    delayed: list[Waiting] | None = None
    #: What else this attempt puts into partition state, by namespace and key.
    entries: dict[tuple[str, bytes], bytes] | None = None
    #: The reply comes later: the handler returns none.
    promised: bool = False

    @property
    def envelope(self) -> Envelope:
        """Everything that was said about the message."""
        if self.opened is _UNSEEN:
            self.opened = self.desk.envelope(self.record)
        return self.opened

    @property
    def resources(self) -> ResourcesT:
        """What `App(lifespan=…)` yielded."""
        resources: ResourcesT = self.desk.resources
        return resources

    @property
    def dry_run(self) -> bool:
        """Whether this is a rehearsal: what is published, put and answered here is checked, and dropped.

        A handler that is declared `dry_run=True` leaves out then what it does elsewhere.
        """
        return self.desk.dry_run

    @property
    def subscription(self) -> str:
        """The subscription's name."""
        return self.desk.subscription

    @property
    def topic(self) -> str:
        """The topic that the record lies in."""
        return self.desk.topic

    @property
    def partition(self) -> int:
        """The partition that the record lies in."""
        return self.desk.partition

    @property
    def offset(self) -> int:
        """The record's offset in its partition."""
        return self.record[0]

    @property
    def key(self) -> bytes | None:
        """The record's key as stored."""
        return self.record[2]

    @property
    def published_at(self) -> datetime:
        """When the log took the record in (UTC)."""
        return datetime.fromtimestamp(self.record[1] / 1000, UTC)

    @property
    def message_id(self) -> str:
        """The message's id; of a foreign record without one, its place in the log."""
        return self.envelope.id or f"{self.topic}/{self.partition}/{self.offset}"

    @property
    def correlation_id(self) -> str:
        """The conversation that the message belongs to."""
        return self.envelope.correlation_id or self.message_id

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt, redrive and replay of this message in this subscription."""
        return derived_id(self.subscription, self.envelope.source, self.message_id)

    @property
    def state(self) -> StateHandle:
        """This key's state, committed together with the record."""
        return StateHandle(self)

    @overload
    def publish(
        self, message: Any, *, headers: Mapping[str, str] | None = None, priority: str | None = None
    ) -> None: ...

    @overload
    def publish(
        self,
        message: Any,
        *,
        headers: Mapping[str, str] | None = None,
        priority: str | None = None,
        delay: timedelta | float,
    ) -> str: ...

    @overload
    def publish(
        self, message: Any, *, headers: Mapping[str, str] | None = None, priority: str | None = None, at: datetime
    ) -> str: ...

    @overload
    def publish(
        self,
        message: Any,
        *,
        headers: Mapping[str, str] | None = None,
        priority: str | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
    ) -> str | None: ...

    def publish(
        self,
        message: Any,
        *,
        headers: Mapping[str, str] | None = None,
        priority: str | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
    ) -> str | None:
        """Publish `message` with this record's settlement, or not at all. Never waits.

        `priority` is one of its topic's, "normal" unless it is said.

        Its id is derived from this message and its place among its like, so a repeated attempt
        gives it the same id. With `delay` (seconds or timedelta) or `at` (a datetime with a time zone) it leaves then,
        by the clock of this partition's owner; what is checked is checked now. Gives the token that cancels it, which
        counts once the record is settled; None for one that leaves at once. Raises MessageError if its contract refuses
        it, UsageError if no topic declares its type, for what is no time, or if the handler has ended.
        """
        if self.closed:
            raise self.too_late("published through")
        if delay is not None or at is not None:
            return self._put_off(message, headers, priority, due_of(delay, at, self.desk.now_ms()))
        self.put_out(self.desk.output(self, message, headers, priority))
        return None

    def _put_off(self, message: Any, headers: Mapping[str, str] | None, priority: str | None, due: Due) -> str:
        self._count_ordinals()
        return self._let_leave(self.desk.output(self, message, headers, priority), due)

    def _count_ordinals(self) -> None:
        if self.ordinals is None and self.outbox is None:
            self.ordinals = {}  # counted from the first on, since the outbox does not have it

    def _let_leave(self, append: Append, due: Due) -> str:
        order = order_of(self.offset, len(self.delayed or ()))
        self.let_wait(Waiting(due, order, append.envelope.id, self.desk.pack(append)))
        return str(DelayToken(self.desk.subscription, self.desk.partition, due.at_ms, order, append.envelope.id))

    def let_wait(self, waiting: Waiting) -> None:
        """Keep what is to leave later, with this record's settlement; for patterns."""
        if self.delayed is None:
            self.delayed = []
        self.delayed.append(waiting)

    def cancel(self, token: str) -> None:
        """Have a delayed message cancelled with this record's settlement, or not at all. Never waits.

        Its partition's owner does it a little later; nothing happens if it has left by then. Raises UsageError for what
        is no token.
        """
        if self.closed:
            raise self.too_late("asked to cancel through")
        self.put_out(self.desk.cancellation(self, token))

    def put_out(self, append: Append) -> None:
        """Let a record leave with this one's settlement, or not at all."""
        if self.outbox is None:
            self.outbox = [append]
        else:
            self.outbox.append(append)

    def put_entry(self, namespace: str, key: bytes, value: bytes) -> None:
        """Write an entry of partition state with this record's settlement, or not at all."""
        if self.entries is None:
            self.entries = {}
        self.entries[namespace, key] = value

    def send(
        self,
        command: Any,
        *,
        timeout: timedelta | float | None = None,
        priority: str | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
    ) -> str:
        """Send a command with this record's settlement, or not at all; gives its request id. Never waits.

        `priority` is one of its topic's. Its reply comes as a message (`App.replies`). With `delay` or `at` it leaves
        then, as a message of `publish` does. One that no attempt has begun within `timeout` (seconds or timedelta) of
        leaving expires. A repeated attempt sends it under the same id. Raises as `publish` does.
        """
        if self.closed:
            raise self.too_late("sent through")
        due = None if delay is None and at is None else due_of(delay, at, self.desk.now_ms())
        leaves_ms = self.desk.now_ms() if due is None else due.at_ms
        expires_ms = None if timeout is None else leaves_ms + milliseconds_of(timeout)
        if due is None:
            self.put_out(append := self.desk.command(self, command, (expires_ms, None), priority))
        else:
            self._count_ordinals()
            self._let_leave(append := self.desk.command(self, command, (expires_ms, leaves_ms), priority), due)
        return append.envelope.id

    @property
    def client_id(self) -> str:
        """Who asked for what is handled here: a command's client, or that of the command behind this message; or ""."""
        return self.envelope.headers.get(CLIENT_ID, "")

    @property
    def request_id(self) -> str:
        """The request behind what is handled here; or ""."""
        return self.envelope.headers.get(REQUEST_ID, "")

    def reply_later(self) -> str:
        """Answer this command later, from anywhere in the service, also after a restart: gives the token to do it with.

        The handler returns nothing then. `app.reply(token, …)`, or `ctx.reply` in another handler, answers once; until
        then the ticket is open. Raises UsageError outside commands.
        """
        if self.closed:
            raise self.too_late("asked for a later reply")
        return self.desk.promise(self)

    def reply(self, token: str, reply: Any) -> None:
        """Give the reply that `reply_later` promised, with this record's settlement, or not at all.

        The first one counts. Raises UsageError for what is no token, ContractError for what is no reply.
        """
        if self.closed:
            raise self.too_late("replied through")
        self.put_out(self.desk.later(token, reply))

    async def progress(self, note: str) -> None:
        """Tell whoever waits for this command how far it is; durable when this returns, whatever the attempt ends in.

        Raises UsageError outside commands, LogError.
        """
        if self.closed:
            raise self.too_late("asked to tell progress")
        await self.desk.progress(self, note)

    def too_late(self, what: str) -> UsageError:
        """The error of a use after the attempt, which nothing is stored with any more."""
        return UsageError(
            f"Subscription {self.subscription!r}: the context of record {self.offset} was {what} after its handler had "
            "ended.",
            remedy="Await in the handler what uses its context; a task that outlives it can't publish with it.",
        )

    def log_fields(self) -> dict[str, Any]:
        """What lines of the standard library's loggers carry in this attempt (`postline.logs`), for other loggers.

        Subscription, handler, topic, partition, offset, key (masked where it is sensitive), attempt, ids.
        """
        return self.desk.log_fields(self)

    def log_hide(self) -> Hide | None:
        """Puts masks for the values of the record's sensitive fields into a text; None if its contract marks none."""
        return self.desk.log_hide(self)

    def next_ordinal(self, type_name: str, key: bytes | None) -> int:
        """How many messages of this type and key were published before in this attempt."""
        if self.ordinals is None:
            if self.outbox is None:
                return 0
            self.ordinals = {}
            for append in self.outbox:
                before = (append.envelope.type, append.key)
                self.ordinals[before] = self.ordinals.get(before, 0) + 1
        place = (type_name, key)
        ordinal = self.ordinals.get(place, 0)
        self.ordinals[place] = ordinal + 1
        return ordinal


def milliseconds_of(time: timedelta | float) -> int:
    """A span in milliseconds. Raises UsageError for what is none, or below zero."""
    seconds = time.total_seconds() if isinstance(time, timedelta) else time
    if not 0 <= seconds <= _LONGEST_SECONDS:
        raise UsageError(f"{time!r} is no time to wait.", remedy="Give seconds, or a timedelta, of 0 or more.")
    return int(seconds * 1000)


class StateHandle:
    """The handlers' own state of one key; of any key of the batch in a batch handler."""

    __slots__ = ("_context",)

    def __init__(self, context: Context[Any]) -> None:
        self._context = context

    def get(self, key: bytes | str | None = None) -> Any:
        """The value, with this attempt's own puts seen; None if there is none."""
        place = self._key(key)
        staged = self._context.staged
        data = staged[place] if staged and place in staged else self._context.desk.stored_state(place)
        return None if data is None else self._context.desk.decode_state(data)

    def put(self, value: Any, key: bytes | str | None = None) -> None:
        """Keep `value`; refused here if it can't be encoded or is too large."""
        self._stage(self._key(key), self._context.desk.encode_state(value))

    def delete(self, key: bytes | str | None = None) -> None:
        """Forget the value; nothing happens if there is none."""
        self._stage(self._key(key), None)

    def _stage(self, place: bytes, data: bytes | None) -> None:
        if self._context.staged is None:
            self._context.staged = {}
        self._context.staged[place] = data

    def _key(self, key: bytes | str | None) -> bytes:
        context = self._context
        if context.closed:
            raise context.too_late("asked for state")
        own = context.record[2]
        if not isinstance(key, str | bytes | None):
            raise UsageError(
                f"Subscription {context.subscription!r}: {key!r:.80} is no key of a state.",
                remedy="Give the value first and then the key, as text or bytes: ctx.state.put(value, key).",
            )
        place = own if key is None else key.encode() if isinstance(key, str) else key
        if place is None:
            raise UsageError(
                f"Subscription {context.subscription!r}: a record without a key has no state.",
                remedy="Declare a key on the topic, or keep the value elsewhere.",
            )
        # Another key's handler may be running at this moment, so its state is out of bounds.
        allowed = place == own if context.batch_keys is None else place in context.batch_keys
        if not allowed:
            raise UsageError(
                f"Subscription {context.subscription!r}: state of key {_shown(place)} asked for while handling "
                f"{_shown(own)}.",
                remedy="Use the state of the record's own key; publish a message to reach another key.",
            )
        return place


def _shown(key: bytes | None) -> str:
    return "none" if key is None else repr(key.decode("utf-8", "backslashreplace"))
