"""Which addresses may be called on behalf of others: public ones, and private networks that are named."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from postline.errors import ForbiddenAddress, SettingsError
from postline.http.resolving import SystemResolver

__all__ = ["Addresses", "IpAddress", "Resolve"]

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

#: The addresses of a host's name, as texts. Raises OSError where there are none.
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]

#: What `is_global` takes for public in one version of Python or another, though it leads elsewhere: translations of
#: IPv4 (NAT64, SIIT, 6to4, Teredo, compatible ones), their relays, and what belongs to one site or to many.
_DENIED: tuple[Network, ...] = tuple(
    ipaddress.ip_network(each)
    for each in (
        *("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        *(
            "::/96",
            "::ffff:0:0:0/96",
            "64:ff9b::/96",
            "64:ff9b:1::/48",
            "100::/64",
            "2001::/23",
            "2002::/16",
            "3fff::/20",
            "5f00::/16",
        ),
        *("fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
)
_URL_CHARACTERS_MAX = 2_000


class Addresses:
    """Where calls may go: to public addresses over https, and to the networks that are allowed besides.

    `allow` names private networks ("10.1.0.0/16", "127.0.0.1"); `plain_http` allows calls without encryption. Every
    address of a name is checked, and the very ones that were checked are connected to: a name that points elsewhere a
    moment later leads nowhere. Raises SettingsError for a network that is none.
    """

    def __init__(self, *, allow: Iterable[str] = (), plain_http: bool = False, resolve: Resolve | None = None) -> None:
        self._resolve: Resolve = resolve or SystemResolver()
        self._schemes = ("https", "http") if plain_http else ("https",)
        self._allowed: list[Network] = []
        for each in allow:
            try:
                self._allowed.append(ipaddress.ip_network(each))
            except ValueError as error:
                raise SettingsError(
                    f"{each!r} can't be allowed: {error}.", remedy='Name a network: allow=["10.1.0.0/16"].'
                ) from error

    def require(self, url: str) -> None:
        """Raise ForbiddenAddress for a URL that can be told not to be allowed without asking anybody."""
        parts = self._parts(url)
        host = (parts.hostname or "").rstrip(".")
        if host == "localhost" or host.endswith(".localhost"):
            self._require_open(ipaddress.ip_address("127.0.0.1"), host)
        elif (literal := _literal(host)) is not None:
            self._require_open(literal, host)

    def _parts(self, url: str) -> SplitResult:
        if (
            len(url) > _URL_CHARACTERS_MAX
            or not url.isascii()
            or not url.isprintable()
            or set(url) & set(' "<>\\^`{|}')
        ):
            raise _forbidden("A URL that is too long or is not ASCII", "give up to 2,000 characters, escaped")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise _forbidden("A URL that can't be read", "give https://host/path") from None
        if parts.scheme not in self._schemes or not parts.hostname or port == 0:
            raise _forbidden(
                f"A URL that begins with {parts.scheme[:20]!r}", f"give {' or '.join(self._schemes)}://host/"
            )
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise _forbidden("A URL with a user, a password or a fragment", "leave them out; calls are signed")
        return parts

    async def checked(self, host: str, port: int) -> list[str]:
        """The addresses of a host, all of them checked.

        Raises ForbiddenAddress if one is not allowed, OSError if there is none.
        """
        found = await self._resolve(host, port)
        if not found:
            raise OSError(f"{host} has no address")
        for each in found:
            self._require_open(ipaddress.ip_address(each.partition("%")[0]), host)
        return list(found)

    def _require_open(self, address: IpAddress, host: str) -> None:
        if not (self._is_allowed(address) or is_public(address)):
            raise ForbiddenAddress(
                f"{host:.200} is no public address."
                if host == str(address)
                else f"{host:.200} is {address}, which is no public address.",
                remedy="Give one that the Internet reaches; a network of your own has to be allowed.",
            )

    def _is_allowed(self, address: IpAddress) -> bool:
        return any(address in network for network in self._allowed)


def is_public(address: IpAddress) -> bool:
    """Whether an address belongs to the Internet at large, and is no other way to write one that does not."""
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        return is_public(mapped)
    return address.is_global and not address.is_multicast and not any(address in network for network in _DENIED)


def _literal(host: str) -> IpAddress | None:
    """The address that a host's text is; also in the ways that resolvers understand: 127.1, 0x7f000001, 2130706433."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _forbidden(what: str, remedy: str) -> ForbiddenAddress:
    return ForbiddenAddress(f"{what} is not called.", remedy=f"{remedy[0].upper()}{remedy[1:]}.")
