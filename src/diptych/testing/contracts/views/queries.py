"""What every view store does when it is asked."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from diptych.errors import Invalid
from diptych.read.port import ViewStore
from diptych.read.select import column, select
from diptych.testing.contracts.views.making import (
    AT,
    SAMPLE,
    Colour,
    Counter,
    Everything,
    Leg,
    Level,
    Marker,
    StoreMaker,
    error_of,
    put,
    sample,
    step,
)


async def keys(store: ViewStore, *conditions: Any) -> list[str]:
    """Return the keys of the rows for which all conditions hold."""
    statement = select(Everything).where(*conditions).order_by(Everything.key)
    return [row.key for row in (await store.all(statement)).rows]


class QueryContract(StoreMaker):
    """Rows and positions are of one snapshot; a statement means the same in every database."""

    async def test_rows_come_with_the_positions_of_all_projections(self) -> None:
        """Also where there are no rows."""
        async with self.new_store() as store:
            for found in (
                await store.all(select(Counter)),
                await store.rows(select(column(Counter.name))),
                await store.get(Counter, "a"),
            ):
                assert (found.rows, found.positions) == ([], dict.fromkeys(found.positions, 0))
                assert set(found.positions) == {"everything", "leg", "counter"}
            await put(store, Counter("a", 1))
            for found in (
                await store.all(select(Counter)),
                await store.all(select(Counter).where(Counter.name == "absent")),
                await store.rows(select(column(Counter.name))),
                await store.get(Counter, "a"),
            ):
                assert found.positions == {"everything": 0, "leg": 0, "counter": 1}

    async def test_rows_and_positions_are_of_one_snapshot(self) -> None:
        """A reader beside a writer never sees rows newer or older than the position it is told."""
        async with self.new_store() as store:
            done = False

            async def write() -> None:
                nonlocal done
                at = (await store.checkpoints())["counter"][0]
                for n in range(1, 120):
                    rows = [Counter("a", n), Counter(f"b{n % 2}", n)]
                    change = step(at, *rows, deleted=[f"b{(n + 1) % 2}"])
                    assert await store.apply([change]) == [True]
                    at = change.after
                done = True

            async def read() -> None:
                values = select(column(Counter.value))
                while not done:
                    whole = await store.all(select(Counter).order_by(Counter.name))
                    assert [r.value for r in whole.rows] == [whole.positions["counter"]] * len(
                        whole.rows
                    )
                    some = await store.rows(values.where(column(Counter.name) == "a"))
                    assert some.rows in ([], [(some.positions["counter"],)])
                    one = await store.get(Counter, "a")
                    assert [r.value for r in one.rows] in ([], [one.positions["counter"]])

            await asyncio.gather(write(), read(), read())

    async def test_conditions_of_every_kind(self) -> None:
        """Values are compared as what they are."""
        async with self.new_store() as store:
            await put(
                store,
                sample("a"),
                sample("b", number=2, real=2.5, flag=False, money=Decimal(10), size="l"),
                sample("c", at=AT + timedelta(microseconds=1), day=AT.date() + timedelta(days=1)),
                sample("d", id=UUID(int=8), colour=Colour.BLUE, level=Level.HIGH, maybe_int=3),
            )
            e: Any = Everything
            for condition, expected in (
                (e.text == "text", "abcd"),
                (e.number > 1, "b"),
                (e.real >= 2.5, "b"),
                (e.flag, "acd"),
                (e.flag == False, "b"),  # noqa: E712
                (e.money > Decimal("9.5"), "b"),
                (e.money == Decimal("9.500"), "acd"),
                (e.money < 10, "acd"),
                (e.at > AT, "c"),
                (e.day > AT.date(), "c"),
                (e.id == UUID(int=8), "d"),
                (e.colour == Colour.BLUE, "d"),
                (e.level == Level.HIGH, "d"),
                (e.size == "l", "b"),
                (column(e.maybe_int).is_(None), "abc"),
                (column(e.maybe_int).is_not(None), "d"),
                (e.maybe_int == 3, "d"),
            ):
                assert await keys(store, condition) == list(expected), condition

    async def test_lists_in_conditions(self) -> None:
        """IN and NOT IN, with lists of any length, of every kind, none too."""
        async with self.new_store() as store:
            await put(store, sample("a"), sample("b", colour=Colour.BLUE), sample("c", number=3))
            e: Any = Everything
            for condition, expected in (
                (column(e.key).in_(["a", "c", "x"]), "ac"),
                (column(e.key).in_([]), ""),
                (column(e.key).not_in([]), "abc"),
                (column(e.key).not_in(["b"]), "ac"),
                (column(e.key).in_([f"k{n}" for n in range(2000)] + ["b"]), "b"),
                (column(e.colour).in_([Colour.BLUE]), "b"),
                (column(e.number).in_([3, 4]), "c"),
                (column(e.money).in_([Decimal("9.5")]), "abc"),
                (column(e.at).in_([AT]), "abc"),
                (column(e.id).in_([SAMPLE.id]), "abc"),
                (column(e.level).not_in([Level.HIGH]), "abc"),
            ):
                assert await keys(store, condition) == list(expected), condition

    async def test_text_is_matched_by_case_and_character(self) -> None:
        """LIKE tells cases apart, as ``==`` does; a backslash is a backslash."""
        async with self.new_store() as store:
            texts = {"a": "Ada", "b": "ada", "c": "x\\da", "d": "50%", "e": "é"}
            await put(store, *[sample(key, text=text) for key, text in texts.items()])
            text = column(Everything.text)
            for condition, expected in (
                (text.startswith("A"), "a"),
                (text.like("%da"), "abc"),
                (text.not_like("%a%"), "de"),
                (text.like("x\\d_"), "c"),
                (text.contains("\\d"), "c"),
                (text.contains("%", autoescape=True), "d"),
                (text.endswith("é"), "e"),
            ):
                assert await keys(store, condition) == list(expected), condition

    async def test_statements_of_one_shape_are_not_mixed_up(self) -> None:
        """Each gets its own values, however often the shape was seen."""
        async with self.new_store() as store:
            await put(store, *[Counter(f"c{n}", n % 3) for n in range(30)])
            for value in (0, 1, 2, 3):
                for limit in (1, 5, 100):
                    statement = select(Counter).where(Counter.value == value).limit(limit)
                    for asked in (statement, store.plan(statement)):
                        rows = (await store.all(asked)).rows
                        assert [r.value for r in rows] == [value] * min(limit, 10 * (value < 3))
                    assert list(store.views_of(store.plan(statement))) == [Counter]

    async def test_ints_beyond_64_bits_are_refused_wherever_they_stand(self) -> None:
        """``Invalid``, for they may come from a client; and so in a list, a limit or an offset."""
        async with self.new_store() as store:
            await put(store, Counter("a", 1))
            counters = select(Counter)
            for far in (2**63, -(2**63) - 1, 10**30, 10**5000):
                for statement in (
                    counters.where(Counter.value == far),
                    counters.where(column(Counter.value).in_([1, far])),
                    counters.limit(far),
                    counters.limit(1).offset(far),
                ):
                    await error_of(store.all(statement), Invalid)
                    await error_of(store.rows(statement), Invalid)
            assert (await store.all(counters)).rows == [Counter("a", 1)]
            await put(store, sample("a"))  # a Decimal has no such bounds
            rich = select(Everything.key).where(Everything.money == 10**20)  # type: ignore[call-overload]
            assert (await store.rows(rich)).rows == []

    async def test_any_select_gives_tuples_of_python_values(self) -> None:
        """Aggregates, joins and expressions; sums of ints are ints."""
        from sqlalchemy import func

        async with self.new_store() as store:
            await put(store, sample("a"), sample("b", number=2, colour=Colour.BLUE))
            await put(store, Counter("a", 5), Counter("z", 6))
            e: Any = Everything
            found = await store.rows(
                select(func.count(), func.sum(e.number), func.max(e.money), func.min(e.at))
            )
            assert found.rows == [(2, 3, Decimal("9.50"), AT)]
            assert [type(value) for value in found.rows[0][:3]] == [int, int, Decimal]
            found = await store.rows(select(e.key, e.colour, e.point).order_by(e.key))
            assert found.rows == [("a", Colour.RED, SAMPLE.point), ("b", Colour.BLUE, SAMPLE.point)]
            c: Any = Counter
            found = await store.rows(select(e.key, c.value).join(c, c.name == e.key))
            assert found.rows == [("a", 5)]
            found = await store.rows(
                select(e.colour, func.sum(e.number)).group_by(e.colour).order_by(e.colour)
            )
            assert found.rows == [(Colour.BLUE, 2), (Colour.RED, 1)]

    async def test_rows_of_a_view_joined_with_another_can_be_told_apart(self) -> None:
        """A join that finds a row twice gives it twice; ``distinct`` gives it once."""
        async with self.new_store() as store:
            await put(store, sample("a"), sample("b"))
            await put(store, *[Leg(n, AT.date(), Level.LOW, "a") for n in range(3)])
            joined = select(Everything).join(Leg, Leg.text == Everything.key)
            assert [r.key for r in (await store.all(joined)).rows] == ["a"] * 3
            assert (await store.all(joined.distinct())).rows == [sample("a")]

    async def test_what_is_no_select_of_one_view_is_refused(self) -> None:
        """Some columns of a view, or no statement at all, are ``Invalid`` where rows are wanted."""
        async with self.new_store() as store:
            wrong: list[Any] = [select(column(Counter.name)), select(Counter, Marker), "SELECT 1"]
            for statement in wrong:
                await error_of(store.all(statement), Invalid)

    async def test_queries_cannot_write(self) -> None:
        """An insert in a select's place raises, and nothing is inserted."""
        from sqlalchemy import delete, insert

        async with self.new_store() as store:
            await put(store, Counter("a", 1))
            for statement in (insert(Counter).values(name="x", value=1), delete(Counter)):
                await error_of(store.rows(statement), Exception)
            assert (await store.all(select(Counter))).rows == [Counter("a", 1)]
