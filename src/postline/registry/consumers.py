"""Whom a change concerns: the consumers that read a field, and those that can't read what would be written now."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from postline.contracts import Topic
from postline.contracts.compatibility import Break, breaks_others
from postline.contracts.difference import differences
from postline.contracts.schema import Schema
from postline.registry.usage import View

__all__ = ["BrokenConsumer", "Readers", "broken_consumers"]


class BrokenConsumer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A subscription that can't read what its topic would write now, or a version that its owner wrote, and why."""

    type: str
    service: str
    subscription: str
    breaks: list[Break]
    #: The owner's; 0 for what is declared now.
    version: int = 0

    @property
    def consumer(self) -> str:
        """Whom, in words."""
        return f"{self.service} ({self.subscription})"

    @property
    def broken(self) -> str:
        """Whom, in words, for a report."""
        return f"{self.consumer}, which reads it{f' in version {self.version}' if self.version else ''}"


def broken_consumers(topic: Topic, views: Iterable[View], gone: Collection[str] = ()) -> list[BrokenConsumer]:
    """The consumers, by their views of this topic, that the contracts as they are declared now break.

    `gone` are types that the topic declared once and doesn't now. A view of a type that it never declared breaks
    nobody: a consumer may be deployed before its owner.
    """
    views = list(views)
    handled = {(view.subscription, view.type) for view in views}
    names = {alias: name for name, contract in topic.contracts.items() for alias in contract.reading.aliases}
    found = []
    for view in views:
        name, why = view.type, list[Break]()
        if view.type in topic.contracts:
            why = _breaks(view, topic.contracts[view.type].reading.schema, topic)
        elif view.type in names:
            name = names[view.type]
            why = [] if (view.subscription, name) in handled else [_renamed(view.type, name)]
        elif view.type in gone:
            why = [_REMOVED]
        if why:
            found.append(BrokenConsumer(name, view.service, view.subscription, why))
    return found


class Readers:
    """Who reads which field of a type, of its version before or of the present one."""

    def __init__(self, views: Iterable[View], before: Schema | None, now: Schema | None) -> None:
        schemas = [each for each in (before, now) if each is not None]
        self._read = [(view.consumer, frozenset[str]().union(*map(view.fields_of, schemas))) for view in views]
        changes = differences(before, now) if before is not None and now is not None else []
        renamed = [(each.path, each.renamed_from) for each in changes if each.renamed_from]
        #: From the innermost: a field's former path has the former names of all that it lies in.
        self._renamed = sorted(renamed, key=lambda each: len(each[0]), reverse=True)

    def of(self, path: str) -> tuple[str, ...]:
        """The consumers that read the field at a path, of either version; everybody reads the message itself."""
        field = _field(path)
        paths = {field, self._former(field)}
        return tuple(consumer for consumer, read in self._read if not field or paths & read)

    def _former(self, path: str) -> str:
        for here, name in self._renamed:
            if path == here or path.startswith((f"{here}.", f"{here}[")):
                path = here[: here.rfind(".") + 1] + name + path[len(here) :]
        return path


def _breaks(view: View, now: Schema, topic: Topic) -> list[Break]:
    """Why the handler's class can't read it; [] if it can, or an older class that is kept for that."""
    whole = topic.format.whole
    why = breaks_others(view.reader, now, whole=whole)
    return why if why and all(breaks_others(each, now, whole=whole) for each in view.upcasts) else []


def _renamed(before: str, now: str) -> Break:
    return Break(
        "",
        "type",
        f"it is written as {now} now, the reader handles {before} alone",
        f"Keep the name until those who read handle {now} too, with aliases=[{before!r}].",
    )


_REMOVED = Break(
    "",
    "type",
    "it is not declared any more, the reader handles it",
    "Keep the class, or declare its name in the `aliases=` of another, until the reader is gone.",
)


def _field(path: str) -> str:
    """The field that a path lies in: items and values of it are left off."""
    while path.endswith("]"):
        path = path[: path.rfind("[")]
    return path
