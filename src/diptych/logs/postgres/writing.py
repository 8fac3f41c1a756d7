"""Appends: one statement a batch, judged here; or, when that may not hold, under the lock.

The judgement is made on what this process knows of the log up to a head. While no others append,
the statement stores the batch if the head is still there. Else it calls a function, which takes the
lock on the head row, and looks whether anything has come since that could change the judgement.
Where it has, nothing is stored, and the batch is judged again in a transaction that holds the lock.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

import asyncpg
from msgspec import Struct
from msgspec.json import Decoder
from msgspec.structs import replace

from diptych.errors import DiptychError, LogUnusable, OutcomeUnknown, Unavailable
from diptych.log import Append, Outcome, Refused, StoredEvent, head_set_back
from diptych.logs.postgres.checking import Legs, first_stored, stored_answers
from diptych.logs.postgres.rows import arrays_of, next_of, stored_events
from diptych.logs.postgres.statements import Statements
from diptych.sql.judge import Judge
from diptych.sql.postgres import (
    LOST,
    Connection,
    Database,
    backoff,
    failure_of,
    is_lost,
    unavailable,
)
from diptych.sql.recent import Entry, Recent

InsideAppend: TypeAlias = Callable[[Connection, list[StoredEvent]], Awaitable[None]]
"""Work done in the append's own transaction: gets its connection and the new events."""

Batches: TypeAlias = Sequence[Sequence[Append]]
Answered: TypeAlias = list[list[Outcome]]

COMPANY: Final = 2000
"""For how many batches others are expected to append too, once they were met."""

_entries: Decoder[list[Entry]] = Decoder(list[Entry])


class InsideFailed(Exception):
    """What was to be done inside the transaction raised its cause."""


class _Sent(Struct):
    """What was sent to be stored; in doubt when the connection is lost before the answer."""

    judge: Judge
    answered: Answered

    @property
    def ids(self) -> list[str]:
        """The events' ids, in order."""
        return [event.id for append in self.judge.new for event in append.events]


class Writer:
    """Appends batches, one transaction at a time."""

    def __init__(
        self, database: Database, sql: Statements, inside: InsideAppend | None, remembered: int
    ) -> None:
        self._database = database
        self._sql = sql
        self._inside = inside
        self._recent = Recent(remembered)
        self._made = 0
        self._company = 0
        self._sent: list[_Sent] = []
        self._last: tuple[int, str] | None = None

    async def append(self, batches: Batches) -> Answered:
        """Append the batches in one transaction and answer each append."""
        try:
            return await self._persist(batches, lambda judge: judge.answer_all(batches))
        except InsideFailed:
            # One of them is at fault, the others shall not suffer from it.
            return [await self._append_singly(batch) for batch in batches]

    async def _append_singly(self, batch: Sequence[Append]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for append in batch:
            try:
                [[outcome]] = await self._persist(
                    [[append]],
                    lambda judge, append=append: [[judge.answer(append, outcomes)]],  # type: ignore[misc]
                )
            except InsideFailed as failed:
                outcome = Refused("failed", error=failed.__cause__)
            except (Unavailable, OutcomeUnknown) as error:
                # Earlier ones are stored already: this is an answer, not a failure of the call.
                outcome = Refused("failed", error=error)
            outcomes.append(outcome)
        return outcomes

    # --- until it is known what came of it --------------------------------------------------------

    async def _persist(self, batches: Batches, answer: Callable[[Judge], Answered]) -> Answered:
        """Try until it is known what came of it, or there is no connection to be had."""
        database, tries, deadline = self._database, 0, math.inf
        # Who is frozen amid a transaction is thrown out by the server after `silence`.
        unlocked = _now() + database.silence + database.patience
        self._sent = []
        while True:
            before = len(self._sent)
            try:
                async with database.lease(brief=True) as connection:
                    if self._made != database.made:
                        # New connections, perhaps to another server, which has lost events.
                        await self._require_same(connection)
                        self._made = database.made
                        self._recent.forget(0)
                    if not tries and self._inside is None:
                        answered = await self._quick(connection, batches, answer)
                        if answered is not None:
                            return answered
                    return await self._exact(connection, batches, answer)
            except DiptychError as error:  # there is no connection to be had
                if not self._sent:
                    raise
                raise self._gone(error) from error
            except asyncpg.LockNotAvailableError as error:
                tries += 1
                del self._sent[before:]
                if _now() > unlocked:
                    raise self._gone(await self._held()) from error
            except (*LOST, asyncpg.PostgresError) as error:
                tries += 1
                deadline = min(deadline, _now() + database.patience)
                if not is_lost(error):
                    del self._sent[before:]  # the server says that it is not stored
                    again = isinstance(error, asyncpg.TransactionRollbackError)
                    if not (self._sent or again) or _now() > deadline:
                        why = failure_of(error, database.path)
                        if getattr(error, "constraint_name", "") == "events_pkey":
                            why = head_set_back(database=database.path)
                        raise self._gone(why) from error
                elif _now() > deadline:
                    raise self._gone(unavailable(error, database.path)) from error
            await asyncio.sleep(backoff(tries))

    def _gone(self, why: Exception) -> Exception:
        if not self._sent:
            return why
        return OutcomeUnknown(
            "The connection was lost while the events were being stored, and the log cannot be "
            "reached to find out. Commands with an idempotency key may be sent again; for others "
            "read the log first",
            database=self._database.path,
            why=why,
        )

    async def _held(self) -> Unavailable:
        """Return the error for a lock that others hold on to, with who that is."""
        database = self._database
        facts = {"database": database.path}
        with suppress(DiptychError, asyncpg.PostgresError):
            found = await database.run(lambda c: c.fetchrow(self._sql.holder), brief=True)
            if found is not None:
                pid, role, program, state, since = found
                facts["held_by"] = f"process {pid} of the server's, role {role}" + (
                    f", {program}" if program else ""
                )
                if since is not None:  # the server tells it to the same role, and to its monitors
                    facts["state"] = f"{state}, in a transaction for {since.total_seconds():.0f} s"
        return Unavailable(
            "A transaction that has not ended holds the log's lock; nothing was stored. Commit it, "
            "roll it back, or end it with pg_terminate_backend. A command within one's own "
            "transaction is `running.within(connection)`'s `do`, not `running.do`",
            **facts,
        )

    async def _require_same(self, connection: Connection) -> None:
        """Raise ``LogUnusable`` when the log has lost the event that was stored here last.

        What this process knows (states of models, tokens given out) may then rest on lost events.
        """
        if self._last is not None:
            position, event_id = self._last
            if await connection.fetchval(self._sql.id_at, position) != event_id:
                raise LogUnusable(
                    "The log has lost events that this process has stored: it was restored from a "
                    "backup, or failed over to a replica that lagged. Restart the process, and "
                    "rebuild the views that were ahead",
                    database=self._database.path,
                    position=position,
                    event=event_id,
                )

    def _note(self, judge: Judge, head: int) -> None:
        """Remember the last event that was stored after a head."""
        if judge.new:
            stored = sum(len(append.events) for append in judge.new)
            self._last = head + stored, judge.new[-1].events[-1].id

    # --- the quick way ----------------------------------------------------------------------------

    async def _quick(
        self, connection: Connection, batches: Batches, answer: Callable[[Judge], Answered]
    ) -> Answered | None:
        """Judge, then store in one call; None: nothing is stored, judge it under the lock."""
        recent = self._recent
        if not recent.head:
            return None  # nothing is known yet
        recent.trim()
        expected = recent.head
        legs = Legs(expected)
        if self._company:
            legs.note(batches)
        judge = Judge(recent, {}, legs.first_stored)
        try:
            answered = answer(judge)
            if legs.unclear or _refuses_a_key(batches, answered):
                judge.withdraw()
                return None
            if not judge.new and not judge.keys:
                if legs.granted:
                    return None
                # Refusals are final; that a condition holds has to be seen at the present head.
                now = await connection.fetchval(self._sql.head)
                return answered if now == expected else None
            self._sent.append(_Sent(judge, answered))
            head, since = await self._store(connection, judge, legs)
        except BaseException:
            judge.withdraw()
            raise
        self._met(others=head != expected)
        if head is None:
            judge.withdraw()
            self._sent.pop()
            return None
        self._note(judge, head)
        if head != expected:
            self._follow(judge, since)
        return moved(answered, expected, head - expected)

    async def _store(
        self, connection: Connection, judge: Judge, legs: Legs
    ) -> tuple[int | None, str]:
        """Return the head that the events follow, and what others have appended before it.

        No head: nothing is stored.
        """
        expected = judge.begun_at
        alone = not self._company or legs.alone
        following = None if not alone or judge.keys else next_of(self._sql, judge, legs)
        if following is not None:
            statement, values = following
            status = await connection.execute(statement, *values)
            return (None if status == "INSERT 0 0" else expected), ""
        row = await connection.fetchrow(
            self._sql.append, expected, alone, *arrays_of(judge), *legs.arrays()
        )
        assert row is not None
        return row[0], row[1]

    def _follow(self, judge: Judge, since: str) -> None:
        """Learn what others have appended between the judgement and what it accepted."""
        judge.withdraw()
        for entry in _entries.decode(since):
            self._recent.add(*entry)
        for append in judge.new:
            for event in append.events:
                self._recent.add(self._recent.head + 1, event.type, event.tags)

    def _met(self, *, others: bool) -> None:
        self._company = COMPANY if others else max(0, self._company - 1)

    # --- the exact way ----------------------------------------------------------------------------

    async def _exact(
        self, connection: Connection, batches: Batches, answer: Callable[[Judge], Answered]
    ) -> Answered:
        """Judge while the lock is held: what is found then stays so until the commit."""
        sql, recent = self._sql, self._recent
        judge: Judge | None = None
        try:
            async with connection.transaction(isolation="read_committed"):
                # The lock comes first, in a statement of its own; then the head; then the checks.
                head = await connection.fetchval(sql.lock_head)
                if self._sent and (known := await self._stored_after_all(connection)) is not None:
                    return known
                await self._catch_up(connection, head)
                answers = await stored_answers(connection, sql, batches)
                old = await first_stored(connection, sql, batches, recent.start)
                judge = Judge(recent, answers, lambda condition: old.get(id(condition), 0))
                answered = answer(judge)
                if judge.new or judge.keys:
                    self._sent.append(_Sent(judge, answered))
                    none = Legs(head).arrays()
                    row = await connection.fetchrow(
                        sql.append_locked, head, True, *arrays_of(judge), *none
                    )
                    if row is None or row[0] != head:
                        raise RuntimeError(f"the append function has not appended after {head}")
                if judge.new and self._inside is not None:
                    await self._work_inside(connection, judge)
        except BaseException:
            if judge is not None:
                judge.withdraw()
            raise
        self._note(judge, head)
        return answered

    async def _work_inside(self, connection: Connection, judge: Judge) -> None:
        assert self._inside is not None
        try:
            await self._inside(connection, stored_events(judge))
            # If it has let a statement's error pass, COMMIT would roll back and say nothing.
            await connection.execute("SELECT 1")
        except (asyncpg.TransactionRollbackError, asyncpg.LockNotAvailableError):
            raise
        except Exception as error:
            if connection.is_closed():
                raise ConnectionResetError("lost inside the transaction") from error
            self._sent.pop()  # the transaction is rolled back
            raise InsideFailed from error

    async def _stored_after_all(self, connection: Connection) -> Answered | None:
        """Return the answers of what was sent on a connection that was lost, if it is stored.

        The lock is held: what was sent is committed, or never will be. (When it comes late, the
        function finds the events of these ids.)
        """
        since = min(sent.judge.begun_at for sent in self._sent)
        ids = {event_id for sent in self._sent for event_id in sent.ids}
        rows = await connection.fetch(self._sql.stored_since, since, list(ids))
        found = {row[0] for row in rows}
        sent = next((s for s in reversed(self._sent) if s.ids and found == set(s.ids)), None)
        if sent is None:
            return None
        begun_at = sent.judge.begun_at
        return moved(sent.answered, begun_at, rows[0][1] - begun_at - 1)

    async def _catch_up(self, connection: Connection, head: int) -> None:
        """Learn what others have appended since."""
        recent = self._recent
        if recent.head != head:
            if not recent.head or not 0 < head - recent.head <= recent.capacity:
                recent.forget(head)
            else:
                self._met(others=True)
                since = await connection.fetchval(self._sql.appended_since, recent.head)
                for entry in _entries.decode(since):
                    recent.add(*entry)
        recent.trim()


def _refuses_a_key(batches: Batches, answered: Answered) -> bool:
    """Whether an append was refused whose key may have been used: that would come first."""
    return any(
        append.key is not None and isinstance(outcome, Refused)
        for batch, outcomes in zip(batches, answered, strict=True)
        for append, outcome in zip(batch, outcomes, strict=True)
    )


def moved(answered: Answered, after: int, by: int) -> Answered:
    """Return answers whose positions after one have become others: something came in between."""
    return (
        [[_moved(outcome, after, by) for outcome in some] for some in answered] if by else answered
    )


def _moved(outcome: Outcome, after: int, by: int) -> Outcome:
    if isinstance(outcome, Refused):
        return (
            replace(outcome, position=outcome.position + by)
            if outcome.position > after
            else outcome
        )
    if outcome.replayed and (outcome.first or outcome.last + 1) <= after:
        return outcome
    first = outcome.first + by if outcome.first else 0
    return replace(outcome, first=first, last=outcome.last + by)


def _now() -> float:
    return asyncio.get_running_loop().time()
