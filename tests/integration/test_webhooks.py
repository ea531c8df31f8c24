"""Webhooks over real sockets: servers that are slow, fail, hang, redirect or are gone, names that lie, and SIGKILL."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from postline import App, Retry
from postline.app import Environment, open_environment
from postline.clock import SystemClock
from postline.errors import DeliveryFailed, ForbiddenAddress
from postline.http.addresses import Addresses
from postline.http.calling import Caller
from postline.http.signing import Secret, verify
from postline.http.webhooks import Endpoint, notify
from postline.log.sqlite import SqliteLog
from postline.settings import LogUrl, Settings
from tests.integration.hook_receiver import Receiver, answering, dripping, hanging, receiving
from tests.integration.notifying import OrderPlaced
from tests.integration.notifying import orders as declared

SECRET = Secret(b"s" * 32)
HERE = ["127.0.0.1"]
ROOT = Path(__file__).resolve().parents[2]


def resolving(*answers: Sequence[str]) -> tuple[Addresses, list[str]]:
    """Addresses whose resolver gives these answers in turn, the last one for ever; and the names that it was asked."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return Addresses(allow=HERE, plain_http=True, resolve=resolve), asked


@asynccontextmanager
async def calling(addresses: Addresses, timeout_seconds: float = 5) -> AsyncIterator[Caller]:
    caller = Caller(addresses, timeout_seconds=timeout_seconds)
    try:
        yield caller
    finally:
        await caller.close()


# -- one call -----------------------------------------------------------------------------------------


async def test_a_call_goes_to_the_checked_address_under_its_own_name():
    addresses, asked = resolving(HERE)
    async with receiving(Receiver()) as server, calling(addresses) as caller:
        answer = await caller.post(f"http://partner.example:{server.port}/x?y=z", {"a": "b"}, b"body")
        assert answer.status == 204
        assert asked == ["partner.example"]
        (hook,) = server.hooks
        assert (hook.path, hook.body, hook.headers["a"]) == ("/x?y=z", b"body", "b")
        assert hook.headers["host"] == f"partner.example:{server.port}"


async def test_a_second_answer_is_not_taken_for_the_answer_to_the_next_call():
    taken = b"HTTP/1.1 204 No Content\r\n\r\n"

    async def twice(writer: asyncio.StreamWriter) -> None:
        writer.write(taken + taken)

    async with receiving(Receiver(twice, then=answering(500))) as server, calling(resolving(HERE)[0]) as caller:
        assert [(await caller.post(server.url, {}, b"")).status for _ in range(3)] == [204, 500, 500]


async def test_a_name_that_is_bound_anew_leads_to_no_private_address():
    """Each connection resolves once and goes where was checked; the second one of this name is refused."""
    addresses, asked = resolving(HERE, ["10.0.0.1"], ["169.254.169.254"])
    async with receiving(Receiver(then=answering(200, connection="close"))) as server, calling(addresses) as caller:
        url = f"http://rebinding.example:{server.port}/"
        assert (await caller.post(url, {}, b"")).status == 200
        assert len(asked) == 1
        for _ in range(2):
            with pytest.raises(ForbiddenAddress):
                await caller.post(url, {}, b"")
        assert server.connections == 1


async def test_nobody_is_connected_to_who_is_not_allowed():
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["8.8.8.8", "127.0.0.1"]

    async with receiving(Receiver()) as server:
        async with calling(Addresses(plain_http=True, resolve=resolve)) as caller:
            for host in ("partner.example", "127.0.0.1", "localhost", "127.1"):
                with pytest.raises(ForbiddenAddress):
                    await caller.post(f"http://{host}:{server.port}/", {}, b"")
        assert server.connections == 0


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch):
    async with receiving(Receiver()) as server, receiving(Receiver()) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with calling(resolving(HERE)[0]) as caller:
            await caller.post(f"http://partner.example:{server.port}/", {}, b"")
        assert (server.connections, proxy.connections) == (1, 0)


async def test_a_redirect_is_not_followed():
    async with receiving(Receiver()) as secret, calling(resolving(HERE)[0]) as caller:
        async with receiving(Receiver(then=answering(307, location=secret.url))) as server:
            assert (await caller.post(server.url, {}, b"")).status == 307
        assert secret.connections == 0


@pytest.mark.parametrize("manner", [hanging, dripping])
async def test_a_server_that_takes_too_long_is_given_up(manner):
    async with receiving(Receiver(then=manner)) as server, calling(resolving(HERE)[0], 0.3) as caller:
        with pytest.raises(DeliveryFailed, match="gave no whole answer"):
            await caller.post(server.url, {}, b"")


async def test_of_a_long_answer_only_the_beginning_is_read():
    long = Receiver(then=answering(200, b"x" * 50_000_000))
    async with receiving(long) as server, calling(resolving(HERE)[0]) as caller:
        answer = await caller.post(server.url, {}, b"")
        assert (answer.status, answer.body) == (200, b"x" * 4096)
        assert (await caller.post(server.url, {}, b"")).status == 200


async def test_servers_that_are_not_there_or_speak_nothing_known_are_failures():
    async def mute(writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def babbling(writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 smtp ready\r\n\r\n")

    addresses, _ = resolving(HERE)
    async with receiving(Receiver(mute, babbling)) as server, calling(addresses) as caller:
        for _ in range(2):
            with pytest.raises(DeliveryFailed):
                await caller.post(server.url, {}, b"")
        port = server.port
    async with calling(addresses) as caller:
        with pytest.raises(DeliveryFailed):
            await caller.post(f"http://127.0.0.1:{port}/", {}, b"")

    async def nowhere(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    async with calling(Addresses(resolve=nowhere)) as caller:
        with pytest.raises(DeliveryFailed, match="resolved"):
            await caller.post("https://partner.example/", {}, b"")


def certificate(directory: Path) -> tuple[Path, Path]:
    """A key, and a certificate for partner.example alone."""
    key, cert = directory / "key.pem", directory / "cert.pem"
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=partner.example"
    name = ["-addext", "subjectAltName=DNS:partner.example"]
    command = ["openssl", *made.split(), *name, "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return key, cert


async def test_over_tls_the_name_is_asked_for_and_the_certificate_must_be_for_it(tmp_path: Path):
    key, cert = certificate(tmp_path)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(cert, key)
    server = Receiver()
    serving.sni_callback = lambda _, name, __: server.names.append(name)
    addresses, _ = resolving(HERE)
    caller = Caller(addresses, tls=lambda: ssl.create_default_context(cafile=str(cert)))
    try:
        async with receiving(server, serving):
            assert (await caller.post(f"https://partner.example:{server.port}/", {}, b"x")).status == 204
            assert server.names == ["partner.example"]
            with pytest.raises(DeliveryFailed):
                await caller.post(f"https://other.example:{server.port}/", {}, b"x")
            assert len(server.hooks) == 1
    finally:
        await caller.close()


# -- a service ----------------------------------------------------------------------------------------


@asynccontextmanager
async def notifying(**receivers: Receiver) -> AsyncIterator[tuple[App, Environment]]:
    """A shop that posts its orders to each of them, as `name=receiver`."""
    app, clock = App("shop", owns=[declared]), SystemClock()
    for name, receiver in receivers.items():
        notify(
            *(app, name, declared, Endpoint(url=receiver.url, secret=SECRET)),
            start="earliest",
            addresses=Addresses(allow=HERE, plain_http=True),
            retry=Retry(immediate=0, delays=(0.05, 0.05)),
            concurrency=4,
        )
    log = SqliteLog(None, clock=clock)
    environment = Environment(log, Settings(url=LogUrl("sqlite")), clock, random.Random(1))
    await log.start()
    await app.start(environment)
    try:
        yield app, environment
    finally:
        await app.stop(0.1)
        await log.close()


async def test_a_hanging_target_holds_up_no_other():
    stuck, well = Receiver(then=hanging), Receiver()
    async with receiving(stuck), receiving(well), notifying(stuck=stuck, well=well) as (app, _):
        await app.publish_many([OrderPlaced(f"o-{each}", f"c-{each}") for each in range(200)])
        await well.wait_for(200)
        assert len(set(well.ids)) == 200
        assert len(stuck.hooks) <= 4  # its subscription's concurrency
        for hook in well.hooks:
            verify(SECRET, hook.headers, hook.body)


async def test_a_target_that_is_gone_is_asked_no_more():
    async with receiving(Receiver(then=answering(410))) as gone, notifying(gone=gone) as (app, _):
        await app.publish(OrderPlaced("o-1", "ann"))
        await gone.wait_for(1)
        while not all(owned.paused for owned in app.consumers[0].owned.values()):
            await asyncio.sleep(0.01)
        before = len(gone.hooks)
        await app.publish_many([OrderPlaced(f"o-{each}", "bob") for each in range(20)])
        assert len(gone.hooks) == before


async def test_a_delivery_that_sigkill_interrupts_is_made_again_under_the_same_id(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/shop.db"
    async with receiving(Receiver(hanging)) as server:
        first = await _service(url, server)
        publisher = App("shop", owns=[declared])
        async with _environment(url) as environment:
            await publisher.start(environment, consume=False)
            await publisher.publish(OrderPlaced("o-1", "ann"))
            await server.wait_for(1)
            first.send_signal(signal.SIGKILL)
            await first.wait()
            second = await _service(url, server)
            await server.wait_for(2)
            await publisher.publish(OrderPlaced("o-2", "ann"))
            await server.wait_for(3)
            second.send_signal(signal.SIGTERM)
            await second.wait()
            await publisher.stop()
    assert server.ids[0] == server.ids[1] != server.ids[2]
    assert server.hooks[0].body == server.hooks[1].body


async def _service(url: str, server: Receiver) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "postline", "run", "tests.integration.notifying:app", "--url", url),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "HOOK_URL": server.url},
        stderr=asyncio.subprocess.DEVNULL,
    )


@asynccontextmanager
async def _environment(url: str) -> AsyncIterator[Environment]:
    environment = open_environment(default_url=url)
    await environment.log.start()
    try:
        yield environment
    finally:
        await environment.log.close()
