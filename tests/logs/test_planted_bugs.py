"""The contract finds the bugs that it is there to find."""

import asyncio
import inspect
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from diptych.log import Append, Appended, EventQuery, Log, Page, QueryItem
from diptych.logs.memory import MemoryLog
from diptych.logs.sqlite import SqliteLog, reading, statements, writing
from diptych.sql.judge import Judge
from diptych.sql.recent import Recent
from diptych.testing.contracts import LogContract


def failures(contract: LogContract) -> list[str]:
    """Run the contract's tests, but for the model's; return the name of the first that fails."""
    for name, test in inspect.getmembers(contract, inspect.ismethod):
        if not (name.startswith("test_") and inspect.iscoroutinefunction(test)):
            continue
        try:
            asyncio.run(asyncio.wait_for(test(), timeout=60))
        except Exception:
            return [name]
    return []


class OnSqlite(LogContract):
    def __init__(self, folder: Path, remembered: int) -> None:
        self.folder = folder
        self.remembered = remembered

    async def make_log(self) -> Log:
        return await SqliteLog.open(self.folder / f"{uuid4()}.db", remembered=self.remembered)


class OnMemory(LogContract):
    def __init__(self, make: Callable[[], Log]) -> None:
        self.make = make

    async def make_log(self) -> Log:
        return self.make()


@pytest.fixture(params=[25_000, 3])
def on_sqlite(request: pytest.FixtureRequest, tmp_path: Path) -> OnSqlite:
    return OnSqlite(tmp_path, request.param)


def test_a_sound_log_fails_nothing(on_sqlite: OnSqlite) -> None:
    """Without a planted bug the harness of these tests reports none."""
    assert failures(on_sqlite) == []
    assert failures(OnMemory(MemoryLog)) == []


# --- the condition check ------------------------------------------------------------------------


def test_an_unchecked_condition_is_found(
    on_sqlite: OnSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: conditions are not checked at all."""
    monkeypatch.setattr(Judge, "_check", lambda *_: None)
    assert failures(on_sqlite)


def test_a_check_that_forgets_the_newest_is_found(
    on_sqlite: OnSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: the events in memory are not looked at, so racers win together."""
    monkeypatch.setattr(Recent, "first", lambda *_: 0)
    assert failures(on_sqlite)


def test_a_check_that_forgets_the_oldest_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: only the events in memory are looked at."""
    monkeypatch.setattr(writing._Transaction, "_first_stored", lambda *_: {})
    assert failures(OnSqlite(tmp_path, 3))


def test_a_check_blind_to_its_own_batch_is_found(
    on_sqlite: OnSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: an append does not see the earlier ones of its transaction."""
    first = Recent.first

    def blind(recent: Recent, query: EventQuery, after: int, known: Any) -> int:
        found = first(recent, query, after, known)
        return found if found <= recent.start + 1 else 0

    monkeypatch.setattr(Recent, "first", blind)
    assert failures(on_sqlite)


def test_tags_that_mean_any_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: of several tags in an item one is enough."""

    def matches(item: QueryItem, type_name: str, tags: Sequence[str]) -> bool:
        typed = not item.types or type_name in item.types
        return typed and (not item.tags or bool(item.tags & set(tags)))

    monkeypatch.setattr(QueryItem, "matches", matches)
    assert failures(OnMemory(MemoryLog))


# --- idempotency --------------------------------------------------------------------------------


def test_keys_that_are_not_looked_up_are_found(
    on_sqlite: OnSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: ON CONFLICT DO NOTHING in the place of the look-up."""
    monkeypatch.setattr(writing, "recall", lambda *_: {})
    ignoring = statements.SQL["insert_keys"].replace("INSERT", "INSERT OR IGNORE")
    monkeypatch.setitem(statements.SQL, "insert_keys", ignoring)
    statements._insert_sql.cache_clear()
    try:
        assert failures(on_sqlite)
    finally:
        monkeypatch.undo()
        statements._insert_sql.cache_clear()


def test_a_key_that_answers_any_content_is_found(
    on_sqlite: OnSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: the content is not compared."""
    answer = Judge.answer

    def careless(judge: Any, append: Append, earlier: Any) -> Any:
        if append.key in judge._answers:
            return judge._answers[append.key][1]
        return answer(judge, append, earlier)

    monkeypatch.setattr(Judge, "answer", careless)
    assert failures(on_sqlite)


def test_conditions_before_the_key_are_found(
    on_sqlite: OnSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: a retry is checked against its own events, and gets a conflict for an answer."""
    answer = Judge.answer

    def hasty(judge: Any, append: Append, earlier: Any) -> Any:
        for index, condition in enumerate(append.conditions):
            if refused := judge._check(condition, index, earlier):
                return refused
        return answer(judge, append, earlier)

    monkeypatch.setattr(Judge, "answer", hasty)
    assert failures(on_sqlite)


# --- order, completeness ------------------------------------------------------------------------


def test_another_order_than_by_position_is_found(
    on_sqlite: OnSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: pages are in order of the events' ids."""
    monkeypatch.setattr(reading, "_position", attrgetter("id"))
    assert failures(on_sqlite)


def test_a_page_that_claims_too_much_is_found() -> None:
    """Bug: the watermark is read after the page, so what came in between is skipped."""

    class WatermarkLast(MemoryLog):
        async def read(self, *args: Any, **options: Any) -> Page:
            page = await super().read(*args, **options)
            await asyncio.sleep(0)
            if len(page.events) < options.get("limit", 1000) and options.get("until") is None:
                return Page(page.events, upto=max(page.upto, await self.head()))
            return page

    assert failures(OnMemory(WatermarkLast))


def test_a_hole_in_the_positions_is_found() -> None:
    """Bug: a refused append uses up a position."""

    class Holey(MemoryLog):
        async def append(self, batch: Any) -> Any:
            outcomes = await super().append(batch)
            lost = sum(not isinstance(outcome, Appended) for outcome in outcomes)
            self._events += self._events[-1:] * lost
            return outcomes

    assert failures(OnMemory(Holey))


def test_a_lost_wake_up_is_found() -> None:
    """Bug: nobody is woken."""

    class Sleepy(MemoryLog):
        def _wake(self) -> None:
            pass

    contract = OnMemory(Sleepy)
    contract.patience = 0.2
    assert failures(contract)
