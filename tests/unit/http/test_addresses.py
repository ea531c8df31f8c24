"""Which targets may be called: what a URL alone tells, and what its name's addresses do."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from postline.errors import ForbiddenAddress, SettingsError
from postline.http.addresses import Addresses


def resolving(*found: str) -> Addresses:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return found

    return Addresses(resolve=resolve)


PRIVATE = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "100.100.100.200", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1",
    "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "::1", "::", "fc00::1", "fd00:ec2::254", "fe80::1",
    "fec0::1", "ff02::1", "2001:db8::1", "2001::1", "2002:7f00:1::", "2002:a00:1::1", "64:ff9b::169.254.169.254",
    "64:ff9b::8.8.8.8", "64:ff9b:1::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::8.8.8.8",
    "::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8", "100::1", "3fff::1", "5f00::1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2001:4860:4860::8888", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", PRIVATE)
async def test_an_address_that_is_not_public_is_refused_as_literal_and_as_what_a_name_means(address: str):
    with pytest.raises(ForbiddenAddress):
        Addresses().require(f"https://[{address}]/" if ":" in address else f"https://{address}/")
    with pytest.raises(ForbiddenAddress):
        await resolving(address).checked("partner.example", 443)


@pytest.mark.parametrize("address", PUBLIC)
async def test_a_public_address_is_allowed(address: str):
    Addresses().require(f"https://[{address}]/" if ":" in address else f"https://{address}/")
    assert await resolving(address).checked("partner.example", 443) == [address]


async def test_one_address_that_is_not_public_among_others_is_enough():
    with pytest.raises(ForbiddenAddress):
        await resolving("8.8.8.8", "10.0.0.1").checked("partner.example", 443)
    with pytest.raises(OSError, match="no address"):
        await resolving().checked("partner.example", 443)


@pytest.mark.parametrize(
    "url",
    [
        "http://partner.example/", "ftp://partner.example/", "file:///etc/passwd", "partner.example",
        "//partner.example/",
        "https://", "https:///x", "https://user@partner.example/", "https://:pw@partner.example/",
        "https://partner.example/#x", "https://partner.example:0/", "https://partner.example:99999/",
        "https://partner.example:x/", "https://[::1", "https://127.1/", "https://2130706433/", "https://0x7f000001/",
        "https://0177.0.0.1/", "https://localhost/", "https://LOCALHOST./", "https://a.localhost/",
        "https://127.0.0.1./", "https://[fe80::1%25eth0]/", "https://partner.example/\r\nx: y",
        "https://part ner.example/",
        "https://pärtner.example/", "https://partner.example\\@127.0.0.1/", "https://" + "a" * 3000,
        "https://[::ffff:127.0.0.1]/",
    ],
)  # fmt: skip
def test_a_url_that_can_be_told_to_lead_astray_is_refused(url: str):
    with pytest.raises(ForbiddenAddress):
        Addresses().require(url)


@pytest.mark.parametrize("url", ["https://partner.example", "https://partner.example:8443/a?b=c", "https://8.8.8.8/"])
def test_other_urls_are_not(url: str):
    Addresses().require(url)


async def test_networks_that_are_named_are_allowed_and_no_others():
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    addresses = Addresses(allow=["127.0.0.1", "10.1.0.0/16"], plain_http=True, resolve=resolve)
    addresses.require("http://127.0.0.1:8000/")
    addresses.require("http://10.1.2.3/")
    assert await addresses.checked("localhost", 80) == ["127.0.0.1"]
    with pytest.raises(ForbiddenAddress):
        addresses.require("http://10.2.0.1/")
    with pytest.raises(SettingsError):
        Addresses(allow=["intranet"])
