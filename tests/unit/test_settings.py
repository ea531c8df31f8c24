"""Settings: where they come from, what wins, and that every problem is told at once with its place and remedy."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postline.errors import SettingsError
from postline.settings import (
    LogUrl,
    Settings,
    SubscriptionSettings,
    TopicSettings,
    load_settings,
    parse_duration_ms,
    parse_size,
    parse_url,
)

SECRET = "hunter2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository's root, so that no configuration above it is found."""
    (tmp_path / ".git").mkdir()
    return tmp_path


def configure(folder: Path, text: str) -> Path:
    """Write the configuration and name it."""
    file = folder / "postline.toml"
    file.write_text(text, "utf-8")
    return file


def refusal(folder: Path, environ: dict[str, str] | None = None, **urls: str) -> str:
    """What the refusal of these settings says."""
    with pytest.raises(SettingsError) as caught:
        load_settings(environ or {}, folder, **urls)
    return str(caught.value)


# Durations and sizes


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        ("14d", 1_209_600_000),
        ("10m", 600_000),
        ("250ms", 250),
        ("1h30m", 5_400_000),
        ("1h 30m", 5_400_000),
        ("1.5s", 1_500),
        ("1w2d3h4m5s6ms", 788_645_006),
        ("90", 90_000),
        (90, 90_000),
        (0.25, 250),
    ],
)
def test_durations_are_read_to_the_millisecond(value, milliseconds):
    assert parse_duration_ms(value) == milliseconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0s",
        "-1s",
        "10 mm",
        "5x",
        "m",
        "1m1h",
        "1m1m",
        "1e3s",
        "101000d",
        "٣d",
        0,
        -5,
        True,
        None,
        [],
        1e300,
        float("nan"),
    ],
)
def test_what_is_no_duration_is_refused(value):
    with pytest.raises(SettingsError, match="no duration"):
        parse_duration_ms(value)


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (512, 512),
        ("512", 512),
        ("1B", 1),
        ("10MB", 10_000_000),
        ("64MiB", 67_108_864),
        ("64 mib", 67_108_864),
        ("1.5kB", 1_500),
        ("2GiB", 2_147_483_648),
        ("1TB", 10**12),
    ],
)
def test_sizes_are_read_to_the_byte(value, count):
    assert parse_size(value) == count


@pytest.mark.parametrize("value", ["", "0", "64M", "MiB", "-1", "1PB", "9999999999TiB", 0, -1, True, 1.5, None])
def test_what_is_no_size_is_refused(value):
    with pytest.raises(SettingsError, match="no size"):
        parse_size(value)


# URLs


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sqlite:///orders.db", "/here/orders.db"),
        ("sqlite:///data/orders.db", "/here/data/orders.db"),
        ("sqlite:////var/orders.db", "/var/orders.db"),
        ("SQLite:///a%20b%3F.db", "/here/a b?.db"),
        (" sqlite:///orders.db\n", "/here/orders.db"),
        ("sqlite://", None),
    ],
)
def test_a_relative_file_is_taken_from_the_given_directory(text, path):
    url = parse_url(text, Path("/here"))
    assert (url.scheme, url.path, url.in_memory) == ("sqlite", path, path is None)


def test_brokers_and_options_are_read():
    url = parse_url("kafka://a,b.example:9093,[::1]:1/?sasl.username=me&sasl.password=p%26%2B+%23%3D=")
    assert url.servers == ("a:9092", "b.example:9093", "[::1]:1")
    assert url.options == {"sasl.username": "me", "sasl.password": "p&++#=="}
    assert parse_url(url.text) == url


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).map(lambda name: "/x" + name)
)
def test_any_file_name_survives_the_way_through_a_url(path):
    assert parse_url(LogUrl("sqlite", path=path).text).path == path


def test_a_file_name_that_is_no_text_survives_too():
    path = os.fsdecode(b"/x/\xff.db")
    assert parse_url(LogUrl("sqlite", path=path).text).path == path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "sqlite, kafka"),
        ("postgres://host/db", "sqlite, kafka"),
        ("orders.db", "sqlite, kafka"),
        ("sqlite:orders.db", "sqlite, kafka"),
        ("sqlite://orders.db", "three slashes"),
        ("sqlite:///", "three slashes"),
        ("sqlite:///:memory:", "sqlite:// (memory)"),
        ("sqlite:///a%00b", "no file"),
        ("kafka://", "kafka://host:port"),
        ("kafka://a,,b", "kafka://host:port"),
        ("kafka://a:0", "kafka://host:port"),
        ("kafka://a:65536", "kafka://host:port"),
        ("kafka://a:b", "kafka://host:port"),
        ("kafka://a/topic", "kafka://host:port"),
        ("kafka://a?x", "?name=value"),
        ("kafka://a?x=1&x=2", "?name=value"),
        ("kafka://a?=1", "?name=value"),
    ],
)
def test_a_malformed_url_is_refused_with_its_remedy(text, told):
    with pytest.raises(SettingsError) as caught:
        parse_url(text)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "option", ["sasl.password", "ssl.key.password", "sasl.oauthbearer.client.secret", "ssl.key.pem", "SASL.PASSWORD"]
)
def test_a_url_is_shown_without_its_secrets(option):
    url = parse_url(f"kafka://a:1?client.id=me&{option}={SECRET}")
    settings = Settings(url=url)
    for shown in (str(url), repr(url), url.redacted, f"{url}", repr(settings), str(settings)):
        assert SECRET not in shown
        assert f"client.id=me&{option}=***" in shown
    assert SECRET in url.text


@pytest.mark.parametrize(
    "text",
    [
        f"kafka://me:{SECRET}@host:1",
        f"kafka://me:a/{SECRET}@host:1",
        f"kafk://me:{SECRET}@host:1",
        f"kafk://host:1?sasl.password={SECRET}",
        f"kafka://host:1?sasl.password=a&{SECRET}",
        f"kafka://host:x?sasl.password=a{SECRET}",
        f"kafka://host:1?sasl%2Epassword=a{SECRET}&x",
        f"kafka://host:1?sasl.password=a\n{SECRET}",
    ],
)
def test_a_refused_url_does_not_show_its_secrets(folder, text):
    assert SECRET not in refusal(folder, {"POSTLINE_URL": text})


# Where settings come from


def test_without_anything_said_the_log_is_a_file_here(folder):
    settings = load_settings({}, folder)
    assert settings == Settings(
        url=LogUrl("sqlite", path=str(folder / "postline.db")), url_from="the default", instance=socket.gethostname()
    )


def test_the_stronger_source_of_the_url_wins(folder):
    environ = {"POSTLINE_URL": "sqlite:///variable.db"}
    program = "sqlite:///program.db"

    def file_of(environ: dict[str, str], **urls: str) -> tuple[str, str]:
        settings = load_settings(environ, folder, **urls)
        return Path(settings.url.path or "").name, settings.url_from

    assert file_of({}, default_url=program) == ("program.db", "the program's url")
    config = configure(folder, 'url = "sqlite:///config.db"')
    assert file_of({}, default_url=program) == ("config.db", f"{config}: url")
    assert file_of(environ, default_url=program) == ("variable.db", "POSTLINE_URL")
    assert file_of(environ, default_url=program, url="sqlite:///given.db") == ("given.db", "the url given")


def test_a_variable_set_to_nothing_counts_as_not_set(folder):
    configure(folder, 'namespace = "test"')
    settings = load_settings({"POSTLINE_NAMESPACE": "", "POSTLINE_URL": " ", "POSTLINE_CONFIG": ""}, folder)
    assert (settings.namespace, settings.url_from) == ("test", "the default")


def test_a_configuration_above_is_found_and_its_paths_are_its_own(folder):
    configure(folder, 'url = "sqlite:///shop.db"')
    inner = folder / "shop" / "billing"
    inner.mkdir(parents=True)
    assert load_settings({}, inner).url.path == str(folder / "shop.db")
    assert load_settings({"POSTLINE_URL": "sqlite:///x.db"}, inner).url.path == str(inner / "x.db")


def test_all_programs_below_a_configuration_share_one_default_file(folder):
    config = configure(folder, 'namespace = "test"')
    (folder / "inner").mkdir()
    assert load_settings({}, folder / "inner").url.path == str(folder / "postline.db")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    named = load_settings({"POSTLINE_CONFIG": str(config)}, elsewhere)
    assert (named.namespace, named.url.path) == ("test", str(elsewhere / "postline.db"))


def test_the_search_ends_at_the_repositorys_root(folder):
    configure(folder, 'namespace = "outer"')
    inner = folder / "other"
    (inner / ".git").mkdir(parents=True)
    assert load_settings({}, inner).config is None


def test_secrets_come_from_files(folder):
    (folder / "secret").write_text(f"kafka://a:1?sasl.password={SECRET}\n", "utf-8")
    from_variable = load_settings({"POSTLINE_URL_FILE": "secret"}, folder)
    configure(folder, 'url_file = "secret"')
    (folder / "inner").mkdir()
    from_config = load_settings({}, folder / "inner")
    assert from_variable.url.options == from_config.url.options == {"sasl.password": SECRET}
    assert from_variable.url_from == "POSTLINE_URL_FILE"


def test_a_url_file_that_is_overruled_need_not_exist(folder):
    configure(folder, 'url_file = "/run/secrets/none"')
    assert load_settings({"POSTLINE_URL": "sqlite://"}, folder).url.in_memory


def test_namespace_and_instance_come_from_file_and_variables(folder):
    configure(folder, 'namespace = "staging"\ninstance = "a"')
    settings = load_settings({"POSTLINE_INSTANCE": "b"}, folder)
    assert (settings.namespace, settings.instance) == ("staging", "b")
    assert settings.full_name("shop.orders") == "staging.shop.orders"
    assert load_settings({"POSTLINE_NAMESPACE": "ci"}, folder).full_name("x") == "ci.x"


def test_without_a_namespace_names_stay_as_they_are(folder):
    assert load_settings({}, folder).full_name("shop.orders") == "shop.orders"


# Sizes


def test_sizes_come_from_the_file_and_variables_overrule_them_one_by_one(folder):
    configure(
        folder,
        """
        [topics."shop.orders"]
        partitions = 16
        retention = "14d"

        [subscriptions.billing]
        concurrency = 8
        timeout = "1m30s"
        in_flight_bytes_max = "16MiB"
        """,
    )
    environ = {
        "POSTLINE_TOPIC_SHOP_ORDERS_RETENTION": "1h",
        "POSTLINE_TOPIC_SHOP_ORDERS_RETENTION_BYTES": "10MB",
        "POSTLINE_SUBSCRIPTION_BILLING_CONCURRENCY": "128",
        "POSTLINE_SUBSCRIPTION_SHOP_PACKING_2_BATCH": "500",
    }
    settings = load_settings(environ, folder)
    assert settings.topic("shop.orders") == TopicSettings(
        partitions=16, retention_ms=3_600_000, retention_bytes=10_000_000
    )
    assert settings.topic("shop-orders") == TopicSettings(retention_ms=3_600_000, retention_bytes=10_000_000)
    assert settings.topic("shop") == TopicSettings()
    assert settings.subscription("billing") == SubscriptionSettings(
        concurrency=128, timeout_seconds=90.0, in_flight_bytes_max=16 << 20
    )
    assert settings.subscription("shop.packing-2").overrides() == {"batch": 500}


def test_settings_made_by_hand_answer_too():
    settings = Settings(url=LogUrl("sqlite"), topics={"a": TopicSettings(partitions=1)})
    assert settings.topic("a").overrides() == {"partitions": 1}
    assert settings.subscription("b").overrides() == {}


# Refusals


def test_every_problem_is_told_at_once_with_its_place_and_remedy(folder):
    config = configure(
        folder,
        """
        url = "sqlite://"
        url_file = "x"
        namespce = "test"
        instance = 5
        [topics.shop.orders]
        partitions = 3
        [topics."shop.refunds"]
        partitions = 20_000
        retenton = "5d"
        retention = "5 days"
        [subscriptions]
        billing = 3
        """,
    )
    environ = {
        "POSTLINE_URL": "sqlite://",
        "POSTLINE_URL_FILE": "y",
        "POSTLINE_NAMESPACE": "a b",
        "POSTLINE_INSTANSE": "a",
        "POSTLINE_TOPICS_A_PARTITIONS": "1",
        "POSTLINE_TOPIC_A_PARTITIONS": "many",
        "POSTLINE_TOPIC_A_PARTITION": "1",
        "POSTLINE_TOPIC_PARTITIONS": "1",
        "POSTLINE_SUBSCRIPTION_B_CONCURRENCY": "0",
    }
    lines = refusal(folder, environ).splitlines()
    expected = [
        ("POSTLINE_URL and POSTLINE_URL_FILE", "Keep one"),
        (f"{config}: url and {config}: url_file", "Keep one"),
        (f"{config}: namespce ", "'namespace'"),
        (f"{config}: instance:", "one line of text"),
        (f"{config}: topics.shop.orders ", '[topics."shop.orders"]'),
        (f"{config}: topics.shop.refunds.partitions:", "Use 1 to 10,000"),
        (f"{config}: topics.shop.refunds.retenton ", "'retention'"),
        (f"{config}: topics.shop.refunds.retention:", '"1h30m"'),
        (f"{config}: subscriptions ", '[subscriptions."the.name"]'),
        ("POSTLINE_NAMESPACE:", "letters, digits"),
        ("POSTLINE_INSTANSE ", "POSTLINE_INSTANCE"),
        ("POSTLINE_TOPICS_A_PARTITIONS ", "POSTLINE_TOPIC_A_PARTITIONS"),
        ("POSTLINE_TOPIC_A_PARTITIONS:", "such as 8"),
        ("POSTLINE_TOPIC_A_PARTITION ", "PARTITIONS, RETENTION"),
        ("POSTLINE_TOPIC_PARTITIONS ", "<NAME>"),
        ("POSTLINE_SUBSCRIPTION_B_CONCURRENCY:", "such as 8"),
    ]
    for place, remedy in expected:
        assert [line for line in lines if line.startswith(f"- {place}") and remedy in line], (place, lines)
    assert lines[0] == f"The settings have {len(expected)} problems."
    assert len(lines) == len(expected) + 1


def test_one_problem_stands_alone(folder):
    assert refusal(folder, {"POSTLINE_NAMESPACE": "-x"}).startswith("POSTLINE_NAMESPACE: '-x' can't prefix")


def test_variables_of_other_tools_are_left_alone(folder):
    environ = {"POSTLINE_PORT": "tcp://10.0.0.1:80", "POSTLINE_SERVICE_HOST": "10.0.0.1", "POSTLINE_TEST_DATA": "x"}
    assert load_settings(environ, folder) == load_settings({}, folder)


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"namespace = ", "is no TOML"), (b"namespace = '\xff'", "is no TOML"), (b"topics = 3", "no table of tables")],
)
def test_a_malformed_configuration_is_named(folder, content, told):
    (folder / "postline.toml").write_bytes(content)
    message = refusal(folder)
    assert str(folder / "postline.toml") in message
    assert told in message


def test_a_configuration_that_is_named_must_be_there(folder):
    message = refusal(folder, {"POSTLINE_CONFIG": "none.toml", "POSTLINE_NAMESPACE": "-"})
    assert f"{folder / 'none.toml'} can't be read" in message
    assert "POSTLINE_NAMESPACE" in message


@pytest.mark.parametrize(
    ("content", "told"), [(None, "can't be read"), (b" \n", "is empty"), (b"\xff", "it is no text")]
)
def test_a_url_file_without_a_url_is_refused(folder, content, told):
    if content is not None:
        (folder / "secret").write_bytes(content)
    message = refusal(folder, {"POSTLINE_URL_FILE": "secret"})
    assert message.startswith(f"POSTLINE_URL_FILE: {folder / 'secret'}")
    assert told in message
