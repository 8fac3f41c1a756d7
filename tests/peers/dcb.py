"""The DCB recorder of the eventsourcing library (9.5) on a Diptych log: nearly the same words."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec
from eventsourcing.dcb.api import (
    DCBAppendCondition,
    DCBEvent,
    DCBQuery,
    DCBReadResponse,
    DCBRecorder,
    DCBSequencedEvent,
    DCBSubscription,
)
from eventsourcing.dcb.popo import SimpleDCBReadResponse
from eventsourcing.persistence import IntegrityError, ProgrammingError

from diptych.log import Append, Condition, EventQuery, NewEvent, QueryItem, Refused, StoredEvent
from diptych.messages import new_id
from tests.peers.recorders import STOP_SECONDS, LogRecorder, State

_state = msgspec.json.Decoder(State)


def our_query(query: DCBQuery | None) -> EventQuery:
    """Return a query of theirs as ours; none, or one without items, means every event."""
    items = query.items if query is not None else []
    return EventQuery(
        tuple(QueryItem(frozenset(item.types), frozenset(item.tags)) for item in items)
    )


def our_event(event: DCBEvent) -> NewEvent:
    """Return an event of theirs as we append it."""
    data = msgspec.json.encode(State(event.data))
    return NewEvent(new_id(), event.type, tuple(event.tags), data, b"{}")


def their_event(stored: StoredEvent) -> DCBSequencedEvent:
    """Return the event of theirs that was appended, with its position."""
    data = _state.decode(stored.data).state
    return DCBSequencedEvent(DCBEvent(stored.type, data, list(stored.tags)), stored.position)


class LogDCBRecorder(LogRecorder, DCBRecorder):
    """Events under conditions over types and tags."""

    def read(
        self, query: DCBQuery | None = None, *, after: int | None = None, limit: int | None = None
    ) -> DCBReadResponse:
        """Return matching events; their head is ours, or with a limit the last one's position.

        Our log refuses a page for no event; theirs may be asked for none.
        """
        head, position = self.log.head(), after or 0
        found: list[DCBSequencedEvent] = []
        while position < head and (limit is None or len(found) < limit):
            at_most = 1000 if limit is None else limit - len(found)
            page = self.log.read(our_query(query), after=position, until=head, limit=at_most)
            found += [their_event(stored) for stored in page.events]
            position = page.upto
        if limit is not None:
            head = found[-1].position if found else 0
        return SimpleDCBReadResponse(iter(found), head or None)

    def append(
        self, events: Sequence[DCBEvent], condition: DCBAppendCondition | None = None
    ) -> int:
        """Append, or raise ``IntegrityError``; return the last position."""
        if not events:
            raise ProgrammingError("There is no event to append")
        conditions: tuple[Condition, ...] = ()
        if condition is not None:
            query = our_query(condition.fail_if_events_match)
            conditions = (Condition(query, condition.after or 0),)
        [outcome] = self.log.append([Append(tuple(our_event(e) for e in events), conditions)])
        if isinstance(outcome, Refused):
            raise IntegrityError(outcome)
        return outcome.last

    def subscribe(
        self, query: DCBQuery | None = None, *, after: int | None = None
    ) -> LogDCBSubscription:
        """Follow the log from a position."""
        return LogDCBSubscription(self, query, after)


class LogDCBSubscription(DCBSubscription[LogDCBRecorder]):
    """Follows the log: reads what is there, then waits for more."""

    def __init__(self, recorder: LogDCBRecorder, query: DCBQuery | None, after: int | None) -> None:
        super().__init__(recorder, query, after)
        self._found: deque[StoredEvent] = deque()

    def __next__(self) -> DCBSequencedEvent:
        """Return the next matching event; wait for it if need be."""
        log, query = self._recorder.log, our_query(self._query)
        while not self._has_been_stopped:
            if self._found:
                return their_event(self._found.popleft())
            head = log.wait(self._last_position, timeout=STOP_SECONDS)
            page = log.read(query, after=self._last_position, until=head)
            self._last_position = page.upto
            self._found.extend(page.events)
        raise StopIteration
