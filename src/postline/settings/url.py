"""Where the log is: its URL, read strictly and shown without secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote, unquote

from postline.errors import SettingsError

__all__ = ["LogUrl", "parse_url"]

SCHEMES = ("sqlite", "kafka")
KAFKA_PORT = 9092

_SECRET = re.compile(r"password|passwd|secret|token|credential|jaas|\.pem", re.IGNORECASE)
_SERVER = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True)
class LogUrl:
    """Where the log is: an engine's name and what it needs. Shown, printed or logged, it hides its secrets."""

    scheme: str
    #: The file of `sqlite`; None is a log in memory.
    path: str | None = None
    #: `host:port` of each broker of `kafka`.
    servers: tuple[str, ...] = ()
    #: What stands behind the question mark; each engine says what it knows.
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def in_memory(self) -> bool:
        """Whether the log is gone with its process."""
        return self.scheme == "sqlite" and self.path is None

    @property
    def text(self) -> str:
        """The URL with its secrets, for handing to another process; never print or log it."""
        return self._written(secrets=True)

    @property
    def redacted(self) -> str:
        """The URL as it may be shown: values of options that look secret are `***`."""
        return self._written(secrets=False)

    def resolved(self, directory: Path) -> LogUrl:
        """The same with its relative path taken from `directory`."""
        return self if self.path is None else replace(self, path=str(directory / self.path))

    def _written(self, *, secrets: bool) -> str:
        place = ",".join(self.servers) if self.path is None else "/" + quote(os.fsencode(self.path))
        options = (
            f"{quote(name, safe='')}={quote(value, safe='/') if secrets or not _SECRET.search(name) else '***'}"
            for name, value in self.options.items()
        )
        return f"{self.scheme}://{place}" + "?" * bool(self.options) + "&".join(options)

    def __str__(self) -> str:
        return self.redacted

    def __repr__(self) -> str:
        return f"LogUrl({self.redacted!r})"


def parse_url(text: str, directory: Path | None = None) -> LogUrl:
    """Read `sqlite:///file`, `sqlite:////absolute/file`, `sqlite://` (memory) or `kafka://host:port,…?option=value`.

    A relative path is taken from `directory` if one is given. Everything is percent-decoded. Raises SettingsError
    without secrets in its text.
    """
    scheme, separator, rest = text.strip().partition("://")
    place, _, query = rest.partition("?")
    if not separator or scheme.lower() not in SCHEMES:
        raise SettingsError(
            f"{_shown(text)!r} names no engine that Postline knows ({', '.join(SCHEMES)}).",
            remedy="Write sqlite:///file.db, sqlite:////absolute/file.db, sqlite:// (memory) or kafka://host:port.",
        )
    options = _options(text, query)
    if scheme.lower() == "kafka":
        return LogUrl("kafka", servers=_servers(text, place), options=options)
    url = LogUrl("sqlite", path=_file(text, place), options=options)
    return url if directory is None else url.resolved(directory)


def _file(text: str, place: str) -> str | None:
    if not place:
        return None
    name = unquote(place.removeprefix("/"), errors="surrogateescape")
    if not place.startswith("/") or name in {"", ":memory:"} or "\0" in name:
        raise SettingsError(
            f"{_shown(text)!r} names no file.",
            remedy="Write sqlite:///file.db (three slashes), sqlite:////absolute/file.db or sqlite:// (memory).",
        )
    return name


def _servers(text: str, place: str) -> tuple[str, ...]:
    if "@" in place:
        raise SettingsError(
            f"{_shown(text)!r} has credentials before its brokers.",
            remedy="Give them as options, ?sasl.username=…&sasl.password=…, in a file named by url_file.",
        )
    found = [_SERVER.fullmatch(each) for each in place.removesuffix("/").split(",")]
    ports = [int(each["port"] or KAFKA_PORT) if each else 0 for each in found]
    if not all(1 <= port <= 65_535 for port in ports):
        raise SettingsError(f"{_shown(text)!r} doesn't name its brokers.", remedy="Write kafka://host:port,host2:port.")
    return tuple(f"{each['host']}:{port}" for each, port in zip(found, ports, strict=True) if each)


def _options(text: str, query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, separator, value = part.partition("=")
        name = unquote(name)
        if not name or not separator or name in options:
            raise SettingsError(
                f"{_shown(text)!r} has an option without a value, or twice.",
                remedy="Write ?name=value&name2=value2, with %26 for & and %25 for % in values.",
            )
        options[name] = unquote(value)
    return options


def _shown(text: str) -> str:
    """A URL that may be malformed, cut at the first thing in it that could be secret."""
    hidden = re.sub(r"//.*@", "//***@", text.strip(), flags=re.DOTALL)
    secret = _SECRET.search(hidden)
    return hidden if secret is None else hidden[: secret.end()] + "***"
