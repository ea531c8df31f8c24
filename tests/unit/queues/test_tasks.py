"""Tasks: functions that are sent to workers, and what becomes of them."""

from __future__ import annotations

from msgspec import Struct

from postline import App, Retry
from postline.testing import TestApp

ONCE = Retry(immediate=0, delays=())


class Thumbnail(Struct, frozen=True):
    """What a task returns."""

    path: str
    width: int


def images() -> App:
    return App("images")


async def test_a_task_is_still_the_function_and_can_be_sent() -> None:
    app = images()

    @app.task
    async def resize(path: str, width: int = 80) -> Thumbnail:
        return Thumbnail(path, width)

    assert await resize("cat.jpg", width=3) == Thumbnail("cat.jpg", 3)
    async with TestApp(app) as t:
        ticket = await resize.send("cat.jpg", width=7)
        assert await ticket.result() == Thumbnail("cat.jpg", 7)
        assert await resize.request(path="dog.jpg") == Thumbnail("dog.jpg", 80)
        assert (await resize.ticket(ticket.request_id).status()).state == "succeeded"
        assert t.audit()["images.tasks"] == {"done": 2}
