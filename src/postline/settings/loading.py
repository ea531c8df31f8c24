"""Reading `postline.toml` and the variables in one pass that tells every problem."""

from __future__ import annotations

import difflib
import socket
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from postline.errors import SettingsError
from postline.settings.model import SUBSCRIPTIONS, TOPICS, Kind, Settings, SizesT
from postline.settings.url import LogUrl, parse_url
from postline.settings.values import meant, parse_namespace, parse_registry, parse_text

__all__ = ["CONFIG_NAME", "DEFAULT_URL", "load_settings"]

CONFIG_NAME = "postline.toml"
DEFAULT_URL = "sqlite:///postline.db"

_PREFIX = "POSTLINE_"
_NAMES = ("url", "url_file", "namespace", "instance", "registry")
_VARIABLES = ("URL", "URL_FILE", "NAMESPACE", "INSTANCE", "REGISTRY", "CONFIG")


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
            namespace=self._one("namespace", parse_namespace, ""),
            instance=self._one("instance", parse_text, "") or socket.gethostname(),
            registry=self._one("registry", parse_registry, ""),
            topics=dict(self._tables(TOPICS)),
            subscriptions=dict(self._tables(SUBSCRIPTIONS)),
            topic_variables=self._variables(TOPICS),
            subscription_variables=self._variables(SUBSCRIPTIONS),
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
        known = (*_NAMES, TOPICS.table, SUBSCRIPTIONS.table)
        for name in [name for name in self.table if name not in known]:
            self.note(f"{self.config}: {name} is no setting.", meant(name, known))
        for name in self.environ:
            stem = name.removeprefix(_PREFIX)
            # Other variables may begin like ours (container platforms make such), so only near misses are refused.
            if stem not in _VARIABLES and (close := difflib.get_close_matches(stem, _VARIABLES, 1, cutoff=0.8)):
                self.note(f"{name} is no setting.", f"Did you mean {_PREFIX}{close[0]}?")
            elif stem.startswith(("TOPICS_", "SUBSCRIPTIONS_")):
                self.note(f"{name} is no setting.", f"Did you mean {name.replace('S_', '_', 1)}?")

    def _tables(self, kind: Kind[SizesT]) -> Iterator[tuple[str, SizesT]]:
        tables = self.table.get(kind.table, {})
        if not isinstance(tables, dict) or not all(isinstance(each, dict) for each in tables.values()):
            return self.note(f"{self.config}: {kind.table} is no table of tables.", f'Write [{kind.table}."the.name"].')
        for name, table in tables.items():
            yield name, self._sizes(kind, f"{self.config}: {kind.table}.{name}", name, table)

    def _sizes(self, kind: Kind[SizesT], where: str, name: str, table: Mapping[str, object]) -> SizesT:
        sizes = {}
        for key, value in table.items():
            if isinstance(value, dict):
                self.note(f"{where}.{key} is a table.", f'Names with dots need quotes: [{kind.table}."{name}.{key}"].')
            elif key not in kind.keys:
                self.note(f"{where}.{key} is no setting.", meant(key, kind.keys))
            else:
                field_name, parse = kind.keys[key]
                sizes[field_name] = self.parsed(parse, value, f"{where}.{key}")
        return kind.make(**sizes)

    # The variables

    def _variables(self, kind: Kind[SizesT]) -> dict[str, SizesT]:
        found: dict[str, dict[str, Any]] = {}
        for variable, value in self.environ.items():
            if not variable.startswith(kind.variable):
                continue
            stem = variable.removeprefix(kind.variable)
            key = next((key for key in kind.keys if stem.endswith("_" + key.upper())), "")
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
        of_file = self.config.parent if self.config else self.directory
        beside = self.directory if "POSTLINE_CONFIG" in self.environ else of_file
        places: list[tuple[Path, dict[str, object]]] = [
            (self.directory, {"the url given": url}),
            (self.directory, {name: self.environ.get(name) for name in ("POSTLINE_URL", "POSTLINE_URL_FILE")}),
            (of_file, {f"{self.config}: {name}": self.table.get(name) for name in ("url", "url_file")}),
            (beside, {"the program's url": default_url}),
            (beside, {"the default": DEFAULT_URL}),
        ]
        found = [(folder, {name: v for name, v in given.items() if v is not None}) for folder, given in places]
        for _, given in found:
            if len(given) > 1:
                self.note(f"{' and '.join(given)} are both set.", "Keep one of them.")
        # What is overruled isn't read: the file with production's URL needn't be there for a test.
        folder, given = next((folder, given) for folder, given in found if given)
        where, value = next(iter(given.items()))
        return self.parsed(lambda text: self._url_of(text, where, folder), value, where) or LogUrl("sqlite"), where

    def _url_of(self, value: object, where: str, folder: Path) -> LogUrl:
        text = parse_text(value)
        return parse_url(_contents(folder / text) if where.lower().endswith("url_file") else text, folder)


def _contents(path: Path) -> str:
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingsError(f"{path} can't be read ({reason}).", remedy="Name a file that holds the URL.") from error
    if not text:
        raise SettingsError(f"{path} is empty.", remedy="Put the log's URL into it.")
    return text
