"""CloudEvents over HTTP: events from requests and into them; `postline.http.receiver` takes them into an app."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from postline.contracts.cloudevents import from_headers, to_headers
from postline.contracts.cloudevents_http import ContentMode, HttpMessage, batch_message, event_message, read_events
from postline.contracts.cloudevents_json import Parts
from postline.contracts.relaying import CloudEvent
from postline.runtime.context import Context

__all__ = ["CloudEvent", "ContentMode", "HttpMessage", "event_of", "read_request", "write_batch", "write_request"]


def read_request(headers: Mapping[str, str], body: bytes) -> list[CloudEvent]:
    """The events in a request in binary or structured mode (one), or in a batch (any number).

    Attributes without a field of their own are among the envelope's headers, with `ce_` before their names. Raises
    DecodeError for what is no CloudEvent 1.0.
    """
    return [CloudEvent(from_headers(parts.headers), parts.data) for parts in read_events(headers, body)]


def write_request(event: CloudEvent, mode: ContentMode = "binary") -> HttpMessage:
    """Headers and body of a request that carries the event.

    Of the envelope's headers those travel that are attributes (`ce_…`), and `traceparent` and `tracestate`. Raises
    EncodeError for a message without id, source or type.
    """
    return event_message(_parts(event), mode)


def write_batch(events: Iterable[CloudEvent]) -> HttpMessage:
    """Headers and body of one request for several events. Raises EncodeError as `write_request` does."""
    return batch_message([_parts(event) for event in events])


def event_of(ctx: Context[Any]) -> CloudEvent:
    """The message that a handler has in hand, as the event that it is, with its value as it is stored."""
    return CloudEvent(ctx.envelope, ctx.record[4])


def _parts(event: CloudEvent) -> Parts:
    return Parts(to_headers(event.envelope), event.data)
