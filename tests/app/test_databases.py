"""Log and views by URL, in any mixture; several read databases at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import asyncpg
import pytest

from diptych import App, Command, Event, Invalid, Key, Query, Tag, View, Views
from diptych.app.databases import Create, Where, connections, read_databases
from diptych.errors import DefinitionError, NoLog, NoViews, Unavailable
from diptych.logs.postgres import PostgresLog
from diptych.logs.sqlite import SqliteLog
from diptych.read.port import Transaction
from diptych.read.select import column, select
from diptych.read.stores.sqlite import SqliteViews
from diptych.sql import sqlite

OrderId = Annotated[str, Tag("order")]


class Placed(Event):
    order: OrderId
    customer: str


class Place(Command):
    order: OrderId
    customer: str


class Order(View):
    order: Key[str]
    customer: str


class Customer(View, store="reports"):
    customer: Key[str]
    orders: int


class Asked(Query[tuple[list[Order], list[Customer]]]):
    pass


app = App("shop")


@app.decides
def place(command: Place) -> list[Placed]:
    return [Placed(command.order, command.customer)]


@app.projects(Order)
def order(row: Order | None, event: Placed) -> Order | None:
    return Order(event.order, event.customer)


@app.projects(Customer)
def customer(row: Customer | None, event: Placed) -> Customer | None:
    return Customer(event.customer, (row.orders if row else 0) + 1)


@app.answers
async def asked(query: Asked, views: Views) -> tuple[list[Order], list[Customer]]:
    orders = await views.all(select(Order).order_by(Order.order))
    return orders, await views.all(select(Customer).order_by(Customer.customer))


def addresses(kind: str, folder: Path, url: str) -> str:
    return {
        "memory": "memory:",
        "log file": f"sqlite:///{folder}/log.db",
        "file": f"sqlite:///{folder}/views.db",
        "postgresql": url,
        "schema": f"{url}?schema=reports",
    }[kind]


@pytest.mark.parametrize("log", ["memory", "log file", "postgresql"])
@pytest.mark.parametrize(
    ("main", "reports"),
    [
        ("file", "postgresql"),
        ("postgresql", "file"),
        ("memory", "schema"),
        ("postgresql", "schema"),
        ("log file", "log file"),
    ],
)
async def test_log_and_read_databases_mix_freely(
    log: str, main: str, reports: str, tmp_path: Path, postgres_url: str
) -> None:
    """One query reads two databases of different kinds, both waited for and both proved."""
    at = {name: addresses(name, tmp_path, postgres_url) for name in (log, main, reports)}
    where = {"main": at[main], "reports": at[reports]}
    async with app.open(log=at[log], views=where) as shop:
        await shop.do(Place("1", "ann"))
        receipt = await shop.do(Place("2", "ann"))
        answer = await shop.ask(Asked(), after=receipt.token, strict=True)
        assert answer.value == (
            [Order("1", "ann"), Order("2", "ann")],
            [Customer("ann", 2)],
        )
        assert answer.as_of == 2
        assert {s.projection: s.position for s in await shop.status()} == {
            "order": 2,
            "customer": 2,
        }
        assert [(v.projection, v.ok) for v in await shop.verify("customer", "order")] == [
            ("customer", True),
            ("order", True),
        ]


@pytest.mark.parametrize(
    ("log", "views"),
    [
        ("log file", "log file"),
        ("log file", "file"),
        ("postgresql", "postgresql"),
        ("postgresql", "schema"),
        ("log file", "postgresql"),
        ("postgresql", "file"),
    ],
)
async def test_nothing_is_made_where_it_may_not_be(
    log: str, views: str, tmp_path: Path, postgres_url: str
) -> None:
    """Neither a file nor a schema: no log, then no views."""
    log_at, views_at = (addresses(name, tmp_path, postgres_url) for name in (log, views))

    async def there() -> set[str]:
        connection = await asyncpg.connect(postgres_url)
        try:
            named = "SELECT nspname FROM pg_namespace WHERE nspname IN ('diptych', 'reports')"
            schemas = {row[0] for row in await connection.fetch(named)}
        finally:
            await connection.close()
        return schemas | {path.name for path in tmp_path.glob("*.db")}

    async def opened(create: Create) -> str:
        try:
            opening = app.open(log=log_at, views=views_at, create=create, projections=False)
            async with opening as shop:
                return str([one.position for one in await shop.status()])
        except (NoLog, NoViews) as error:
            return error.message

    no_log, no_views = (
        f"There {what} at that address, and none {were} to be made"
        for what, were in (("is no log", "was"), ("are no views", "were"))
    )
    assert await opened("views") == no_log
    assert await opened("nothing") == no_log
    assert await there() == set()
    async with app.open(log=log_at, views="memory:") as shop:
        await shop.do(Place("1", "ann"))
    made = await there()
    assert await opened("nothing") == no_views
    assert await there() == made
    assert await opened("views") == "[0, 0]"
    assert await opened("nothing") == "[0, 0]"


async def test_an_empty_file_or_schema_is_no_log(tmp_path: Path, postgres_url: str) -> None:
    """An adapter by itself makes nothing either."""
    (tmp_path / "empty.db").touch()
    for path in (tmp_path / "none.db", tmp_path / "empty.db"):
        with pytest.raises(NoLog):
            await SqliteLog.open(path, create=False)
    assert not (tmp_path / "none.db").exists()
    await SqliteViews(sqlite.Database(tmp_path / "views.db")).close()
    with pytest.raises(NoLog):
        await SqliteLog.open(tmp_path / "views.db", create=False)
    with pytest.raises(NoLog, match="schema: diptych"):
        await PostgresLog.open(postgres_url, create=False)


async def test_what_may_be_made_is_one_of_three() -> None:
    odd: Any = "everything"
    with pytest.raises(Invalid, match="all or views or nothing"):
        async with app.open(log="memory:", views="memory:", create=odd):
            pass


async def test_one_address_holds_all_read_databases(tmp_path: Path) -> None:
    """Where one URL is given, views that name another database are kept there too."""
    url = f"sqlite:///{tmp_path}/all.db"
    async with app.open(log=url, views=url) as shop:
        await shop.do(Place("1", "ann"))
        await shop.catch_up()
        assert await shop.views.get(Customer, "ann") == Customer("ann", 1)


async def test_a_statement_reads_one_read_database(tmp_path: Path) -> None:
    """A join over two databases is refused, and so is a view that nobody keeps."""
    where = {"main": f"sqlite:///{tmp_path}/a.db", "reports": f"sqlite:///{tmp_path}/b.db"}
    async with app.open(log="memory:", views=where) as shop:
        both = select(column(Order.order), column(Customer.orders))
        with pytest.raises(Invalid, match="views of one read database"):
            await shop.views.rows(both)


def test_an_address_that_no_view_names_is_refused() -> None:
    """A slip of the pen, but for the main one, which may be left without views."""
    kept = app.compile().projections
    both = {"main": "memory:", "reports": "memory:"}
    with pytest.raises(Invalid, match="report, old") as caught:
        read_databases({**both, "report": "memory:", "old": "memory:"}, kept)
    assert "main, reports" in caught.value.rule
    read_databases(both, [one for one in kept if one.store == "reports"])


async def test_a_parameter_that_postgresql_does_not_know_is_named(postgres_url: str) -> None:
    with pytest.raises(Invalid, match="does not take a parameter of the URL") as caught:
        async with app.open(log=f"{postgres_url}?foo=1", views="memory:"):
            pass
    assert (caught.value.field, caught.value.facts["parameter"]) == ("url", "foo")


def test_a_read_database_without_an_address_is_named() -> None:
    """A view whose database has no address is an error that names both, before anything opens."""
    with pytest.raises(DefinitionError, match=r"names a read database.*reports.*known: main"):
        read_databases({"main": "memory:"}, app.compile().projections)


def test_a_handlers_views_are_in_one_database() -> None:
    """A handler has one transaction, so its views are in one read database."""
    odd = App("odd")

    @odd.handles(Order, Customer)
    async def both(event: Placed, tx: Transaction) -> None: ...

    with pytest.raises(DefinitionError, match="in one read database"):
        odd.compile()


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("mysql://x", "memory: or sqlite:///file"),
        ("sqlite://file", "memory: or sqlite:///file"),
        ("sqlite:///ok.db?mode=ro", "%3F"),
        ("postgresql://h/d?schema=No-Name", "schema"),
        ("postgresql://h/d?schema=pg_own", "schema"),
        ("postgresql://h/d?connections=1", "connections"),
        ("postgresql://h/d?pooled=yes", "pooled"),
    ],
)
def test_an_address_that_cannot_be_is_refused(url: str, rule: str) -> None:
    """The rule that a URL breaks is named."""
    with pytest.raises(Invalid) as caught:
        Where.parse(url, "log")
    assert rule in caught.value.rule


def test_a_question_mark_in_a_files_name_is_escaped() -> None:
    path = Where.parse("sqlite:///what%3F.db", "log").path
    assert path is not None
    assert path.name == "what?.db"


def test_connections_are_bounded_and_told() -> None:
    """What `describe` prints: each database once, the listener only where the log is."""
    url = "postgresql://ann:secret@host:5433/shop"
    told = connections(url, {"main": url, "reports": f"{url}?connections=3", "x": "memory:"})
    assert [(one.most, one.listening) for one in told] == [(8, 1), (3, 0)]
    assert "secret" not in repr(told)
    assert connections(f"{url}?pooled=1", "memory:")[0].listening == 0


async def test_a_database_that_is_not_there_is_unavailable() -> None:
    """Nobody listens at that port: an error with a code that says where, and no password."""
    url = "postgresql://ann:secret@127.0.0.1:1/shop"
    with pytest.raises(Unavailable) as caught:
        async with app.open(log=url, views="memory:"):
            pass
    assert "ann@127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)
