"""A bank whose view of accounts has several versions."""

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

from diptych import App, Command, Event, Key, Query, Tag, Transaction, View, Views, select

Name = Annotated[str, Tag("account")]


class Pay(Command):
    source: Name
    target: str
    amount: int


class Paid(Event):
    source: Name
    target: str
    amount: int


def decide(command: Pay) -> Iterator[Paid]:
    yield Paid(command.source, command.target, command.amount)


def touched(event: Paid) -> list[str]:
    return [event.source, event.target]


def signed(event: Paid, name: str) -> int:
    return event.amount * ((name == event.target) - (name == event.source))


class Bank(NamedTuple):
    app: App
    account: Any
    all: Any


def v1(*, inline: bool = False, slices: int = 1) -> Bank:
    app = App("bank")
    app.decides(decide)

    class Account(View, table="accounts", indexes=(("balance",),)):
        name: Key[str]
        balance: int

    @app.projects(Account, key=touched, inline=inline, slices=slices)
    def accounts(row: Account | None, event: Paid, key: str) -> Account:
        return Account(key, (row.balance if row else 0) + signed(event, key))

    class All(Query[list[Account]]):
        least: int = -(10**9)

    @app.answers
    async def all_accounts(query: All, views: Views) -> list[Account]:
        return await views.all(select(Account).where(Account.balance >= query.least))

    return Bank(app, Account, All)


def v2(*, inline: bool = False, slices: int = 1) -> Bank:
    """There is another column."""
    app = App("bank")
    app.decides(decide)

    class Account(View, table="accounts", indexes=(("balance",), ("payments", "name"))):
        name: Key[str]
        balance: int
        payments: int

    @app.projects(Account, key=touched, inline=inline, slices=slices)
    def accounts(row: Account | None, event: Paid, key: str) -> Account:
        old = row or Account(key, 0, 0)
        return Account(key, old.balance + signed(event, key), old.payments + 1)

    class All(Query[list[Account]]):
        least: int = -(10**9)

    @app.answers
    async def all_accounts(query: All, views: Views) -> list[Account]:
        return await views.all(select(Account).where(Account.balance >= query.least))

    return Bank(app, Account, All)


def v3(*, inline: bool = False, slices: int = 1) -> Bank:
    """The same columns as at first, other values: all amounts count twice."""
    app = App("bank")
    app.decides(decide)

    class Account(View, table="accounts", indexes=(("balance",),)):
        name: Key[str]
        balance: int

    @app.projects(Account, key=touched, inline=inline, slices=slices)
    def accounts(row: Account | None, event: Paid, key: str) -> Account:
        return Account(key, (row.balance if row else 0) + 2 * signed(event, key))

    class All(Query[list[Account]]):
        least: int = -(10**9)

    @app.answers
    async def all_accounts(query: All, views: Views) -> list[Account]:
        return await views.all(select(Account).where(Account.balance >= query.least))

    return Bank(app, Account, All)


def with_handler(sent: list[str], extra: str = "", *, column: bool = False) -> App:
    """A handler that does something outside, whose code and columns can be changed."""
    app = App("bank")
    app.decides(decide)

    class Letter(View, table="letters"):
        position: Key[int]
        text: str

    class Stamped(View, table="letters"):
        position: Key[int]
        text: str
        stamps: int

    if column:

        @app.handles(Stamped)
        async def stamped(event: Paid, tx: Transaction) -> None:
            sent.append(event.source)
            await tx.put(Stamped(len(sent), event.source, 1))

    elif extra:

        @app.handles(Letter)
        async def letters(event: Paid, tx: Transaction) -> None:
            sent.append(event.source + "!")
            await tx.put(Letter(len(sent), event.source))

    else:

        @app.handles(Letter)
        async def letters(event: Paid, tx: Transaction) -> None:
            sent.append(event.source)
            await tx.put(Letter(len(sent), event.source))

    return app
