"""Appends: one call of a function a batch, judged here; or, when that may not hold, under the lock.

The judgement is made on what this process knows of the log up to a head. The function takes the
lock on the head row, and looks whether anything has come since that could change the judgement.
Where it has, nothing is stored, and the batch is judged again in a transaction that holds the lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import asyncpg
from msgspec import Struct
from msgspec.json import Decoder
from msgspec.structs import replace

from diptych.errors import OutcomeUnknown, Unavailable
from diptych.log import Append, Outcome, Refused, StoredEvent
from diptych.logs.postgres.checking import Legs, first_stored, stored_answers
from diptych.logs.postgres.rows import arrays_of, stored_events
from diptych.logs.postgres.statements import Statements
from diptych.sql.judge import Judge
from diptych.sql.postgres import LOST, Connection, Database, backoff, failure_of, unavailable
from diptych.sql.recent import Entry, Recent

InsideAppend: TypeAlias = Callable[[Connection, list[StoredEvent]], Awaitable[None]]
"""Work done in the append's own transaction: gets its connection and the new events."""

Batches: TypeAlias = Sequence[Sequence[Append]]
Answered: TypeAlias = list[list[Outcome]]

COMPANY: Final = 2000
"""For how many batches others are expected to append too, once they were met."""

_BROKEN = (*LOST, asyncpg.TransactionRollbackError)
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
        self._company = 0
        self._sent: list[_Sent] = []

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
            except Unavailable as error:
                # Earlier ones are stored already: this is an answer, not a failure of the call.
                outcome = Refused("failed", error=error)
            outcomes.append(outcome)
        return outcomes

    # --- until it is known what came of it --------------------------------------------------------

    async def _persist(self, batches: Batches, answer: Callable[[Judge], Answered]) -> Answered:
        """Try until it is known what came of it, or there is no connection to be had."""
        database, tries = self._database, 0
        deadline = asyncio.get_running_loop().time() + database.patience
        self._sent = []
        while True:
            try:
                async with database.lease() as connection:
                    if not tries and self._inside is None:
                        answered = await self._quick(connection, batches, answer)
                        if answered is not None:
                            return answered
                    return await self._exact(connection, batches, answer)
            except (*_BROKEN, Unavailable) as error:
                tries += 1
                late = asyncio.get_running_loop().time() > deadline
                if isinstance(error, asyncpg.TransactionRollbackError):
                    self._sent.pop()  # the server says that it is not stored
                elif isinstance(error, Unavailable) or late:
                    raise self._gone(error) from error
            except asyncpg.PostgresError as error:
                raise failure_of(error, database.path) from error
            await asyncio.sleep(backoff(tries))

    def _gone(self, error: Exception) -> Exception:
        why = error if isinstance(error, Unavailable) else unavailable(error, self._database.path)
        if not self._sent:
            return why
        return OutcomeUnknown(
            "The connection was lost while the events were being stored, and the log cannot be "
            "reached to find out. Commands with an idempotency key may be sent again; for others "
            "read the log first",
            database=self._database.path,
            why=error,
        )

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
                # Refusals are final; that a condition holds has to be seen at the present head.
                now = await connection.fetchval(self._sql.head)
                return answered if now == expected else None
            alone = not self._company or legs.alone
            self._sent.append(_Sent(judge, answered))
            row = await connection.fetchrow(
                self._sql.append, expected, alone, *arrays_of(judge), *legs.arrays()
            )
        except BaseException:
            judge.withdraw()
            raise
        assert row is not None
        head, since = row
        self._met(others=head != expected)
        if head is None:
            judge.withdraw()
            self._sent.pop()
            return None
        if head != expected:
            self._follow(judge, since)
        return moved(answered, expected, head - expected)

    def _follow(self, judge: Judge, since: str | None) -> None:
        """Learn what others have appended between the judgement and what it accepted."""
        judge.withdraw()
        if since is None:  # too much of it: the next append looks at the log itself
            self._recent.forget(0)
            return
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
                    await connection.fetchrow(sql.append, head, True, *arrays_of(judge), *none)
                if judge.new and self._inside is not None:
                    await self._work_inside(connection, judge)
        except BaseException:
            if judge is not None:
                judge.withdraw()
            raise
        return answered

    async def _work_inside(self, connection: Connection, judge: Judge) -> None:
        assert self._inside is not None
        try:
            await self._inside(connection, stored_events(judge))
        except _BROKEN:
            raise
        except Exception as error:
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
        if not rows:
            return None
        found = {row[0] for row in rows}
        sent = next(sent for sent in reversed(self._sent) if found == set(sent.ids))
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
    if outcome.replayed and outcome.last <= after:
        return outcome
    first = outcome.first + by if outcome.first else 0
    return replace(outcome, first=first, last=outcome.last + by)
