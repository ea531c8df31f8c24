"""The names of events: what each of Postline's own lines is about, stable while its words may change."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

__all__ = ["EVENTS", "Event", "event"]

Level = Literal["debug", "info", "warning", "error"]


class Event(NamedTuple):
    """What a line with this name tells, and at which level."""

    level: Level
    means: str


#: By name. A name goes on meaning the same; new ones may come with any version.
EVENTS: dict[str, Event] = {
    # -- the life of a process, an app, a subscription
    "process.told": Event("info", "`postline run` or its supervisor says what it does: start, worker died, stop"),
    "process.failed": Event("error", "`postline run` ends, since an app can't go on"),
    "process.uncaught": Event("error", "an error that nobody caught, of a thread or of the program itself"),
    "app.started": Event("info", "an app runs, with these subscriptions"),
    "app.stopping": Event("info", "an app begins no new attempts, and waits for those that run"),
    "app.stopped": Event("info", "an app has committed and left everything"),
    "app.aborted": Event("warning", "an app let go at once; what was not committed is handled again"),
    "app.stop_failed": Event("error", "a subscription did not stop cleanly; what was not committed is handled again"),
    "subscription.joined": Event("info", "a subscription is a member of its group"),
    "subscription.left": Event("info", "a subscription has left its group, with everything committed"),
    "subscription.unserved": Event("warning", "nobody serves a subscription any more: serve it or remove it"),
    "partitions.assigned": Event("info", "partitions are handled here from now on"),
    "partitions.revoked": Event("info", "partitions were settled and given to another process"),
    "partition.lost": Event("warning", "a partition has another owner, which handles again what was not committed"),
    "partition.paused": Event("info", "an operator paused a partition"),
    "partition.resumed": Event("info", "an operator let a partition go on"),
    "partition.reset": Event("warning", "a position was moved, as an operator asked"),
    # -- records
    "record.held": Event("warning", "a record failed and waits for its next attempt; its key waits behind it"),
    "record.released": Event("info", "a record that was held is done"),
    "record.dead_lettered": Event("error", "a record was given up: look at `postline dlq`"),
    "record.discarded": Event("info", "a handler asked to discard a record"),
    "record.lost": Event("error", "a held record is gone from the log"),
    "records.lost_to_retention": Event("error", "retention took records before they were handled: keep them longer"),
    "type.filtered": Event("warning", "records of a type that no version ever handled are filtered; once for each"),
    "partition.full_of_held": Event("error", "so many records are held that a partition pauses: redrive or discard"),
    "log.leaving_out": Event("warning", "further lines about failed records are left out for up to a minute"),
    "log.left_out": Event("warning", "so many lines about failed records were left out in the last minute"),
    "log.suppressed": Event("info", "so many lines of a logger were over the limit; at the level of those lines"),
    # -- dead letters, control
    "dead_letters.alarm": Event("error", "there are more, or older, dead letters than the subscription allows"),
    "dead_letters.alarm_over": Event("warning", "the alarm about dead letters is over"),
    "dead_letters.aged_out": Event("warning", "dead letters past their `max_age` are discarded"),
    "dead_letter.discarded": Event("info", "an operator discarded dead letters"),
    "dead_letter.edited": Event("info", "an operator edited a dead letter"),
    "dead_letter.edit_refused": Event("error", "an edit of a dead letter is not what its contract allows"),
    "dead_letter.unknown": Event("warning", "what was to be redriven or discarded is no dead letter any more"),
    "dead_letter.busy": Event("warning", "a record can't be discarded while it is handled: ask again"),
    "control.skipped": Event("warning", "a request of an operator has no meaning to this version"),
    "control.unreadable": Event("error", "a request of an operator can't be read: ask again"),
    "control.made_again": Event("error", "somebody deleted the control topic and made it again"),
    # -- what stands in the way
    "breaker.opened": Event("error", "a backend is away: its records wait, one at a time looks whether it is back"),
    "breaker.closed": Event("info", "the backend is back"),
    "bound.reached": Event("info", "a subscription fetches no more until an output's topic is below its bound"),
    "bound.unknown_subscription": Event("warning", "a topic is bounded by a subscription that does not exist"),
    "handler.stalled": Event("warning", "a handler does not come back; with its stack"),
    "handler.back": Event("info", "that handler has come back"),
    "loop.stalled": Event("warning", "something blocks the event loop; with the stack of its thread"),
    # -- the log
    "log.unavailable": Event("warning", "the log can't be read for now, and is asked again"),
    "log.unreachable": Event("warning", "no broker can be reached"),
    "log.reached": Event("warning", "a broker is reached again"),
    "commit.late": Event("error", "partitions left before a commit was through; what it held is handled again"),
    "commit.unknown": Event("warning", "how a commit ended is looked up"),
    "position.lost": Event("error", "a committed offset is gone; what follows the checkpoint is handled again"),
    "position.chosen_by_others": Event("warning", "a subscription begins where another program put its offset"),
    "position.moved_by_others": Event("error", "another program moved a position while the subscription was at work"),
    "partitions.left_alone": Event("error", "a topic has more partitions than declared: `postline topics repartition`"),
    "partitions.not_taken_up": Event("warning", "partitions could not be taken up, and are tried again"),
    "partitions.not_settled": Event("warning", "an owner did not settle what it gave back in time"),
    "partitions.nobodys": Event("error", "nobody has had some partitions for long: this member joins anew"),
    "group.foreign_member": Event("error", "a foreign program consumes in the group: stop it"),
    "member.waits": Event("warning", "a member can't take part for now"),
    "member.leave_failed": Event("warning", "a member could not leave; others see its death instead"),
    "state.cache_anew": Event("info", "a state cache is built anew from its changelog (a warning if damaged)"),
    "state.cache_broken": Event("error", "a state cache broke, and is built anew"),
    "state.checkpoint_failed": Event("info", "a checkpoint could not be written; the next start takes longer"),
    "state.moved": Event("info", "state was moved to other partitions"),
    "held.copy_failed": Event("warning", "held records could not be copied before retention takes them"),
    "topic.repartitioned": Event("info", "a topic has more partitions now"),
    "topic.differs": Event("warning", "a topic is not as its contract wants it"),
    "kafka.client": Event("debug", "what the Kafka client itself says"),
    "kafka.client_error": Event("debug", "an error that the Kafka client tells, and mends itself"),
    "kafka.consumer_anew": Event("error", "a consumer ended and is made anew"),
    "kafka.consumer_fault": Event("error", "a consumer ended by a fault of Postline: file an issue"),
    "kafka.leave_failed": Event("info", "a consumer did not leave its group cleanly"),
    "kafka.loop_ended": Event("warning", "something ended after its event loop had (debug where that is harmless)"),
    "kafka.name_not_taken_back": Event("info", "a member's name stays in the catalog until it expires"),
    "kafka.producer_ended": Event("info", "a producer ended, and a new one takes over"),
    "kafka.producer_hangs": Event("error", "a producer hangs, and is given up for a new one"),
    "kafka.transaction_ended": Event("warning", "the open transaction of an owner that is gone was ended"),
    "disk.full": Event("warning", "the disk is full: make room, the reserve is in use"),
    "disk.no_reserve": Event("warning", "there is no room for the reserve: make room"),
    "file.wal_not_emptied": Event("warning", "the WAL could not be emptied"),
    "file.wal_left": Event("warning", "the WAL is left to the next one that opens the log"),
    "file.wal_grows": Event("warning", "some program keeps a read transaction open: end it"),
    "file.upkeep_failed": Event("warning", "upkeep of the file failed, and is tried again"),
    "file.after_commit_failed": Event("error", "what follows a commit failed by a fault of Postline: file an issue"),
    # -- contracts, schedules, commands
    "contract.unread": Event("warning", "somebody reads what this app publishes in a way that loses something"),
    "schedule.stopped": Event("info", "a schedule is not in this version, and stops"),
    "schedule.left_out": Event("warning", "a run of a schedule that is not in this version is left out"),
    "schedule.ended": Event("error", "a schedule has no more planned times"),
    "timer.kept": Event("error", "a timer is due, and can't leave"),
    "message.misplaced": Event("warning", "a delayed message goes to the partition of before its topic was changed"),
    "message.not_cancelled": Event("info", "nothing was cancelled: the message has left"),
    "reply.skipped": Event("error", "a reply can't be read"),
    "reply.not_owed": Event("warning", "a later reply was given to what was answered before"),
    "replies.unreadable": Event("warning", "replies can't be read for now"),
    "tickets.unreadable": Event("warning", "tickets can't be read for now"),
    "call.lost": Event("error", "a unique call is gone, and equal ones that waited for it fail"),
    "cancellations.forgotten": Event("error", "too many requests were cancelled before their command came"),
    "aggregate.forgotten": Event("warning", "the parts of a key were never complete"),
    # -- HTTP
    "http.authenticate_failed": Event("error", "the hook `authenticate=` failed: nobody is let in"),
    "http.wait_failed": Event("error", "a request is stored, and its outcome can't be waited for"),
    "stream.ended": Event("warning", "a stream of events ends; its client comes again"),
    "stream.cut_off": Event("warning", "a client took nothing for long, and is cut off"),
    "stream.record_left_out": Event("error", "a stream leaves out a record that can't be read"),
    "webhook.disabled": Event("warning", "a receiver answered 410: its webhook is disabled"),
    "webhook.gone": Event("error", "a receiver answered 410: its subscription pauses"),
    "webhook.stopped": Event("error", "a webhook stopped, and is begun again"),
    "webhook.not_served": Event("error", "a webhook can't be served"),
    "webhook.unreadable": Event("error", "a webhook's record can't be read"),
    "webhook.left": Event("info", "a webhook is left to the process that serves it still"),
    "webhooks.unreadable": Event("warning", "the webhooks can't be followed for now"),
    "webhooks.failed": Event("error", "the webhooks can't be followed, by a fault"),
}


def event(name: str, **fields: Any) -> dict[str, Any]:
    """The `extra=` of a line: its event, and what it is about as fields of their own."""
    return {"postline_event": name, "postline_fields": fields}
