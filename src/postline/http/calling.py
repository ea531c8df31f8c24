"""Calls to others' servers: one POST, to a checked address, within a time, with little heard of the answer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from postline.errors import DeliveryFailed, SettingsError
from postline.http.addresses import Addresses

try:
    import httpcore
except ImportError as missing:
    raise SettingsError("Calling over HTTP needs httpcore.", remedy="pip install 'postline[http]'") from missing

__all__ = ["Answer", "Caller"]

_TIMEOUT_SECONDS = 20.0
_ANSWER_BYTES_MAX = 4_096
_CONNECTIONS_MAX = 200


class Answer(NamedTuple):
    """What a server answered: its status, headers with names in lower case, and the beginning of its body."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Checked(httpcore.AsyncNetworkBackend):
    """Connects to the addresses that were checked, whatever the name means a moment later.

    The pool goes on speaking to the name: it stands in the Host header, in TLS's SNI, and certificates are for it.
    """

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that takes it. Raises ForbiddenAddress, httpcore.ConnectError."""
        failed: Exception = httpcore.ConnectError(f"{host} has no address")
        try:
            found = await self._addresses.checked(host, port)
        except (OSError, UnicodeError) as error:  # the latter for what can't be a name
            raise httpcore.ConnectError(f"{host} can't be resolved: {error}") from error
        for address in found:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Refused: there is nobody to be called on a socket of this machine."""
        raise httpcore.ConnectError("no call goes to a socket of this machine")

    async def sleep(self, seconds: float) -> None:
        """Wait between attempts to connect."""
        await self._network.sleep(seconds)


class Caller:
    """Posts to others' servers: no redirects, no proxies, no cookies. Event loop only; `close` it.

    Each call has a connection of its own. On one that is used again, what a server sent after its answer would be taken
    for the answer to the next call, which may not have arrived.
    """

    def __init__(
        self,
        addresses: Addresses,
        *,
        timeout_seconds: float = _TIMEOUT_SECONDS,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        self.addresses, self._timeout_seconds, self._tls = addresses, timeout_seconds, tls
        self._pool: httpcore.AsyncConnectionPool | None = None

    def _opened(self) -> httpcore.AsyncConnectionPool:
        if self._pool is None:
            self._pool = httpcore.AsyncConnectionPool(
                ssl_context=self._tls(),
                max_connections=_CONNECTIONS_MAX,
                max_keepalive_connections=0,
                network_backend=_Checked(self.addresses),
            )
        return self._pool

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post once; whether it arrived is known by the answer alone.

        Raises ForbiddenAddress with nothing sent, DeliveryFailed if no answer came in time.
        """
        self.addresses.require(url)
        place = url.partition("?")[0]  # what stands behind may be a secret
        try:
            async with asyncio.timeout(self._timeout_seconds):  # the network's time is real, whatever the clock's is
                return await self._post(url, headers, body)
        except TimeoutError as error:
            raise DeliveryFailed(f"{place} gave no whole answer within {self._timeout_seconds:g} s.") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, ssl.SSLError) as error:
            raise DeliveryFailed(f"{place} could not be called: {type(error).__name__}: {error}.") from error

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        sent = [(b"connection", b"close"), *((name.encode(), value.encode()) for name, value in headers.items())]
        async with self._opened().stream("POST", url, headers=sent, content=body) as response:
            heard = bytearray()
            async for chunk in response.aiter_stream():
                heard += chunk
                if len(heard) >= _ANSWER_BYTES_MAX:
                    break  # and the connection is closed with the rest unread
            found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            return Answer(response.status, found, bytes(heard[:_ANSWER_BYTES_MAX]))

    async def close(self) -> None:
        """Close its connections. Idempotent."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()
