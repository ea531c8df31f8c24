"""A shop whose messages are posted to others, and the others, for the tests of this directory."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from postline import App, Topic
from postline.contracts import Sensitive
from postline.http.calling import Answer
from postline.http.signing import Secret

SECRET = Secret(b"k" * 32)
URL = "https://partner.example/hooks"


class Partner:
    """Somebody else's server: keeps what is posted, and answers what it is told to, in the end 204."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.posts: list[tuple[str, dict[str, str], bytes]] = []

    async def __call__(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        self.posts.append((url, headers, body))
        answer = self.answers.pop(0) if self.answers else answered(204)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for _, headers, _ in self.posts]


def answered(status: int, **headers: str) -> Answer:
    """An answer; `retry_after=` becomes the header."""
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, b"")


class Shop:
    """A service with one topic of two types."""

    def __init__(self, **options: Any) -> None:
        orders = self.orders = Topic("shop.orders", owner="shop", key="customer", **options)

        @orders.event("shop.OrderPlaced")
        class OrderPlaced(Struct, frozen=True):
            order: str
            customer: str
            total: int = 0
            card: Sensitive[str] = ""

        @orders.event("shop.OrderCancelled")
        class OrderCancelled(Struct, frozen=True):
            order: str
            customer: str

        self.OrderPlaced: Any = OrderPlaced
        self.OrderCancelled: Any = OrderCancelled
        self.app = App("shop", owns=[orders])
