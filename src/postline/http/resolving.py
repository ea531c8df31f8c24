"""`SystemResolver`: the addresses of names, without one slow name server holding up all that look up other names."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import Future

__all__ = ["SystemResolver"]

#: Each is a thread that waits; a client whose name servers never answer has no more of them than names.
_LOOKUPS_MAX = 256


class SystemResolver:
    """Asks the system's resolver, each name in a thread of its own and once at a time.

    Names are others' to choose, and so is how long their servers take. The event loop's own few threads would all wait
    for them, while calls to everybody else, and whatever else runs there, wait too. Threads can't be ended: a lookup
    goes on when nobody waits for it any more, and keeps no process from ending.
    """

    def __init__(self) -> None:
        self._under_way: dict[tuple[str, int], Future[list[str]]] = {}

    async def __call__(self, host: str, port: int) -> list[str]:
        """The addresses of a name, as texts. Raises OSError where there are none, UnicodeError for what is no name."""
        found = self._under_way.get((host, port)) or self._begun(host, port)
        return await asyncio.shield(asyncio.wrap_future(found))

    def _begun(self, host: str, port: int) -> Future[list[str]]:
        if len(self._under_way) >= _LOOKUPS_MAX:
            raise OSError(f"{_LOOKUPS_MAX} other names are being looked up")
        found: Future[list[str]] = Future()
        self._under_way[host, port] = found
        threading.Thread(target=self._look_up, args=(host, port, found), name="postline resolver", daemon=True).start()
        return found

    def _look_up(self, host: str, port: int, found: Future[list[str]]) -> None:
        try:
            told = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:  # the latter for what can't be a name
            del self._under_way[host, port]
            found.set_exception(error)
        else:
            del self._under_way[host, port]
            found.set_result(list(dict.fromkeys(str(each[4][0]) for each in told)))
