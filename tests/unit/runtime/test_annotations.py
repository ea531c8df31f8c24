"""A handler that says that it takes something else than it is registered for is refused where it is declared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Annotated, Any, Protocol

import pytest
from msgspec import Struct

from postline import App, Context, Subscription, Topic, UsageError


class Named(Protocol):
    id: str


class Base(Struct):
    id: str


class Order(Base):
    pass


class Payment(Struct):
    id: str


class Handler:
    def __call__(self, message: Payment) -> None: ...

    def method(self, message: Payment, ctx: Context) -> None: ...


def subscription(batch: int | None = None) -> Subscription:
    topic = Topic("shop.orders", owner="shop", key="id")
    topic.event("shop.Order")(Order)
    return App("shop", owns=[topic]).subscribe("billing", topic, start="earliest", batch=batch)


async def of_payment(message: Payment) -> None: ...
def of_one(message: Order, ctx: Context) -> None: ...
def of_base(message: Base) -> None: ...
def of_either(message: Payment | Order) -> None: ...
def of_annotated(message: Annotated[Order, "x"]) -> None: ...
def of_named(message: Named) -> None: ...
def of_any(message: Any) -> None: ...
def of_nothing(message) -> None: ...
def of_object(message: object) -> None: ...
def of_unknown(message: Unknown) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def of_many(messages: list[Order]) -> None: ...
def of_sequence(messages: Sequence[Base | Payment]) -> None: ...
def of_bare_list(messages: list) -> None: ...
def of_payments(messages: list[Payment]) -> None: ...
def of_none(message: Payment | None) -> None: ...


@wraps(of_payment)
def wrapped(*arguments: Any) -> None: ...


ALIKE = [of_any, of_nothing, of_object, of_unknown]
SINGLE = [of_one, of_base, of_either, of_annotated, of_named]
MANY = [of_many, of_sequence, of_bare_list]
OTHER = [of_payment, of_none, partial(of_payment), Handler(), Handler().method, wrapped]


@pytest.mark.parametrize("function", [*ALIKE, *SINGLE, partial(of_one)])
def test_what_takes_the_message_or_does_not_say_is_registered(function: Callable[..., Any]) -> None:
    subscription().on(Order)(function)


@pytest.mark.parametrize("function", [*ALIKE, *MANY])
def test_what_takes_a_list_is_registered_for_batches(function: Callable[..., Any]) -> None:
    subscription(batch=10).on(Order)(function)


@pytest.mark.parametrize(("batch", "function"), [(None, each) for each in [*OTHER, *MANY]])
def test_an_annotation_that_contradicts_is_refused(batch: int | None, function: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match=r"says that it takes .+, and gets Order") as refused:
        subscription(batch).on(Order)(function)
    assert "'billing'" in refused.value.message


@pytest.mark.parametrize("function", [of_one, of_base, of_payments])
def test_an_annotation_that_contradicts_a_batch_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match=r"and gets list\[Order\]"):
        subscription(10).on(Order)(function)
