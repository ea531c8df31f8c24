"""The OpenAPI 3.1 document of a gateway, made of the contracts of its commands."""

from __future__ import annotations

from postline.http.exposed import Exposure

__all__ = ["document"]


def document(title: str, exposure: Exposure, *, key_required: bool) -> dict[str, object]:
    """What the gateway answers."""
    return {"openapi": "3.1.0", "info": {"title": title, "version": "1.0.0"}, "paths": {}}
