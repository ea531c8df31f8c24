"""Edited dead letters: another content for one, checked by its contract before anybody is asked to keep it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from postline.contracts import PLACED_BY, Kind, MessageContract
from postline.contracts.fitting import fits
from postline.contracts.formats import JSON, format_of_content
from postline.contracts.keys import canonical_key
from postline.contracts.masking import has_sensitive
from postline.contracts.schema import Field, Schema
from postline.errors import ContractError, DecodeError, EncodeError, UsageError
from postline.log.port import Log, SubscriptionInfo
from postline.message import UNREADABLE
from postline.monitor import Contents, Letter, key_text
from postline.monitor.deadletters import Opened

__all__ = ["Edited", "Editing", "with_changes"]


class Edited(NamedTuple):
    """A content that its contract accepts, and who wants it."""

    value: bytes
    #: 0 where no registry knows its schema.
    schema_id: int
    by: str
    reason: str


class Editing:
    """Makes and checks other contents of a subscription's dead letters; `contract` is an app's, where one is given."""

    def __init__(self, log: Log, contents: Contents, contract: MessageContract | None = None) -> None:
        self._log, self._contents, self._contract = log, contents, contract

    def content(self, info: SubscriptionInfo, opened: Opened) -> Any:
        """What the letter says, as JSON has it; its bytes as text if nobody can read them. Raises UsageError."""
        record = opened.record
        if record is None:
            raise UsageError(f"The record of dead letter {opened.letter.id} is not kept.", remedy="Discard it.")
        try:
            return self._contents.plain(info.topic, record, self._content_type(opened))
        except (*UNREADABLE, ContractError, ValueError):
            return (record[4] or b"").decode("utf-8", "replace")

    def hides(self, info: SubscriptionInfo, opened: Opened) -> bool:
        """Whether people see its content masked."""
        found = None if opened.record is None else self._contents.schema_of(info.topic, opened.record)
        return found is not None and has_sensitive(found[1])

    def _content_type(self, opened: Opened) -> str:
        assert opened.record is not None
        return self._log.envelope(opened.record).content_type

    async def checked(self, info: SubscriptionInfo, opened: Opened, content: Any, *, by: str, reason: str) -> Edited:
        """The bytes of another content. Raises ContractError if the contract or the record's key refuses it."""
        assert opened.record is not None, "its content was read before"
        letter = opened.letter
        if self._contract is not None:
            value, key = _by_class(self._contract, content, letter), None
            schema_id = 0
        else:
            value, schema_id = self._by_schema(info, opened, content)
            key = await self._key(info, content)
        if key is not None and key != letter.entry.key:
            raise _other_key(letter, key)
        return Edited(value, schema_id, by, reason)

    def _by_schema(self, info: SubscriptionInfo, opened: Opened, content: Any) -> tuple[bytes, int]:
        assert opened.record is not None
        if format_of_content(self._content_type(opened)) is not JSON:
            raise UsageError(
                f"Dead letter {opened.letter.id} is no JSON, so only its class can write it.",
                remedy="Name the app that declares it: --app module:app.",
            )
        found = self._contents.schema_of(info.topic, opened.record)
        if found is None:
            raise UsageError(
                f"No schema of {opened.record[3]!r} is registered, so the edit can't be checked.",
                remedy="Name the app that declares it: --app module:app.",
            )
        number, schema = found
        if not fits(schema, schema.root, content) or _unknown(schema, content, self.content(info, opened)):
            raise ContractError(
                f"The edit of {opened.letter.id} breaks the contract of {opened.record[3]!r}: "
                f"{_misfit(schema, content)}.",
                remedy="Mend it; `postline contracts show` says what the type is. Nothing was stored.",
            )
        return msgspec.json.encode(content), number

    async def _key(self, info: SubscriptionInfo, content: Any) -> bytes | None:
        """The key that a content has by the topic's declaration; None where only the class can tell."""
        spec = next((each for each in await self._log.topics() if each.name == info.topic), None)
        path = "" if spec is None else spec.key.partition(PLACED_BY)[0]
        if not path or path.endswith("()"):
            return None
        found = content
        for name in path.split("."):
            if not isinstance(found, dict) or name not in found:
                return None
            found = found[name]
        return canonical_key(found)


def _by_class(contract: MessageContract, content: Any, letter: Letter) -> bytes:
    try:
        message = Kind(contract.cls, name=contract.name).decode(msgspec.json.encode(content))
        value, key = contract.encode(message), contract.key_of(message)
    except (*UNREADABLE, DecodeError, EncodeError, ValueError) as error:
        raise ContractError(
            f"The edit of {letter.id} breaks the contract of {contract.name!r}: {error}",
            remedy="Mend it. Nothing was stored.",
        ) from error
    if key != letter.entry.key:
        raise _other_key(letter, key)
    return value


def _other_key(letter: Letter, key: bytes | None) -> ContractError:
    return ContractError(
        f"The edit of {letter.id} has the key {key_text(key)!r} in place of {key_text(letter.entry.key)!r}.",
        remedy="Keep the key: order and state belong to it. Else discard the letter, and publish a new message.",
    )


def _misfit(schema: Schema, content: Any) -> str:
    """What of a content does not fit, as far as its first level tells."""
    record = schema.record
    if record is None or not isinstance(content, dict):
        return "it is of another kind"
    if missing := [each.name for each in record.fields if each.required and each.name not in content]:
        return f"it has no {missing[0]!r}"
    wrong = [each.name for each in record.fields if _is_wrong(schema, each, content)]
    unknown = content.keys() - {each.name for each in record.fields} - {record.tag_field}
    return f"{wrong[0]!r} is no such value" if wrong else f"it has {min(unknown, default='what it may not have')!r}"


def _unknown(schema: Schema, content: Any, before: Any) -> bool:
    """Whether a content has a field that neither the contract nor the letter had: a name that is misspelt."""
    record = schema.record
    if record is None or not isinstance(content, dict):
        return False
    known = {each.name for each in record.fields} | {record.tag_field}
    return bool(content.keys() - known - (before.keys() if isinstance(before, dict) else set()))


def _is_wrong(schema: Schema, field: Field, content: dict[str, Any]) -> bool:
    return field.name in content and not fits(schema, field.type, content[field.name])


def with_changes(content: Any, changes: Sequence[str]) -> Any:
    """The content with each `field=value` put into it; a value is JSON, else text. Raises UsageError."""
    for change in changes:
        path, sign, text = change.partition("=")
        names = path.split(".")
        place = content
        for name in names[:-1]:
            place = place.get(name) if isinstance(place, dict) else None
        if not sign or not all(names) or not isinstance(place, dict):
            raise UsageError(f"{change!r} changes no field.", remedy="Write field=value, or field.inner=value.")
        try:
            place[names[-1]] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            place[names[-1]] = text
    return content
