"""What handlers raise: told without the values of sensitive fields of the record in hand, wherever it is told."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from postline import App, Discard, ForeignTopic, Retry, Topic
from postline.contracts import Schemas, Sensitive
from postline.contracts.formats import FormatName
from postline.contracts.masking import hidden_texts, without_texts
from postline.contracts.reflection import schema_of
from postline.testing import TestApp

NEVER = Retry(immediate=0, delays=())
BORN = datetime(1990, 5, 17, tzinfo=UTC)


class Person(Struct, frozen=True):
    id: str
    address: Sensitive[str]
    age: Sensitive[int] = 41
    born: Sensitive[datetime] = BORN
    tags: Sensitive[dict[str, list[str]]] = {}
    town: str = "Graz"


def shop(format: FormatName = "json") -> tuple[App, Topic]:
    people = Topic("shop.people", owner="shop", key="id", schemas=Schemas(format=format))
    people.event("shop.Person")(Person)
    return App("shop", owns=[people]), people


@pytest.mark.parametrize("format", ["json", "avro", "protobuf"])
async def test_no_error_of_a_handler_tells_a_sensitive_value_of_its_record(
    format: FormatName, caplog: pytest.LogCaptureFixture
) -> None:
    app, people = shop(format)

    @app.subscribe("mail", people, start="earliest", retry=Retry(immediate=0, delays=(10,))).on(Person)
    async def send(person: Person) -> None:
        try:
            raise LookupError(f"no street in {person.address!r}")
        except LookupError as error:
            raise ValueError(f"{person} of {person.town}, {person.age}, born {person.born}") from error

    with caplog.at_level(logging.INFO, "postline"):
        async with TestApp(app) as t:
            await t.publish(Person("p-1", 'Main "St." 5', 41, BORN, {"nick": ["annie"]}))
            await t.settle()
            await t.advance(minutes=1)
            (letter,) = t.dead_letters("mail")
            (copy,) = [each for n in range(people.partitions) for each in await t.log.read("mail.dead-letters", n, 0)]
            headers = t.log.envelope(copy).headers
    assert (letter.error_type, headers["postline-error-type"]) == ("ValueError", "ValueError")
    assert "of Graz, ***, born ***" in letter.error
    told = [letter.error, headers["postline-error"], headers["postline-error-stack"], caplog.text]
    assert "LookupError: no street in '***'" in headers["postline-error-stack"]
    assert "in send" in headers["postline-error-stack"]
    assert "retries shop.people" in caplog.text
    for text in told:
        assert not [each for each in ("Main", "annie", "nick", "1990", "41,") if each in text]


async def test_a_view_without_marks_tells_no_value_that_the_owner_marks() -> None:
    app, _ = shop()
    view = ForeignTopic("shop.people")

    @view.reads("shop.Person")
    class Mailed(Struct):
        id: str
        address: str

    mail = App("mail")

    @mail.subscribe("mail", view, start="earliest", retry=NEVER).on(Mailed)
    def send(person: Mailed) -> None:
        raise ValueError(f"no such address: {person.address}")

    async with TestApp(app, mail) as t:
        await t.publish(Person("p-1", "Main Street 5"))
        await t.settle()
        assert [each.error for each in t.dead_letters("mail")] == ["ValueError: no such address: ***"]


async def test_errors_that_tell_nothing_hidden_are_told_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    app, people = shop()

    @app.subscribe("mail", people, start="earliest", retry=NEVER).on(Person)
    async def send(person: Person) -> None:
        if person.id == "p-2":
            raise Discard(f"nobody lives at {person.address}")
        raise ValueError(f"{person.id} in {person.town} is unlucky")

    with caplog.at_level(logging.INFO, "postline"):
        async with TestApp(app) as t:
            await t.publish_many([Person("p-1", "Main Street 5"), Person("p-2", "Side Street 6")])
            await t.settle()
            assert [each.error for each in t.dead_letters("mail")] == ["ValueError: p-1 in Graz is unlucky"]
    assert "nobody lives at ***" in caplog.text


class Note(Struct):
    text: Sensitive[str]
    other: str = ""


@given(st.text(min_size=1).filter(str.strip), st.text(), st.text())
def test_whatever_a_value_is_it_does_not_stand_in_the_text_as_a_word(text: str, before: str, after: str) -> None:
    schema = schema_of(Note)
    hidden = hidden_texts(schema, {"text": text, "other": before})
    for form in (text, repr(text)):
        shown = without_texts(f"{before} {form} {after}", hidden)
        assert "***" in shown
        if len(text) >= 4 and text not in "***":
            assert text not in shown.replace("***", "")


def test_short_values_are_masked_as_words_alone() -> None:
    hidden: Any = hidden_texts(schema_of(Person), {"id": "p", "address": "5", "age": None, "tags": {}})
    assert without_texts("line 15, at 5: 5 of 25", hidden) == "line 15, at ***: *** of 25"
