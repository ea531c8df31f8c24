"""What docs/deployment.md shows can be deployed: units, manifests and commands, and the signals that platforms send."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
import pytest

from postline.cli.root import postline
from postline.clock import SystemClock
from postline.monitor import Monitor
from tests.integration.processes import EXAMPLES, ROOT, Service, publisher

_PAGE = (ROOT / "docs" / "deployment.md").read_text()
#: What a supervisor waits for its workers beyond --grace.
_SUPERVISOR_SECONDS = 15


def _blocks(language: str) -> Iterator[tuple[str, str]]:
    """The blocks of a language: the name in the first line, if there is one, and the text."""
    for text in re.findall(rf"^```{language}\n(.*?)^```$", _PAGE, re.MULTILINE | re.DOTALL):
        named = re.match(r"# (\S+)\n", text)
        yield named[1] if named else "", text


def _units() -> dict[str, str]:
    return {Path(name).name: text for name, text in _blocks("ini")}


def _manifests() -> dict[str, Any]:
    # Without stubs, and only needed here.
    yaml = importlib.import_module("yaml")
    return {name: yaml.safe_load(text) for name, text in _blocks("yaml")}


def _option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def _require_command(words: list[str]) -> None:
    """Fail unless `postline …` takes this."""
    name, *rest = words[1:]
    command = postline.get_command(click.Context(postline), name)
    assert command is not None, name
    command.make_context("postline", rest)


def _setting(unit: str, key: str) -> str:
    found = re.search(rf"^{key}=(.*)$", unit, re.MULTILINE)
    assert found, key
    return found[1]


def test_the_units_are_what_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here")
    program = tmp_path / "postline"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    files = []
    for name, text in _units().items():
        path = tmp_path / name.replace("@", "@1")
        # What the page's machine has and this one lacks: the program, its directories and its user.
        here = text.replace("/srv/shop/current/.venv/bin/postline", str(program)).replace("/srv/shop", str(tmp_path))
        path.write_text(re.sub(r"^(User|Group)=.*\n", "", here, flags=re.MULTILINE))
        files.append(str(path))
    assert len(files) == 3
    ran = subprocess.run(["systemd-analyze", "verify", "--man=no", *files], check=False, capture_output=True, text=True)
    complaints = [line for line in ran.stderr.splitlines() if str(tmp_path) in line or "shop" in line]
    assert complaints == [], ran.stderr


def test_the_services_unit_waits_longer_than_a_stop_takes_and_restarts_what_restarting_helps() -> None:
    unit = _units()["shop@.service"]
    words = shlex.split(_setting(unit, "ExecStart").replace("%i", "1"))
    _require_command(words)
    assert f"http://127.0.0.1:{_option(words, '--health')}/readyz" in _PAGE, "what is asked before the next one"
    grace = float(_option(words, "--grace"))
    assert float(_setting(unit, "TimeoutStopSec")) > grace + _SUPERVISOR_SECONDS
    assert (_setting(unit, "KillSignal"), _setting(unit, "KillMode")) == ("SIGTERM", "mixed")
    assert (_setting(unit, "Restart"), _setting(unit, "RestartPreventExitStatus")) == ("on-failure", "2")
    assert "/srv/shop/data" in _setting(unit, "ReadWritePaths")


def test_the_backup_unit_runs_a_backup() -> None:
    shell, flag, script = shlex.split(_setting(_units()["shop-backup.service"], "ExecStart"))
    assert (shell, flag) == ("/bin/sh", "-c")
    # To systemd %% is a percent sign.
    _require_command(shlex.split(script.replace("%%", "%").replace("$(date +%H)", "14")))


def test_the_image_gets_its_signals_and_keeps_its_log_on_a_volume() -> None:
    ((_, text),) = _blocks("dockerfile")
    entry = re.search(r"^ENTRYPOINT (\[.*\])$", text, re.MULTILINE)
    assert entry, "a shell in between would keep SIGTERM"
    command = json.loads(entry[1])
    _require_command(command)
    asked = re.search(r"^HEALTHCHECK .* CMD (\[.*\])$", text, re.MULTILINE)
    assert asked, "nobody looks after it"
    assert f"http://127.0.0.1:{_option(command, '--health')}/readyz" in json.loads(asked[1])[-1]
    assert "STOPSIGNAL SIGTERM" in text
    assert re.search(r"^VOLUME /data$", text, re.MULTILINE)
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)


def test_the_containers_stop_in_time_and_share_one_volume() -> None:
    services = _manifests()["compose.yaml"]["services"]
    assert len(services) == 2
    for name, service in services.items():
        assert service["environment"]["POSTLINE_INSTANCE"] == name
        assert service["volumes"] == ["data:/data"]
        assert int(service["stop_grace_period"].removesuffix("s")) > 20 + _SUPERVISOR_SECONDS
        assert service["restart"] == "on-failure"


@pytest.mark.parametrize("name", ["shop-on-kafka.yaml", "shop-on-a-file.yaml"])
def test_the_pods_are_asked_for_the_right_thing_and_may_end(name: str) -> None:
    spec = _manifests()[name]["spec"]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    _require_command(container["args"])
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    host, _, port = _option(container["args"], "--health").rpartition(":")
    assert host == "0.0.0.0", "the node's agent asks from outside"
    workers = int(_option(container["args"], "--workers")) if "--workers" in container["args"] else 1
    assert list(ports.values()) == [int(port) + number for number in range(workers)]
    for probe, path in {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}.items():
        assert container[probe]["httpGet"]["path"] == path
        assert container[probe]["httpGet"]["port"] in ports
    assert pod["terminationGracePeriodSeconds"] > float(_option(container["args"], "--grace")) + _SUPERVISOR_SECONDS


def test_on_kafka_pods_come_before_others_go_and_each_has_a_name_of_its_own() -> None:
    deployment = _manifests()["shop-on-kafka.yaml"]
    assert deployment["kind"] == "Deployment"
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (instance,) = [each for each in container["env"] if each["name"] == "POSTLINE_INSTANCE"]
    assert instance["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert deployment["spec"]["minReadySeconds"] >= 10, "what can't start has ended by then"


def test_on_a_file_there_is_one_pod_with_a_volume_of_one_node() -> None:
    stateful = _manifests()["shop-on-a-file.yaml"]
    assert (stateful["kind"], stateful["spec"]["replicas"]) == ("StatefulSet", 1)
    (claim,) = stateful["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    (mount,) = container["volumeMounts"]
    assert mount["name"] == claim["metadata"]["name"]
    (url,) = [each["value"] for each in container["env"] if each["name"] == "POSTLINE_URL"]
    assert url.startswith(f"sqlite:///{mount['mountPath']}/")


# The signals


def _page_arguments() -> list[str]:
    """How the units start it, on whatever port is free."""
    return shlex.split(_setting(_units()["shop@.service"], "ExecStart").replace("808%i", "0"))[1:]


@asynccontextmanager
async def _started(url: str, *arguments: str, before: tuple[str, ...] = ()) -> AsyncIterator[Service]:
    process = await asyncio.create_subprocess_exec(
        *(*before, sys.executable, "-m", "postline", *arguments),
        cwd=EXAMPLES,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "POSTLINE_URL": url},
        stderr=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    service = Service(process)
    try:
        yield service
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _handled(url: str, count: int) -> None:
    """Publish so many orders, and wait until all that were ever published are handled."""
    from examples.shop import OrderPlaced, orders

    async with publisher(url, [orders]) as app:
        await app.publish_many([OrderPlaced(f"o-{n}", f"c{n % 5}", 1) for n in range(count)])
        monitor = Monitor(app.log, SystemClock())
        end = sum(each.end for each in await app.log.bounds("shop.orders"))
        while (audit := await monitor.audit("billing")).handled < end:
            await asyncio.sleep(0.02)
        assert audit.balanced


async def test_a_service_as_the_unit_starts_it_ends_with_0_at_sigterm(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    async with _started(url, *_page_arguments()) as service:
        await service.wait_for(": running")
        await _handled(url, 50)
        assert await service.stop() == 0
        assert "stopped: committed and left" in service.said


async def test_workers_whose_whole_group_is_signalled_end_with_0(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    async with _started(url, *_page_arguments(), "--workers", "2") as service:
        await service.wait_for(": running", times=2)
        await _handled(url, 50)
        # As a container's runtime, or a terminal, may do it.
        os.killpg(service.process.pid, signal.SIGTERM)
        assert await service.process.wait() == 0


async def test_in_containers_that_share_a_volume_each_is_process_1_and_takes_over_from_one_that_is_killed(
    tmp_path: Path,
) -> None:
    if shutil.which("unshare") is None or not await _namespaces():
        pytest.skip("no process namespaces here")
    url, alone = f"sqlite:///{tmp_path}/shop.db", ("unshare", "-rpf", "--mount-proc", "--kill-child")
    async with (
        _started(url, *_page_arguments(), before=alone) as first,
        _started(url, *_page_arguments(), before=alone) as second,
    ):
        await first.wait_for(": running")
        await second.wait_for(": running")
        assert "postline[1]" in first.said
        await _handled(url, 50)
        _signal_child(first, signal.SIGKILL)
        await first.process.wait()
        await _handled(url, 50)
        # Process 1 gets only the signals that it has asked for.
        _signal_child(second, signal.SIGTERM)
        await second.wait_for("stopped: committed and left")
        assert await second.process.wait() == 0


async def _namespaces() -> bool:
    process = await asyncio.create_subprocess_exec("unshare", "-rpf", "--mount-proc", "true")
    return await process.wait() == 0


def _signal_child(service: Service, number: int) -> None:
    """To what runs in the namespace, rather than to `unshare`, which waits for it."""
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    os.kill(int(children[0]), number)
