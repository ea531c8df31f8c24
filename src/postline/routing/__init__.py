"""Routing between topics: by rules, to several recipients, split and gathered again, transformed, and tapped."""

from __future__ import annotations

from postline.routing.aggregating import Aggregate, AggregateOptions
from postline.routing.completion import After, Completion, Count, Predicate, Whole
from postline.routing.offering import Routing
from postline.routing.routes import Match, Router, Target
from postline.routing.splitting import Part
from postline.routing.tapping import TapTopic
from postline.routing.transforms import by_field_names

__all__ = [
    "After",
    "Aggregate",
    "AggregateOptions",
    "Completion",
    "Count",
    "Match",
    "Part",
    "Predicate",
    "Router",
    "Routing",
    "TapTopic",
    "Target",
    "Whole",
    "by_field_names",
]
