"""Live queries: the answer, then another one whenever it has become another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest

from diptych import Answer, Running, Token
from diptych.errors import ForeignCheckpoint, Invalid, UnknownMessage
from examples.shop.orders import CancelOrder, OpenOrders, PlaceOrder, app
from tests.http import shop as other

ONE = Decimal(1)


@asynccontextmanager
async def opened(**options: Any) -> AsyncGenerator[Running]:
    async with app.open(log="memory:", views="memory:", **options) as running:
        yield running


def orders(answer: Answer[Any]) -> list[str]:
    return sorted(row.order for row in answer.value)


async def test_the_first_answer_comes_at_once_and_each_other_one_when_it_is_another() -> None:
    async with opened() as running, aclosing(running.live(OpenOrders("ann"))) as answers:
        assert orders(await anext(answers)) == []
        await running.do(PlaceOrder("1", "bob", ONE))
        receipt = await running.do(PlaceOrder("2", "ann", ONE))
        news = await anext(answers)
        assert orders(news) == ["2"]  # the order of another customer is no news
        assert (news.as_of, news.token, news.stale) == (2, receipt.token, False)
        await running.do(CancelOrder("2"))
        assert orders(await anext(answers)) == []


async def test_changes_in_quick_succession_are_seen_as_their_last_state() -> None:
    """A reader who takes no answer keeps none waiting, and misses nothing that is still so."""
    async with opened() as running, aclosing(running.live(OpenOrders("ann"))) as answers:
        await anext(answers)
        for number in range(50):
            await running.do(PlaceOrder(str(number), "ann", ONE))
        await running.catch_up()
        seen = 0
        async for answer in answers:
            seen += 1
            if len(answer.value) == 50:
                break
        assert seen < 25


async def test_those_who_follow_the_same_query_share_the_work() -> None:
    """A hundred readers of one query have it asked a few times, not hundreds."""
    asked = 0
    async with opened() as running:
        queries: Any = running._queries
        look = queries.look

        async def counting(query: Any) -> Any:
            nonlocal asked
            asked += 1
            return await look(query)

        queries.look = counting

        async def first_two() -> list[list[str]]:
            async with aclosing(running.live(OpenOrders("ann"))) as answers:
                first = orders(await anext(answers))
                ready.release()
                return [first, orders(await anext(answers))]

        ready = asyncio.Semaphore(0)
        readers = [asyncio.create_task(first_two()) for _ in range(100)]
        for _ in readers:
            await ready.acquire()
        await running.do(PlaceOrder("1", "ann", ONE))
        assert await asyncio.gather(*readers) == [[[], ["1"]]] * 100
    assert asked <= 10


async def test_it_goes_on_from_a_token_and_never_back() -> None:
    async with opened() as running:
        token = (await running.do(PlaceOrder("1", "ann", ONE))).token
        async with aclosing(running.live(OpenOrders("ann"), after=token, wait=10)) as answers:
            first = await anext(answers)
            assert (orders(first), first.stale) == (["1"], False)
            assert first.as_of >= token.position


async def test_a_token_that_is_not_reached_gives_a_stale_answer_first(tmp_path: Path) -> None:
    """And a fresh one, when another process has brought the views there."""
    url = f"sqlite:///{tmp_path}/shop.db"
    async with app.open(log=url, views=url, projections=False) as running:
        token = (await running.do(PlaceOrder("1", "ann", ONE))).token
        async with aclosing(running.live(OpenOrders("ann"), after=str(token))) as answers:
            stale = await anext(answers)
            assert (orders(stale), stale.stale) == ([], True)
            async with app.open(log=url, views=url) as worker:
                fresh = await anext(answers)
                assert (orders(fresh), fresh.stale) == (["1"], False)
                # What others move is noticed, too.
                await worker.do(PlaceOrder("2", "ann", ONE))
                assert orders(await anext(answers)) == ["1", "2"]


async def test_a_query_that_reads_the_log_is_told_of_new_events() -> None:
    async with (
        other.app.open(log="memory:", views="memory:") as running,
        aclosing(running.live(other.History("1"))) as answers,
    ):
        assert (await anext(answers)).value == []
        await running.do(other.Place("1", "ann", ONE))
        assert [one.position for one in (await anext(answers)).value] == [1]
        await running.do(other.Place("2", "ann", ONE))
        await running.do(other.Cancel("1"))
        assert [one.position for one in (await anext(answers)).value] == [1, 3]


async def test_it_ends_when_the_application_is_closed() -> None:
    seen: list[list[str]] = []
    async with opened() as running:
        started = asyncio.Event()

        async def follow() -> None:
            async for answer in running.live(OpenOrders("ann")):
                seen.append(orders(answer))
                started.set()

        task = asyncio.create_task(follow())
        await started.wait()
    await task
    assert seen == [[]]


async def test_nothing_runs_when_nobody_follows() -> None:
    async with opened() as running:
        async with aclosing(running.live(OpenOrders("ann"))) as answers:
            await anext(answers)
        await running.do(PlaceOrder("1", "ann", ONE))
        await running.catch_up()
        names = {task.get_name() for task in asyncio.all_tasks() if not task.done()}
        while "diptych-live" in names:
            await asyncio.sleep(0.01)
            names = {task.get_name() for task in asyncio.all_tasks() if not task.done()}
        assert "diptych-look" not in names


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda running: running.live(other.OrdersOf("ann")), UnknownMessage),
        (lambda running: running.live(OpenOrders(cast(str, 3))), Invalid),
        (lambda running: running.live(OpenOrders("ann"), after="nonsense"), Invalid),
        (lambda running: running.live(OpenOrders("ann"), after=Token("x", 1)), ForeignCheckpoint),
    ],
    ids=["query", "field", "token", "log"],
)
async def test_what_cannot_be_asked_cannot_be_followed(
    make: Callable[[Running], Any], error: type[Exception]
) -> None:
    async with opened() as running, aclosing(make(running)) as answers:
        with pytest.raises(error):
            await anext(answers)


async def test_an_answer_that_fails_later_is_raised_to_all_who_follow() -> None:
    async with other.app.open(log="memory:", views="memory:") as running:
        async with aclosing(running.live(other.OrdersOf("ann"))) as answers:
            await anext(answers)
            queries: Any = running._queries

            async def failing(query: Any) -> Any:
                raise RuntimeError("the answer is broken")

            look, queries.look = queries.look, failing
            await running.do(other.Place("1", "ann", ONE))
            with pytest.raises(RuntimeError):
                await anext(answers)
            queries.look = look
        async with aclosing(running.live(other.OrdersOf("ann"))) as answers:
            assert len((await anext(answers)).value) == 1
