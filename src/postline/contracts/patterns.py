"""Whether searching a text for a regular expression of somebody's ends soon: Python's engine tries all ways in turn."""

from __future__ import annotations

import re

__all__ = ["is_quick"]

#: Characters that are looked at, at the most.
_STEPS_MAX = 1e7
_ESCAPED = re.compile(r"\\.", re.DOTALL)
_CLASS = re.compile(r"\[\^?\]?[^\]]*\]")
_HEAD = re.compile(r"\((?:\?(?:P?<\w+>|<?[=!:]|>|[aiLmsux-]*:))?")
_REPEATED = re.compile(r"[*+?]|\{\d*,?\d*\}")
#: After a repetition: lazy or possessive, no repetition of its own.
_MANNER = re.compile(r"([*+?}])[?+]")
_REFERENCE = re.compile(r"\\[1-9]|\(\?P=|\(\?\(")


def is_quick(pattern: str, value: str) -> bool:
    """Whether it surely ends within some ten million steps: nothing that repeats or branches is repeated.

    Each repetition may then end at each character, and the search begin at each: so many ways there are.
    """
    if _REFERENCE.search(pattern):
        return False
    plain = _MANNER.sub(r"\1", _CLASS.sub("c", _ESCAPED.sub("e", pattern)))
    bare = _HEAD.sub("(", plain)
    if _repeats_a_choice(bare):
        return False
    ways = len(_REPEATED.findall(bare)) + 1
    return float(len(value) + 1) ** min(ways, 100) <= _STEPS_MAX or len(value) == 0


def _repeats_a_choice(pattern: str) -> bool:
    """Whether a group repeats that has a repetition or a branch in it."""
    choices = [False]
    at = 0
    while at < len(pattern):
        if pattern[at] == "(":
            choices.append(False)
        elif pattern[at] == ")" and len(choices) > 1:
            inner = choices.pop()
            if inner and _REPEATED.match(pattern, at + 1):
                return True
            choices[-1] = choices[-1] or inner
        elif pattern[at] == "|" or _REPEATED.match(pattern, at):
            choices[-1] = True
        at += 1
    return False
