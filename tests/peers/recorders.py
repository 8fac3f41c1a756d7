"""The recorders of the eventsourcing library (9.5) on a Diptych log.

An aggregate's sequence is a tag; that no version comes twice is a condition on one more tag for
each event. Notification ids are positions. How far a process has come is a boundary of its own: an
event for each move, appended on the condition that no other move was made meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import msgspec
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    IntegrityError,
    Notification,
    ProcessRecorder,
    Subscription,
    Tracking,
    TrackingRecorder,
)
from eventsourcing.persistence import StoredEvent as Theirs
from msgspec import Struct

from diptych.app.blocking import BlockingLog
from diptych.log import (
    Append,
    Appended,
    Condition,
    EventQuery,
    NewEvent,
    QueryItem,
    Refused,
    StoredEvent,
)
from diptych.messages import new_id

TRACKING = "tracking"
"""The type of the events that say how far a process has come."""

STOP_SECONDS = 0.1
"""How often a waiting subscription looks whether it has been stopped: that wakes no log."""


class State(Struct, frozen=True):
    """Their state is bytes, our data a JSON object."""

    state: bytes


class Origin(Struct, frozen=True):
    """The metadata of an event of theirs."""

    id: str
    is_uuid: bool
    version: int


class Moved(Struct, frozen=True):
    """The data of a tracking event."""

    upstream: str
    notification_id: int


_state = msgspec.json.Decoder(State)
_origin = msgspec.json.Decoder(Origin)
_moved = msgspec.json.Decoder(Moved)


def matching(log: BlockingLog, query: EventQuery, after: int, until: int) -> Iterator[StoredEvent]:
    """Iterate over all events that match in (after, until]."""
    while after < until:
        page = log.read(query, after=after, until=until)
        yield from page.events
        after = page.upto


def sequence_tag(originator_id: UUID | str) -> str:
    """Return the tag of an aggregate's events."""
    return f"originator:{originator_id}"


def version_tag(originator_id: UUID | str, version: int) -> str:
    """Return the tag that one event only may bear."""
    return f"version:{version}:{originator_id}"


def ours(event: Theirs) -> NewEvent:
    """Return an event of theirs as we append it."""
    origin = Origin(
        str(event.originator_id), isinstance(event.originator_id, UUID), event.originator_version
    )
    return NewEvent(
        new_id(),
        event.topic,
        (
            sequence_tag(event.originator_id),
            version_tag(event.originator_id, event.originator_version),
        ),
        msgspec.json.encode(State(event.state)),
        msgspec.json.encode(origin),
    )


def theirs(stored: StoredEvent) -> Theirs:
    """Return the event of theirs that was appended."""
    origin = _origin.decode(stored.metadata)
    return Theirs(
        originator_id=UUID(origin.id) if origin.is_uuid else origin.id,
        originator_version=origin.version,
        topic=stored.type,
        state=_state.decode(stored.data).state,
    )


class LogRecorder:
    """What all recorders share: a log, and appends whose refusal is an ``IntegrityError``."""

    def __init__(self, log: BlockingLog) -> None:
        self.log = log

    def _append(self, events: Sequence[NewEvent], *conditions: Condition) -> Appended | Refused:
        [outcome] = self.log.append([Append(tuple(events), conditions)])
        return outcome


class LogAggregateRecorder(LogRecorder, AggregateRecorder):
    """Aggregates' sequences, without notifications."""

    def insert_events(self, stored_events: Sequence[Theirs], **kwargs: Any) -> Sequence[int] | None:
        """Append the events, or raise ``IntegrityError`` when a version is there already."""
        self._insert(stored_events)
        return None

    def _insert(self, stored_events: Sequence[Theirs]) -> Sequence[int]:
        if not stored_events:
            return []
        outcome = self._append([ours(event) for event in stored_events], unique(stored_events))
        if isinstance(outcome, Refused):
            raise IntegrityError(outcome)
        return list(range(outcome.first, outcome.last + 1))

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[Theirs]:
        """Return a sequence's events between two versions."""
        query = EventQuery.of(tags=[sequence_tag(originator_id)])
        events = [theirs(stored) for stored in matching(self.log, query, 0, self.log.head())]
        found = [
            event
            for event in sorted(events, key=lambda each: each.originator_version, reverse=desc)
            if (gt is None or event.originator_version > gt)
            and (lte is None or event.originator_version <= lte)
        ]
        return found[:limit]


def unique(stored_events: Sequence[Theirs]) -> Condition:
    """Return the condition that none of these versions is there yet.

    A log's condition is about what was appended before; that the new events differ among
    themselves is for the caller to see to.
    """
    tags = [version_tag(each.originator_id, each.originator_version) for each in stored_events]
    if len(set(tags)) < len(tags):
        raise IntegrityError("A version comes twice among the events")
    return Condition(EventQuery(tuple(QueryItem(tags=frozenset({tag})) for tag in tags)))


class LogApplicationRecorder(LogAggregateRecorder, ApplicationRecorder):
    """Aggregates' sequences, and all events in the order of their positions."""

    def insert_events(self, stored_events: Sequence[Theirs], **kwargs: Any) -> Sequence[int] | None:
        """Append the events and return their positions."""
        return self._insert(stored_events)

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Return events by position, at most ``limit``."""
        after = 0 if start is None else max(start - inclusive_of_start, 0)
        until = self.log.head() if stop is None else min(stop, self.log.head())
        return self.page(after, until, limit, topics)[0]

    def page(
        self, after: int, until: int, limit: int, topics: Sequence[str]
    ) -> tuple[list[Notification], int]:
        """Return the next notifications, and the position up to which they are all."""
        query, found = EventQuery.of(topics), list[Notification]()
        while after < until and len(found) < limit:
            page = self.log.read(query, after=after, until=until, limit=limit - len(found))
            found += [notification(each) for each in page.events if each.type != TRACKING]
            after = page.upto
        return found, after

    def max_notification_id(self) -> int | None:
        """Return the head; with us 0 means that there is none."""
        return self.log.head() or None

    def subscribe(
        self, gt: int | None = None, topics: Sequence[str] = ()
    ) -> Subscription[ApplicationRecorder]:
        """Follow the log from a position."""
        return LogSubscription(self, gt, topics)


def notification(stored: StoredEvent) -> Notification:
    """Return a stored event as a notification."""
    event = theirs(stored)
    return Notification(
        id=stored.position,
        originator_id=event.originator_id,
        originator_version=event.originator_version,
        topic=event.topic,
        state=event.state,
    )


class LogSubscription(Subscription[LogApplicationRecorder]):
    """Follows the log: reads what is there, then waits for more."""

    def __init__(
        self, recorder: LogApplicationRecorder, gt: int | None, topics: Sequence[str]
    ) -> None:
        super().__init__(recorder, gt, topics)
        self._position = gt or 0
        self._found: deque[Notification] = deque()

    def __next__(self) -> Notification:
        """Return the next notification; wait for it if need be."""
        while not self._has_been_stopped:
            if self._found:
                return self._found.popleft()
            head = self._recorder.log.wait(self._position, timeout=STOP_SECONDS)
            found, self._position = self._recorder.page(self._position, head, 500, self._topics)
            self._found.extend(found)
        raise StopIteration


class LogTrackingRecorder(LogRecorder, TrackingRecorder):
    """How far processes have come, each in a boundary of its own."""

    def __init__(self, log: BlockingLog) -> None:
        super().__init__(log)
        self._known: dict[str, tuple[int | None, int]] = {}  # id, as of a position

    def insert_tracking(self, tracking: Tracking) -> None:
        """Move on, or raise ``IntegrityError`` when the process has come as far already."""
        self._move(tracking, [])

    def max_tracking_id(self, application_name: str) -> int | None:
        """Return how far a process has come; None: it has not begun."""
        return self._reached(application_name)[0]

    def _reached(self, upstream: str) -> tuple[int | None, int]:
        """Fold the moves not known yet; return the id, and the position it is as of."""
        reached, after = self._known.get(upstream, (None, 0))
        head = self.log.head()  # before the events are read
        for stored in matching(self.log, moves(upstream), after, head):
            reached = _moved.decode(stored.data).notification_id
        self._known[upstream] = reached, max(after, head)
        return self._known[upstream]

    def _move(
        self, tracking: Tracking, events: Sequence[NewEvent], *conditions: Condition
    ) -> Appended:
        """Append a move with other events; each further attempt is due to another's move."""
        upstream, moved = tracking.application_name, tracking.notification_id
        move = NewEvent(
            new_id(),
            TRACKING,
            (f"tracking:{upstream}",),
            msgspec.json.encode(Moved(upstream, moved)),
            b"{}",
        )
        while True:
            reached, position = self._reached(upstream)
            if reached is not None and reached >= moved:
                raise IntegrityError(f"{upstream} has been followed up to {reached}")
            meanwhile = Condition(moves(upstream), position)
            outcome = self._append([*events, move], meanwhile, *conditions)
            if isinstance(outcome, Appended):
                return outcome
            if outcome.condition > 0:
                raise IntegrityError(outcome)


def moves(upstream: str) -> EventQuery:
    """Return the boundary of a process."""
    return EventQuery.of([TRACKING], [f"tracking:{upstream}"])


class LogProcessRecorder(LogTrackingRecorder, LogApplicationRecorder, ProcessRecorder):
    """Events, and how far the process that made them has come, together or not at all."""

    def insert_events(
        self, stored_events: Sequence[Theirs], *, tracking: Tracking | None = None, **kwargs: Any
    ) -> Sequence[int] | None:
        """Append the events and the move, and return the events' positions."""
        if tracking is None:
            return self._insert(stored_events)
        # A query without items means every event: no events, no condition.
        conditions = [unique(stored_events)] if stored_events else []
        outcome = self._move(tracking, [ours(event) for event in stored_events], *conditions)
        return list(range(outcome.first, outcome.last))  # the last one is the move
