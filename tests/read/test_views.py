"""Views: declared as structs, kept in typed columns."""

from __future__ import annotations

import enum
import sqlite3
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import msgspec
import pytest
import sqlalchemy
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.errors import DefinitionError, Invalid
from diptych.read.port import Change, Checkpoint, Kept, Writes
from diptych.read.select import column, select
from diptych.read.stores.sqlite import SqliteViews
from diptych.read.views import Key, View, definition_of
from diptych.sql.sqlite import Database


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Point(msgspec.Struct, frozen=True):
    x: int
    at: datetime | None = None


class Everything(View):
    key: Key[str]
    number: int
    real: float
    flag: bool
    money: Decimal
    at: datetime
    day: date
    id: UUID
    colour: Colour
    level: Level
    point: Point
    names: list[str]
    maybe: Decimal | None
    maybe_at: datetime | None
    maybe_int: int | None


class Plain(View):
    """No float: rows come back as one aggregated JSON text."""

    key: Key[str]
    money: Decimal
    at: datetime
    flag: bool
    text: str | None


class Compound(View):
    airport: Key[str]
    day: Key[date]
    flights: int


async def opened(*views: type[View]) -> SqliteViews:
    store = SqliteViews(Database(None))
    await store.open("log", {"p": Kept(tuple(views))})
    return store


async def put(store: SqliteViews, view: type[View], *rows: View) -> None:
    checkpoint = (await store.checkpoints())["p"][0]
    after = Checkpoint("p", "log", checkpoint.position + 1, "event", checkpoint.count + 1)
    assert await store.apply([Change(checkpoint, after, {}, (Writes(view, list(rows), []),))]) == [
        True
    ]


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
AWARE = st.datetimes(
    min_value=datetime(1, 1, 3),
    max_value=datetime(9999, 12, 29),
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
)
MONEY = st.decimals(allow_nan=False, allow_infinity=False)
INT64 = st.integers(-(2**63), 2**63 - 1)
EVERYTHING = st.builds(
    Everything,
    TEXT,
    INT64,
    st.floats(allow_nan=False),
    st.booleans(),
    MONEY,
    AWARE,
    st.dates(),
    st.uuids(),
    st.sampled_from(Colour),
    st.sampled_from(Level),
    st.builds(Point, INT64, st.none() | AWARE),
    st.lists(TEXT),
    st.none() | MONEY,
    st.none() | AWARE,
    st.none() | INT64,
)
PLAIN = st.builds(Plain, TEXT, MONEY, AWARE, st.booleans(), st.none() | TEXT)


@settings(max_examples=60, deadline=None)
@given(st.lists(EVERYTHING, max_size=8, unique_by=lambda r: r.key))
async def test_every_field_type_comes_back_as_it_was(rows: list[Everything]) -> None:
    store = await opened(Everything)
    await put(store, Everything, *rows)
    found = (await store.all(select(Everything))).rows
    assert sorted(found, key=lambda r: r.key) == sorted(rows, key=lambda r: r.key)
    assert await store.load(Everything, [r.key for r in rows] + ["absent"]) == {
        r.key: r for r in rows
    }
    for row in rows:
        assert (await store.get(Everything, row.key)).rows == [row]
    await store.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(PLAIN, max_size=8, unique_by=lambda r: r.key))
async def test_rows_that_come_as_one_text_come_back_as_they_were(rows: list[Plain]) -> None:
    store = await opened(Plain)
    await put(store, Plain, *rows)
    found = (await store.all(select(Plain))).rows
    assert sorted(found, key=lambda r: r.key) == sorted(rows, key=lambda r: r.key)
    assert await store.load(Plain, [r.key for r in rows]) == {r.key: r for r in rows}
    await store.close()


async def test_decimals_sort_and_compare_by_value_exactly() -> None:
    store = await opened(Plain)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    values = ["10", "9", "-1", "1.00", "1.0000000000000000000001", "100000000000000000000000.1"]
    await put(store, Plain, *[Plain(v, Decimal(v), at, True, None) for v in values])
    ordered = (await store.all(select(Plain).order_by(Plain.money))).rows
    assert [r.key for r in ordered] == [
        "-1", "1.00", "1.0000000000000000000001", "9", "10", "100000000000000000000000.1",
    ]  # fmt: skip
    one = (await store.all(select(Plain).where(Plain.money == Decimal(1)))).rows
    assert [r.key for r in one] == ["1.00"]
    more = (await store.all(select(Plain).where(Plain.money > Decimal("9.5")))).rows
    assert {r.key for r in more} == {"10", "100000000000000000000000.1"}
    await store.close()


async def test_sum_of_decimals_in_sql_is_refused_not_rounded() -> None:
    store = await opened(Plain)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    await put(store, Plain, Plain("a", Decimal("0.1"), at, True, None))
    with pytest.raises(Invalid, match="not exact"):
        await store.rows(select(sqlalchemy.func.sum(Plain.money)))
    await store.close()


async def test_datetimes_are_readable_text_in_utc_that_sorts() -> None:
    store = await opened(Plain)
    east = timezone(timedelta(hours=2))
    early = Plain("a", Decimal(1), datetime(2026, 1, 1, 1, tzinfo=east), True, None)
    late = Plain("b", Decimal(1), datetime(2025, 12, 31, 23, 30, 0, 5, UTC), True, None)
    await put(store, Plain, late, early)
    found = await store.database.read(
        lambda c: c.execute("SELECT at, money, flag FROM plain ORDER BY at").fetchall()
    )
    assert found == [
        ("2025-12-31T23:00:00.000000Z", "1", 1),
        ("2025-12-31T23:30:00.000005Z", "1", 1),
    ]
    await store.close()


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("at", datetime(2026, 1, 1), "time zone"),
        ("number", 2**63, "2\\^63"),
        ("real", float("nan"), "NaN"),
        ("money", Decimal("Infinity"), "finite"),
        ("money", Decimal("1E+200000"), "at most 2000 digits"),
        ("point", Point(1, datetime(2026, 1, 1)), "time zone"),
    ],
)
async def test_what_a_column_cannot_hold_is_refused_with_the_rule(
    field: str, value: Any, rule: str
) -> None:
    store = await opened(Everything)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    good = Everything(
        "k", 1, 1.5, True, Decimal(1), at, at.date(), UUID(int=1), Colour.RED, Level.LOW,
        Point(1), [], None, None, None,
    )  # fmt: skip
    with pytest.raises(Invalid, match=rule) as caught:
        await put(store, Everything, msgspec.structs.replace(good, **{field: value}))
    named = caught.value.field.partition(".")[0]
    assert (named, caught.value.facts["view"]) == (field, "Everything")
    await store.close()


async def test_compound_keys_are_tuples() -> None:
    store = await opened(Compound)
    rows = [Compound(a, date(2026, 1, d), d) for a in ("JFK", "LGA") for d in (1, 2, 3)]
    await put(store, Compound, *rows)
    keys = [("JFK", date(2026, 1, 2)), ("LGA", date(2026, 1, 3)), ("EWR", date(2026, 1, 1))]
    assert await store.load(Compound, keys) == {keys[0]: rows[1], keys[1]: rows[5]}
    assert (await store.get(Compound, keys[0])).rows == [rows[1]]
    await store.close()


def test_a_class_gives_columns_and_a_row_gives_values() -> None:
    row = Compound("JFK", date(2026, 1, 1), 3)
    assert row.flights == 3
    assert isinstance(Compound.flights, sqlalchemy.Column)
    plain = sqlalchemy.select(Compound).where(column(Compound.flights) > 2)
    assert "FROM compound" in str(plain)


def test_indexes_and_table_name_come_from_the_class_statement() -> None:
    class Busy(View, table="busy_things", indexes=(("b", "a"),)):
        a: Key[int]
        b: int

    table = definition_of(Busy).table
    assert table.name == "busy_things"
    assert [[c.name for c in index.columns] for index in table.indexes] == [["b", "a"]]
    assert definition_of(Compound).table_name == "compound"


class NoKey(View):
    a: int


class Bytes(View):
    a: Key[int]
    b: bytes


class OptionalKey(View):
    a: Key[int | None]


class FloatKey(View):
    a: Key[float]


class BadIndex(View, indexes=(("b",),)):
    a: Key[int]


class Nested(View):
    a: Key[int]
    b: list[object]


class Mixed(enum.Enum):
    A = 1
    B = "b"


class MixedEnum(View):
    a: Key[int]
    b: Mixed


@pytest.mark.parametrize(
    ("view", "rule"),
    [
        (NoKey, "needs a key"),
        (Bytes, "A view's field is"),
        (OptionalKey, "not optional"),
        (FloatKey, "not a float"),
        (BadIndex, "An index names fields"),
        (MixedEnum, "all str, or all int"),
    ],
)
def test_what_cannot_be_a_view_is_named_by_file_and_line(view: type[View], rule: str) -> None:
    with pytest.raises(DefinitionError, match=rule) as caught:
        _ = definition_of(view).fields
    assert "test_views.py:" in caught.value.at


def test_reserved_table_names_are_refused() -> None:
    with pytest.raises(DefinitionError, match="are taken"):

        class Bad(View, table="diptych_things"):
            a: Key[int]


async def test_a_table_of_other_columns_is_refused(tmp_path: Any) -> None:
    class One(View, table="same"):
        a: Key[int]

    class Two(View, table="same"):
        a: Key[int]
        b: str

    store = SqliteViews(Database(None))
    await store.open("log", {"p": Kept((One,))})
    with pytest.raises(DefinitionError, match="has changed since") as caught:
        await store.open("log", {"p": Kept((Two,))})
    assert caught.value.facts["changed"] == "b"
    await store.close()


def test_declaring_views_does_not_load_sqlalchemy() -> None:
    code = (
        "import sys; from diptych.read.views import View, Key\n"
        "from diptych.read import queries, select\n"
        "from diptych.read.following import engine, inline\n"
        "from diptych.read.proving import verify\n"
        "from diptych.read.stores import sqlite\n"
        "class V(View):\n    a: Key[int]\n"
        "assert V(1).a == 1 and 'sqlalchemy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_largest_chunk_fits_any_sqlite() -> None:
    from diptych.read.stores.sqlite.rows import MOST_VALUES, chunks

    connection = sqlite3.connect(":memory:")
    assert connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) >= MOST_VALUES
    connection.close()
    for width in (1, 10, 100, 1000):
        parts = list(chunks(1234, width))
        assert sum(size for _, size in parts) == 1234
        assert all(size * width <= MOST_VALUES for _, size in parts)


class Narrow(View):
    key: Key[str]
    whole: int = 0
    exact: Decimal | None = None
    day: date = date(2026, 1, 1)
    parts: tuple[int, ...] = ()
    kind: Literal["a", "b"] = "a"


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("whole", None, "int"),
        ("whole", "", "int"),
        ("whole", 1.5, "int"),
        ("whole", [1], "int"),
        ("whole", 2**70, "2^63"),
        ("exact", "abc", "Decimal"),
        ("exact", 1.5, "Decimal"),
        ("day", datetime(2026, 1, 1, tzinfo=UTC), "date"),
        ("parts", ["x"], "int"),
        ("kind", "c", "'a', 'b'"),
        ("key", 5, "str"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_column(
    column: str, value: object, rule: str
) -> None:
    """What a fold returns is not checked by Python: the row is refused, never stored or hung on."""
    row = msgspec.structs.replace(Narrow("k"), **{column: value})
    for dialect in ("sqlite", "postgresql"):
        with pytest.raises(Invalid) as refused:
            definition_of(Narrow).on(dialect).to_columns([Narrow("j"), row])
        assert refused.value.field.startswith(column)
        assert refused.value.view == "Narrow"
        assert rule in refused.value.rule


def test_a_member_of_an_int_enum_is_an_int_that_can_be_stored() -> None:
    """Quickly: `in range(...)` would count up to it."""

    class Step(enum.IntEnum):
        ONE = 1

    class Count(View):
        name: Key[str]
        number: int

    columns = definition_of(Count).on("sqlite").to_columns([Count("a", Step.ONE)])
    assert [list(column) for column in columns] == [["a"], [1]]
