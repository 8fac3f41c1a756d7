"""Commands and events within the caller's own transaction on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import nullcontext, suppress
from decimal import Decimal
from typing import Annotated, Any

import asyncpg
import pytest
from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from diptych import App, Command, Event, Invalid, Key, Query, Rejected, Running, Tag, View, Views
from diptych.app.within import Within
from diptych.errors import (
    Closed,
    DecisionFailed,
    KeyReused,
    NotAllowed,
    NotAuthenticated,
    ProjectionFailed,
)
from diptych.read.select import select
from diptych.testing.servers import PostgresServer
from tests.app import guarded

OrderId = Annotated[str, Tag("order")]


class Placed(Event):
    order: OrderId
    total: Decimal


class Place(Command):
    order: OrderId
    total: Decimal


class Order(Struct, frozen=True):
    placed: bool = False


class Row(View):
    order: Key[str]
    total: Decimal


class All(Query[list[Row]]):
    pass


def make_app(*, inline: bool = False) -> App:
    app = App("shop")

    @app.model(Order())
    def order(state: Order, event: Placed) -> Order:
        return Order(True)

    @app.decides
    def place(command: Place, order: Order) -> list[Placed]:
        if order.placed:
            raise Rejected("order already placed", order=command.order)
        if command.total < 0:
            raise ZeroDivisionError
        return [Placed(command.order, command.total)]

    @app.projects(Row, inline=inline)
    def row(row: Row | None, event: Placed) -> Row | None:
        if event.order == "poison":
            raise ValueError("poison")
        return Row(event.order, event.total)

    @app.answers
    async def all_rows(query: All, views: Views) -> list[Row]:
        return await views.all(select(Row).order_by(Row.order))

    return app


@pytest.fixture
async def shop(postgres_url: str) -> AsyncIterator[Running]:
    async with make_app().open(log=postgres_url, views=postgres_url) as running:
        yield running


@pytest.fixture
async def connection(postgres_url: str) -> AsyncIterator[asyncpg.Connection]:
    found = await asyncpg.connect(postgres_url)
    await found.execute("CREATE TABLE stock (item text PRIMARY KEY, left_over int)")
    yield found
    await found.close()


async def test_tables_and_events_commit_together(
    shop: Running, connection: asyncpg.Connection
) -> None:
    """What the caller writes, decides and appends is there when he commits, in order."""
    async with connection.transaction():
        await connection.execute("INSERT INTO stock VALUES ('tea', 3)")
        tx = await shop.within(connection)
        first = await tx.do(Place("1", Decimal("9.50")), key="k1", actor="ann")
        second = await tx.append(Placed("2", Decimal(1)), Placed("3", Decimal(2)))
        assert (first.first, second.first, second.last) == (1, 2, 3)
        assert await shop.log.head() == 0  # nobody else sees it yet
    answer = await shop.ask(All(), after=second.token)
    assert [row.order for row in answer.value] == ["1", "2", "3"]
    [recorded] = await shop.events.read([Placed], ["order:1"])
    assert recorded.metadata.actor == "ann"
    assert (await shop.do(Place("4", Decimal(4)))).first == 4  # the log's memory has caught up


async def test_tables_and_events_roll_back_together(
    shop: Running, connection: asyncpg.Connection
) -> None:
    """When the caller rolls back, neither events nor keys nor rows remain, and no position."""
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("INSERT INTO stock VALUES ('tea', 3)")
    await (await shop.within(connection)).do(Place("1", Decimal(1)), key="k1")
    await transaction.rollback()
    assert await shop.log.head() == 0
    assert await shop.recall(["k1"]) == {}
    assert await connection.fetchval("SELECT count(*) FROM stock") == 0
    assert (await shop.do(Place("1", Decimal(1)), key="k1")).first == 1


async def test_a_decision_sees_its_own_transaction(
    shop: Running, connection: asyncpg.Connection
) -> None:
    """What was appended in the transaction counts; rejections and keys are kept if it commits."""
    async with connection.transaction():
        tx = await shop.within(connection)
        receipt = await tx.do(Place("1", Decimal(1)), key="k1")
        with pytest.raises(Rejected, match="already placed"):
            await tx.do(Place("1", Decimal(2)), key="k2")
        again = await tx.do(Place("1", Decimal(1)), key="k1")
        assert (again.first, again.replayed) == (receipt.first, True)
        with pytest.raises(KeyReused):
            await tx.do(Place("1", Decimal(7)), key="k1")
        with pytest.raises(Rejected, match="already placed"):
            await tx.do(Place("1", Decimal(2)), key="k2")
        with pytest.raises(DecisionFailed):
            await tx.do(Place("2", Decimal(-1)))
    with pytest.raises(Rejected, match="already placed"):
        await shop.do(Place("1", Decimal(2)), key="k2")
    assert await shop.log.head() == 1


async def test_others_wait_for_the_commit_and_then_see_it(
    shop: Running, connection: asyncpg.Connection
) -> None:
    """A command sent meanwhile is decided on what the transaction has committed."""
    transaction = connection.transaction()
    await transaction.start()
    await (await shop.within(connection)).do(Place("1", Decimal(1)))
    waiting = shop.submit(Place("1", Decimal(2)))
    other = shop.submit(Place("2", Decimal(2)))
    await transaction.commit()
    with pytest.raises(Rejected, match="already placed"):
        await waiting
    assert (await other).first == 2


async def test_sqlalchemy_connections_and_sessions_will_do(
    shop: Running, postgres_url: str, connection: asyncpg.Connection
) -> None:
    """SQLAlchemy's AsyncConnection and AsyncSession carry the transaction, as does a pool's."""
    engine = create_async_engine(postgres_url.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.begin() as alchemy:
        tx = await shop.within(alchemy)
        await tx.do(Place("1", Decimal(1)))
        await alchemy.execute(text("INSERT INTO stock VALUES ('tea', 3)"))
    async with AsyncSession(engine) as session, session.begin():
        await (await shop.within(session)).do(Place("2", Decimal(1)))
    async with engine.connect() as alchemy:
        await (await shop.within(alchemy)).do(Place("3", Decimal(1)))
        await alchemy.rollback()
    await engine.dispose()
    async with (
        asyncpg.create_pool(postgres_url, min_size=1, max_size=1) as pool,
        pool.acquire() as pooled,
        pooled.transaction(),
    ):
        await (await shop.within(pooled)).do(Place("4", Decimal(1)))
    assert await shop.log.head() == 3


@pytest.mark.parametrize("made", ["before", "inside"])
@pytest.mark.parametrize("kind", ["session", "connection", "asyncpg"])
async def test_what_is_rolled_back_to_a_savepoint_takes_the_events_along(
    shop: Running, postgres_url: str, connection: asyncpg.Connection[Any], kind: str, made: str
) -> None:
    """A session sends its SAVEPOINT when it next needs its connection: that must be before."""
    engine = create_async_engine(postgres_url.replace("postgresql://", "postgresql+asyncpg://"))
    opened: Any = nullcontext(connection)
    if kind != "asyncpg":
        opened = AsyncSession(engine) if kind == "session" else engine.connect()
    async with opened as given:
        if kind == "asyncpg":
            begin = nested = given.transaction
        else:
            begin, nested = given.begin, given.begin_nested
        async with begin():
            tx = await shop.within(given)
            await tx.do(Place("1", Decimal(1)))
            for number in ("2", "3"):
                with suppress(ZeroDivisionError):
                    async with nested():
                        if made == "inside":
                            tx = await shop.within(given)
                        await tx.do(Place(number, Decimal(1)))
                        raise ZeroDivisionError
            async with nested():
                await tx.do(Place("4", Decimal(1)))
            with suppress(ZeroDivisionError):
                async with nested():
                    await tx.append(Placed("5", Decimal(1)))
                    raise ZeroDivisionError
    await engine.dispose()
    found = [one.tags async for one in shop.events.all((Placed,))]
    assert found == [("order:1",), ("order:4",)]


async def test_what_is_no_such_transaction_is_refused(
    shop: Running, connection: asyncpg.Connection
) -> None:
    """No transaction, another isolation, another driver, another log: each is said."""
    with pytest.raises(Invalid, match="no transaction"):
        await shop.within(connection)
    for level in ("repeatable_read", "serializable"):
        with pytest.raises(Invalid, match="READ COMMITTED"):
            async with connection.transaction(isolation=level):
                await shop.within(connection)
    with pytest.raises(Invalid, match="no connection to PostgreSQL"):
        await shop.within(object())
    async with make_app().open(log="memory:", views="memory:") as memory:
        with pytest.raises(Invalid, match="a log in PostgreSQL"):
            await memory.within(connection)


async def test_a_connection_to_another_database_is_refused(
    shop: Running, postgres_server: PostgresServer
) -> None:
    """One without a log, one with another log of the same name: nothing is appended in either."""
    other = postgres_server.new_database()
    connection = await asyncpg.connect(other)
    try:
        with pytest.raises(Invalid, match="does not reach the log") as refused:
            async with connection.transaction():
                await shop.within(connection)
        assert refused.value.got == "no log there"
        assert shop.log.identity in refused.value.rule
        async with make_app().open(log=other, views="memory:") as stranger:
            with pytest.raises(Invalid, match=f"got: the log {stranger.log.identity}"):
                async with connection.transaction():
                    await (await shop.within(connection)).do(Place("1", Decimal(1)))
            assert await stranger.log.head() == await shop.log.head() == 0
    finally:
        await connection.close()


async def test_the_schema_is_that_of_the_log(
    postgres_url: str, connection: asyncpg.Connection
) -> None:
    """Of two logs in one database each application reaches its own, by the same connection."""
    schemas = [f"{postgres_url}?schema={name}" for name in ("one", "two")]
    for url in schemas:
        async with make_app().open(log=url, views="memory:") as shop:
            async with connection.transaction():
                await (await shop.within(connection)).do(Place("1", Decimal(1)))
            assert await shop.log.head() == 1


async def test_inline_projections_take_part(
    postgres_url: str, connection: asyncpg.Connection
) -> None:
    """Rows of inline projections commit with the caller; one that raises undoes its events only."""
    async with make_app(inline=True).open(log=postgres_url, views=postgres_url) as shop:
        async with connection.transaction():
            tx = await shop.within(connection)
            assert isinstance(tx, Within)
            await tx.do(Place("1", Decimal(1)))
            with pytest.raises(ProjectionFailed):
                await tx.do(Place("poison", Decimal(1)))
            await connection.execute("INSERT INTO stock VALUES ('tea', 3)")
        assert await shop.views.get(Row, "1") == Row("1", Decimal(1))
        assert await shop.log.head() == 1
        assert [verdict.ok for verdict in await shop.verify()] == [True]


async def test_a_transaction_that_has_ended_takes_no_more(
    shop: Running, postgres_url: str, connection: asyncpg.Connection[Any]
) -> None:
    """After commit or rollback, and in the next transaction, nothing is appended: ``Closed``."""
    async with connection.transaction():
        tx = await shop.within(connection)
        await tx.do(Place("1", Decimal(1)))
    for _ in range(2):
        with pytest.raises(Closed, match="has ended"):
            await tx.do(Place("2", Decimal(1)))
        async with connection.transaction():
            with pytest.raises(Closed, match="has ended"):
                await tx.append(Placed("3", Decimal(1)))
    engine = create_async_engine(postgres_url.replace("postgresql://", "postgresql+asyncpg://"))
    async with AsyncSession(engine) as session:
        tx = await shop.within(session)
        await tx.do(Place("4", Decimal(1)))
        await session.commit()
        with pytest.raises(Closed, match="has ended"):
            await tx.do(Place("5", Decimal(1)))
    await engine.dispose()
    assert await shop.log.head() == 2


async def test_only_events_are_appended(shop: Running, connection: asyncpg.Connection[Any]) -> None:
    """A command handed to ``append`` is refused, and nothing is stored."""
    async with connection.transaction():
        tx = await shop.within(connection)
        with pytest.raises(Invalid, match="is not an event"):
            await tx.append(Place("1", Decimal(1)))  # type: ignore[arg-type]
    assert await shop.log.head() == 0


async def test_within_a_transaction_the_same_rules_are_asked(
    postgres_url: str, connection: asyncpg.Connection
) -> None:
    """A denied command takes no lock and spoils nothing; a key's answer is its actor's."""
    note, place = guarded.Note("2"), guarded.Place("acme", "1")
    async with (
        guarded.app.open(log=postgres_url, views=postgres_url) as running,
        connection.transaction(),
    ):
        tx = await running.within(connection)
        with pytest.raises(NotAllowed):
            await tx.do(place, actor=guarded.BOB)
        with pytest.raises(NotAuthenticated):
            await tx.do(place)
        assert (await running.do(note, actor="zoe")).first == 1  # nobody holds the lock
        assert (await tx.do(place, actor=guarded.ANN)).first == 2
        assert (await tx.do(note, key="k", actor=guarded.ANN)).first == 3
        assert (await tx.do(note, key="k", actor=guarded.ANN)).replayed
        with pytest.raises(KeyReused):
            await tx.do(note, key="k", actor=guarded.BOB)
        own = guarded.Placed("acme", "9")
        assert (await tx.append(own, key="a", actor=guarded.ANN)).first == 4
        assert (await tx.append(own, key="a", actor=guarded.ANN)).replayed
        with pytest.raises(KeyReused):
            await tx.append(own, key="a", actor="ann")
