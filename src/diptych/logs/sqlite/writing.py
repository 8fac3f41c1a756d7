"""The append's transaction. Everything here runs on the database's writing thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from msgspec import Raw
from msgspec.json import Decoder, Encoder

from diptych.errors import Unavailable
from diptych.log import (
    Append,
    Condition,
    InsideAppend,
    Outcome,
    Refused,
    StoredEvent,
    head_set_back,
)
from diptych.logs.sqlite.statements import (
    POINTS_AT_ONCE,
    SQL,
    inserts,
    over_legs,
    over_points,
    recall,
    types_of,
)
from diptych.sql.judge import Judge, older
from diptych.sql.ranges import findable, is_everything, is_point, legs_of
from diptych.sql.recent import Entry, Recent
from diptych.sql.sqlite import failure_of, patiently
from diptych.sql.turns import Turn

_entries: Decoder[list[Entry]] = Decoder(list[Entry])
_pairs: Decoder[list[tuple[int, int]]] = Decoder(list[tuple[int, int]])
_json = Encoder()


class InsideFailed(Exception):
    """What was to be done inside the transaction raised its cause."""


class Writer:
    """Appends batches, each in one transaction, or in one for each append when that fails."""

    def __init__(self, inside: InsideAppend | None, remembered: int) -> None:
        self._inside = inside
        self._recent = Recent(remembered)

    def append(
        self,
        connection: sqlite3.Connection,
        batches: Sequence[Sequence[Append]],
        turn: Turn | None = None,
    ) -> list[list[Outcome]]:
        """Append the batches and answer each append; the turn is over before they are committed."""
        try:
            with _Transaction(connection, self._recent, self._inside, turn) as transaction:
                return transaction.judge(batches).answer_all(batches)
        except InsideFailed:
            # One of them is at fault, the others shall not suffer from it.
            return [self._append_singly(connection, batch) for batch in batches]

    def _append_singly(
        self, connection: sqlite3.Connection, batch: Sequence[Append]
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for append in batch:
            try:
                with _Transaction(connection, self._recent, self._inside) as transaction:
                    outcome = transaction.judge([[append]]).answer(append, outcomes)
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
        self,
        connection: sqlite3.Connection,
        recent: Recent,
        inside: InsideAppend | None,
        turn: Turn | None = None,
    ) -> None:
        self._connection = connection
        self._recent = recent
        self._inside = inside
        self._turn = turn
        self._judge: Judge | None = None

    def __enter__(self) -> _Transaction:
        # The lock comes first, in a statement of its own; then the head; then the conditions.
        patiently(lambda: self._connection.execute("BEGIN IMMEDIATE"))
        try:
            self._catch_up()
        except BaseException:
            self._roll_back()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> Literal[False]:
        judge = self._judge
        if kind is None and judge is not None and (judge.new or judge.keys):
            try:
                self._write(judge)
                if self._turn is not None:
                    self._turn.over()
                self._connection.execute("COMMIT")
            except BaseException as error:
                self._roll_back()
                if isinstance(error, sqlite3.IntegrityError) and "events.position" in str(error):
                    raise head_set_back(head=judge.begun_at) from error
                raise
        else:
            self._roll_back()
        return False

    def _roll_back(self) -> None:
        if self._judge is not None:
            self._judge.withdraw()
        with suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")

    def _catch_up(self) -> None:
        """Learn what other processes have appended since."""
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

    def judge(self, batches: Sequence[Sequence[Append]]) -> Judge:
        """Return who answers these appends, knowing what is stored that matters to them."""
        keys = [append.key for batch in batches for append in batch if append.key is not None]
        answers = recall(self._connection, keys) if keys else {}
        old = older(batches, self._recent.start)
        stored = self._first_stored(old) if old else {}
        self._judge = Judge(self._recent, answers, lambda condition: stored.get(id(condition), 0))
        return self._judge

    def _first_stored(self, old: Sequence[Condition]) -> dict[int, int]:
        """Return the first match that is too old to be remembered, of conditions by their id()."""
        found: dict[int, int] = {}
        points: list[Condition] = []
        for condition in old:
            if not condition.known and is_point(condition.query):
                points.append(condition)
            else:
                found[id(condition)] = self._first_match(condition)
        for start in range(0, len(points), POINTS_AT_ONCE):
            some = points[start : start + POINTS_AT_ONCE]
            legs = [
                (number, tag, name, condition.after)
                for number, condition in enumerate(some)
                for item in findable(condition.query).items
                for tag in item.tags
                for name in item.types
            ]
            statement = over_points("first_matches", legs, self._recent.start)
            for number, position in _pairs.decode(
                self._connection.execute(*statement).fetchone()[0]
            ):
                which = id(some[number])
                found[which] = min(found.get(which, position), position)
        return found

    def _first_match(self, condition: Condition) -> int:
        query, after, known = findable(condition.query), condition.after, set(condition.known)
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

    def _write(self, judge: Judge) -> None:
        position = judge.begun_at
        events: list[object] = []
        stored: list[StoredEvent] = []
        for append in judge.new:
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
                if self._inside is not None:
                    data, metadata = Raw(event.data), Raw(event.metadata)
                    stored.append(StoredEvent(position, event.id, name, marks, data, metadata))
        keys: list[object] = []
        for kept in judge.keys:
            rejection = None if kept.rejection is None else kept.rejection.decode()
            keys += (kept.key, kept.content, kept.first, kept.last, rejection)
        execute = self._connection.execute
        for statement, width, values in (
            ("insert_events", 6, events),
            ("insert_keys", 5, keys),
        ):
            for sql, parameters in inserts(statement, width, values):
                execute(sql, parameters)
        if events:
            execute(SQL["index_events"], (judge.begun_at, judge.begun_at))
            execute(SQL["move_head"], (position,))
        if self._inside is not None and stored:
            try:
                self._inside(self._connection, stored)
            except Exception as error:
                raise InsideFailed from error
