"""What to do about a break, by its rule: for whoever reads, and for whoever writes what others read."""

from __future__ import annotations

__all__ = ["for_readers", "for_writers"]

#: Who reads with a class that is declared here, or with the new version what is in the log.
_READERS = {
    "closed": "Let the class ignore fields that it does not know.",
    "field-may-be-absent": "Give {field} a default, or write an upcast.",
    "field-without-default": 'Give {field} a default, or `Annotated[…, was("old")]` if it had another name, or write '
    "an upcast.",
    "format": "Keep the format, or declare a topic of another name for the new one.",
    "layout": "Keep the layout, or write an upcast.",
    "limit": "Take as much as the writer may write, or write an upcast.",
    "name": "Keep the name, or give the reader's type the writer's as an alias.",
    "merged": "Keep the type of what must differ, or write an upcast.",
    "place": 'Add fields at the end only; one that is renamed in its place says so: `Annotated[…, was("old")]`.',
    "set": "Take a list, or write an upcast.",
    "tag": "Keep the tag, or give the class `__was__` with the writer's tag.",
    "type": "Keep the type and add a field of the new one beside it, or write an upcast.",
    "unknown-symbol": "Give the enumeration a default: a `_missing_` that returns a member.",
}
#: Who reads is deployed, and often another team's: only what is written can change.
_WRITERS = {
    "closed": "Leave {field} out until those who read have a class that takes it.",
    "field-may-be-absent": "Keep {field} without a default until those who read have one.",
    "field-without-default": "Write {field} until nobody reads it, beside what takes its place.",
    "format": "Keep the format, or declare a topic of another name for the new one.",
    "layout": "Keep the layout.",
    "limit": "Keep to the limit until those who read take more.",
    "name": "Keep the name until those who read have the new one.",
    "merged": "Keep the type of {field} until those who read have it.",
    "place": "Keep every field in its place, and add new ones at the end.",
    "set": "Keep each item once until those who read take a list.",
    "tag": "Keep the tag until those who read know the new one.",
    "type": "Keep {field} of its type, and write the new one beside it under another name.",
    "unknown-symbol": "Declare and write it only once those who read know it, or have a default.",
}


def for_readers(rule: str, path: str) -> str:
    """What a reader does to read it."""
    return _READERS[rule].format(field=path or "the message")


def for_writers(rule: str, path: str) -> str:
    """What a writer does so that others can go on reading."""
    return _WRITERS[rule].format(field=path or "the message")
