"""Routing between topics: by rules, to several recipients, split and gathered again, transformed, and tapped."""

from __future__ import annotations

from postline.routing.aggregating import Aggregate, AggregateOptions, aggregate
from postline.routing.completion import Completion, Count, Predicate, Whole
from postline.routing.declaring import published_by
from postline.routing.routes import Match, Router, Target
from postline.routing.splitting import Part, split
from postline.routing.tapping import TapTopic, tap
from postline.routing.transforms import by_field_names

__all__ = [
    "Aggregate",
    "AggregateOptions",
    "Completion",
    "Count",
    "Match",
    "Part",
    "Predicate",
    "Router",
    "TapTopic",
    "Target",
    "Whole",
    "aggregate",
    "by_field_names",
    "published_by",
    "split",
    "tap",
]
