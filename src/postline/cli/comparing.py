"""What contracts are compared with: snapshots in files or a git revision, or what is registered; and who reads it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from postline.app import App, declared_views, foreign_readings
from postline.cli.failures import alarm
from postline.cli.opening import Opened, url_option, with_log
from postline.contracts import Topic
from postline.contracts.checking import broken_promises, findings, topic_changes, undeclared
from postline.contracts.compatibility import Finding, Level
from postline.contracts.formats import format_named, format_of_type
from postline.contracts.schema import Schema
from postline.contracts.snapshot import Snapshot, owner_and_topic, read_snapshot, snapshot_of
from postline.errors import ContractError, UnknownTopic, UsageError
from postline.registry import (
    ForeignReading,
    Unread,
    View,
    Written,
    read_views,
    registered_versions,
    standing_of,
    topic_and_type,
    unread_of,
)
from postline.schedules import SchedulesTopic

__all__ = [
    "Before",
    "Compared",
    "ForeignBefore",
    "TypeBefore",
    "before_in",
    "compared_option",
    "known_snapshot",
    "snapshot_path",
    "what_was_before",
]

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_READERS = "readers"
#: Subjects that other programs have for a topic's keys and values are no types of ours.
_NO_TYPES = {"key", "value"}


class TypeBefore(NamedTuple):
    """The versions of a type before the present one, by number, and what that breaks of them."""

    versions: Mapping[int, Schema] = {}
    findings: Sequence[Finding] = ()
    #: What the newest that is registered is written as; "" where a snapshot says it of the topic.
    encoding: str = ""

    @property
    def newest(self) -> Schema | None:
        """The last of them; None of a type that is new."""
        return self.versions[max(self.versions)] if self.versions else None


class Before(NamedTuple):
    """A topic, what is known of it from before, and what consumers read of it."""

    topic: Topic
    #: Of each type that is declared now.
    types: Mapping[str, TypeBefore]
    #: Types that it declared, and doesn't now.
    gone: Sequence[str] = ()
    #: What must never change and did, in sentences.
    problems: Sequence[str] = ()
    #: What else is said of the topic itself and changed, in sentences, with the problems.
    changes: Sequence[str] = ()
    views: Sequence[View] = ()

    def views_of(self, name: str) -> list[View]:
        """What consumers read of a type, under its present name or a former one."""
        contract = self.topic.contracts.get(name)
        names = {name, *(contract.reading.aliases if contract else ())}
        return [view for view in self.views if view.type in names]


class ForeignBefore(NamedTuple):
    """A type of another's topic that an app reads, and what its owner wrote or registered of it, oldest first."""

    service: str
    of: ForeignReading
    versions: Sequence[Written]

    @property
    def unread(self) -> Unread | None:
        """What can't be read of it."""
        return unread_of(self.of, self.versions)


class Compared(NamedTuple):
    """What apps are compared with: of their own topics, and of those that they read."""

    topics: Sequence[Before]
    #: But for topics of the apps that are compared together: those count as they are declared now.
    foreign: Sequence[ForeignBefore] = ()
    #: Of topics that the apps' services don't declare any more, the snapshots that still lie there, by topic.
    abandoned: Mapping[str, Path] = {}


def compared_option(command: CommandT) -> CommandT:
    """Let a command be told what to compare with: `revision`, `registry` and `url`; else snapshots that lie here."""
    against = click.option(
        "--against", "revision", metavar="REV", help="Compare with the snapshots of this git revision."
    )
    registry = click.option(
        "--registry", is_flag=True, help="Compare with what is registered: in the log, or in the settings' registry."
    )
    return against(registry(url_option(command)))


def what_was_before(
    apps: Sequence[App], directory: Path, revision: str | None, registry: bool, url: str | None
) -> Compared:
    """Each topic of the apps with what it is compared with. Raises UsageError, ContractError, LogError."""
    if registry and revision is not None:
        raise UsageError("--registry and --against are two things to compare with.", remedy="Give one of them.")
    if url is not None and not registry:
        raise UsageError("--url names a log, snapshots need none.", remedy="Add --registry, or leave out --url.")
    if registry:
        return with_log(url, lambda opened: _registered(opened, apps))
    return _written_down(apps, directory, revision)


def _foreign(apps: Iterable[App], full_name: Callable[[str], str] = str) -> list[tuple[str, ForeignReading]]:
    """What the apps read of topics that none of them owns, by service."""
    apps = list(apps)
    # What they publish to counts as they declare it, too: their start registers that before it looks.
    declared = {full_name(topic.name) for app in apps for topic in (*app.owns, *app.publishes_to)}
    return [(app.name, of) for app in apps for of in foreign_readings(app, full_name) if of.topic not in declared]


def _as_declared(views: Iterable[View], apps: Iterable[App], full_name: Callable[[str], str]) -> list[View]:
    """The views of others, and those that these apps will have as they are now: they are deployed with the change."""
    apps = list(apps)
    services = {app.name for app in apps}
    ours = [view for app in apps for view in declared_views(app, full_name)]
    return [*(view for view in views if view.service not in services), *ours]


# -- snapshots ----------------------------------------------------------------------------------------


def snapshot_path(directory: Path, topic: str) -> Path:
    """Where the snapshot of a topic lies."""
    return directory / f"{topic}.json"


def _written_down(apps: Sequence[App], directory: Path, revision: str | None) -> Compared:
    # The types of its schedules are Postline's own.
    topics = [topic for app in apps for topic in app.owns if not isinstance(topic, SchedulesTopic)]
    views = _as_declared(_saved_views(directory, topics), apps, str)
    known = {topic.name: _snapshot(topic.name, directory, revision) for topic in topics}
    found = [before_in(known[topic.name], topic, views) for topic in topics]
    found = [each if known[each.topic.name] else _unwritten(each, directory, revision) for each in found]
    foreign = _foreign(apps)
    others = {of.topic: _foreign_snapshot(of.topic, directory, revision) for _, of in foreign}
    return Compared(
        found,
        [ForeignBefore(who, of, _written_in(others[of.topic], of)) for who, of in foreign],
        _abandoned(apps, directory),
    )


def _abandoned(apps: Iterable[App], directory: Path) -> dict[str, Path]:
    """Snapshots of topics that these services own, and no app of theirs declares: renamed, or taken away."""
    owners = {app.name for app in apps}
    declared = {topic.name for app in apps for topic in app.owns}
    found = {}
    for path in sorted(directory.glob("*.json")):
        owner, topic = owner_and_topic(path.read_bytes()) or ("", "")
        if owner in owners and topic not in declared and path.stem not in declared:
            found[topic] = path
    return found


def _snapshot(topic: str, directory: Path, revision: str | None) -> Snapshot | None:
    return known_snapshot(directory, topic) if revision is None else _of_revision(revision, directory, topic)


def _foreign_snapshot(topic: str, directory: Path, revision: str | None) -> Snapshot | None:
    """As its owner's repository has it; a copy that lies here counts where the revision has none."""
    known = _snapshot(topic, directory, revision) or known_snapshot(directory, topic)
    if known is not None and known.topic != topic:
        raise ContractError(
            f"{snapshot_path(directory, topic)} is the snapshot of topic {known.topic}.",
            remedy=f"Lay that of {topic} there, from its owner's repository.",
        )
    return known


def _unwritten(before: Before, directory: Path, revision: str | None) -> Before:
    """A topic that there is no snapshot of: new since the revision, else forgotten, and never compared."""
    path = snapshot_path(directory, before.topic.name)
    if revision is not None and path.exists():
        alarm(f"{revision} has no snapshot of {before.topic.name}: it is new, so nothing of it breaks.", word="note")
        return before
    said = (
        f"it has no snapshot at {path}, so it was compared with nothing: write it with `postline contracts snapshot` "
        "and commit it, or name the folder of the snapshots with --directory."
    )
    return before._replace(problems=[said])


def _written_in(known: Snapshot | None, of: ForeignReading) -> list[Written]:
    """The versions of a type under the first of its names that the owner wrote down."""
    name = next((each for each in of.names if known and each in known.types), None)
    if known is None or name is None:
        return []
    format = format_named(known.encoding).name
    return [Written(name, number, each, format) for number, each in known.types[name].numbered.items()]


def known_snapshot(directory: Path, topic: str) -> Snapshot | None:
    """The snapshot that lies there, if there is one. Raises ContractError for one that can't be read."""
    path = snapshot_path(directory, topic)
    return read_snapshot(path.read_bytes(), str(path)) if path.is_file() else None


def before_in(known: Snapshot | None, topic: Topic, views: Iterable[View] = ()) -> Before:
    """What a snapshot says of a topic; without one, all of it is new."""
    views = [view for view in views if view.topic == topic.name]
    if known is None:
        return Before(topic, dict.fromkeys(topic.contracts, TypeBefore()), views=views)
    now = snapshot_of(topic)
    types = {name: _type_in(known, topic, name) for name in topic.contracts}
    gone = undeclared(known.types, now)
    return Before(topic, types, gone, broken_promises(known, now), topic_changes(known, now), views)


def _type_in(known: Snapshot, topic: Topic, name: str) -> TypeBefore:
    reading = topic.contracts[name].reading
    before = next((known.types[each] for each in (name, *reading.aliases) if each in known.types), None)
    if before is None:
        return TypeBefore()
    judged_then = reading.schema in before.versions
    # A rule that is loosened in the same change must not hide what the change breaks.
    rule = Level(known.evolution).together_with(Level(topic.schemas.evolution)).value
    found = [] if judged_then else findings(reading, before.numbered, rule)
    return TypeBefore(before.numbered, found)


def _of_revision(revision: str, directory: Path, topic: str) -> Snapshot | None:
    """The snapshot as git has it; None if it has none there."""
    path = snapshot_path(directory, topic)
    _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", failing=f"git knows no revision {revision!r}.")
    listed = _git("ls-tree", "--name-only", revision, "--", str(path), failing=f"git can't list {path}.")
    if not listed.strip():
        return None
    content = _git("show", f"{revision}:./{path}", failing=f"git can't show {path} of {revision}.")
    return read_snapshot(content, f"{path} of {revision}")


def _git(*arguments: str, failing: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], check=True, capture_output=True).stdout
    except FileNotFoundError as error:
        raise UsageError("git is not installed.", remedy="Install it, or leave out --against.") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise UsageError(f"{failing} {said}".strip(), remedy="Fetch it, or name another revision.") from error


def _saved_views(directory: Path, topics: Iterable[Topic]) -> list[View]:
    path = snapshot_path(directory, _READERS)
    # A topic of that name has its snapshot there.
    if not path.exists() or any(topic.name == _READERS for topic in topics):
        return []
    return read_views(path.read_bytes(), str(path))


# -- the registry -------------------------------------------------------------------------------------


async def _registered(opened: Opened, apps: Sequence[App]) -> Compared:
    """What the apps' start would be judged by: also the topics of others that they publish to, or read."""
    owned = [topic for app in apps for topic in app.owns]
    topics = list(dict.fromkeys((*owned, *(topic for app in apps for topic in app.publishes_to))))
    names = {spec.name for spec in await opened.log.topics()}
    foreign = _foreign(apps, opened.settings.full_name)
    full_names = [*(opened.settings.full_name(each.name) for each in topics), *(of.topic for _, of in foreign)]
    _require_any(opened, full_names, names)
    views = _as_declared(await opened.views(), apps, opened.settings.full_name)
    subjects = [meant for each in await opened.registry.subjects() if (meant := topic_and_type(each, names))]
    found = []
    for topic in topics:
        full = opened.settings.full_name(topic.name)
        known = [name for of, name in subjects if of == full and name not in _NO_TYPES]
        # Who publishes to another's topic need not declare all of it.
        gone = undeclared(known, snapshot_of(topic)) if topic in owned else []
        types = {name: await _type_registered(opened, full, topic, name) for name in topic.contracts}
        views_here = [view for view in views if view.topic == full]
        found.append(Before(topic, types, gone, changes=_encodings(topic, types.values()), views=views_here))
    _tell_what_is_new(found)
    return Compared(
        found, [ForeignBefore(who, of, await registered_versions(opened.registry, of)) for who, of in foreign]
    )


def _require_any(opened: Opened, topics: Sequence[str], names: set[str]) -> None:
    if topics and not names.intersection(topics):
        raise UnknownTopic(
            f"The log {opened.settings.url} has no topic {' or '.join(dict.fromkeys(topics))}.",
            remedy="Name the right log with --url or POSTLINE_URL, and its POSTLINE_NAMESPACE; "
            "an app's first start makes its topics.",
        )


async def _type_registered(opened: Opened, full: str, topic: Topic, name: str) -> TypeBefore:
    reading = topic.contracts[name].reading
    standing = await standing_of(opened.registry, full, reading, topic.schemas.evolution)
    newest = [format_of_type(each.document.schema_type).name for each in standing.there[-1:]]
    return TypeBefore(standing.meanings, standing.findings, "".join(newest))


def _encodings(topic: Topic, types: Iterable[TypeBefore]) -> list[str]:
    """What changed of the format, which the registry knows of each type, as sentences on the topic."""
    before = sorted({each.encoding for each in types} - {"", topic.format.name})
    return [f"its encoding was {each!r} and is {topic.format.name!r}." for each in before]


def _tell_what_is_new(found: Sequence[Before]) -> None:
    for topic in _unregistered(found):
        alarm(f"nothing is registered of {topic} yet, so nothing of it breaks.", word="note")


def _unregistered(found: Sequence[Before]) -> Iterator[str]:
    for before in found:
        if before.types and not any(each.versions for each in before.types.values()):
            yield before.topic.name
