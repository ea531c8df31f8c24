"""The one tree of errors: each says what happened, where, and what to do about it.

PostlineError
├── SettingsError            settings that contradict each other or can't be read
├── ContractError            a contract that is wrong, or used against its declaration
│   └── MessageError         one message that its contract refuses
│       ├── EncodeError      a value that can't be written (missing key, wrong type)
│       ├── DecodeError      bytes that can't be read as the declared type
│       └── MessageTooLarge  over the size limit
├── UsageError               a call in the wrong place or of the wrong shape
│   ├── RequestIdReused      a request id that another command has already
│   └── UnknownRecord        no such dead letter, or held record, of the subscription
├── LogError                 the durable log could not do what was asked
│   ├── LogUnavailable       locked, unreachable, closed; asking again may help
│   ├── BackPressure         the topic's bound is reached: nothing stored, publish again later
│   ├── LogFull              no room on the disk; asking again helps once there is
│   ├── LogCorrupt           damaged, truncated, or not a Postline file
│   ├── LogVersionError      written by a version that this one can't read
│   ├── LogReadOnly          the file or its directory can't be written
│   ├── LogRefused           the cluster refuses: login, certificate, permission, policy
│   ├── Fenced               the partition belongs to a newer owner
│   ├── LogMoved             everything in it is, or will soon be, in another log
│   ├── UnknownTopic         no such topic in the log
│   ├── TopicMismatch        the topic in the log differs from its contract
│   ├── UnknownSubscription  no such subscription in the log
│   ├── SubscriptionConflict the name is taken by another service or topic
│   └── MissingCapability    this engine can't keep that promise
├── SignatureRefused         a webhook that is forged, changed or replayed
├── DeliveryFailed           a webhook that its target did not take
│   └── ForbiddenAddress     its target lies where nobody may call
├── PublishTimeout           a publish whose outcome is unknown: repeat it with the same id
└── OutcomeError             a command ended, for who asked, in something else than success
    ├── Refused              the service's business decision; handlers raise it, clients catch it
    ├── HandlerFault         the service could not do it
    └── RequestTimeout       no outcome came in time, or the command expired
"""

from __future__ import annotations

from functools import partial

__all__ = [
    "BackPressure",
    "ContractError",
    "DecodeError",
    "DeliveryFailed",
    "EncodeError",
    "Fenced",
    "ForbiddenAddress",
    "HandlerFault",
    "LogCorrupt",
    "LogError",
    "LogFull",
    "LogMoved",
    "LogReadOnly",
    "LogRefused",
    "LogUnavailable",
    "LogVersionError",
    "MessageError",
    "MessageTooLarge",
    "MissingCapability",
    "OutcomeError",
    "PostlineError",
    "PublishTimeout",
    "Refused",
    "RequestIdReused",
    "RequestTimeout",
    "SettingsError",
    "SignatureRefused",
    "SubscriptionConflict",
    "TopicMismatch",
    "UnknownRecord",
    "UnknownSubscription",
    "UnknownTopic",
    "UsageError",
]


class PostlineError(Exception):
    """Base of every error raised by Postline.

    `message` says what happened and where; `remedy` says what to do. `str()` joins both.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()

    def __reduce__(self) -> tuple[object, ...]:
        """Copied and pickled whole, although the remedy is a keyword."""
        return _rebuild, (type(self), self.message, self.remedy)


def _rebuild(kind: type[PostlineError], message: str, remedy: str) -> PostlineError:
    return kind(message, remedy=remedy)


class SettingsError(PostlineError):
    """Settings that contradict each other; every problem found is named at once."""


class ContractError(PostlineError):
    """A contract that is declared wrongly or used against its declaration."""


class MessageError(ContractError):
    """One message that its contract refuses; nothing was published."""


class EncodeError(MessageError):
    """A value that can't be written: its type, its key or a field is wrong."""


class DecodeError(MessageError):
    """Bytes that can't be read as the declared type; the record goes to dead letters whole."""


class MessageTooLarge(MessageError):
    """A message over the size limit; refused before anything is stored."""


class UsageError(PostlineError):
    """A call in the wrong place, or a handler of the wrong shape."""


class RequestIdReused(UsageError):
    """A request id that was used before, for another command, key or content: this command was not sent.

    `request_id` is that id. What the first command does, and its outcome, are not touched.
    """

    def __init__(self, message: str, *, remedy: str = "", request_id: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.request_id = request_id

    def __reduce__(self) -> tuple[object, ...]:
        """Copied and pickled whole."""
        return partial(RequestIdReused, remedy=self.remedy, request_id=self.request_id), (self.message,)


class UnknownRecord(UsageError):
    """A record that is asked about is no dead letter, or is not held, now: perhaps it has ended meanwhile."""


class LogError(PostlineError):
    """The durable log could not do what was asked; `retryable` says whether asking again helps."""

    retryable = False


class LogUnavailable(LogError):
    """The log is locked, unreachable or closed."""

    retryable = True


class BackPressure(LogError):
    """A topic's bound is reached, because a subscription that must keep up lags: nothing of the call was stored.

    `topic` and `subscription` are names as the log has them; `retry_after_seconds` says when there may be room, going
    by how fast the subscription has drained lately. Of `publish_many`, the first `published` messages were stored.
    """

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        topic: str = "",
        subscription: str = "",
        retry_after_seconds: float = 1.0,
        published: int = 0,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.topic, self.subscription = topic, subscription
        self.retry_after_seconds = retry_after_seconds
        self.published = published

    def __reduce__(self) -> tuple[object, ...]:
        """Copied and pickled whole, with what it tells programs."""
        names = ("remedy", "topic", "subscription", "retry_after_seconds", "published")
        return partial(BackPressure, **{name: getattr(self, name) for name in names}), (self.message,)


class LogFull(LogError):
    """No room on the disk: nothing of the call was stored, nothing is torn."""

    retryable = True


class LogCorrupt(LogError):
    """The file is damaged, truncated, or no Postline log at all."""


class LogVersionError(LogError):
    """The file was written by a version of Postline that this one can't read."""


class LogReadOnly(LogError):
    """The file, or the directory it lies in, can't be written."""


class LogRefused(LogError):
    """The cluster refuses this client: its login, its certificate, a permission, a policy; asking again won't help."""


class Fenced(LogError):
    """The partition has a newer owner: what this one did is not stored, the new owner does it."""


class LogMoved(LogError):
    """The log is being moved to another one, or has been: nothing of the call was stored; work on the other one."""


class UnknownTopic(LogError):
    """The log has no topic of that name."""


class TopicMismatch(LogError):
    """The topic in the log differs from its contract (partitions, key or cleanup)."""


class UnknownSubscription(LogError):
    """The log has no subscription of that name."""


class SubscriptionConflict(LogError):
    """The subscription's name is taken by another service or stands on another topic."""


class MissingCapability(LogError):
    """This engine can't keep that promise; the message names the alternative."""


class SignatureRefused(PostlineError):
    """A webhook that is not its sender's, was changed on the way, or was sent too long ago to be no replay."""


class DeliveryFailed(PostlineError):
    """A webhook that its target did not take this time; it is tried again."""


class ForbiddenAddress(DeliveryFailed):
    """A webhook's target lies where nobody outside may have us call; nothing was sent."""


class PublishTimeout(PostlineError):
    """The publish has an unknown outcome; repeating it with the same id is safe."""


class OutcomeError(PostlineError):
    """A command ended in something else than success. `request_id` names the request: `app.ticket` finds it again."""

    def __init__(self, message: str, *, remedy: str = "", request_id: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.request_id = request_id

    def __reduce__(self) -> tuple[object, ...]:
        """Copied and pickled whole."""
        return _rebuild_outcome, (type(self), self.message, self.remedy, self.request_id)


def _rebuild_outcome(kind: type[OutcomeError], message: str, remedy: str, request_id: str) -> OutcomeError:
    return kind(message, remedy=remedy, request_id=request_id)


class Refused(OutcomeError):
    """A business refusal, `refusal`: raised in a command's handler to give it, and from `App.request` to whoever asked.

    It is final: never retried, and what the handler published is dropped.
    """

    def __init__(self, refusal: object, *, request_id: str = "") -> None:
        super().__init__(f"Refused: {refusal!r:.500}", request_id=request_id)
        self.refusal = refusal

    def __reduce__(self) -> tuple[object, ...]:
        """Copied and pickled with what was refused."""
        return _rebuild_refused, (self.refusal, self.request_id)


def _rebuild_refused(refusal: object, request_id: str) -> Refused:
    return Refused(refusal, request_id=request_id)


class HandlerFault(OutcomeError):
    """The service could not do it: all attempts failed, or it handles no such command."""


class RequestTimeout(OutcomeError):
    """No outcome came in time; the ticket stays open, unless the command itself expired."""
