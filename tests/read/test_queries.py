"""Queries: typed, and honest about how fresh their answers are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, assert_type

import pytest
from sqlalchemy import delete, func, insert, text

from diptych.errors import (
    DefinitionError,
    ForeignCheckpoint,
    Invalid,
    StaleAnswer,
    UnknownMessage,
)
from diptych.log import Token
from diptych.logs.memory import MemoryLog
from diptych.messages import Query
from diptych.read.queries import Events, Queries, Views, answering, check_answers
from diptych.read.select import column, select
from diptych.read.views import Key, View, definition_of
from tests.read.world import (
    Cancelled,
    History,
    Noted,
    Order,
    OrdersOf,
    Placed,
    Total,
    World,
    orders,
    orders_of,
    placed,
    total,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::diptych.errors.SqliteVersionWarning"),
    pytest.mark.usefixtures("backend"),
]


async def test_a_query_is_answered_with_rows_position_and_age() -> None:
    async with World([orders()]) as world:
        await world.append(*placed(2, 1), *placed(3, customer="bob"))
        await world.engine.catch_up()
        answer = await world.queries.ask(OrdersOf("ada"))
        assert [o.order for o in answer.value] == ["o1", "o2"]
        assert (answer.as_of, answer.age, answer.stale) == (3, 0.0, False)
        assert answer.token == Token(world.log.identity, 3)


async def test_a_token_is_waited_for() -> None:
    async with World([orders()]) as world:
        await world.engine.start()
        for n in range(20):
            head = await world.append(*placed(n), Noted("unused"))
            answer = await world.queries.ask(
                OrdersOf("ada"), after=Token(world.log.identity, head), wait=30
            )
            assert not answer.stale
            assert answer.as_of >= head
            assert len(answer.value) == n + 1


async def test_a_token_not_reached_gives_a_stale_answer_with_its_age() -> None:
    async with World([orders()]) as world:
        await world.append(*placed(1), age=500)
        await world.engine.catch_up()
        await world.append(*placed(2), age=300)
        head = await world.append(*placed(3), age=100)
        token = Token(world.log.identity, head)
        answer = await world.queries.ask(OrdersOf("ada"), after=token, wait=0)
        assert answer.stale
        assert (answer.as_of, len(answer.value)) == (1, 1)
        assert 300 <= answer.age < 400
        with pytest.raises(StaleAnswer) as caught:
            await world.queries.ask(OrdersOf("ada"), after=token, wait=0, strict=True)
        assert caught.value.facts["reached"] == 1


async def test_without_a_token_nothing_is_waited_for_but_the_age_is_told() -> None:
    async with World([orders()]) as world:
        await world.append(*placed(1), age=60)
        answer = await world.queries.ask(OrdersOf("ada"), wait=30)
        assert (answer.value, answer.as_of, answer.stale) == ([], 0, False)
        assert answer.age >= 60


async def test_tokens_of_another_log_or_from_beyond_the_head_are_refused() -> None:
    async with World([orders()]) as world:
        head = await world.append(*placed(1))
        with pytest.raises(ForeignCheckpoint, match="another log"):
            await world.queries.ask(OrdersOf("ada"), after=Token("x", 1))
        with pytest.raises(ForeignCheckpoint, match="beyond the head"):
            await world.queries.ask(
                OrdersOf("ada"), after=Token(world.log.identity, head + 1), wait=30
            )


async def test_a_query_waits_for_an_engine_in_another_process(tmp_path: Path) -> None:
    log = MemoryLog()
    asking = World([orders()], log=log, path=tmp_path / "v.db")
    working = World([orders()], log=log, path=tmp_path / "v.db")
    async with asking, working:
        head = await asking.append(*placed(1))
        waiting = asyncio.create_task(
            asking.queries.ask(OrdersOf("ada"), after=Token(log.identity, head), wait=30)
        )
        await asyncio.sleep(0)
        await working.engine.start()
        answer = await waiting
        assert not answer.stale
        assert len(answer.value) == 1


async def test_many_waiting_queries_are_all_woken() -> None:
    async with World([orders()]) as world:
        await world.engine.start()
        head = await world.append(*placed(1))
        token = Token(world.log.identity, head + 20)
        await world.append(*[Noted("x")] * 20)
        answers = await asyncio.gather(
            *[world.queries.ask(OrdersOf("ada"), after=token, wait=30) for _ in range(50)]
        )
        assert all(a.as_of == head + 20 and not a.stale for a in answers)


async def test_sync_answers_and_answers_from_the_log() -> None:
    async with World([orders()]) as world:
        head = await world.append(*placed(1, 2), Cancelled("o1"))
        assert (await world.queries.ask(Total())).value == 42
        answer = await world.queries.ask(History("o1"))
        assert answer.value == ["Placed", "Cancelled"]
        assert (answer.as_of, answer.age) == (head, 0.0)


async def test_events_are_iterated_page_by_page_up_to_the_head() -> None:
    async with World([orders()]) as world:
        for _ in range(3):
            await world.append(*placed(*range(700)), Noted("x"))
        events = Events(world.log, world.codec)
        seen = [r.position async for r in events.all([Placed])]
        assert len(seen) == 2100
        assert seen == sorted(seen)
        assert len([r async for r in events.all(after=2000, until=2010)]) == 10
        limited = await events.read([Noted], after=1, limit=2)
        assert [r.position for r in limited] == [701, 1402]


async def test_views_offer_first_one_get_and_any_rows() -> None:
    async with World([orders()]) as world:
        await world.append(*placed(1, 2), *placed(3, customer="bob"))
        await world.engine.catch_up()
        views = world.queries.views()
        by_total = select(Order).order_by(column(Order.total).desc())
        assert_type(await views.all(by_total), list[Order])
        first = await views.first(by_total)
        assert first is not None
        assert first.order == "o3"
        assert await views.first(select(Order).where(Order.customer == "eve")) is None
        assert (await views.one(select(Order).where(Order.customer == "bob"))).order == "o3"
        for name, found in (("eve", "none"), ("ada", "more than one")):
            with pytest.raises(Invalid, match=found):
                await views.one(select(Order).where(Order.customer == name))
        assert await views.get(Order, "o2") == Order("o2", "ada", Decimal("0.02"), "placed")
        assert await views.get(Order, "absent") is None
        counted = await views.rows(
            select(column(Order.customer), func.count()).group_by(column(Order.customer))
        )
        assert sorted(counted) == [("ada", 2), ("bob", 1)]
        listed = select(Order).where(column(Order.order).in_(["o1", "o3", "o9"]))
        assert len(await views.all(listed)) == 2
        assert views.as_of == 3


async def test_plans_are_shared_between_values_not_mixed_up() -> None:
    async with World([orders()]) as world:
        await world.append(*placed(*range(20)), *placed(50, customer="bob"))
        await world.engine.catch_up()
        for limit in (1, 2, 3):
            for name, most in (("ada", 20), ("bob", 1), ("eve", 0)):
                found = await world.store.all(
                    select(Order).where(Order.customer == name).limit(limit)
                )
                assert len(found.rows) == min(limit, most)


class Unknown(View):
    a: Key[int]


async def test_what_views_cannot_run_is_refused() -> None:
    async with World([orders()]) as world:
        views = world.queries.views()
        with pytest.raises(Invalid, match="No projection keeps this view"):
            await views.all(select(Unknown))
        with pytest.raises(Invalid, match="rows of one view"):
            await views.all(select(column(Order.order)))  # type: ignore[arg-type]
        with pytest.raises(Invalid, match="no statement"):
            await views.rows("SELECT 1")  # type: ignore[arg-type]


async def test_a_statement_that_the_database_does_not_run_is_invalid(tmp_path: Path) -> None:
    """The same error on every database, never one that says: try again later."""
    async with World([orders()], path=tmp_path / "v.db") as world:
        views = world.queries.views()
        with pytest.raises(Invalid, match="does not run this statement"):
            await views.all(select(Order).where(column(Order.total).desc()))  # type: ignore[arg-type]
        for wrong in (
            text("selec 1"),
            text("SELECT 1 FROM no_such_table"),
            text("SELECT :value"),
            select(func.no_such_function(column(Order.order))),
        ):
            with pytest.raises(Invalid, match="does not run this statement"):
                await views.rows(wrong)
        with pytest.raises(Invalid, match="no select"):
            await views.first(text("SELECT 1"))  # type: ignore[arg-type]
        assert await views.rows(select(func.count()).select_from(Order)) == [(0,)]


async def test_a_handlers_statement_that_is_not_run_is_invalid() -> None:
    async with World([orders()]) as world:

        async def handle(statement: Any, *, reads: bool) -> None:
            async with world.store.session() as tx:
                await (tx.rows if reads else tx.execute)(statement)

        with pytest.raises(Invalid, match="does not run this statement"):
            await handle(text("selec 1"), reads=True)
        with pytest.raises(Invalid, match="does not run this statement"):
            await handle(text("delet from x"), reads=False)
        with pytest.raises(Invalid, match="no statement"):
            await handle("DELETE", reads=False)


async def test_queries_cannot_write(tmp_path: Path) -> None:
    for path in (None, tmp_path / "v.db"):
        async with World([orders()], path=path) as world:
            await world.append(*placed(1))
            await world.engine.catch_up()
            views = world.queries.views()
            table = definition_of(Order).table_name
            for write in (
                insert(Order).values(order="x", customer="", total=1, status=""),
                delete(Order),
                delete(Order).returning(column(Order.order)),
                text(f'DELETE FROM "{table}"'),
            ):
                with pytest.raises(Invalid):
                    await views.rows(write)
            assert len(await views.all(select(Order))) == 1


class NoArgument(Query[int]):
    limit: int


async def test_a_query_is_validated_and_known() -> None:
    async with World([orders()]) as world:
        with pytest.raises(Invalid):
            await world.queries.ask(OrdersOf(3))  # type: ignore[arg-type]
        with pytest.raises(UnknownMessage):
            await world.queries.ask(NoArgument(1))


# --- definitions ----------------------------------------------------------------------------------


def no_query(views: Views) -> int:
    return 1


def two_queries(one: Total, two: OrdersOf) -> int:
    return 1


def other_result(query: Total) -> str:
    return ""


def other_parameter(query: Total, thing: int) -> int:
    return 1


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        (no_query, "takes the query"),
        (two_queries, "takes one query"),
        (other_result, "what its query promises"),
        (other_parameter, "takes one query, and Views or Events"),
    ],
)
def test_a_wrong_answer_is_named_by_file_and_line(function: Callable[..., Any], rule: str) -> None:
    with pytest.raises(DefinitionError, match=rule) as caught:
        answering(function)
    assert f"test_queries.py:{function.__code__.co_firstlineno}" in caught.value.at


def test_each_query_has_exactly_one_answer() -> None:
    with pytest.raises(DefinitionError, match="Two functions answer"):
        check_answers([answering(total), answering(lambda_like)])
    with pytest.raises(DefinitionError, match="No function answers"):
        check_answers([answering(total)], [Total, OrdersOf])
    check_answers([answering(total), answering(orders_of)], [Total, OrdersOf])


def lambda_like(query: Total) -> int:
    return 1


class Base(Query[int]):
    pass


class Derived(Base):
    pass


def derived(query: Derived) -> int:
    return 1


def test_a_query_may_inherit_what_it_is_answered_with() -> None:
    assert answering(derived).query is Derived
    assert Queries is not None
