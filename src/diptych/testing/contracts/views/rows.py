"""What every view store does with rows."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from diptych.errors import Invalid
from diptych.read.port import View
from diptych.read.select import select
from diptych.testing.contracts.views.making import (
    AT,
    SAMPLE,
    Colour,
    Counter,
    Everything,
    Leg,
    Level,
    Marker,
    Point,
    StoreMaker,
    by_key,
    error_of,
    put,
    same_row,
    sample,
)

KOLKATA = timezone(timedelta(hours=5, minutes=30))

VALUES: dict[str, list[Any]] = {
    "text": ["", "'", '"', "\\", "a\nb\t", "é", "e\u0301", "\U0001f6eb", "\uffff", "null", "{}"],
    "number": [0, -1, 2**63 - 1, -(2**63), 2**53 + 1],
    "real": [0.0, -0.0, 0.1, 1e22, 1e16, 5e-324, 1.7976931348623157e308, math.inf, -math.inf],
    "flag": [True, False],
    "money": [
        Decimal(text)
        for text in (
            "0", "0.00", "-0.01", "10000", "120000000000", "1.10", "100.000", "1E-20",
            "0.1234567890123456789", "123456789012345678901234567890.12345678901234567890",
            "-99999999999999999999", "1" + "0" * 1999, "-1E-2000", "9" * 2000 + "." + "9" * 2000,
        )
    ],
    "at": [
        AT,
        datetime(1, 1, 2, tzinfo=UTC),
        datetime(9999, 12, 30, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC),
        datetime(2024, 2, 29, 23, 0, tzinfo=KOLKATA),
    ],
    "day": [date(1, 1, 1), date(9999, 12, 31), date(2024, 2, 29)],
    "id": [UUID(int=0), UUID(int=2**128 - 1)],
    "colour": list(Colour),
    "level": list(Level),
    "size": ["s", "l"],
    "point": [Point(2**63 - 1, "\0 'é\"", AT), Point(-1)],
    "names": [[], ["", "a,b", '{"}', "\0"], ["x"] * 100],
    "maybe": [None, Decimal("1.50"), Decimal(500)],
    "maybe_at": [None, AT],
    "maybe_int": [None, 0],
    "maybe_text": [None, "", "NULL"],
    "maybe_id": [None, UUID(int=1)],
    "maybe_flag": [None, False],
    "maybe_colour": [None, Colour.BLUE],
    "maybe_point": [None, Point(1)],
}  # fmt: skip
"""Values worth a look, for each field."""

REFUSED: dict[str, list[Any]] = {
    "number": [2**63, -(2**63) - 1],
    "maybe_int": [2**64],
    "real": [math.nan],
    "money": [
        Decimal(text)
        for text in ("Infinity", "NaN", "NaN1", "1E+2000", "1E-2001", "1E+999999999", "0E+200000")
    ],
    "maybe": [Decimal("-Infinity"), Decimal("-1E+200000")],
    "at": [datetime(2026, 1, 1)],
    "maybe_at": [datetime(2026, 1, 1)],
    "point": [Point(1, at=datetime(2026, 1, 1))],
}
"""Values that no column may take, for each field."""


class RowContract(StoreMaker):
    """Rows come back as they were, to the type and the last digit."""

    async def test_values_of_every_kind_come_back_as_they_were(self) -> None:
        """By a select, by key, and loaded: equal, of the same type, decimals of the same scale."""
        rows = [
            sample(f"{field} {number}", **{field: value})
            for field, values in VALUES.items()
            for number, value in enumerate(values)
        ]
        async with self.new_store() as store:
            await put(store, *rows)
            await put(store, *rows)  # replacing goes the same way as inserting
            found = by_key((await store.all(select(Everything))).rows)
            loaded = await store.load(Everything, [row.key for row in rows])
            assert set(found) == set(loaded) == {row.key for row in rows}
            for row in rows:
                expected = sample(row.key, **{f: _stored(getattr(row, f)) for f in VALUES})
                (got,) = (await store.get(Everything, row.key)).rows
                for version in (found[row.key], loaded[row.key], got):
                    assert same_row(version, expected), (version, expected)

    async def test_datetimes_come_back_in_utc(self) -> None:
        """Whatever the time zone that they were written in."""
        async with self.new_store() as store:
            await put(store, sample("a", at=datetime(2026, 1, 1, 2, tzinfo=KOLKATA)))
            (row,) = (await store.all(select(Everything))).rows
            assert row.at.isoformat() == "2025-12-31T20:30:00+00:00"

    async def test_what_no_column_may_take_is_refused_and_nothing_is_written(self) -> None:
        """``Invalid``; neither the row nor its neighbours nor the checkpoint change."""
        async with self.new_store() as store:
            for field, values in REFUSED.items():
                for value in values:
                    rows = sample("good"), sample("bad", **{field: value})
                    await error_of(put(store, *rows), Invalid)
            assert (await store.all(select(Everything))).rows == []
            assert (await store.checkpoints())["everything"][0].position == 0

    async def test_rows_are_inserted_replaced_and_deleted_in_one_step(self) -> None:
        """A key is there once; what is deleted is gone; deleting what is not there is nothing."""
        async with self.new_store() as store:
            await put(store, *[Counter(f"c{n}", n) for n in range(5)])
            await put(store, Counter("c1", 10), Counter("c9", 9), deleted=["c2", "c3", "absent"])
            assert by_key((await store.all(select(Counter))).rows) == by_key(
                [Counter("c0", 0), Counter("c1", 10), Counter("c4", 4), Counter("c9", 9)]
            )
            await put(store, deleted=["c0", "c1", "c4", "c9"], view=Counter)
            assert (await store.all(select(Counter))).rows == []

    async def test_keys_of_several_parts_are_tuples(self) -> None:
        """All parts count."""
        days = [date(2026, 1, n) for n in (1, 2)]
        rows = [Leg(f, d, n, f"{f} {d} {n}") for f in (1, 2) for d in days for n in Level]
        async with self.new_store() as store:
            await put(store, *rows)
            keys = [(row.flight, row.day, row.leg) for row in rows]
            asked = [keys[0], keys[3], keys[6], (3, days[0], Level.LOW)]
            assert await store.load(Leg, asked) == {keys[n]: rows[n] for n in (0, 3, 6)}
            assert (await store.get(Leg, keys[5])).rows == [rows[5]]
            assert (await store.get(Leg, (9, days[0], Level.LOW))).rows == []
            await put(store, deleted=[keys[0], keys[7], (9, days[0], Level.LOW)], view=Leg)
            assert by_key((await store.all(select(Leg))).rows) == by_key(rows[1:7])

    async def test_a_view_may_be_nothing_but_its_key(self) -> None:
        """Written twice, it is there once."""
        async with self.new_store() as store:
            rows = [Marker(UUID(int=n)) for n in range(3)]
            await put(store, *rows)
            await put(store, *rows, deleted=[UUID(int=9)])
            assert by_key((await store.all(select(Marker))).rows) == by_key(rows)
            assert await store.load(Marker, [UUID(int=1), UUID(int=5)]) == {
                UUID(int=1): Marker(UUID(int=1))
            }

    async def test_many_rows_are_written_loaded_and_deleted_at_once(self) -> None:
        """Thousands, of which some are there already."""
        async with self.new_store() as store:
            rows: list[View] = [Counter(f"c{n:05d}", n) for n in range(5000)]
            await put(store, *rows[::2])
            await put(store, *rows)
            keys = [f"c{n:05d}" for n in range(0, 9000, 2)]
            loaded = await store.load(Counter, keys)
            assert loaded == {f"c{n:05d}": Counter(f"c{n:05d}", n) for n in range(0, 5000, 2)}
            await put(store, deleted=list(loaded), view=Counter)
            left = (await store.all(select(Counter).order_by(Counter.name))).rows
            assert left == rows[1::2]

    async def test_keys_that_no_row_can_have_are_not_found(self) -> None:
        """Loading them finds the others: it is writing their row that fails."""
        async with self.new_store() as store:
            leg = Leg(1, date(2026, 1, 1), Level.LOW, "x")
            await put(store, leg)
            bad = (2**70, leg.day, leg.leg)
            assert await store.load(Leg, [bad, (1, leg.day, leg.leg)]) == by_key([leg])
            assert await store.load(Leg, [bad]) == {}


def _stored(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value


__all__ = ["SAMPLE", "RowContract"]
