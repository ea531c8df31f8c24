"""Pydantic models that read a writer's names: their own validation, under other aliases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from msgspec import UNSET

from postline.contracts.pydantic_faults import without_values
from postline.contracts.resolution_pairs import Names, Pairs, absent_value
from postline.contracts.schema import Reference

__all__ = ["model_decoder", "parts_of"]

#: By a model class, and by a field's name on the wire, what the writer calls it.
_Renames: TypeAlias = Mapping[type, Mapping[str, str]]

#: What tells models apart by a field, whose name may be another; and pydantic's own dataclasses.
_BEYOND = frozenset({"tagged-union", "dataclass", "dataclass-args", "typed-dict"})


def model_decoder(cls: Any, pairs: Pairs) -> Callable[[bytes], Any] | None:
    """What validates the writer's JSON as the model; None where its validation can't simply have other names.

    That is with discriminated unions, pydantic's dataclasses, models that make themselves, a model that stands for
    two records, and one of whose fields the default has changed.
    """
    from pydantic_core import SchemaValidator

    schema = cls.__pydantic_core_schema__
    parts = list(parts_of(schema))
    renames = _renames_of(cls, pairs, [each["cls"] for each in parts if each.get("type") == "model"])
    if renames is None or not all(_is_plain(each) for each in parts):
        return None
    try:
        # Or a model inside would be validated as it was before.
        validator = SchemaValidator(_renamed(schema, renames, None), _use_prebuilt=False)
    except TypeError:  # a release of pydantic that does not let one choose
        return None
    return without_values(validator.validate_json)


def _is_plain(part: Mapping[str, Any]) -> bool:
    config = part.get("config") or {}
    by_name = config.get("validate_by_alias") is False or part.get("custom_init")
    return part.get("type") not in _BEYOND and not by_name


def _renames_of(cls: type, pairs: Pairs, models: list[type]) -> _Renames | None:
    """The names of every model's fields; None where it is not clear which model a record was made from."""
    root = pairs.reader.root
    assert isinstance(root, Reference)
    by_name: dict[str, type] = {}
    for model in models:
        name = root.name if model is cls else model.__name__
        if by_name.setdefault(name, model) is not model:
            return None
    found: dict[type, dict[str, str]] = {}
    for names in pairs:
        model_of_pair = by_name.get(names[0])
        wire = _wire_names(pairs, names)
        if model_of_pair is None or pairs.has_other_tag(names) or len(set(wire.values())) < len(wire):
            return None
        if any(absent_value(*each) is not UNSET for each in pairs.fields(names)):
            return None
        if found.setdefault(model_of_pair, wire) != wire:
            return None
    return found


def _wire_names(pairs: Pairs, names: Names) -> dict[str, str]:
    return {ours.name: theirs.name for ours, theirs in pairs.fields(names)}


def parts_of(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Every typed part of a core schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get("type"), str):
            yield schema
        for name, each in schema.items():
            if name not in _OPAQUE:
                yield from parts_of(each)
    elif isinstance(schema, list | tuple):
        for each in schema:
            yield from parts_of(each)


#: What a part of a core schema holds besides parts: values, classes and functions.
_OPAQUE = frozenset({"cls", "metadata", "config", "default", "expected", "members", "function", "serialization"})


def _renamed(schema: Any, renames: _Renames, model: type | None) -> Any:
    """The schema, with other aliases in the fields of models."""
    if isinstance(schema, list | tuple):
        return type(schema)(_renamed(each, renames, model) for each in schema)
    if not isinstance(schema, dict):
        return schema
    within = schema["cls"] if schema.get("type") == "model" else model
    found = {name: each if name in _OPAQUE else _renamed(each, renames, within) for name, each in schema.items()}
    if schema.get("type") == "model-fields" and within is not None:
        wire = renames.get(within, {})
        found["fields"] = {name: _field(name, each, wire) for name, each in found["fields"].items()}
    return found


def _field(name: str, field: dict[str, Any], wire: Mapping[str, str]) -> dict[str, Any]:
    ours = field.get("serialization_alias") or name
    theirs = wire.get(ours, ours)
    return field if theirs == ours else {**field, "validation_alias": theirs}
