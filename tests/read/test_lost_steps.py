"""A read database that has lost its last steps (crash, failover) is brought back to where it was.

Steps do not wait for the disk: what is lost is made anew from the log. Until then nobody is told
that it is there.
"""

import asyncio
from typing import Any

import pytest

from diptych.log import Page, Token
from diptych.read.following import engine
from diptych.read.port import Checkpoint
from diptych.read.views import definition_of
from tests.read.world import Account, Moved, Order, OrdersOf, World, accounts, keyed, orders, placed

pytestmark = [
    pytest.mark.filterwarnings("ignore::diptych.errors.SqliteVersionWarning"),
    pytest.mark.usefixtures("backend"),
]


async def lose_everything(world: World) -> None:
    """Set the database back to before the first step."""
    await world.sql(f'DELETE FROM "{definition_of(Order).table_name}"')
    await world.sql("DELETE FROM diptych_blocks")
    await world.sql(
        "UPDATE diptych_checkpoints SET position = 0, event_id = '', count = 0, "
        f"digest = '{'0' * 32}', time = NULL"
    )


async def test_a_token_is_waited_for_again() -> None:
    """The worker in this process finds out by the query, and makes the steps again."""
    async with World([orders()]) as world:
        await world.engine.start()
        token = Token(world.log.identity, await world.append(*placed(1, 2)))
        assert len((await world.queries.ask(OrdersOf("ada"), after=token, wait=30)).value) == 2
        await lose_everything(world)
        answer = await world.queries.ask(OrdersOf("ada"), after=token, wait=30)
        assert (len(answer.value), answer.as_of, answer.stale) == (2, 2, False)


async def test_an_answer_that_comes_too_early_is_stale() -> None:
    """Where nobody makes the steps again in time, the answer says so."""
    async with World([orders()]) as world:
        token = Token(world.log.identity, await world.append(*placed(1, 2)))
        await world.engine.catch_up()
        await lose_everything(world)
        for wait in (0.0, 0.01):
            answer = await world.queries.ask(OrdersOf("ada"), after=token, wait=wait)
            assert (answer.value, answer.as_of, answer.stale) == ([], 0, True)


async def test_a_resting_worker_finds_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a query and without a new event."""
    monkeypatch.setattr(engine, "DOUBT_SECONDS", 0.05)
    async with World([orders()]) as world:
        await world.engine.start()
        await world.append(*placed(1, 2))
        await world.engine.catch_up()
        await lose_everything(world)
        async with asyncio.timeout(30):
            while len(await world.rows(Order)) < 2:
                await asyncio.sleep(0.01)


async def test_catching_up_finds_out() -> None:
    """Also where no worker runs."""
    async with World([orders()]) as world:
        await world.append(*placed(1, 2))
        await world.engine.catch_up()
        await lose_everything(world)
        await world.engine.catch_up()
        assert len(await world.rows(Order)) == 2


async def test_a_page_is_not_folded_beside_a_step_that_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A query doubts while a page is read, and a step is under way: its rows are not there yet."""
    async with World([accounts()], page=4, gather=1) as world:
        engine, store = world.engine, world.store
        read, load, apply, write = world.log.read, store.load, store.apply, engine._write
        under_way, may_end = asyncio.Event(), asyncio.Event()

        async def reading(*args: Any, **options: Any) -> Page:
            page = await read(*args, **options)
            if options.get("after") == 4 and not may_end.is_set():
                await under_way.wait()
                for follower in engine.spans:
                    follower.forget()
            return page

        async def applying(changes: Any) -> list[bool]:
            under_way.set()
            await may_end.wait()
            return await apply(changes)

        async def loading(*args: Any) -> Any:
            rows = await load(*args)
            if under_way.is_set():  # of the second page, without the first one's
                may_end.set()
            return rows

        async def writing() -> bool:
            if under_way.is_set():
                may_end.set()
            return await write()

        monkeypatch.setattr(world.log, "read", reading)
        monkeypatch.setattr(store, "apply", applying)
        monkeypatch.setattr(store, "load", loading)
        monkeypatch.setattr(engine, "_write", writing)
        await world.append(*[Moved("a", "b", 1)] * 8)
        await engine.catch_up()
        assert keyed(await world.rows(Account), "name")["b"] == Account("b", 8, 8)


async def test_a_step_that_ends_while_one_looks_is_not_taken_for_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was read of the checkpoints is older than what is known here."""
    async with World([orders()]) as world:
        checkpoints = world.store.checkpoints

        async def late() -> dict[str, list[Checkpoint]]:
            found = await checkpoints()
            monkeypatch.undo()
            await world.append(*placed(1, 2))
            await world.engine.catch_up()
            return found

        monkeypatch.setattr(world.store, "checkpoints", late)
        assert await world.engine.spans.look() == []
