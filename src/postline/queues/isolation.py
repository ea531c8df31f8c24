"""Plain functions in processes of their own, which can be killed at a time limit and may crash without harm."""

from __future__ import annotations

import asyncio
import functools
import os
import pickle
import sys
from asyncio.subprocess import PIPE, Process
from typing import Any

import msgspec

from postline.contracts import Kind
from postline.errors import UsageError
from postline.queues.definitions import Definition

__all__ = ["Answer", "Children", "Question", "kind_of", "refuse_isolation"]

_CHILD = "from postline.queues.child import main; main()"


class Question(msgspec.Struct, frozen=True):
    """A call for a child: where the task is declared, and its message."""

    module: str
    task: str
    message: bytes
    #: Where modules are found, as in the parent.
    path: list[str]


class Answer(msgspec.Struct, frozen=True):
    """What became of it: the reply, or the exception, pickled if it can be, with its text."""

    reply: bytes | None = None
    error: bytes | None = None
    said: str = ""


@functools.cache
def kind_of(cls: type) -> Kind:
    """How values of a class are written between worker and child; made once."""
    return Kind(cls)


def refuse_isolation(definition: Definition) -> None:
    """Raise UsageError for a task that can't run in another process."""
    function = definition.function
    why = ""
    if definition.is_async:
        why = "is `async def`, whose attempts can be limited where they are: leave isolation= out"
    elif definition.wants_context:
        why = "takes the context, which no other process has: leave either of them out"
    elif "<locals>" in function.__qualname__:
        why = "is declared inside a function, where no other process finds it: declare it at the top of a module"
    if why:
        problem, _, remedy = why.partition(": ")
        raise UsageError(f"Task {definition.name} {problem}.", remedy=f"{remedy[:1].upper()}{remedy[1:]}.")


class Children:
    """Child processes that call tasks, at most as many as the machine has cores; made when they are needed.

    Event loop only. A child serves one call at a time and is used again; one that was killed is replaced.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._free = asyncio.Semaphore(limit or os.cpu_count() or 1)
        self._idle: list[Process] = []
        self._busy: set[Process] = set()

    async def call(self, definition: Definition, message: Any, limit_seconds: float | None) -> Any:
        """The reply that a child gives. Raises what the function raised.

        TimeoutError if it took longer than its limit, and RuntimeError if the child died; both ended that child.
        """
        question = self._question(definition, message)
        async with self._free:
            child = await self._child()
            self._busy.add(child)
            try:
                async with asyncio.timeout(limit_seconds):
                    answer = await _ask(child, question)
            except TimeoutError:
                await _end(child)
                raise TimeoutError(f"the attempt took longer than its limit of {limit_seconds:g} s") from None
            except (asyncio.IncompleteReadError, ConnectionError):
                code = await child.wait()
                raise RuntimeError(f"the process of task {definition.name} died with exit code {code}") from None
            except BaseException:
                await asyncio.shield(_end(child))
                raise
            finally:
                self._busy.discard(child)
            self._idle.append(child)
        return _reply_of(definition, answer)

    async def _child(self) -> Process:
        while self._idle:
            if (child := self._idle.pop()).returncode is None:
                return child  # others have died since
        return await asyncio.create_subprocess_exec(sys.executable, "-c", _CHILD, stdin=PIPE, stdout=PIPE)

    def _question(self, definition: Definition, message: Any) -> bytes:
        module = definition.function.__module__
        if module == "__main__":
            raise UsageError(
                f"Task {definition.name} is declared in the program itself, where no other process finds it.",
                remedy="Declare it in a module, and run it by `postline run module:app`.",
            )
        encoded = kind_of(definition.message).encode(message)
        return msgspec.msgpack.encode(Question(module, definition.name, encoded, list(sys.path)))

    async def close(self) -> None:
        """End all children. Idempotent."""
        ending, self._idle = [*self._idle, *self._busy], []
        await asyncio.gather(*(_end(child) for child in ending))


async def _ask(child: Process, question: bytes) -> Answer:
    assert child.stdin is not None, "made with a pipe"
    assert child.stdout is not None, "made with a pipe"
    child.stdin.write(len(question).to_bytes(4, "big") + question)
    await child.stdin.drain()
    size = int.from_bytes(await child.stdout.readexactly(4), "big")
    return msgspec.msgpack.decode(await child.stdout.readexactly(size), type=Answer)


async def _end(child: Process) -> None:
    if child.returncode is None:
        child.kill()
    await child.wait()


def _reply_of(definition: Definition, answer: Answer) -> Any:
    if answer.error is not None:
        error = pickle.loads(answer.error)
        error.add_note(answer.said)
        raise error
    if answer.said:
        raise RuntimeError(answer.said)
    if answer.reply is None or definition.result is None:
        return None
    return kind_of(definition.result).read(answer.reply)
