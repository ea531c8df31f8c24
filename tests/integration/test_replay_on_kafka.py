"""Replays on a cluster where operators alone make topics."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from postline.app import Replaying
from postline.cli import main
from postline.runtime.replaying import Stretch
from tests.brokers.cluster import Cluster
from tests.integration.test_kafka_topics import (
    EVERYTHING,
    OrderPlaced,
    Place,
    billing_app,
    handled_all,
    publish,
    shop_app,
)


@pytest.fixture
def place(kafka_one: Cluster, tmp_path: Path) -> Place:
    """A namespace that nobody has used."""
    return Place(kafka_one, tmp_path / "cache")


async def test_a_replay_makes_the_topics_of_its_shadow_since_no_deployment_names_it(place: Place) -> None:
    await place.applied(shop_app(), billing_app())
    await publish(place, [OrderPlaced("ann", number) for number in range(5)])
    live = billing_app()
    async with place.running(live):
        await handled_all(live)
    shadow = place.name("billing.replay.1")
    async with (
        place.opened() as environment,
        Replaying(billing_app(), environment, Stretch(name=shadow), None) as replaying,
    ):
        found = await replaying.wait()
    assert (found.status, found.outcomes["done"]) == ("done", 5)
    own = {f"billing.replay.1.{kind}" for kind in ("control", "dead-letters", "state")}
    assert place.topics() == EVERYTHING | own


async def test_what_no_worker_has_begun_yet_is_replayed_by_its_short_name(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    await place.applied(shop_app(), billing_app())
    await publish(place, [OrderPlaced("ann", number) for number in range(5)])
    app = tmp_path / "billing.py"
    app.write_text("from tests.integration.test_kafka_topics import billing_app\n\napp = billing_app()\n")
    monkeypatch.setenv("POSTLINE_URL", f"{place.cluster.url}?cache_dir={tmp_path}")
    monkeypatch.setenv("POSTLINE_NAMESPACE", place.namespace)
    capfd.readouterr()
    code = await asyncio.to_thread(main, ["replay", "billing", "--app", str(app), "--from", "earliest", "--yes"])
    found = capfd.readouterr()
    assert code == 0, found.err
    said = json.loads(found.out)
    assert (said["shadow"], said["outcomes"]["done"]) == (place.name("billing.replay.1"), 5)
