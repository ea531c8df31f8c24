"""What clients send: bodies within their limit and in time, and JSON read strictly."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from postline.http.problems import Problem

__all__ = ["read_body", "require_json", "require_sound"]

_JSON = re.compile(r"application/([a-z0-9!#$&^_.+-]+\+)?json")


async def read_body(request: Request, bytes_max: int) -> bytes:
    """The whole body. Raises Problem (413) once it is over the limit, before it is kept."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > bytes_max:
        raise _too_large(bytes_max)
    body, more, left = b"", True, bytes_max
    chunks: list[bytes] = []
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body, more = message.get("body", b""), message.get("more_body", False)
        chunks.append(body)
        left -= len(body)
        if left < 0:
            raise _too_large(bytes_max)
    return body if len(chunks) == 1 else b"".join(chunks)


def _too_large(bytes_max: int) -> Problem:
    return Problem(413, "too-large", "The body is too large", f"At most {bytes_max} bytes are taken.")


def require_json(request: Request) -> None:
    """Raise Problem (415) for a body that does not call itself JSON."""
    media_type, _, rest = request.headers.get("content-type", "").partition(";")
    media_type = media_type.strip().lower()
    charset = rest.lower().replace(" ", "").replace('"', "").partition("charset=")[2].partition(";")[0]
    if not _JSON.fullmatch(media_type) or charset not in ("", "utf-8", "utf8"):
        raise Problem(
            415,
            "content-type",
            "Unsupported Media Type",
            "Send the command as application/json in UTF-8.",
            headers={"Accept": "application/json", "Accept-Post": "application/json"},
        )
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Problem(415, "content-encoding", "Unsupported Media Type", "Send the body without a content coding.")


def require_sound(body: bytes) -> None:
    """Raise Problem (400) for what every reader of JSON would take for something else, or for none.

    That is what is no JSON, no UTF-8, has a key twice in one object, NaN, or nests too deeply.
    """
    try:
        _STRICT.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _malformed(f"The body is no UTF-8: {error.reason} at byte {error.start}.") from error
    except RecursionError as error:
        raise _malformed("The body nests too deeply.") from error
    except ValueError as error:
        raise _malformed(f"The body is no JSON: {error}.") from error


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) > 1 and len({key for key, _ in pairs}) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _malformed(f"The key {key!r:.100} stands twice in one object.")
            seen.add(key)


def _no_number(word: str) -> NoReturn:
    raise _malformed(f"{word} is no number of JSON.")


def _malformed(detail: str) -> Problem:
    return Problem(400, "malformed", "The body can't be read", detail)


#: Made once: making one costs more than reading a small body.
_STRICT = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number)
