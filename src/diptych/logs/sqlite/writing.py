"""The append's transaction. Everything here runs on the database's writing thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress

from msgspec import Raw
from msgspec.json import Decoder, Encoder

from diptych.errors import Unavailable
from diptych.log import (
    Append,
    Appended,
    Condition,
    EventQuery,
    InsideAppend,
    Outcome,
    Refused,
    StoredEvent,
    is_new,
)
from diptych.logs.sqlite.statements import (
    SQL,
    inserts,
    is_everything,
    legs_of,
    over_legs,
    recall,
    types_of,
)
from diptych.sql.recent import Entry, Recent
from diptych.sql.sqlite import failure_of, patiently

_entries: Decoder[list[Entry]] = Decoder(list[Entry])
_json = Encoder()


class InsideFailed(Exception):
    """What was to be done inside the transaction raised its cause."""


class Writer:
    """Appends batches, each in one transaction, or in one for each append when that fails."""

    def __init__(self, inside: InsideAppend | None, remembered: int) -> None:
        self._inside = inside
        self._recent = Recent(remembered)

    def append(
        self, connection: sqlite3.Connection, batches: Sequence[Sequence[Append]]
    ) -> list[list[Outcome]]:
        """Append the batches and answer each append."""
        try:
            return self._append(connection, batches)
        except InsideFailed:
            # One of them is at fault, the others shall not suffer from it.
            return [self._append_singly(connection, batch) for batch in batches]

    def _append(
        self, connection: sqlite3.Connection, batches: Sequence[Sequence[Append]]
    ) -> list[list[Outcome]]:
        answers: list[list[Outcome]] = []
        with _Transaction(connection, self._recent, self._inside) as transaction:
            transaction.recall(append.key for batch in batches for append in batch)
            for batch in batches:
                outcomes: list[Outcome] = []
                answers.append(outcomes)
                for append in batch:
                    outcomes.append(transaction.answer(append, outcomes))
        return answers

    def _append_singly(
        self, connection: sqlite3.Connection, batch: Sequence[Append]
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for append in batch:
            try:
                with _Transaction(connection, self._recent, self._inside) as transaction:
                    transaction.recall([append.key])
                    outcome = transaction.answer(append, outcomes)
            except InsideFailed as failed:
                outcome = Refused("failed", error=failed.__cause__)
            except sqlite3.DatabaseError as error:
                # Earlier ones are stored already: this is an answer, not a failure of the call.
                outcome = Refused("failed", error=failure_of(error))
            except Unavailable as error:
                outcome = Refused("failed", error=error)
            outcomes.append(outcome)
        return outcomes


class _Transaction:
    """BEGIN IMMEDIATE … COMMIT; nothing is written before all is answered."""

    def __init__(
        self, connection: sqlite3.Connection, recent: Recent, inside: InsideAppend | None
    ) -> None:
        self._connection = connection
        self._recent = recent
        self._inside = inside
        self._answers: dict[str, tuple[bytes, Appended]] = {}
        self._new: list[Append] = []
        self._new_keys: list[object] = []

    def __enter__(self) -> _Transaction:
        # The lock comes first, in a statement of its own; then the head; then the conditions.
        patiently(lambda: self._connection.execute("BEGIN IMMEDIATE"))
        try:
            self._begun_at = self._catch_up()
        except BaseException:
            self._roll_back()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and (self._new or self._new_keys):
            try:
                self._write()
                self._connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        else:
            self._roll_back()

    def _roll_back(self) -> None:
        if self._new:
            self._recent.forget(0)  # it knows events that will never be; the head is read again
        with suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")

    def _catch_up(self) -> int:
        """Learn what other processes have appended since; return the head."""
        (head,) = self._connection.execute(SQL["head"]).fetchone()
        recent = self._recent
        if recent.head != head:
            if not recent.head or not 0 < head - recent.head <= recent.capacity:
                recent.forget(head)
            else:
                since = self._connection.execute(SQL["appended_since"], (recent.head,)).fetchone()
                for position, type_name, tags in sorted(_entries.decode(since[0])):
                    recent.add(position, type_name, tags)
        recent.trim()
        return int(head)

    def recall(self, keys: Iterable[str | None]) -> None:
        """Look up the first answers to these keys."""
        asked = [key for key in keys if key is not None]
        if asked:
            self._answers = recall(self._connection, asked)

    def answer(self, append: Append, earlier: Sequence[Outcome]) -> Outcome:
        """Answer one append: its key comes first, then its conditions, then its events."""
        if append.key is not None and append.key in self._answers:
            content, first_answer = self._answers[append.key]
            if content != append.content:
                return Refused("key-reused", position=first_answer.last)
            return first_answer
        for index, condition in enumerate(append.conditions):
            refused = self._check(condition, index, earlier)
            if refused is not None:
                return refused
        return self._accept(append)

    def _check(
        self, condition: Condition, index: int, earlier: Sequence[Outcome]
    ) -> Refused | None:
        after = condition.after
        known: set[int] | tuple[int, ...] = condition.known
        if condition.since is not None:
            base = earlier[condition.since]
            if not is_new(base):
                return Refused("unfounded", condition=index)
            after = base.last
        if condition.seen:
            known = set(known)
            for seen in condition.seen:
                base = earlier[seen]
                if not is_new(base):
                    return Refused("unfounded", condition=index)
                if base.first:
                    known.update(range(base.first, base.last + 1))
        elif len(known) > 8:
            known = set(known)
        found = 0
        if after < self._recent.start:
            found = self._first_stored(condition.query, after, known)
            after = self._recent.start
        found = found or self._recent.first(condition.query, after, known)
        return Refused("conflict", found, condition=index) if found else None

    def _first_stored(
        self, query: EventQuery, after: int, known: set[int] | tuple[int, ...]
    ) -> int:
        """Return the first match that is too old to be remembered."""
        # Of one more than are known, at least one is not.
        until, limit = self._recent.start, len(known) + 1
        if is_everything(query):
            rows = [self._connection.execute(SQL["match_any"], (after, until, limit)).fetchone()]
        else:
            legs = legs_of(query.items, lambda tag: types_of(self._connection, tag)[1])
            rows = [
                self._connection.execute(*statement).fetchone()
                for statement in over_legs("match_legs", legs, after, until, limit)
            ]
        found = [int(p) for (listed,) in rows if listed for p in str(listed).split(",")]
        return min((position for position in found if position not in known), default=0)

    def _accept(self, append: Append) -> Appended:
        recent = self._recent
        first = 0
        if append.events:
            self._new.append(append)
            first = recent.head + 1
            for position, event in enumerate(append.events, first):
                recent.add(position, event.type, event.tags)
        appended = Appended(first, recent.head, rejection=append.rejection)
        if append.key is not None:
            replay = Appended(first, recent.head, replayed=True, rejection=append.rejection)
            self._answers[append.key] = (append.content, replay)
            rejection = append.rejection.decode() if append.rejection is not None else None
            self._new_keys += (append.key, append.content, first, recent.head, rejection)
        return appended

    def _write(self) -> None:
        position = self._begun_at
        events: list[object] = []
        tags: list[object] = []
        stored: list[StoredEvent] = []
        for append in self._new:
            for event in append.events:
                position += 1
                name, marks = event.type, event.tags
                events += (
                    position,
                    event.id,
                    name,
                    _json.encode(marks).decode(),
                    event.data.decode(),
                    event.metadata.decode(),
                )
                tags += ("", name, position)
                for mark in marks if len(marks) < 2 else set(marks):
                    tags += (mark, name, position)
                if self._inside is not None:
                    data, metadata = Raw(event.data), Raw(event.metadata)
                    stored.append(StoredEvent(position, event.id, name, marks, data, metadata))
        execute = self._connection.execute
        for statement, width, values in (
            ("insert_events", 6, events),
            ("insert_tags", 3, tags),
            ("insert_keys", 5, self._new_keys),
        ):
            for sql, parameters in inserts(statement, width, values):
                execute(sql, parameters)
        if events:
            execute(SQL["move_head"], (position,))
        if self._inside is not None and stored:
            try:
                self._inside(self._connection, stored)
            except Exception as error:
                raise InsideFailed from error
