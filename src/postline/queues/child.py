"""The child process that calls plain functions for a worker, one after the other, until the worker goes away."""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import sys
import traceback
from typing import BinaryIO

import msgspec

from postline.errors import UsageError
from postline.queues.definitions import Definition
from postline.queues.isolation import Answer, Question, kind_of
from postline.queues.tasks import TaskSender

__all__ = ["main"]


def main() -> None:
    """Answer questions from standard input; what functions print goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which lets attempts end
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while (question := _read(questions)) is not None:
        told = msgspec.msgpack.encode(_answer(question))
        answers.write(len(told).to_bytes(4, "big") + told)
        answers.flush()


def _read(questions: BinaryIO) -> Question | None:
    size = questions.read(4)
    if len(size) < 4:
        return None
    return msgspec.msgpack.decode(questions.read(int.from_bytes(size, "big")), type=Question)


def _answer(question: Question) -> Answer:
    try:
        definition = _find(question)
        args, kwargs = definition.arguments(kind_of(definition.message).read(question.message))
        reply = definition.reply_of(definition.function(*args, **kwargs))
        return Answer() if definition.result is None else Answer(reply=kind_of(definition.result).encode(reply))
    except Exception as error:  # noqa: BLE001 - the worker makes a retry decision of it
        said = "".join(traceback.format_exception(error))
        try:
            pickled = pickle.dumps(error)
            pickle.loads(pickled)
        except Exception:  # noqa: BLE001 - it has what no other process can have; its text says what it was
            return Answer(said=f"{type(error).__qualname__}: {error}")
        return Answer(error=pickled, said=said)


def _find(question: Question) -> Definition:
    sys.path[:] = question.path
    module = importlib.import_module(question.module)
    for value in vars(module).values():
        if isinstance(value, TaskSender) and value.name == question.task:
            return value.definition
    raise UsageError(
        f"Module {question.module} has no task {question.task!r} at its top level.",
        remedy="Keep what @app.task gives in a variable of the module, which isolation='process' finds it by.",
    )
