"""The contract of view stores finds the bugs that it is there to find."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from itertools import count
from typing import Any

import pytest

from diptych.read import kinds
from diptych.read.port import Change, Found, Storage, ViewStore
from diptych.read.stores.postgres import PostgresViews, desk, dialect, rows, schema
from diptych.read.stores.postgres.transactions import PostgresTransaction
from diptych.sql.postgres import Database
from diptych.testing.contracts.views import ViewStoreContract
from diptych.testing.servers import PostgresServer

numbers = count(1)


class Contract(ViewStoreContract):
    def __init__(self, url: str, store: type[PostgresViews] = PostgresViews) -> None:
        self.url = url
        self.store = store

    async def make_store(self) -> ViewStore:
        return self.store(Database(f"{self.url}?schema=b{next(numbers)}"))

    async def same(self, store: ViewStore) -> ViewStore | None:
        assert isinstance(store, PostgresViews)
        return self.store(Database(f"{self.url}?schema={store.database.schema}"))


def fails(contract: ViewStoreContract, *names: str) -> list[str]:
    """Run these of the contract's tests; return the names of those that fail."""
    failed: list[str] = []
    for name in names:
        try:
            asyncio.run(asyncio.wait_for(getattr(contract, f"test_{name}")(), timeout=60))
        except Exception:
            failed.append(name)
    return failed


@pytest.fixture(scope="module")
def url(postgres_server: PostgresServer) -> str:
    """Give the URL of a database for these tests."""
    return postgres_server.new_database()


def test_a_sound_store_fails_nothing(url: str) -> None:
    """Without a planted bug the harness of these tests reports none."""
    methods = inspect.getmembers(ViewStoreContract, inspect.isfunction)
    names = [name.removeprefix("test_") for name, _ in methods if name.startswith("test_")]
    assert len(names) > 30
    assert fails(Contract(url), *names) == []


def in_sql(monkeypatch: pytest.MonkeyPatch, name: str, old: str, new: str) -> None:
    """Change one of the statements on checkpoints."""
    assert old in rows.SQL[name]
    monkeypatch.setitem(rows.SQL, name, rows.SQL[name].replace(old, new))


@pytest.mark.parametrize("field", ["position", "log", "count", "digest", "slice", "revision"])
def test_a_checkpoint_compared_without_a_field_is_found(
    url: str, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    """Bug: the compare-and-set forgets one of its fields."""
    before, where, after = rows.SQL["move"].partition("WHERE")
    careless = after.replace(f"{field} = {{}}", f"({field} = {{}}) IS NOT NULL")
    assert careless != after
    monkeypatch.setitem(rows.SQL, "move", before + where + careless)
    assert fails(
        Contract(url),
        "a_step_from_a_checkpoint_that_moved_writes_nothing",
        "a_step_that_rests_on_an_older_revision_is_not_made",
    )


def test_a_pause_that_raises_no_revision_is_found(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: a step that was on the way when a projection was paused is made."""
    monkeypatch.setitem(desk.SQL, "raise", "SELECT $1::text")
    assert fails(Contract(url), "a_paused_projection_makes_no_step_until_it_is_resumed")


def test_parking_whatever_the_checkpoint_says_is_found(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: what is parked does not wait for the step's compare-and-set."""
    careless = rows._PARTS["put_parked"].replace(
        "SELECT m.projection, p.*\n    FROM moved{n} AS m\n    CROSS JOIN",
        "SELECT 'leg', p.*\n    FROM",
    )
    assert careless != rows._PARTS["put_parked"]
    monkeypatch.setitem(rows._PARTS, "put_parked", careless)
    assert fails(Contract(url), "nothing_is_parked_by_a_step_that_is_not_made")


def test_rows_written_whatever_the_checkpoint_says_are_found(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: the rows of a step do not wait for its compare-and-set."""
    upsert = rows.Rows.upsert
    monkeypatch.setattr(rows.Rows, "upsert", lambda self, _beside="": upsert(self))
    assert fails(Contract(url), "a_step_from_a_checkpoint_that_moved_writes_nothing")


def test_new_rows_copied_whatever_the_checkpoint_says_are_found(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: the rows that are copied in do not wait for the step's compare-and-set."""

    sound = rows.Steps.without_new

    def careless(self: rows.Steps, changes: Sequence[Change]) -> Any:
        kept, copied = sound(self, changes)
        made = len(changes) - 1  # with that of another step
        return kept, [rows.Copied(made, one.into, one.rows) for one in copied]

    monkeypatch.setattr(rows.Steps, "without_new", careless)
    assert fails(Contract(url), "many_new_rows_of_a_step_that_is_not_made_are_not_there")


def test_new_rows_that_are_half_copied_are_found(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a part of the new rows is lost on the way."""
    copy = rows.Rows.copy
    monkeypatch.setattr(rows.Rows, "copy", lambda self, c, new: copy(self, c, new[:1000]))
    assert fails(Contract(url), "many_new_rows_are_written_as_few_are")


def test_new_rows_copied_in_a_transaction_of_their_own_are_found(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: the checkpoint is there, whatever becomes of the rows."""

    async def copy(self: rows.Rows, connection: Any, new: Sequence[Any]) -> None:
        await connection.execute("COMMIT; BEGIN")
        await sound(self, connection, new)

    sound = rows.Rows.copy
    monkeypatch.setattr(rows.Rows, "copy", copy)
    assert fails(
        Contract(url), "a_step_whose_new_rows_are_there_already_is_made_in_full_or_not_at_all"
    )


def test_deletions_whatever_the_checkpoint_says_are_found(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: the deletions of a step do not wait for its compare-and-set."""
    delete = rows.Rows.delete
    monkeypatch.setattr(rows.Rows, "delete", lambda self, _beside="": delete(self))
    assert fails(Contract(url), "a_step_from_a_checkpoint_that_moved_writes_nothing")


def test_blocks_that_add_up_twice_are_found(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a block's tally is added to the one before, not put in its place."""
    in_sql(monkeypatch, "put_blocks", "diptych_blocks (", "diptych_blocks AS old (")
    in_sql(monkeypatch, "put_blocks", "SET count =", "SET count = old.count +")
    assert fails(Contract(url), "a_checkpoint_comes_back_as_it_was")


def test_an_upsert_that_ignores_conflicts_is_found(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: ON CONFLICT DO NOTHING."""
    upsert = rows.Rows.upsert
    monkeypatch.setattr(
        rows.Rows,
        "upsert",
        lambda self, beside="": re.sub(r"DO UPDATE SET .*", "DO NOTHING", upsert(self, beside)),
    )
    assert fails(Contract(url), "a_session_reads_what_it_has_written")


class Apart(PostgresViews):
    """Bug: positions are read after the rows, not with them."""

    async def all(self, statement: Any) -> Found:
        found = await super().all(statement)
        await asyncio.sleep(0)
        checkpoints = await self.checkpoints()
        positions = {name: spans[0].position for name, spans in checkpoints.items()}
        return Found(found.rows, positions, found.turn)


def test_positions_read_after_the_rows_are_found(url: str) -> None:
    """Bug: a query claims to know more than it has read."""
    assert fails(Contract(url, Apart), "rows_and_positions_are_of_one_snapshot")


class Autocommit(PostgresViews):
    """Bug: a session is no transaction."""

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[PostgresTransaction]:
        async with self.database.lease() as connection:
            yield PostgresTransaction(self, connection)


def test_a_session_without_a_transaction_is_found(url: str) -> None:
    """Bug: what a handler did before it raised is kept."""
    assert fails(Contract(url, Autocommit), "a_session_that_raises_leaves_nothing")


class OneByOne(PostgresViews):
    """Bug: each step has a transaction of its own."""

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        return [
            moved for change in changes for moved in await super(OneByOne, self).apply([change])
        ]


def test_steps_in_transactions_of_their_own_are_found(url: str) -> None:
    """Bug: when one fails, the others have been made."""
    assert fails(Contract(url, OneByOne), "one_step_that_cannot_be_written_keeps_all_from_being")


def test_null_where_postgresql_has_it_is_found(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: NULL comes last."""
    monkeypatch.setattr(dialect, "_nulls", lambda *_: "")
    assert fails(Contract(url), "null_comes_before_all_else")


def test_a_like_that_knows_escapes_is_found(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a backslash escapes what follows it."""
    monkeypatch.setattr(dialect.Compiler, "_without_escape", lambda _self, text, _binary: text)
    assert fails(Contract(url), "text_is_matched_by_case_and_character")


@contextmanager
def kept(monkeypatch: pytest.MonkeyPatch, name: str, storage: Storage) -> Generator[None]:
    """Have the contract's views, read anew, keep fields of a kind otherwise."""
    init = kinds.Kind.__init__

    def changed(
        self: Any, kind: str, sqlite: Storage, postgresql: Storage, *types: type, **options: Any
    ) -> None:
        init(self, kind, sqlite, storage if kind == name else postgresql, *types, **options)

    from diptych.testing.contracts.views.making import VIEWS

    definitions = [view.__view__ for one in VIEWS.values() for view in one.views]
    before = [dict(vars(d)) for d in definitions]
    with monkeypatch.context() as patch:
        patch.setattr(kinds.Kind, "__init__", changed)
        try:
            for definition in definitions:
                definition._fields = definition._table = None
                definition._layouts = {}
                _ = definition.fields
            yield
        finally:
            for definition, values in zip(definitions, before, strict=True):
                vars(definition).update(values)


@pytest.mark.parametrize(
    ("kind", "storage"),
    [
        ("decimal", Storage("double precision", float, Decimal)),
        ("decimal", Storage("numeric")),
        ("uuid", Storage("uuid")),
        ("datetime", Storage("timestamp with time zone")),
        ("int", Storage("bigint", float, int)),
    ],
)
def test_values_kept_inexactly_are_found(
    url: str, monkeypatch: pytest.MonkeyPatch, kind: str, storage: Storage
) -> None:
    """Bugs: binary fractions, lost scale, the driver's own types, naive datetimes."""
    with kept(monkeypatch, kind, storage):
        assert fails(
            Contract(url),
            "values_of_every_kind_come_back_as_they_were",
            "what_no_column_may_take_is_refused_and_nothing_is_written",
        )


def test_columns_that_are_not_compared_are_found(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a view that has changed goes on in the table of the old one."""
    monkeypatch.setattr(schema, "_require_columns", lambda *_: None)
    assert fails(Contract(url), "a_table_of_other_columns_is_refused")


def test_tables_made_anew_for_old_checkpoints_are_found(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: a table that was dropped is made again, empty, and taken for complete."""
    monkeypatch.setattr(schema, "require_tables", lambda *_: None)
    assert fails(Contract(url), "a_table_that_is_not_there_is_made_only_before_the_first_event")


def test_tables_made_without_a_lock_are_found(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: those who open at once make the same tables, and fail."""
    monkeypatch.setitem(schema._SQL, "lock", "SELECT $1::bigint")
    monkeypatch.setattr(schema, "RACES", ())
    assert fails(Contract(url), "several_may_open_a_new_database_at_once")
