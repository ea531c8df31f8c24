"""Where a request's status lies: its URL as clients reach it, and who may look there."""

from __future__ import annotations

from starlette.requests import Request

from postline.app import App
from postline.commands import Requests, Standing
from postline.contracts.commands import CommandTopic
from postline.http.exposed import Exposure
from postline.http.idempotency import RequestName, mark_of
from postline.http.problems import Problem

__all__ = ["Located", "Locating"]


class Located:
    """A request that a URL names, and that whoever asks has made."""

    def __init__(self, name: RequestName, topic: CommandTopic, requests: Requests, principal: str) -> None:
        self.name, self.topic, self.requests, self._principal = name, topic, requests, principal

    @property
    def request_id(self) -> str:
        """What the request is called in the log."""
        return self.name.request_id

    async def standing(self) -> Standing:
        """How it stands. Raises Problem (404, 410) if the log does not know it, or no more."""
        return self.checked(await self.requests.standing(self.request_id))

    def checked(self, standing: Standing) -> Standing:
        """A standing that the principal may see. Raises as `standing`."""
        accepted, kept_ms = standing.accepted, self.requests.kept_ms
        if accepted is not None and accepted.principal != self._principal:
            raise unknown()
        if standing.version < 0:
            at = self.name.accepted_ms
            if at and kept_ms is not None and at + kept_ms <= self.requests.clock.now_ms():
                raise Problem(410, "forgotten", "Gone", "What became of this request is no longer kept.")
            raise unknown()
        return standing


class Locating:
    """Makes and reads the URLs of requests."""

    def __init__(self, app: App, exposure: Exposure, public_url: str) -> None:
        self._app, self._exposure, self._public_url = app, exposure, public_url.rstrip("/")

    def url(self, request: Request, path: str) -> str:
        """Where a path of the gateway is reached."""
        return (self._public_url or request.scope.get("root_path", "").rstrip("/")) + path

    def status_url(self, request: Request, name: str) -> str:
        """Where a request's status lies."""
        return self.url(request, f"/requests/{name}")

    def located(self, request: Request, principal: str) -> Located:
        """The request that the URL names. Raises Problem (404) for another's, and for what names none."""
        name = RequestName.read(request.path_params["name"])
        topic = self._exposure.topics.get(name.topic_mark) if name is not None else None
        # Another's is not told from one that is not there.
        if name is None or topic is None or name.principal_mark != mark_of(principal, 8):
            raise unknown()
        return Located(name, topic, self._app.requests(topic), principal)


def unknown() -> Problem:
    """There is no such request, for whoever asks."""
    return Problem(404, "unknown-request", "Not Found", "There is no such request of yours.")
