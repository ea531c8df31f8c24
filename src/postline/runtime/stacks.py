"""Where something stands: the stack of a suspended task, or of a thread, without Postline's own lines at its top."""

from __future__ import annotations

import asyncio
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["task_stack", "thread_stack"]

_OWN = str(Path(__file__).parent)


def task_stack(task: asyncio.Task[Any]) -> str:
    """What a suspended task awaits, from the outermost call to the innermost; lines as in a traceback."""
    frames: list[traceback.FrameSummary] = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = _first_of(awaited, "cr_frame", "gi_frame", "ag_frame")
        if isinstance(frame, FrameType):
            frames.append(traceback.FrameSummary(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        awaited = _first_of(awaited, "cr_await", "gi_yieldfrom", "ag_await")
    return _formatted(frames)


def thread_stack(ident: int) -> str:
    """What a thread is at; "" if it has ended."""
    frame = sys._current_frames().get(ident)
    return "" if frame is None else _formatted(list(traceback.extract_stack(frame)))


def _first_of(thing: Any, *names: str) -> Any:
    return next((found for name in names if (found := getattr(thing, name, None)) is not None), None)


def _formatted(frames: list[traceback.FrameSummary]) -> str:
    """From the first line that is not ours below those of ours that lead to it; all of it if there is none."""
    own = [frame.filename.startswith(_OWN) for frame in frames]
    first = own.index(True) if True in own else 0
    below = next((frames[at:] for at in range(first, len(frames)) if not own[at]), frames)
    return "".join(traceback.StackSummary.from_list(below).format())
