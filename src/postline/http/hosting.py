"""The app behind a web application: started by whoever serves it, or by the first request where nobody tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from postline.app import App
from postline.errors import UsageError

__all__ = ["Hosting", "is_running"]


def is_running(app: App) -> bool:
    """Whether the app was started and not stopped."""
    try:
        app.log  # noqa: B018 - it is refused while the app does not run
    except UsageError:
        return False
    return True


class Hosting:
    """Starts an app to send alone, once, unless somebody did so. Event loop only."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._starting: asyncio.Task[None] | None = None
        self._over = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The app runs meanwhile; stopped in the end if it was started for this, by a request before it too."""
        ours = not is_running(self.app) or self._starting is not None
        self._over = False
        await self.begin()
        try:
            yield
        finally:
            self._starting, self._over = None, True
            if ours:
                await self.app.stop()

    async def begin(self) -> None:
        """Start the app if it does not run. Raises as `App.start`; another request may try again then."""
        if is_running(self.app):
            return
        if self._over:
            raise UsageError(f"App {self.app.name!r} has been stopped.", remedy="Serve it again.")
        # One attempt for all that ask meanwhile; who goes away takes nobody else's start along.
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self.app.start(consume=False), name=f"{self.app.name} starts")
        await asyncio.shield(self._starting)
