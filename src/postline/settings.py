"""Settings: what `postline.toml` and the environment say, checked as a whole before anything starts.

Order of precedence, strongest first: what is given explicitly (`--url`), environment variables, `postline.toml`, what
the code declares. A variable set to nothing counts as not set. Paths written in a file are relative to that file, those
of variables and arguments to the working directory.

Topics and subscriptions are sized by tables of the file or by variables. A variable's name is made of the upper-case
name with an underscore for everything that is no letter or digit: `POSTLINE_TOPIC_SHOP_ORDERS_PARTITIONS=16` is
`partitions = 16` under `[topics."shop.orders"]`, `POSTLINE_SUBSCRIPTION_BILLING_CONCURRENCY=8` is `concurrency = 8`
under `[subscriptions.billing]`.
"""

from __future__ import annotations

import difflib
import re
import socket
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote, unquote

from postline.errors import SettingsError

__all__ = [
    "CONFIG_NAME",
    "DEFAULT_URL",
    "LogUrl",
    "Settings",
    "SubscriptionSettings",
    "TopicSettings",
    "load_settings",
    "parse_duration_ms",
    "parse_size",
    "parse_url",
]

CONFIG_NAME = "postline.toml"
DEFAULT_URL = "sqlite:///postline.db"
SCHEMES = ("sqlite", "kafka")
KAFKA_PORT = 9092

_PREFIX = "POSTLINE_"
_NAMES = ("url", "url_file", "namespace", "instance")
_VARIABLES = ("URL", "URL_FILE", "NAMESPACE", "INSTANCE", "CONFIG")
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SECRET = re.compile(r"password|passwd|secret|token|credential|jaas|\.pem", re.IGNORECASE)
_SERVER = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?")

_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_PLAIN_NUMBER = re.compile(_NUMBER)
_DURATION_UNITS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION = re.compile("".join(rf"(?:{_NUMBER}{unit}(?![a-z]))?" for unit in _DURATION_UNITS))
_DURATION_MS_MAX = 36_500 * _DURATION_UNITS["d"]
_SIZE = re.compile(rf"{_NUMBER} ?([KMGT]?i?B)?", re.IGNORECASE)
_SIZE_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_INTEGER_MAX = (1 << 63) - 1


# Values


def parse_duration_ms(value: object) -> int:
    """Milliseconds of "14d", "1h30m", "250ms" (units w d h m s ms, largest first), or of a number of seconds.

    Raises SettingsError for anything else, and for nothing at all or more than a hundred years.
    """
    text = str(value).strip()
    amount = Decimal(0)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        pass
    elif _PLAIN_NUMBER.fullmatch(text):
        amount = Decimal(text) * 1000
    elif found := _DURATION.fullmatch(text.replace(" ", "").lower()):
        amount = sum((Decimal(n) * unit for n, unit in zip(found.groups(), _DURATION_UNITS.values(), strict=True) if n))
    if not 1 <= amount <= _DURATION_MS_MAX:
        raise SettingsError(
            f"{value!r} is no duration from 1 ms to 100 years.", remedy='Write one such as "14d", "1h30m" or "250ms".'
        )
    return int(amount)


def parse_size(value: object) -> int:
    """Bytes of "64MiB" (1024s), "10MB" (1000s) or of a plain number. Raises SettingsError for anything else, and for 0."""
    amount = Decimal(0)
    if not isinstance(value, bool) and isinstance(value, (str, int)):
        if found := _SIZE.fullmatch(str(value).strip()):
            unit = (found[2] or "").lower()
            amount = Decimal(found[1]) * (1024 if "i" in unit else 1000) ** _SIZE_POWERS[unit.rstrip("b").rstrip("i")]
    if not 1 <= amount <= _INTEGER_MAX:
        raise SettingsError(
            f"{value!r} is no size in bytes.", remedy='Write one such as 1048576, "64MiB" (1024s) or "10MB" (1000s).'
        )
    return int(amount)


def _seconds(value: object) -> float:
    return parse_duration_ms(value) / 1000


def _count(value: object) -> int:
    number = value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value.strip()):
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= _INTEGER_MAX:
        raise SettingsError(f"{value!r} is no whole number of 1 or more.", remedy="Write one such as 8.")
    return number


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise SettingsError(f"{value!r} is no line of text.", remedy="Write a text in quotes.")
    return value.strip()


def _namespace(value: object) -> str:
    if not isinstance(value, str) or not _SAFE_NAME.fullmatch(value):
        raise SettingsError(
            f"{value!r} can't prefix the names of topics.",
            remedy="Use up to 100 letters, digits, dots, dashes and underscores, beginning with a letter or digit.",
        )
    return value


def _durability(value: object) -> str:
    if value not in {"full", "relaxed"}:
        raise SettingsError(f"{value!r} is no durability.", remedy='Choose "full" or "relaxed".')
    return str(value)


_SQLITE_OPTIONS: dict[str, Callable[[object], object]] = {"durability": _durability, "lease": parse_duration_ms}


# The log's URL


@dataclass(frozen=True)
class LogUrl:
    """Where the log is: an engine's name and what it needs. Shown, printed or logged, it hides its secrets."""

    scheme: str
    #: The file of `sqlite`; None is a log in memory.
    path: Path | None = None
    #: `host:port` of each broker of `kafka`.
    servers: tuple[str, ...] = ()
    #: For sqlite `durability` ("full" or "relaxed") and `lease` (a duration); for kafka its client's own, as given.
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
        return self if self.path is None else replace(self, path=directory / self.path)

    def _written(self, *, secrets: bool) -> str:
        place = ",".join(self.servers) if self.path is None else "/" + quote(str(self.path))
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
    for name, value in options.items():
        if name not in _SQLITE_OPTIONS:
            raise SettingsError(
                f"{_shown(text)!r} has an option that sqlite doesn't know: {name!r}.",
                remedy=_meant(name, _SQLITE_OPTIONS),
            )
        _SQLITE_OPTIONS[name](value)
    url = LogUrl("sqlite", path=_file(text, place), options=options)
    return url if directory is None else url.resolved(directory)


def _file(text: str, place: str) -> Path | None:
    if not place:
        return None
    name = unquote(place.removeprefix("/"))
    if not place.startswith("/") or name in {"", ":memory:"} or not name.isprintable():
        raise SettingsError(
            f"{_shown(text)!r} names no file.",
            remedy="Write sqlite:///file.db (three slashes), sqlite:////absolute/file.db or sqlite:// (memory).",
        )
    return Path(name)


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


def _meant(name: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known are {', '.join(known)}."


# What is read


@dataclass(frozen=True, kw_only=True)
class TopicSettings:
    """What the environment says of a topic's size, over its contract; None where it says nothing."""

    partitions: int | None = None
    retention_ms: int | None = None
    #: For each partition.
    retention_bytes: int | None = None

    def overrides(self) -> dict[str, int]:
        """Only what is said, by field."""
        return _said(self)


@dataclass(frozen=True, kw_only=True)
class SubscriptionSettings:
    """What the environment says of a subscription's size, over the code; None where it says nothing.

    The fields mean what they mean in `App.subscribe`.
    """

    concurrency: int | None = None
    #: Only for subscriptions that the code declares with `batch=`.
    batch: int | None = None
    timeout_seconds: float | None = None
    held_records_max: int | None = None
    held_bytes_max: int | None = None
    in_flight_records_max: int | None = None
    in_flight_bytes_max: int | None = None

    def overrides(self) -> dict[str, Any]:
        """Only what is said, by field."""
        return _said(self)


def _said(sizes: TopicSettings | SubscriptionSettings) -> dict[str, Any]:
    return {each.name: value for each in fields(sizes) if (value := getattr(sizes, each.name)) is not None}


SizesT = TypeVar("SizesT", TopicSettings, SubscriptionSettings)


class _Kind(NamedTuple, Generic[SizesT]):
    """A kind of thing with sizes: its table in the file, its variables, and the field and the parser of each key."""

    table: str
    variable: str
    make: type[SizesT]
    keys: dict[str, tuple[str, Callable[[object], Any]]]


_TOPICS = _Kind(
    "topics",
    "POSTLINE_TOPIC_",
    TopicSettings,
    {
        "partitions": ("partitions", _count),
        "retention": ("retention_ms", parse_duration_ms),
        "retention_bytes": ("retention_bytes", parse_size),
    },
)
_SUBSCRIPTIONS = _Kind(
    "subscriptions",
    "POSTLINE_SUBSCRIPTION_",
    SubscriptionSettings,
    {
        "concurrency": ("concurrency", _count),
        "batch": ("batch", _count),
        "timeout": ("timeout_seconds", _seconds),
        "held_records_max": ("held_records_max", _count),
        "held_bytes_max": ("held_bytes_max", parse_size),
        "in_flight_records_max": ("in_flight_records_max", _count),
        "in_flight_bytes_max": ("in_flight_bytes_max", parse_size),
    },
)


def _variable_name(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that the surroundings say; made by `load_settings`, plain values for tests."""

    url: LogUrl
    #: Who said it: an argument, a variable, a file, the code or the default.
    url_from: str = ""
    namespace: str = ""
    instance: str = ""
    topics: Mapping[str, TopicSettings] = field(default_factory=dict)
    subscriptions: Mapping[str, SubscriptionSettings] = field(default_factory=dict)
    #: The same from variables, by the part of the variable's name that stands for the topic's or the subscription's.
    topic_variables: Mapping[str, TopicSettings] = field(default_factory=dict)
    subscription_variables: Mapping[str, SubscriptionSettings] = field(default_factory=dict)
    #: The file that was read, if there is one.
    config: Path | None = None

    def topic(self, name: str) -> TopicSettings:
        """What is said of a topic, by its name without the namespace; variables over the file."""
        said = self.topics.get(name, TopicSettings())
        return replace(said, **self.topic_variables.get(_variable_name(name), said).overrides())

    def subscription(self, name: str) -> SubscriptionSettings:
        """What is said of a subscription, by its name without the namespace; variables over the file."""
        said = self.subscriptions.get(name, SubscriptionSettings())
        return replace(said, **self.subscription_variables.get(_variable_name(name), said).overrides())

    def full_name(self, name: str) -> str:
        """A topic's or a subscription's name as the log knows it: with the namespace before it, if there is one."""
        return f"{self.namespace}.{name}" if self.namespace else name


def load_settings(
    environ: Mapping[str, str], directory: Path, *, url: str | None = None, default_url: str | None = None
) -> Settings:
    """Read `postline.toml` (of `directory` or the nearest above it, up to the repository's root) and the variables.

    `url` wins over everything, `default_url` (a program's own choice) only over the default: a file beside the
    configuration. Raises one SettingsError that names every problem, its place and its remedy.
    """
    environ = {name: value for name, value in environ.items() if name.startswith(_PREFIX) and value.strip()}
    reading = _Reading(environ, directory)
    settings = reading.settings(url, default_url)
    reading.require()
    return settings


class _Reading:
    """One pass over file and variables that goes on after a problem."""

    def __init__(self, environ: Mapping[str, str], directory: Path) -> None:
        self.environ, self.directory = environ, directory
        self.problems: list[SettingsError] = []
        self.config = self._find_config()
        self.table: dict[str, Any] = self._read_config() if self.config else {}

    def settings(self, url: str | None, default_url: str | None) -> Settings:
        self._check_names()
        log, url_from = self._url(url, default_url)
        return Settings(
            url=log,
            url_from=url_from,
            namespace=self._one("namespace", _namespace, ""),
            instance=self._one("instance", _text, "") or socket.gethostname(),
            topics=dict(self._tables(_TOPICS)),
            subscriptions=dict(self._tables(_SUBSCRIPTIONS)),
            topic_variables=self._variables(_TOPICS),
            subscription_variables=self._variables(_SUBSCRIPTIONS),
            config=self.config,
        )

    def require(self) -> None:
        """Raise what was found."""
        if len(self.problems) == 1:
            raise self.problems[0]
        if self.problems:
            raise SettingsError(
                f"The settings have {len(self.problems)} problems." + "".join(f"\n- {each}" for each in self.problems)
            )

    def note(self, what: str, remedy: str) -> None:
        self.problems.append(SettingsError(what, remedy=remedy))

    def parsed(self, parse: Callable[[Any], Any], value: object, where: str) -> Any:
        """The parsed value; None, and a problem with its place, if it can't be."""
        try:
            return parse(value)
        except SettingsError as error:
            return self.note(f"{where}: {error.message}", error.remedy)

    # The file

    def _find_config(self) -> Path | None:
        if named := self.environ.get("POSTLINE_CONFIG"):
            return self.directory / named
        for folder in (self.directory, *self.directory.absolute().parents):
            if (folder / CONFIG_NAME).is_file():
                return folder / CONFIG_NAME
            if (folder / ".git").exists():
                break
        return None

    def _read_config(self) -> dict[str, Any]:
        try:
            return tomllib.loads(Path(self.config or "").read_text("utf-8"))
        except OSError as error:
            self.note(f"{self.config} can't be read: {error.strerror}.", "Mend it, or what POSTLINE_CONFIG names.")
        except ValueError as error:
            self.note(f"{self.config} is no TOML: {error}.", "Mend that place.")
        return {}

    def _check_names(self) -> None:
        known = (*_NAMES, _TOPICS.table, _SUBSCRIPTIONS.table)
        for name in self.table.keys() - set(known):
            self.note(f"{self.config}: {name} is no setting.", _meant(name, known))
        for name in self.environ:
            stem = name.removeprefix(_PREFIX)
            # Other variables may begin like ours (container platforms make such), so only near misses are refused.
            if stem not in _VARIABLES and (close := difflib.get_close_matches(stem, _VARIABLES, 1, cutoff=0.8)):
                self.note(f"{name} is no setting.", f"Did you mean {_PREFIX}{close[0]}?")
            elif stem.startswith(("TOPICS_", "SUBSCRIPTIONS_")):
                self.note(f"{name} is no setting.", f"Did you mean {name.replace('S_', '_', 1)}?")

    def _tables(self, kind: _Kind[SizesT]) -> Iterator[tuple[str, SizesT]]:
        tables = self.table.get(kind.table, {})
        if not isinstance(tables, dict) or not all(isinstance(each, dict) for each in tables.values()):
            return self.note(f"{self.config}: {kind.table} is no table of tables.", f'Write [{kind.table}."the.name"].')
        for name, table in tables.items():
            yield name, self._sizes(kind, f"{self.config}: {kind.table}.{name}", name, table)

    def _sizes(self, kind: _Kind[SizesT], where: str, name: str, table: Mapping[str, object]) -> SizesT:
        sizes = {}
        for key, value in table.items():
            if isinstance(value, dict):
                self.note(f"{where}.{key} is a table.", f'Names with dots need quotes: [{kind.table}."{name}.{key}"].')
            elif key not in kind.keys:
                self.note(f"{where}.{key} is no setting.", _meant(key, kind.keys))
            else:
                field_name, parse = kind.keys[key]
                sizes[field_name] = self.parsed(parse, value, f"{where}.{key}")
        return kind.make(**sizes)

    # The variables

    def _variables(self, kind: _Kind[SizesT]) -> dict[str, SizesT]:
        found: dict[str, dict[str, Any]] = {}
        for variable, value in self.environ.items():
            if not variable.startswith(kind.variable):
                continue
            stem = variable.removeprefix(kind.variable)
            key = max((key for key in kind.keys if stem.endswith("_" + key.upper())), key=len, default="")
            name = stem[: -len(key) - 1]
            if not key or not name:
                endings = ", ".join(key.upper() for key in kind.keys)
                self.note(f"{variable} is no setting.", f"Write {kind.variable}<NAME>_ and one of {endings}.")
                continue
            field_name, parse = kind.keys[key]
            found.setdefault(name, {})[field_name] = self.parsed(parse, value, variable)
        return {name: kind.make(**sizes) for name, sizes in found.items()}

    # Single settings

    def _one(self, name: str, parse: Callable[[object], str], default: str) -> str:
        variable = _PREFIX + name.upper()
        if variable in self.environ:
            return self.parsed(parse, self.environ[variable], variable) or default
        if name in self.table:
            return self.parsed(parse, self.table[name], f"{self.config}: {name}") or default
        return default

    def _url(self, url: str | None, default_url: str | None) -> tuple[LogUrl, str]:
        beside = self.config.parent if self.config and "POSTLINE_CONFIG" not in self.environ else self.directory
        in_file = self.config.parent if self.config else self.directory
        names = {"url": self.table.get("url"), "url_file": self.table.get("url_file")}
        variables = {"url": self.environ.get("POSTLINE_URL"), "url_file": self.environ.get("POSTLINE_URL_FILE")}
        # Each is read, so that every problem is told; the first that is given counts.
        found = [
            self._url_of("the argument url", self.directory, {"url": url}),
            self._url_of("environment", self.directory, variables),
            self._url_of(str(self.config), in_file, names),
            self._url_of("the code's url", beside, {"url": default_url}),
            self._url_of("default", beside, {"url": DEFAULT_URL}),
        ]
        return next(each for each in found if each)

    def _url_of(self, place: str, directory: Path, given: Mapping[str, object]) -> tuple[LogUrl, str] | None:
        values = {name: value for name, value in given.items() if value is not None}
        if len(values) > 1:
            self.note(f"{place}: url and url_file are both set.", "Keep one of them.")
        for name, value in values.items():
            where = f"{place}: {name}" if place == str(self.config) else place
            text = self.parsed(_text, value, where)
            if text and name == "url_file":
                text = self._contents(directory / text, where)
            log = text and self.parsed(lambda found: parse_url(found, directory), text, where)
            if log:
                return log, where
        return None

    def _contents(self, path: Path, where: str) -> str:
        try:
            text = path.read_text("utf-8").strip()
        except OSError as error:
            text = (
                self.note(f"{where}: {path} can't be read: {error.strerror}.", "Name a file that holds the URL.") or ""
            )
        if not text and not self.problems:
            self.note(f"{where}: {path} is empty.", "Put the URL into it.")
        return text
