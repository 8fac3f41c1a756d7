"""The same query gives the same order in every database."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from diptych.read.port import ViewStore
from diptych.read.select import column, select
from diptych.testing.contracts.views.making import (
    AT,
    Colour,
    Counter,
    Everything,
    Level,
    StoreMaker,
    put,
    sample,
)

TEXTS = ["", " ", "A", "B", "Z", "_", "a", "a b", "aB", "ab", "b", "É", "é", "\uffff", "\U0001f6eb"]
"""In the order of code points."""

NUMBERS = [Decimal(n) for n in ("-10", "-9.5", "0", "0.5", "1.00", "1.0000000001", "9", "10")]


async def sorted_keys(store: ViewStore, *by: Any) -> list[str]:
    """Return the keys of all rows, sorted by something."""
    statement = select(Everything).order_by(*by, Everything.key)
    return [row.key for row in (await store.all(statement)).rows]


class SortContract(StoreMaker):
    """Texts by code point, numbers by value, NULL before all else."""

    async def test_texts_are_sorted_by_code_point(self) -> None:
        """Whatever the language of the database; keys and other columns alike."""
        async with self.new_store() as store:
            await put(store, *[Counter(text, n) for n, text in enumerate(TEXTS)])
            rows = (await store.all(select(Counter).order_by(Counter.name))).rows
            assert [row.name for row in rows] == TEXTS
            rows = (await store.all(select(Counter).order_by(column(Counter.name).desc()))).rows
            assert [row.name for row in rows] == TEXTS[::-1]
            between = select(Counter).where(Counter.name >= "_", Counter.name < "b")
            assert len((await store.all(between)).rows) == 5
            await put(store, *[sample(f"{n:02d}", text=text) for n, text in enumerate(TEXTS)])
            assert await sorted_keys(store, Everything.text) == [f"{n:02d}" for n in range(15)]

    async def test_values_are_sorted_by_what_they_are(self) -> None:
        """Decimals and datetimes by value, enums by theirs."""
        async with self.new_store() as store:
            await put(
                store,
                *[
                    sample(
                        f"{n}",
                        money=number,
                        number=int(number) * 10**6,
                        at=AT + timedelta(hours=float(number)),
                        colour=Colour.BLUE if n < 4 else Colour.RED,
                        level=Level.LOW if n < 4 else Level.HIGH,
                        flag=n >= 4,
                    )
                    for n, number in enumerate(NUMBERS)
                ],
            )
            e: Any = Everything
            upwards = [f"{n}" for n in range(len(NUMBERS))]
            for by in (e.money, e.at, e.number, e.colour, e.level, e.flag):
                assert await sorted_keys(store, by) == upwards, by
            assert await sorted_keys(store, column(e.money).desc()) == upwards[::-1]

    async def test_null_comes_before_all_else(self) -> None:
        """Upwards first, downwards last, in windows and under labels too."""
        from sqlalchemy import func

        async with self.new_store() as store:
            await put(
                store,
                sample("a", maybe_int=2, maybe_text="b"),
                sample("b"),
                sample("c", maybe_int=1, maybe_text="", maybe=Decimal(0)),
            )
            e: Any = Everything
            assert await sorted_keys(store, e.maybe_int) == ["b", "c", "a"]
            assert await sorted_keys(store, column(e.maybe_int).desc()) == ["a", "c", "b"]
            assert await sorted_keys(store, e.maybe_text) == ["b", "c", "a"]
            assert await sorted_keys(store, column(e.maybe).desc()) == ["c", "a", "b"]
            assert await sorted_keys(store, column(e.maybe_int).asc().nulls_last()) == [
                "c", "a", "b",
            ]  # fmt: skip
            labelled = column(e.maybe_int).label("n")
            for by in (labelled, "n"):
                rows = (await store.rows(select(labelled).order_by(by))).rows
                assert rows == [(None,), (1,), (2,)]
            window = func.row_number().over(order_by=column(e.maybe_int))
            rows = (await store.rows(select(e.key, window).order_by(e.key))).rows
            assert rows == [("a", 3), ("b", 1), ("c", 2)]
            c: Any = Counter
            outer = select(e.key, c.value).outerjoin(c, c.name == e.key).order_by(c.value)
            await put(store, Counter("a", 1))
            assert (await store.rows(outer)).rows[-1] == ("a", 1)

    async def test_the_order_of_many_rows_is_kept(self) -> None:
        """With limit and offset, thousands of rows come in the order that was asked for."""
        async with self.new_store() as store:
            await put(store, *[Counter(f"c{n:04d}", n * 7919 % 4001) for n in range(4000)])
            statement = select(Counter).order_by(column(Counter.value).desc())
            values = [row.value for row in (await store.all(statement)).rows]
            assert values == sorted(values, reverse=True)
            part = (await store.all(statement.limit(10).offset(1000))).rows
            assert [row.value for row in part] == values[1000:1010]
            by_name = select(column(Counter.value)).order_by(column(Counter.name))
            tuples = (await store.rows(by_name)).rows
            assert [value for (value,) in tuples] == [n * 7919 % 4001 for n in range(4000)]
