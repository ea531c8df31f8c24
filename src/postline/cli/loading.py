"""Apps named on the command line: `module`, `module:name`, `file.py` or `file.py:name`, imported."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

from postline.app import App
from postline.errors import PostlineError, UsageError

__all__ = ["load_app", "load_apps", "load_attribute"]

_PACKAGE = Path(__file__).resolve().parent.parent


def load_apps(targets: tuple[str, ...]) -> list[App]:
    """The apps of all targets, owners of topics before those that read them. Raises UsageError."""
    apps: list[App] = []
    for target in targets:
        app = load_app(target)
        if any(other.name == app.name for other in apps):
            raise UsageError(f"Two of the apps are named {app.name!r}.", remedy="Name each service once.")
        apps.append(app)
    return _owners_first(apps)


def load_app(target: str) -> App:
    """The app that a target names: the attribute after the colon, else `app`, else the only one there is.

    Raises UsageError if there is none. What the module itself raises is left as it is.
    """
    place, _, attribute = target.partition(":")
    module = _import(place)
    if attribute:
        found = getattr(module, attribute, None)
        if isinstance(found, App):
            return found
        if not hasattr(module, attribute):
            raise UsageError(f"Module {place!r} has no {attribute!r}.", remedy=_known(place, module))
        raise UsageError(f"{target!r} is no postline.App but a {type(found).__name__}.", remedy=_known(place, module))
    apps = _apps_of(module)
    if isinstance(apps.get("app"), App):
        return apps["app"]
    if len(set(map(id, apps.values()))) == 1:
        return next(iter(apps.values()))
    raise UsageError(
        f"{place!r} has {'several apps' if apps else 'no app'} at its top level.", remedy=_known(place, module)
    )


def load_attribute(target: str) -> object:
    """What `module:name` names, whatever it is; None if there is no such name, or none is given. Raises UsageError."""
    place, _, attribute = target.partition(":")
    return getattr(_import(place), attribute, None) if attribute else None


def _known(place: str, module: ModuleType) -> str:
    names = sorted(_apps_of(module))
    if names:
        return f"Name one: {', '.join(f'{place}:{name}' for name in names)}."
    return 'Make one: app = App("name", …).'


def _apps_of(module: ModuleType) -> dict[str, App]:
    return {name: value for name, value in vars(module).items() if isinstance(value, App)}


def _import(place: str) -> ModuleType:
    name = place
    folder = Path.cwd()
    if place.endswith(".py") or "/" in place:
        folder, name = _of_file(Path(place))
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    except PostlineError:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise UsageError(
                f"There is no module {error.name!r} (looking for {place!r} in {folder}).",
                remedy="Name module:app as importable from here, or the path of a file.",
            ) from None
        # The frames of the import machinery say nothing; those of the module do.
        theirs = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_theirs(frame.filename)]
        shown = "".join(traceback.format_list(theirs) + traceback.format_exception_only(error))
        raise UsageError(
            f"{place!r} can't be imported:\n{shown.rstrip()}", remedy="Mend it; its own import fails, not Postline's."
        ) from error


def _is_theirs(filename: str) -> bool:
    return not filename.startswith("<frozen") and not filename.startswith((str(_PACKAGE), importlib.__file__))


def _of_file(path: Path) -> tuple[Path, str]:
    """The folder to import from and the module's name there; packages count."""
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", remedy="Name a Python file, or module:app.")
    path = path.resolve()
    parts = [] if path.stem == "__init__" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(parts)


def _owners_first(apps: list[App]) -> list[App]:
    """Sorted so that who owns a topic starts before who only has a view of it, as far as that goes."""
    waiting, ordered = list(apps), list[App]()
    while waiting:
        owned = {topic.name for app in waiting for topic in app.owns}
        ready = [app for app in waiting if not _needs(app, owned - {topic.name for topic in app.owns})]
        # Each needs the other: the error at start names what is missing.
        ready = ready or waiting[:1]
        ordered += ready
        waiting = [app for app in waiting if app not in ready]
    return ordered


def _needs(app: App, topics: set[str]) -> bool:
    return any(subscription.topic.name in topics for subscription in app.subscriptions.values())
