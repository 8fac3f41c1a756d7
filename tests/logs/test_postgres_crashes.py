"""The server crashes under an application at work: nothing is lost, and all goes on by itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Annotated, Any

import pytest

from diptych import App, Command, Event, Key, Overloaded, Query, Running, Tag, View, Views
from diptych.app import databases
from diptych.errors import OutcomeUnknown, Unavailable
from diptych.read.select import select
from diptych.sql import postgres
from diptych.testing.contracts.making import positions
from diptych.testing.servers import PostgresServer
from diptych.testing.servers import postgres as server_of_its_own
from diptych.write.bus import Limits
from tests.logs.on_postgres import LONG, connected, sessions, until

CRASHES = 10
CLIENTS = 12

AccountId = Annotated[str, Tag("account")]


class Deposited(Event):
    account: AccountId
    amount: int


class Deposit(Command):
    account: AccountId
    amount: int


class Balance(View):
    account: Key[str]
    amount: int
    deposits: int


class Balances(Query[list[Balance]]):
    pass


def make_app() -> App:
    app = App("bank")

    @app.model(0)
    def number(state: int, event: Deposited) -> int:
        return state + 1

    @app.decides
    def deposit(command: Deposit, number: int) -> list[Deposited]:
        return [Deposited(command.account, command.amount)]

    @app.projects(Balance)
    def balance(row: Balance | None, event: Deposited) -> Balance:
        before = row or Balance(event.account, 0, 0)
        return Balance(event.account, before.amount + event.amount, before.deposits + 1)

    @app.answers
    async def balances(query: Balances, views: Views) -> list[Balance]:
        return await views.all(select(Balance).order_by(Balance.account))

    return app


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """One that may be killed."""
    with server_of_its_own(source="any") as server:
        yield server


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let applications that are opened from now on wait this long for their databases."""

    def set_to(seconds: float) -> None:
        class Patient(postgres.Database):
            def __init__(self, url: str) -> None:
                super().__init__(url, patience=seconds)

        class Module:
            Address = postgres.Address
            Database = Patient

        monkeypatch.setattr(databases, "postgres", lambda: Module)

    return set_to


async def all_applied(app: Running) -> Any:
    """Wait until every projection is at the head, by itself; return its status."""

    async def look() -> Any:
        with suppress(Unavailable):
            [status] = await app.status()
            return status if status.lag == 0 and status.state == "running" else None

    return await until(look)


class Load:
    """Clients that deposit all the time, each with a key, and keep what they were told."""

    def __init__(self, app: Running) -> None:
        self.app = app
        self.told: dict[str, int | str] = {}
        self.stored = 0
        self._stopped = False
        self._numbers = count()
        self._tasks = [asyncio.create_task(self._client(n)) for n in range(CLIENTS)]

    async def _client(self, number: int) -> None:
        while not self._stopped:
            key = f"deposit-{next(self._numbers)}"
            command = Deposit(f"{number % 5}", 1)
            try:
                receipt = await self.app.do(command, key=key)
            except (Unavailable, Overloaded, OutcomeUnknown) as error:
                self.told[key] = error.code
                await asyncio.sleep(0.005)
            else:
                self.told[key] = receipt.last
                self.stored += 1

    async def progress(self) -> None:
        """Wait until more was stored."""
        before = self.stored

        async def more() -> bool:
            return self.stored > before + CLIENTS

        await until(more)

    async def stop(self) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def check(self) -> None:
        """Hold what was told against the log: each key once, where it was said to be, or not."""
        known = await self.app.recall(list(self.told))
        places = Counter(answer.last for answer in known.values())
        assert max(places.values()) == 1
        for key, told in self.told.items():
            if isinstance(told, int):
                assert known[key].last == told
            elif told != "outcome-unknown":
                assert key not in known, f"{told}, and stored"


async def test_ten_crashes_under_load_lose_nothing(own_server: PostgresServer) -> None:
    """Killed and started ten times: commands, log and views are right, by themselves.

    What was acknowledged is there, what was refused is not, the view is the fold of the log, its
    proof verifies, and no more connections and tasks are left than at first.
    """
    url = own_server.new_database()
    async with make_app().open(log=url, views=url) as app:
        await app.do(Deposit("0", 1))
        await all_applied(app)
        tasks = len(asyncio.all_tasks())
        load = Load(app)
        for _ in range(CRASHES):
            await load.progress()
            await asyncio.to_thread(own_server.kill)
            await asyncio.to_thread(own_server.start)
            await load.progress()
            async with connected(url) as admin:
                assert len(await sessions(admin)) <= postgres.CONNECTIONS + 1
        await load.stop()
        await all_applied(app)
        await load.check()
        head = await app.log.head()
        assert await positions(app.log) == list(range(1, head + 1))
        answer = await app.ask(Balances())
        assert sum(row.deposits for row in answer.value) == answer.as_of == head
        assert [verdict.ok for verdict in await app.verify()] == [True]

        async def settled() -> bool:
            # Some begin with the first wait; what leaked at each crash would be as many as these.
            return len(asyncio.all_tasks()) < tasks + CRASHES

        await until(settled)


async def test_while_it_is_away_callers_are_told(
    own_server: PostgresServer, patience: Callable[[float], None]
) -> None:
    """Away for longer than patience: errors with codes, in order; then everything goes on."""
    patience(0.3)
    url = own_server.new_database()
    async with make_app().open(log=url, views=url, limits=Limits(waiting=50)) as app:
        load = Load(app)
        await load.progress()
        await asyncio.to_thread(own_server.kill)
        told = len(load.told)

        async def refused() -> bool:
            codes = [code for code in list(load.told.values())[told:] if isinstance(code, str)]
            return codes.count("unavailable") > 3 * CLIENTS

        await until(refused)
        outcomes = await asyncio.gather(
            *(_outcome(app, n) for n in range(100)), app.status(), return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {Unavailable, Overloaded}
        await asyncio.to_thread(own_server.start)
        await load.progress()
        await load.stop()
        await all_applied(app)
        await load.check()
        assert [verdict.ok for verdict in await app.verify()] == [True]


async def _outcome(app: Running, number: int) -> object:
    return await app.do(Deposit(f"other-{number}", 1))


async def throw_all_out(url: str) -> int:
    """End every session in the database, that which listens too; return how many there were."""
    async with connected(url) as admin:
        rows = await admin.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    return len(rows)


async def test_eventsourcing_305_a_projection_is_not_stuck_when_a_notification_is_lost(
    postgres_url: str,
) -> None:
    """The session that listens is ended, and another process appends: the projection goes on."""
    async with make_app().open(log=postgres_url, views=postgres_url) as reader:
        await all_applied(reader)
        for n in range(1, 4):
            assert await throw_all_out(postgres_url)
            async with make_app().open(
                log=postgres_url, views=postgres_url, projections=False
            ) as writer:
                receipt = await writer.do(Deposit("ann", 1))
            answer = await reader.ask(Balances(), after=receipt.token, wait=LONG, strict=True)
            assert [row.deposits for row in answer.value] == [n]


async def test_eventsourcing_306_a_projection_goes_on_after_its_connections_were_lost(
    postgres_url: str,
) -> None:
    """All sessions are ended again and again while it works: it neither stops nor skips."""
    async with make_app().open(log=postgres_url, views=postgres_url) as app:
        load = Load(app)
        for _ in range(15):
            await load.progress()
            await throw_all_out(postgres_url)
        await load.stop()
        status = await all_applied(app)
        assert status.error is None
        assert set(load.told.values()) & {"unavailable", "outcome-unknown"} == set()
        await load.check()
        assert [verdict.ok for verdict in await app.verify()] == [True]


async def test_a_listener_that_is_lost_is_replaced(postgres_url: str) -> None:
    """The session that listens comes back by itself, and there is one of it."""
    async with (
        make_app().open(log=postgres_url, views=postgres_url),
        connected(postgres_url) as admin,
    ):

        async def listeners() -> list[int]:
            return [
                session["pid"]
                for session in await sessions(admin)
                if session["query"].startswith("LISTEN") and session["state"] == "idle"
            ]

        [first] = await until(listeners)
        await admin.execute("SELECT pg_terminate_backend($1)", first)

        async def another() -> bool:
            return await listeners() not in ([], [first])

        await until(another)
        assert len(await listeners()) == 1
