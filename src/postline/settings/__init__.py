"""Settings: what `postline.toml` and the environment say, checked as a whole before anything starts.

Order of precedence, strongest first: what is given explicitly (`--url`), environment variables, `postline.toml`, what
the code declares. A variable set to nothing counts as not set. Paths written in a file are relative to that file, those
of variables and arguments to the working directory.

Topics and subscriptions are sized by tables of the file or by variables. A variable's name is made of the upper-case
name with an underscore for everything that is no letter or digit: `POSTLINE_TOPIC_SHOP_ORDERS_PARTITIONS=16` is
`partitions = 16` under `[topics."shop.orders"]`, `POSTLINE_SUBSCRIPTION_BILLING_CONCURRENCY=8` is `concurrency = 8`
under `[subscriptions.billing]`.
"""

from __future__ import annotations

from postline.settings.loading import CONFIG_NAME, DEFAULT_URL, load_settings
from postline.settings.model import Settings, SubscriptionSettings, TopicSettings
from postline.settings.url import LogUrl, parse_url
from postline.settings.values import parse_duration_ms, parse_size

__all__ = [
    "CONFIG_NAME",
    "DEFAULT_URL",
    "LogUrl",
    "Settings",
    "SubscriptionSettings",
    "TopicSettings",
    "load_settings",
    "parse_duration_ms",
    "parse_size",
    "parse_url",
]
