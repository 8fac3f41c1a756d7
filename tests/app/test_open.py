"""An application, opened: URLs, tokens, inline projections, life and death."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest
from msgspec import Struct

from diptych import (
    App,
    Command,
    Event,
    Invalid,
    Key,
    Limits,
    Module,
    Overloaded,
    Query,
    Rejected,
    Running,
    Tag,
    View,
    Views,
    select,
)
from diptych.errors import (
    Closed,
    DefinitionError,
    ForeignCheckpoint,
    LogUnusable,
    ProjectionFailed,
)

OrderId = Annotated[str, Tag("order")]


class Place(Command):
    order: OrderId
    total: Decimal


class Placed(Event):
    order: OrderId
    total: Decimal


class Order(Struct, frozen=True):
    placed: bool = False


class Summary(View):
    order: Key[str]
    total: Decimal


class Total(View):
    name: Key[str]
    total: Decimal


class All(Query[list[Summary]]):
    pass


class Totals(Query[list[Total]]):
    pass


def make_app(*, inline: bool = False) -> App:
    orders = Module("orders")

    @orders.model(Order())
    def order(state: Order, event: Placed) -> Order:
        return Order(True)

    @orders.decides
    def place(command: Place, order: Order) -> Iterator[Placed]:
        if order.placed:
            raise Rejected("order already placed", order=command.order)
        yield Placed(command.order, command.total)

    @orders.projects(Summary, inline=inline)
    def summary(row: Summary | None, event: Placed) -> Summary:
        if event.total < 0:
            raise ValueError("negative")
        return Summary(event.order, event.total)

    totals = Module("totals")

    @totals.projects(Total, key=lambda event: "all")
    def total(row: Total | None, event: Placed) -> Total:
        return Total("all", event.total + (row.total if row else 0))

    @orders.answers
    async def everything(query: All, views: Views) -> list[Summary]:
        return await views.all(select(Summary).order_by(Summary.order))

    @totals.answers
    async def all_totals(query: Totals, views: Views) -> list[Total]:
        return await views.all(select(Total))

    return App("shop", orders, totals)


def urls(tmp_path: Path) -> list[tuple[str, str]]:
    log, views = f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/views.db"
    return [("memory:", "memory:"), (log, log), (log + "2", views), ("memory:", views + "2")]


@pytest.mark.parametrize("index", range(4))
async def test_log_and_views_together_or_apart(tmp_path: Path, index: int) -> None:
    """Every mix of URLs runs the same application, and a token reads its own write."""
    log, views = urls(tmp_path)[index]
    async with make_app().open(log=log, views=views) as running:
        receipt = await running.do(Place("1", Decimal("2.50")))
        answer = await running.ask(All(), after=receipt.token)
        assert answer.value == [Summary("1", Decimal("2.50"))]
        assert (answer.as_of, answer.age, answer.stale) == (1, 0.0, False)
        with pytest.raises(Rejected):
            await running.do(Place("1", Decimal(1)))
        assert all(verdict.ok for verdict in await running.verify())
        assert [s.lag for s in await running.status()] == [0, 0]


async def test_a_token_may_be_given_as_its_text() -> None:
    """It is what comes back from a client."""
    async with make_app().open(log="memory:", views="memory:") as running:
        receipt = await running.do(Place("1", Decimal(1)))
        answer = await running.ask(All(), after=str(receipt.token))
        assert len(answer.value) == 1
        for odd in ("nonsense", 3):
            with pytest.raises(Invalid, match="That is no token"):
                await running.ask(All(), after=odd)  # type: ignore[arg-type]


async def test_what_is_given_in_the_wrong_place_is_named() -> None:
    """A coded error with field and rule for each, not one of Python's."""
    async with make_app().open(log="memory:", views="memory:") as running:
        wrong: Any = running
        message: Any
        query: Any
        for message, text in (
            (Place, r"give an instance of it: Place\(\.\.\.\)"),
            (Placed("1", Decimal(1)), "an event, no command"),
            (All(), r"give it to ask\(\)"),
            ("Place", "That is no command"),
        ):
            with pytest.raises(Invalid, match=text):
                await wrong.do(message)
        for query, text in (
            (All, r"give an instance of it: All\(\.\.\.\)"),
            (Place("1", Decimal(1)), r"give it to do\(\)"),
            (None, "That is no query"),
        ):
            with pytest.raises(Invalid, match=text):
                await wrong.ask(query)
        for wait in ("x", -1, None, float("nan")):
            with pytest.raises(Invalid, match="no time to wait"):
                await wrong.ask(All(), wait=wait)
        with pytest.raises(Invalid, match="no key of Summary"):
            await running.views.get(Summary, ("1", "2"))


@pytest.mark.parametrize("odd", [None, 3, Path("log.db")])
async def test_an_address_that_is_no_text_is_named(odd: Any) -> None:
    given: Any
    for given, field in (
        ({"log": odd, "views": "memory:"}, "log"),
        ({"log": "memory:", "views": odd}, "views"),
        ({"log": "memory:", "views": {"main": odd}}, "views.main"),
    ):
        with pytest.raises(Invalid, match="no address") as caught:
            async with make_app().open(**given):  # pyright: ignore[reportArgumentType]
                pass
        assert caught.value.field == field


def test_a_plain_with_says_how_an_application_is_opened() -> None:
    opening: Any = make_app().open(log="memory:", views="memory:")
    with pytest.raises(DefinitionError, match="async with") as caught, opening:
        pass
    assert "test_open.py" in caught.value.at


async def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Log and views outlive the process: states, keys, rows and checkpoints are there again."""
    url = f"sqlite:///{tmp_path}/shop.db"
    async with make_app().open(log=url, views=url) as running:
        first = await running.do(Place("1", Decimal(1)), key="k")
    async with make_app().open(log=url, views=url) as running:
        assert (await running.do(Place("1", Decimal(1)), key="k")).first == first.first
        with pytest.raises(Rejected):
            await running.do(Place("1", Decimal(1)))
        receipt = await running.do(Place("2", Decimal(2)))
        answer = await running.ask(Totals(), after=receipt.token)
        assert answer.value == [Total("all", Decimal(3))]


async def test_inline_views_are_current_at_once(tmp_path: Path) -> None:
    """An inline projection's rows are written in the append's own transaction."""
    url = f"sqlite:///{tmp_path}/shop.db"
    async with make_app(inline=True).open(log=url, views=url) as running:
        await asyncio.gather(*[running.do(Place(str(n), Decimal(n))) for n in range(50)])
        with sqlite3.connect(tmp_path / "shop.db") as connection:
            (rows,) = connection.execute("SELECT count(*) FROM summary").fetchone()
        connection.close()
        assert rows == 50
        assert (await running.ask(All(), wait=0)).as_of == 50
        await running.catch_up()
        assert all(verdict.ok for verdict in await running.verify())


async def test_an_inline_projection_that_fails_stops_its_command_only(tmp_path: Path) -> None:
    """The command whose events an inline projection cannot fold fails; its neighbours do not."""
    url = f"sqlite:///{tmp_path}/shop.db"
    async with make_app(inline=True).open(log=url, views=url) as running:
        results = await asyncio.gather(
            *[running.do(Place(str(n), Decimal(-1 if n == 3 else 1))) for n in range(6)],
            return_exceptions=True,
        )
        assert isinstance(results[3], ProjectionFailed)
        assert "negative" in str(results[3])
        assert sum(isinstance(result, BaseException) for result in results) == 1
        assert await running.log.head() == 5
        receipt = await running.do(Place("3", Decimal(1)))
        assert receipt.last == 6


async def test_an_inline_projection_added_later_catches_up(tmp_path: Path) -> None:
    """A projection that becomes inline on an old log first applies what is there."""
    url = f"sqlite:///{tmp_path}/shop.db"
    async with make_app().open(log=url, views="memory:") as running:
        for n in range(5):
            await running.do(Place(str(n), Decimal(1)))
    async with make_app(inline=True).open(log=url, views=url) as running:
        await running.do(Place("5", Decimal(1)))
        assert len((await running.ask(All(), wait=0)).value) == 6
        await running.catch_up()
        assert all(verdict.ok for verdict in await running.verify())


async def test_inline_needs_one_database(tmp_path: Path) -> None:
    """Inline with log and views apart is refused, with the function's place."""
    log, views = urls(tmp_path)[2]
    with pytest.raises(DefinitionError, match=r"one database.*test_open\.py:\d+"):
        async with make_app(inline=True).open(log=log, views=views):
            pass


@pytest.mark.parametrize("url", ["", "sqlite:", "sqlite:///", "sqlite:///:memory:", "mysql://x"])
async def test_a_wrong_url_is_invalid(url: str) -> None:
    """An address that is none is refused with the rule."""
    with pytest.raises(Invalid, match="memory: or sqlite:///file") as caught:
        async with make_app().open(log=url, views="memory:"):
            pass
    assert caught.value.field == "log"


async def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    """A text file or somebody else's database is not touched."""
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but longer than a header of one\n" * 100)
    with pytest.raises(LogUnusable):
        async with make_app().open(log=f"sqlite:///{text}", views="memory:"):
            pass
    assert text.read_text().startswith("not a database")
    with pytest.raises(LogUnusable):
        async with make_app().open(log=f"sqlite:///{tmp_path}/no/such/dir/x.db", views="memory:"):
            pass


async def test_limits_reach_the_bus() -> None:
    """The bound on waiting commands is the application's."""
    async with make_app().open(log="memory:", views="memory:", limits=Limits(waiting=1)) as running:
        future = running.submit(Place("1", Decimal(1)))
        with pytest.raises(Overloaded):
            running.submit(Place("2", Decimal(1)))
        await future


async def test_after_the_end_everything_says_closed() -> None:
    """A closed application answers with Closed, and closing finishes what was accepted."""
    async with make_app().open(log="memory:", views="memory:") as running:
        future = running.submit(Place("1", Decimal(1)))
    assert (await future).last == 1
    with pytest.raises(Closed):
        await running.do(Place("2", Decimal(1)))


async def test_a_reader_beside_the_writer(tmp_path: Path) -> None:
    """Two openings of the same files, as two processes have: one writes, the other answers."""
    log, views = f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/views.db"
    async with (
        make_app().open(log=log, views=views) as reading,
        make_app().open(log=log, views=views, projections=False) as writing,
    ):
        receipt = await writing.do(Place("1", Decimal(1)))
        answer = await reading.ask(Totals(), after=receipt.token)
        assert (answer.value, answer.stale) == ([Total("all", Decimal(1))], False)
        elsewhere = await writing.ask(Totals(), after=receipt.token)
        assert (elsewhere.value, elsewhere.stale) == (answer.value, False)


@pytest.mark.parametrize("field", ["actor", "correlation_id", "causation_id", "key"])
@pytest.mark.parametrize("value", [5, "", "a\nb", "\ud800"])
async def test_what_is_kept_beside_events_is_text(field: str, value: Any) -> None:
    """Who and why are checked before anything is stored: a log can never be mended."""
    async with make_app().open(log="memory:", views="memory:") as running:
        with pytest.raises(Invalid) as caught:
            await running.do(Place("1", Decimal(1)), **{field: value})
        assert caught.value.field == field
        assert await running.log.head() == 0


async def test_views_of_another_log_answer_nothing(tmp_path: Path) -> None:
    """Rows that belong to another log are refused by queries, with the remedy (P7)."""
    views = f"sqlite:///{tmp_path}/views.db"
    async with make_app().open(log="memory:", views=views) as running:
        await running.do(Place("1", Decimal(1)))
        await running.catch_up()
    async with make_app().open(log="memory:", views=views) as running:
        await running.do(Place("2", Decimal(1)))
        with pytest.raises(ForeignCheckpoint):
            await running.ask(All())
        with pytest.raises(ForeignCheckpoint):
            await running.ask(Totals())
        assert {status.state for status in await running.status()} == {"refused"}
        assert not any(verdict.ok for verdict in await running.verify())


async def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """A file that SQLite finds damaged gives LogUnusable, never a fault of somebody else."""
    path = tmp_path / "log.db"
    url = f"sqlite:///{path}"
    async with make_app().open(log=url, views="memory:") as running:
        for n in range(400):
            await running.do(Place(f"{n:05}" * 20, Decimal(1)))
    with path.open("r+b") as file:
        size = path.stat().st_size
        for page in range(2, size // 4096):
            file.seek(page * 4096)
            file.write(b"\xaa" * 4096)
    with pytest.raises(LogUnusable, match="damaged"):
        async with make_app().open(log=url, views="memory:", projections=False) as running:
            await running.do(Place("00001" * 20, Decimal(1)))


async def test_two_processes_on_one_hot_boundary_both_get_through(tmp_path: Path) -> None:
    """Two openings of one file that want the same boundary all the time end without Conflict."""
    url = f"sqlite:///{tmp_path}/log.db"
    app = make_app()

    async def work(running: Running) -> int:
        done = 0
        for _ in range(150):
            try:
                await running.do(Place("hot", Decimal(1)))
            except Rejected:
                done += 1
        return done

    async with (
        app.open(log=url, views="memory:", projections=False) as one,
        app.open(log=url, views="memory:", projections=False) as other,
    ):
        assert sum(await asyncio.gather(work(one), work(other))) == 299
