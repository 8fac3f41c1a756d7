"""The contract of row stores: what `diptych.read.rowstore.RowStore` promises, as tests.

class TestMyRows(RowStoreContract):
async def make_rows(self) -> RowStore:
return MyRows(...)
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from diptych.errors import DefinitionError, Invalid, Unavailable
from diptych.read.rowstore import Placed, RowStore, RowTable
from diptych.read.views import Key, View, definition_of
from diptych.testing.contracts.views.making import (
    AT,
    LOG,
    SAMPLE,
    Counter,
    Everything,
    Leg,
    Level,
    Marker,
    by_key,
    error_of,
    sample,
)

COUNTERS = RowTable("counter", Counter)
EVERYTHING = RowTable("everything", Everything)
LEGS = RowTable("leg", Leg)
MARKERS = RowTable("marker", Marker)


class Priced(View):
    """A key that is equal to others of another look."""

    price: Key[Decimal]
    text: str


PRICED = RowTable("priced", Priced)


class Wider(View, table="counter"):
    """The counter, changed."""

    name: Key[str]
    value: int
    more: str


def at(position: int, *rows: View) -> dict[Any, Placed]:
    """Return rows as of a position."""
    return {definition_of(type(row)).key_of(row): Placed(row, position) for row in rows}


async def scanned(rows: RowStore, table: RowTable) -> dict[Any, View]:
    """Return all rows of a table, by key."""
    return by_key([row async for row in rows.scan(table)])


class RowStoreContract:
    """What every row store does. Subclass it and say how to make one."""

    async def make_rows(self) -> RowStore:
        """Return a store on a new, empty database."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to make a store")

    async def same(self, rows: RowStore) -> RowStore | None:
        """Return another store on the same database; None where there can be no other."""
        del rows
        return None

    @asynccontextmanager
    async def new_rows(self, *tables: RowTable) -> AsyncGenerator[RowStore]:
        """Make a store with some tables, and close it in the end."""
        rows = await self.make_rows()
        try:
            for table in tables or (COUNTERS,):
                await rows.make(LOG, table)
            yield rows
        finally:
            await rows.close()

    # --- tables -----------------------------------------------------------------------------------

    async def test_a_table_is_there_once_it_is_made_with_the_log_it_belongs_to(self) -> None:
        """Others are not told of."""
        async with self.new_rows(COUNTERS) as rows:
            made = await rows.tables(["counter", "leg"])
            assert {name: one.log for name, one in made.items()} == {"counter": LOG}

    async def test_a_table_that_is_made_again_keeps_its_rows(self) -> None:
        """So each process may make what it needs."""
        async with self.new_rows(COUNTERS) as rows:
            await rows.write(COUNTERS, at(1, Counter("a", 1)))
            await rows.make(LOG, COUNTERS)
            assert await rows.load(COUNTERS, ["a"]) == at(1, Counter("a", 1))

    async def test_a_table_of_other_columns_is_refused(self) -> None:
        """What is there is not what the view says."""
        async with self.new_rows(COUNTERS) as rows:
            error = await error_of(rows.make(LOG, RowTable("counter", Wider)), DefinitionError)
            assert "more" in str(error)

    async def test_a_table_is_dropped_by_its_mark_only_if_it_is_still_that_one(self) -> None:
        """One that was made in its place meanwhile stays."""
        async with self.new_rows(COUNTERS) as rows:
            before = (await rows.tables(["counter"]))["counter"]
            await rows.drop("counter", before.mark)
            assert await rows.tables(["counter"]) == {}
            await rows.make(LOG, COUNTERS)
            await rows.drop("counter", before.mark)
            assert (await rows.tables(["counter"]))["counter"].mark != before.mark

    async def test_another_version_of_a_view_reads_a_table_that_has_its_columns(self) -> None:
        """So what is live is read by programs that know less of it."""
        wider = RowTable("counter", Wider)
        async with self.new_rows(wider) as rows:
            await rows.write(wider, at(1, Wider("a", 1, "more")))
            assert await rows.load(COUNTERS, ["a"]) == at(1, Counter("a", 1))
            assert await scanned(rows, COUNTERS) == {"a": Counter("a", 1)}

    async def test_some_columns_are_read_of_a_table_that_lacks_others(self) -> None:
        """Of all rows there are, or of some keys; deleted ones are none."""
        wider = RowTable("counter", Wider)
        async with self.new_rows(COUNTERS, LEGS) as rows:
            await rows.write(COUNTERS, at(1, *[Counter(f"c{n}", n) for n in range(3000)]))
            await rows.write(COUNTERS, {"c7": Placed(None, 2)})
            found = {key: value async for key, value in rows.values(wider, ["value"])}
            assert found == {f"c{n}": {"value": n} for n in range(3000) if n != 7}
            some = [
                one async for one in rows.values(wider, ["value"], ["c1", "c7", "no", "\ud800"])
            ]
            assert some == [("c1", {"value": 1})]
            assert [one async for one in rows.values(wider, [], [])] == []
            leg = Leg(1, date(2026, 1, 31), Level.HIGH, "x")
            await rows.write(LEGS, at(1, leg))
            key = definition_of(Leg).key_of(leg)
            assert [one async for one in rows.values(LEGS, [])] == [(key, {})]

    async def test_a_dropped_table_is_gone_and_takes_and_gives_no_rows(self) -> None:
        """Its rows are not taken for rows that were never there."""
        async with self.new_rows(COUNTERS) as rows:
            await rows.write(COUNTERS, at(1, Counter("a", 1)))
            await rows.drop("counter")
            await rows.drop("counter")
            assert await rows.tables(["counter"]) == {}
            await error_of(rows.load(COUNTERS, ["a"]), Unavailable)
            await error_of(rows.write(COUNTERS, at(2, Counter("a", 2))), Unavailable)
            assert await rows.tables(["counter"]) == {}

    async def test_a_writer_that_knew_a_table_before_it_was_made_anew_is_refused_once(self) -> None:
        """What it folded rests on rows that are no more."""
        async with self.new_rows(COUNTERS) as rows:
            other = await self.same(rows)
            if other is None:
                return
            try:
                assert await other.load(COUNTERS, ["a"]) == {}
                await rows.drop("counter")
                await rows.make(LOG, COUNTERS)
                assert await other.load(COUNTERS, ["a"]) == {}
                assert not await other.write(COUNTERS, at(9, Counter("a", 9)))
                assert await rows.load(COUNTERS, ["a"]) == {}
                assert await other.write(COUNTERS, at(3, Counter("a", 3)))
                assert await rows.load(COUNTERS, ["a"]) == at(3, Counter("a", 3))
            finally:
                await other.close()

    async def test_tables_are_apart(self) -> None:
        """The same key in two of them is two rows."""
        second = RowTable("second", Counter)
        async with self.new_rows(COUNTERS, second) as rows:
            await rows.write(COUNTERS, at(1, Counter("a", 1)))
            await rows.write(second, at(1, Counter("a", 2)))
            await rows.drop("second")
            assert await rows.load(COUNTERS, ["a"]) == at(1, Counter("a", 1))

    # --- the guard --------------------------------------------------------------------------------

    async def test_a_row_is_replaced_by_one_of_a_higher_position_only(self) -> None:
        """Lower and equal ones are passed over, each for itself."""
        async with self.new_rows(COUNTERS) as rows:
            await rows.write(COUNTERS, at(9, Counter("a", 1), Counter("b", 1)))
            await rows.write(
                COUNTERS,
                at(8, Counter("a", 2)) | at(10, Counter("b", 2)) | at(1, Counter("c", 2)),
            )
            await rows.write(COUNTERS, at(9, Counter("a", 3)))
            expected = at(9, Counter("a", 1)) | at(10, Counter("b", 2)) | at(1, Counter("c", 2))
            assert await rows.load(COUNTERS, ["a", "b", "c"]) == expected

    async def test_a_deletion_is_guarded_and_guards(self) -> None:
        """A row that comes late does not rise again."""
        async with self.new_rows(COUNTERS) as rows:
            await rows.write(COUNTERS, at(5, Counter("a", 1), Counter("b", 1)))
            await rows.write(COUNTERS, {"a": Placed(None, 7), "b": Placed(None, 4)})
            await rows.write(COUNTERS, {"c": Placed(None, 3)})
            await rows.write(COUNTERS, at(6, Counter("a", 2)) | at(2, Counter("c", 2)))
            gone = {"a": Placed(None, 7), "c": Placed(None, 3)}
            assert await rows.load(COUNTERS, ["a", "b", "c"]) == gone | at(5, Counter("b", 1))
            assert await scanned(rows, COUNTERS) == {"b": Counter("b", 1)}
            await rows.write(COUNTERS, at(8, Counter("a", 3)))
            assert await rows.load(COUNTERS, ["a"]) == at(8, Counter("a", 3))

    async def test_positions_beyond_2_to_the_32_are_compared_as_numbers(self) -> None:
        """Not as text either: 9 comes before 10."""
        async with self.new_rows(COUNTERS) as rows:
            for position in (9, 10, 2**32, 2**32 + 1, 2**52 + 1):
                await rows.write(COUNTERS, at(position, Counter("a", position)))
                found = await rows.load(COUNTERS, ["a"])
                assert found == at(position, Counter("a", position))

    async def test_writers_at_once_leave_the_highest_position(self) -> None:
        """Whatever order they come in, for each key."""
        async with self.new_rows(COUNTERS) as rows:
            other = await self.same(rows) or rows
            try:
                await other.make(LOG, COUNTERS)
                keys = [f"k{n}" for n in range(20)]
                await asyncio.gather(
                    *[
                        (rows if n % 2 else other).write(
                            COUNTERS, at(1 + n * 7 % 23, *[Counter(k, n * 7 % 23) for k in keys])
                        )
                        for n in range(23)
                    ]
                )
                expected = at(23, *[Counter(k, 22) for k in keys])
                assert await rows.load(COUNTERS, keys) == expected
            finally:
                if other is not rows:
                    await other.close()

    async def test_many_rows_are_written_and_loaded_at_once(self) -> None:
        """More than anybody sends in one piece."""
        async with self.new_rows(COUNTERS) as rows:
            many = [Counter(f"k{n}", n) for n in range(3000)]
            await rows.write(COUNTERS, at(1, *many))
            assert await rows.load(COUNTERS, [row.name for row in many]) == at(1, *many)
            assert await scanned(rows, COUNTERS) == by_key(many)

    # --- values -----------------------------------------------------------------------------------

    async def test_every_kind_of_field_comes_back_equal_and_of_its_type(self) -> None:
        """Empty, extreme, nested and missing values too."""
        rows_given = [
            SAMPLE,
            sample(
                "full",
                text="ä'\"\\\n🙂" * 3,
                number=-(2**63),
                real=1e300,
                flag=False,
                money=Decimal("-0.0001"),
                at=datetime(1, 1, 1, tzinfo=UTC),
                day=date(9999, 12, 31),
                names=[],
                maybe=Decimal("12345678901234567890.5"),
                maybe_at=AT,
                maybe_int=2**63 - 1,
                maybe_text="",
                maybe_id=UUID(int=2**128 - 1),
                maybe_flag=False,
                maybe_colour=SAMPLE.colour,
                maybe_point=SAMPLE.point,
            ),
            sample("inf", real=math.inf),
            sample("zone", at=AT.astimezone(timezone(timedelta(hours=5)))),
        ]
        async with self.new_rows(EVERYTHING) as rows:
            await rows.write(EVERYTHING, at(1, *rows_given))
            keys = [row.key for row in rows_given]
            found = await rows.load(EVERYTHING, keys)
            assert found == at(1, *rows_given)
            for given in rows_given:
                assert _types(found[given.key].row) == _types(given)
            assert await scanned(rows, EVERYTHING) == by_key(rows_given)

    async def test_keys_of_several_parts_and_of_nothing_else_are_found(self) -> None:
        """Dates, enums and UUIDs among them."""
        leg = Leg(1, date(2026, 1, 31), Level.HIGH, "x")
        marker = Marker(UUID(int=5))
        async with self.new_rows(LEGS, MARKERS) as rows:
            await rows.write(LEGS, at(1, leg))
            await rows.write(MARKERS, at(1, marker))
            key = (1, date(2026, 1, 31), Level.HIGH)
            assert await rows.load(LEGS, [key, (2, *key[1:])]) == at(1, leg)
            assert await rows.load(MARKERS, [UUID(int=5), UUID(int=6)]) == at(1, marker)
            await rows.write(LEGS, {key: Placed(None, 2)})
            assert await scanned(rows, LEGS) == {}
            await rows.write(MARKERS, at(2, marker))
            assert await rows.load(MARKERS, [UUID(int=5)]) == at(2, marker)

    async def test_keys_that_are_equal_are_one_row(self) -> None:
        """1.5 is 1.50."""
        async with self.new_rows(PRICED) as rows:
            await rows.write(PRICED, at(1, Priced(Decimal("1.5"), "a")))
            await rows.write(PRICED, at(2, Priced(Decimal("1.50"), "b")))
            found = await rows.load(PRICED, [Decimal("1.500")])
            assert [one.row.text for one in found.values()] == ["b"]
            assert len(await scanned(rows, PRICED)) == 1

    async def test_odd_keys_are_keys(self) -> None:
        """The empty text, spaces, colons, and what looks like something else."""
        keys = ["", " ", ":", "*", "a b", '"', "null", "1", "é", "\x01"]
        given = [Counter(key, n) for n, key in enumerate(keys)]
        async with self.new_rows(COUNTERS) as rows:
            await rows.write(COUNTERS, at(1, *given))
            assert await rows.load(COUNTERS, keys) == at(1, *given)
            assert await scanned(rows, COUNTERS) == by_key(given)

    async def test_a_key_that_no_row_can_have_is_not_found(self) -> None:
        """It is no error to ask."""
        async with self.new_rows(COUNTERS) as rows:
            await rows.write(COUNTERS, at(1, Counter("a", 1)))
            assert await rows.load(COUNTERS, ["\ud800", "a"]) == at(1, Counter("a", 1))
            assert await rows.load(COUNTERS, []) == {}

    async def test_a_row_that_cannot_be_kept_is_refused_before_anything_is_written(self) -> None:
        """The error names the field."""
        bad: Sequence[View] = [
            sample("b", number=2**63),
            sample("b", real=math.nan),
            sample("b", money=Decimal("NaN")),
            sample("b", money=Decimal("1E+200000")),
            sample("b", at=AT.replace(tzinfo=None)),
            sample("b", text=1),
            sample("b", text="\ud800"),
        ]
        async with self.new_rows(EVERYTHING) as rows:
            for row in bad:
                error = await error_of(rows.write(EVERYTHING, at(1, SAMPLE, row)), Invalid)
                assert error.field
                try:
                    rows.check(EVERYTHING, [SAMPLE, row])
                except Invalid:
                    continue
                raise AssertionError("it was not refused")
            rows.check(EVERYTHING, [SAMPLE])
            assert await scanned(rows, EVERYTHING) == {}

    async def test_what_was_written_is_there_for_another_and_after_closing(self) -> None:
        """Closing twice is no error."""
        async with self.new_rows(COUNTERS) as rows:
            await rows.write(COUNTERS, at(1, Counter("a", 1)))
            other = await self.same(rows)
            if other is None:
                return
            assert (await other.tables(["counter"]))["counter"].log == LOG
            assert await other.load(COUNTERS, ["a"]) == at(1, Counter("a", 1))
            await other.close()
            await other.close()


def _types(row: View) -> list[type]:
    return [type(getattr(row, name)) for name in row.__struct_fields__]


__all__ = ["RowStoreContract"]
