"""Webhooks declared in code: what is posted, and what each answer of the target leads to."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from postline import Retry, field
from postline.errors import DeliveryFailed, ForbiddenAddress, SettingsError, UsageError
from postline.http.delivering import Target
from postline.http.signing import verify
from postline.http.webhooks import Endpoint, notify
from postline.testing import TestApp
from tests.unit.http.shop import SECRET, URL, Partner, Shop, answered

ENDPOINT = Endpoint(url=URL, secret=SECRET)


async def test_a_message_is_posted_once_as_a_signed_event():
    shop, partner = Shop(), Partner()
    notify(shop.app, "partners", shop.orders, ENDPOINT, start="earliest", post=partner)
    async with TestApp(shop.app) as harness:
        await harness.publish(shop.OrderPlaced("o-1", "ann", 5), id="placed-o-1")
        await harness.settle()
        ((url, headers, body),) = partner.posts
        assert url == URL
        assert verify(SECRET, headers, body, now_ms=harness.clock.now_ms()) == headers["webhook-id"]
    said = json.loads(body)
    assert said["data"] == {"order": "o-1", "customer": "ann", "total": 5, "card": "***"}
    assert (said["id"], said["source"], said["type"], said["specversion"]) == (
        *("placed-o-1", "shop", "shop.OrderPlaced", "1.0"),
    )


@pytest.mark.parametrize("path", ["/services/T0/B0/secret", "/?token=secret"])
def test_no_more_than_the_host_of_a_target_is_told(path):
    assert Target(f"https://hooks.example:8443{path}", ()).place == "https://hooks.example:8443/…"


async def test_sensitive_fields_are_sent_if_allowed():
    shop, partner = Shop(), Partner()
    endpoint = Endpoint(url=URL, secret=SECRET, reveal=True, types=[shop.OrderPlaced])
    notify(shop.app, "partners", shop.orders, endpoint, start="earliest", post=partner)
    async with TestApp(shop.app) as harness:
        await harness.publish(shop.OrderPlaced("o-1", "ann", card="4000"))
        await harness.settle()
    assert json.loads(partner.posts[0][2])["data"]["card"] == "4000"


async def test_what_the_rule_and_the_types_leave_out_is_filtered():
    shop, partner = Shop(), Partner()
    endpoint = Endpoint(url=URL, secret=SECRET, where=field("total") > 100, types=[shop.OrderPlaced])
    notify(shop.app, "partners", shop.orders, endpoint, start="earliest", post=partner)
    async with TestApp(shop.app) as harness:
        await harness.publish_many([shop.OrderPlaced("o-1", "ann", 5), shop.OrderPlaced("o-2", "ann", 500)])
        await harness.publish(shop.OrderCancelled("o-1", "ann"))
        await harness.settle()
        assert [json.loads(body)["data"]["order"] for _, _, body in partner.posts] == ["o-2"]
        assert harness.audit()["partners"]["filtered"] == 2


async def test_failures_are_tried_again_by_the_standard_schedule_with_the_same_id_then_dead_lettered():
    shop, partner = Shop(), Partner(*[answered(500)] * 20)
    notify(shop.app, "partners", shop.orders, ENDPOINT, start="earliest", post=partner)
    async with TestApp(shop.app) as harness:
        await harness.publish(shop.OrderPlaced("o-1", "ann"))
        await harness.settle()
        times = []
        while len(partner.posts) < 10:
            before = len(partner.posts)
            await harness.advance(seconds=1 if before == 1 else 600)
            times += [harness.clock.now_ms()] * (len(partner.posts) - before)
        await harness.advance(days=10)
        (letter,) = harness.dead_letters("partners")
    assert letter.attempts == 10 == len(partner.posts)
    assert len(set(partner.ids)) == 1
    assert len({body for _, _, body in partner.posts}) == 1
    assert len({headers["webhook-timestamp"] for _, headers, _ in partner.posts}) == 10
    hours = (times[-1] - times[0]) / 3_600_000
    assert 75 < hours < 85, hours


async def test_later_messages_of_the_key_wait_and_others_do_not():
    shop, partner = Shop(), Partner(DeliveryFailed("it hung"))
    notify(shop.app, "partners", shop.orders, ENDPOINT, start="earliest", post=partner)
    async with TestApp(shop.app) as harness:
        for order, customer in [("o-1", "ann"), ("o-2", "ann"), ("o-3", "bob")]:
            await harness.publish(shop.OrderPlaced(order, customer))
            await harness.settle()
        await harness.advance(seconds=6)
    assert [json.loads(body)["data"]["order"] for _, _, body in partner.posts] == ["o-1", "o-3", "o-1", "o-2"]


async def test_after_the_last_attempt_the_key_goes_on_unless_it_shall_be_held():
    for after, posted in (("continue", 2), ("hold", 1)):
        shop, partner = Shop(), Partner(answered(400))
        notify(
            shop.app, "partners", shop.orders, ENDPOINT, start="earliest", post=partner,
            retry=Retry(immediate=0, delays=()), after=after,  # type: ignore[arg-type]
        )  # fmt: skip
        async with TestApp(shop.app) as harness:
            await harness.publish_many([shop.OrderPlaced("o-1", "ann"), shop.OrderPlaced("o-2", "ann")])
            await harness.settle()
            assert len(harness.dead_letters("partners")) == 1
        assert len(partner.posts) == posted


@pytest.mark.parametrize("status", [429, 503])
async def test_a_target_that_says_when_to_come_again_is_heeded(status: int):
    shop, partner = Shop(), Partner(answered(status, retry_after="3000"))
    notify(shop.app, "partners", shop.orders, ENDPOINT, start="earliest", post=partner)
    async with TestApp(shop.app) as harness:
        await harness.publish(shop.OrderPlaced("o-1", "ann"))
        await harness.advance(seconds=2990)
        assert len(partner.posts) == 1
        await harness.advance(seconds=20)
        assert len(partner.posts) == 2


async def test_a_redirect_is_a_failure():
    shop, partner = Shop(), Partner(answered(302, location="https://elsewhere.example/"))
    notify(shop.app, "partners", shop.orders, ENDPOINT, start="earliest", post=partner)
    async with TestApp(shop.app) as harness:
        await harness.publish(shop.OrderPlaced("o-1", "ann"))
        await harness.settle()
        assert len(partner.posts) == 1
        await harness.advance(seconds=6)
    assert {url for url, _, _ in partner.posts} == {URL}
    assert len(partner.posts) == 2


async def test_a_target_that_is_gone_pauses_its_subscription_until_it_is_resumed():
    from postline.runtime.control import ControlOp

    shop, partner = Shop(), Partner(answered(410))
    notify(shop.app, "partners", shop.orders, ENDPOINT, start="earliest", post=partner)
    async with TestApp(shop.app) as harness:
        await harness.publish(shop.OrderPlaced("o-1", "ann"))
        await harness.settle()
        await harness.publish(shop.OrderPlaced("o-2", "bob"))
        await harness.advance(timedelta(days=1))
        assert len(partner.posts) == 1
        await harness.control("partners", ControlOp(op="resume"))
        await harness.advance(minutes=2)
        assert len(partner.posts) == 3
        assert harness.audit()["partners"]["done"] == 2


def test_forbidden_targets_and_bad_secrets_are_refused_where_they_are_declared():
    shop = Shop()
    for url in ("http://partner.example/", "https://127.0.0.1/", "https://localhost/x", "https://u:p@partner.example/"):
        with pytest.raises(ForbiddenAddress):
            notify(shop.app, "partners", shop.orders, Endpoint(url=url, secret=SECRET), start="earliest")
    for secret in ("whsec_", "whsec_!!!!", "abc", ()):
        with pytest.raises(SettingsError) as refused:
            notify(shop.app, "partners", shop.orders, Endpoint(url=URL, secret=secret), start="earliest")
        assert "!!!!" not in str(refused.value)
    with pytest.raises(UsageError, match="batches"):
        notify(shop.app, "partners", shop.orders, ENDPOINT, start="earliest", batch=10)
    with pytest.raises(UsageError, match="where it starts"):
        notify(shop.app, "partners", shop.orders, ENDPOINT)
    assert SECRET.text() not in repr(ENDPOINT)
