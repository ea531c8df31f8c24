"""An app's commands while it runs: what it sends and serves, put together with its log and contracts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from postline.app.prioritizing import with_siblings
from postline.clock import Clock
from postline.commands import (
    Claims,
    ReplySubscription,
    ReplyToken,
    ReplyWriter,
    Requests,
    ServiceAnswering,
    Serving,
    Times,
)
from postline.contracts import Topic
from postline.contracts.commands import CommandSpec, CommandTopic
from postline.contracts.priorities import NORMAL
from postline.contracts.replies import ReplyOutcome
from postline.errors import ContractError, UsageError
from postline.events import Subscription
from postline.log.port import Append, Log
from postline.message import Envelope
from postline.runtime.context import milliseconds_of
from postline.runtime.control import ControlOp, control_record
from postline.runtime.dedup import OWN_ID_WINDOW
from postline.runtime.outlet import Outlet
from postline.runtime.plan import CONTROL_SUFFIX, Plan
from postline.runtime.topology import Topology
from postline.runtime.versions import SchemaSource

__all__ = ["Commanding", "command_topics"]


def command_topics(topics: Iterable[CommandTopic], subscriptions: Iterable[Subscription]) -> list[CommandTopic]:
    """All command topics of an app: those that it lists, and those that it serves."""
    served = [each.commands for each in subscriptions if isinstance(each, Serving | ReplySubscription)]
    return list(dict.fromkeys((*topics, *served)))


class Commanding:
    """Requests and answers of one running app. Event loop only."""

    def __init__(
        self,
        topics: list[CommandTopic],
        topology: Topology,
        outlet: Outlet,
        claims: Claims,
        renamed: Mapping[str, str],
    ) -> None:
        self._topics = {topic.commands.name: topic for topic in topics}
        self._by_class = {cls: topic for topic in topics for cls in topic.commands.classes}
        self._topology, self._outlet, self._claims = topology, outlet, claims
        #: By their former names, what this app's subscriptions are called.
        self._renamed = renamed
        self._requests: dict[str, Requests] = {}
        self._writers: dict[str, ReplyWriter] = {}

    def sending(self, topic: Topic, cls: type) -> dict[str, Any]:
        """What a `Route` says of commands, which are sent rather than published; nothing for other messages."""
        if topic.base_name not in self._topics:
            return {}
        spec = self._topics[topic.base_name].spec_of(cls)
        return {
            "is_command": True,
            "own_id": spec.own_id,
            "unique_id": spec.unique_id,
            "expires_ms": None if spec.expires is None else milliseconds_of(spec.expires),
            "priority": topic.priority.name if topic.priority else "",
            "usual_priority": spec.priority or NORMAL,
        }

    def requests(self, topic: CommandTopic, around: tuple[Log, Clock, SchemaSource]) -> Requests:
        """The requests to one command topic."""
        found = self._requests.get(topic.name)
        if found is None:
            specs = self._topology.specs
            commands = [specs[each.name] for each in with_siblings([topic.commands])]
            told = specs[topic.replies.name], specs[topic.tickets.name]
            found = Requests(topic, (commands, *told), (self._outlet, *around))
            self._requests[topic.name] = found
        return found

    def topic_of(self, command: Any) -> CommandTopic:
        """The command topic that a command belongs to. Raises UsageError if the app knows none."""
        found = self._by_class.get(type(command))
        if found is not None:
            return found
        raise UsageError(
            f"{type(command).__qualname__} is no command of a topic that this app knows.",
            remedy="List its CommandTopic in publishes_to=[…] (or owns=[…] of the service that it belongs to).",
        )

    def only_topic(self) -> CommandTopic:
        """The one command topic that the app knows. Raises UsageError if there are none or several."""
        if len(self._topics) != 1:
            known = ", ".join(sorted(topic.name for topic in self._topics.values())) or "none"
            raise UsageError(
                f"Which command topic the request was sent to is not clear: the app knows {known}.",
                remedy="Name it: app.ticket(request_id, of=topic).",
            )
        return next(iter(self._topics.values()))

    def answering(self, subscription: Subscription, plan: Plan) -> Plan:
        """The plan with what answers commands, or filters others' replies, if the subscription is about commands."""
        if isinstance(subscription, Serving):
            topic = subscription.commands
            return replace(
                plan,
                answering=ServiceAnswering(
                    self._writer(topic),
                    _by_wire_name(topic),
                    _times(subscription),
                    partial(self._claims.first_of, plan.topic) if subscription.shares else None,
                ),
                takes_over=subscription.takes_over,
                marks_kept=topic.tickets.retention.age or timedelta(0),
            )
        if isinstance(subscription, ReplySubscription):
            return replace(plan, only_key=self._outlet.service.encode())
        return plan

    def _writer(self, topic: CommandTopic) -> ReplyWriter:
        if topic.name not in self._writers:
            specs = self._topology.specs
            replies, tickets = specs[topic.replies.name], specs[topic.tickets.name]
            self._writers[topic.name] = ReplyWriter(topic, self._outlet, replies, tickets)
        return self._writers[topic.name]

    def later(self, token: str, reply: Any, now_ms: int) -> Append:
        """The record that gives a later reply. Raises UsageError for no token of ours, ContractError for no reply."""
        told = ReplyToken.read(token)
        for topic in self._topics.values():
            spec = _by_wire_name(topic).get(told.command)
            if spec is not None:
                break
        else:
            raise UsageError(
                f"The token belongs to a {told.command!r}, which this app does not know.",
                remedy="Reply from the service that handles the command.",
            )
        written = self._writer(topic).written(reply, _outcome_of(reply, spec))
        op = ControlOp(
            op="reply",
            offset=told.offset,
            client=told.client_id,
            request=told.request_id,
            type=written.type_name,
            value=written.value,
            flags=written.flags,
            outcome=written.outcome.value,
            content_type=written.content_type,
        )
        envelope = Envelope(id=self._outlet.fresh_id(), source=self._outlet.service, time_ms=now_ms)
        # Whoever serves under a new name reads the old one's requests only as far as they stood at the rename.
        name = self._renamed.get(told.subscription, told.subscription)
        return control_record(name + CONTROL_SUFFIX, told.partition, op, envelope)

    async def close(self) -> None:
        """Listen to no more replies. Idempotent."""
        for requests in self._requests.values():
            await requests.close()


def _by_wire_name(topic: CommandTopic) -> dict[str, CommandSpec]:
    specs: dict[str, CommandSpec] = {}
    for name, spec in topic.specs.items():
        specs |= dict.fromkeys((name, *topic.commands.reading_of(name).aliases), spec)
    return specs


def _times(serving: Serving) -> Times:
    # A command may come for as long as its topic keeps it; what is put off for longer, as long as its ticket is kept.
    ages = (OWN_ID_WINDOW[0], serving.commands.tickets.retention.age, serving.commands.commands.retention.age)
    return Times(max(milliseconds_of(age) for age in ages if age is not None), milliseconds_of(serving.reply_within))


def _outcome_of(reply: Any, spec: CommandSpec) -> ReplyOutcome:
    if type(reply) in spec.replies:
        return ReplyOutcome.SUCCESS
    if type(reply) in spec.refusals:
        return ReplyOutcome.REFUSAL
    declared = ", ".join(cls.__qualname__ for cls in (*spec.replies, *spec.refusals)) or "none"
    raise ContractError(
        f"{type(reply).__qualname__} is no reply to {spec.name!r} (it declares {declared}).",
        remedy="Give one of the declared replies or refusals.",
    )
