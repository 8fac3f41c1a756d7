"""The checker finds bugs of the write path: each test plants one, and names the point it breaks."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from diptych.errors import Unavailable
from diptych.log import Append, Appended, Outcome, Refused
from diptych.logs.memory import MemoryLog
from diptych.logs.sqlite import statements, writing
from diptych.sql.judge import Judge
from diptych.sql.recent import Recent
from tests.checker.planting import finds, finds_on_sqlite

# --- conditions -----------------------------------------------------------------------------------


async def test_conditions_that_are_not_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: no condition is looked at."""
    monkeypatch.setattr(Judge, "_check", lambda *_: None)
    assert await finds_on_sqlite(6, tmp_path)


async def test_a_check_blind_to_its_own_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: an append does not see the earlier ones of its transaction."""
    first, catch_up = Recent.first, writing._Transaction._catch_up

    def blind(recent: Recent, query: Any, after: int, known: Any) -> int:
        found = first(recent, query, after, known)
        return found if found <= getattr(recent, "begun_at", 0) else 0

    def note(transaction: Any) -> None:
        catch_up(transaction)
        transaction._recent.begun_at = transaction._recent.head

    monkeypatch.setattr(Recent, "first", blind)
    monkeypatch.setattr(writing._Transaction, "_catch_up", note)
    assert await finds_on_sqlite(6, tmp_path)


async def test_a_check_that_forgets_the_oldest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: only the events in memory are looked at."""
    monkeypatch.setattr(writing._Transaction, "_first_stored", lambda *_: {})
    assert await finds_on_sqlite(6, tmp_path, remembered=3)


async def test_a_check_before_the_lock() -> None:
    """Bug: the conditions are checked, then the lock is taken, then the events are inserted."""

    class CheckThenLock(MemoryLog):
        async def append(self, batch: Sequence[Append]) -> list[Outcome]:
            for append in batch:
                for index, condition in enumerate(append.conditions):
                    if condition.since is None and not condition.seen:
                        refused = self._check(condition, index, [])
                        if refused is not None and len(batch) == 1 and append.key is None:
                            return [refused]
            await asyncio.sleep(0)
            if len(batch) == 1:
                batch = [replace(batch[0], conditions=())]
            return await super().append(batch)

    assert await finds(6, CheckThenLock)


async def test_a_reader_of_an_older_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: what another process appended since is not seen by conditions (REPEATABLE READ)."""
    catch_up = writing._Transaction._catch_up

    def forgetful(transaction: Any) -> None:
        recent = transaction._recent
        before = recent.head
        (head,) = transaction._connection.execute(statements.SQL["head"]).fetchone()
        if before and head > before:
            for position in range(before + 1, head + 1):
                recent.add(position, "", ())
        catch_up(transaction)

    monkeypatch.setattr(writing._Transaction, "_catch_up", forgetful)
    assert await finds_on_sqlite(6, tmp_path)


async def test_a_false_conflict() -> None:
    """Bug: disjoint boundaries conflict, as rows on one page of an index do."""

    class Coarse(MemoryLog):
        def _check(self, condition: Any, index: int, earlier: Any) -> Refused | None:
            refused = super()._check(condition, index, earlier)
            if refused is None and condition.since is None and condition.after < len(self._events):
                return Refused("conflict", len(self._events), condition=index)
            return refused

    assert await finds(7, Coarse)


async def test_a_conflict_with_what_was_known() -> None:
    """Bug: the positions that the caller knows of are objected to."""

    class Suspicious(MemoryLog):
        def _check(self, condition: Any, index: int, earlier: Any) -> Refused | None:
            return super()._check(replace(condition, known=()), index, earlier)

    assert await finds(7, Suspicious)


async def test_an_append_that_builds_on_nothing() -> None:
    """Bug: that an earlier append of the batch was refused does not matter to those upon it."""

    class Groundless(MemoryLog):
        def _check(self, condition: Any, index: int, earlier: Any) -> Refused | None:
            refused = super()._check(condition, index, earlier)
            return None if refused and refused.reason == "unfounded" else refused

    assert await finds(6, Groundless)


# --- keys -----------------------------------------------------------------------------------------


async def test_a_retry_that_forgets_the_key() -> None:
    """Bug: after a lost answer the append is sent again, without its key."""

    class Retrying(MemoryLog):
        async def append(self, batch: Sequence[Append]) -> list[Outcome]:
            await super().append(batch)
            return await super().append([replace(one, key=None, rejection=None) for one in batch])

    assert await finds({1, 2}, Retrying)


async def test_keys_that_are_not_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: ON CONFLICT DO NOTHING in the place of the look-up."""
    monkeypatch.setattr(writing, "recall", lambda *_: {})
    ignoring = statements.SQL["insert_keys"].replace("INSERT", "INSERT OR IGNORE")
    monkeypatch.setitem(statements.SQL, "insert_keys", ignoring)
    statements._insert_sql.cache_clear()
    try:
        assert await finds_on_sqlite(1, tmp_path)
    finally:
        monkeypatch.undo()
        statements._insert_sql.cache_clear()


async def test_a_key_that_answers_other_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: the content is not compared."""
    answer = Judge.answer

    def careless(judge: Any, append: Append, earlier: Any) -> Any:
        if append.key in judge._answers:
            return judge._answers[append.key][1]
        return answer(judge, append, earlier)

    monkeypatch.setattr(Judge, "answer", careless)
    assert await finds_on_sqlite(1, tmp_path)


async def test_conditions_before_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a retry conflicts with its own events."""
    answer = Judge.answer

    def hasty(judge: Any, append: Append, earlier: Any) -> Any:
        for index, condition in enumerate(append.conditions):
            if refused := judge._check(condition, index, earlier):
                return refused
        return answer(judge, append, earlier)

    monkeypatch.setattr(Judge, "answer", hasty)
    assert await finds_on_sqlite(7, tmp_path)


async def test_a_key_that_is_forgotten() -> None:
    """Bug: keys are kept for a while only."""

    class Forgetful(MemoryLog):
        async def append(self, batch: Sequence[Append]) -> list[Outcome]:
            outcomes = await super().append(batch)
            while len(self._kept) > 2:
                del self._kept[next(iter(self._kept))]
            return outcomes

    assert await finds(1, Forgetful)


# --- what is stored -------------------------------------------------------------------------------


async def test_success_for_what_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: ON CONFLICT DO NOTHING on the events, from a head that was read before the lock."""
    monkeypatch.setattr(writing._Transaction, "_catch_up", _stale_head)
    ignoring = statements.SQL["insert_events"].replace("INSERT", "INSERT OR IGNORE")
    monkeypatch.setitem(statements.SQL, "insert_events", ignoring)
    statements._insert_sql.cache_clear()
    try:
        assert await finds_on_sqlite(1, tmp_path)
    finally:
        monkeypatch.undo()
        statements._insert_sql.cache_clear()


def _stale_head(_: object) -> None:
    """Believe that nobody else appends."""


async def test_a_lost_event() -> None:
    """Bug: the last event of some appends is acknowledged, and not stored."""

    class Losing(MemoryLog):
        def _store(self, append: Append) -> None:
            super()._store(append)
            if len(append.events) == 2:
                self._events[-1] = self._events[-2]

    assert await finds(1, Losing)


async def test_a_failed_append_that_is_stored() -> None:
    """Bug: "nothing was stored" is said of what was."""

    class Failing(MemoryLog):
        async def append(self, batch: Sequence[Append]) -> list[Outcome]:
            await super().append(batch)
            raise Unavailable("The reply was lost")

    assert await finds(3, Failing)


async def test_a_refused_append_that_is_stored() -> None:
    """Bug: the append is refused after its events were written, and not rolled back."""

    class Half(MemoryLog):
        def _check(self, condition: Any, index: int, earlier: Any) -> Refused | None:
            refused = super()._check(condition, index, earlier)
            if refused is not None:
                self._store(self._now)
            return refused

        def _answer(self, append: Append, earlier: list[Outcome]) -> Outcome:
            self._now = append
            return super()._answer(append, earlier)

    assert await finds(3, Half)


async def test_an_unknown_append_that_is_stored_twice() -> None:
    """Bug: an append that was cancelled under way is sent again."""

    class Eager(MemoryLog):
        async def append(self, batch: Sequence[Append]) -> list[Outcome]:
            outcomes = await super().append(batch)
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                await super().append([replace(append, key=None) for append in batch])
                raise
            return outcomes

    assert await finds(2, Eager)


async def test_a_batch_torn_by_cancellation() -> None:
    """Bug: each append has a transaction of its own, and a cancelled batch ends in between."""

    class Torn(MemoryLog):
        async def append(self, batch: Sequence[Append]) -> list[Outcome]:
            outcomes: list[Outcome] = []
            for append in batch:
                outcomes.append(self._answer(append, outcomes))
                await asyncio.sleep(0)
            return outcomes

    assert await finds(2, Torn)


async def test_a_swallowed_cancellation() -> None:
    """Bug: a cancelled append answers as if it had taken place."""

    class Swallowing(MemoryLog):
        async def append(self, batch: Sequence[Append]) -> list[Outcome]:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                head = len(self._events)
                return [Appended(head + 1, head + len(append.events)) for append in batch]
            return await super().append(batch)

    assert await finds({1, 4}, Swallowing)


async def test_changed_bytes() -> None:
    """Bug: JSON is stored decoded and written anew (as by jsonb)."""

    class Normalising(MemoryLog):
        def _store(self, append: Append) -> None:
            def again(text: bytes) -> bytes:
                return msgspec.json.encode(msgspec.json.decode(text))

            events = tuple([replace(event, data=again(event.data)) for event in append.events])
            super()._store(replace(append, events=events))

    assert await finds(1, Normalising)


async def test_lost_tags() -> None:
    """Bug: of an event's tags only the first is stored."""

    class OneTag(MemoryLog):
        def _store(self, append: Append) -> None:
            events = tuple([replace(event, tags=event.tags[:1]) for event in append.events])
            super()._store(replace(append, events=events))

    assert await finds(1, OneTag)


# --- order ----------------------------------------------------------------------------------------


async def test_a_hole_in_the_positions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: positions come from a sequence, and a refused append uses one up."""
    check = Judge._check

    def wasteful(judge: Any, *arguments: Any) -> Any:
        refused = check(judge, *arguments)
        if refused is not None:
            judge._recent.head += 1
            if not judge.new:
                judge.begun_at += 1
        return refused

    monkeypatch.setattr(Judge, "_check", wasteful)
    assert await finds_on_sqlite(4, tmp_path)


async def test_another_order_inside_an_append() -> None:
    """Bug: the events of an append are inserted in the order of a set."""

    class Shuffling(MemoryLog):
        def _store(self, append: Append) -> None:
            super()._store(replace(append, events=append.events[::-1]))

    assert await finds(4, Shuffling)


async def test_another_order_inside_a_batch() -> None:
    """Bug: the last append of a batch is stored first."""

    class Backwards(MemoryLog):
        async def append(self, batch: Sequence[Append]) -> list[Outcome]:
            if any(condition.seen or condition.since for a in batch for condition in a.conditions):
                return await super().append(batch)
            return (await super().append(batch[::-1]))[::-1]

    assert await finds(4, Backwards)


async def test_a_head_from_a_replica() -> None:
    """Bug: the head is read where the last append may not have arrived yet."""

    class Replica(MemoryLog):
        async def head(self) -> int:
            return max(0, await super().head() - 2)

    assert await finds(5, Replica)
