"""A bank whose view of accounts has several versions.

``python -m tests.app.bank VERSION URL N`` rebuilds it, and kills itself at the N-th step.
"""

import asyncio
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
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


def with_handler(sent: list[str], extra: str = "") -> App:
    """A handler that does something outside, whose code can be changed."""
    app = App("bank")
    app.decides(decide)

    class Letter(View, table="letters"):
        position: Key[int]
        text: str

    if extra:

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


# --- a process that dies --------------------------------------------------------------------------

VERSIONS: dict[str, Callable[..., Bank]] = {"v1": v1, "v2": v2, "v3": v3}
STEPS = ("open", "claim", "apply", "index", "prove", "turn", "recut")


def dying(store: Any, at: int) -> None:
    """Have the process killed before or after a step in the database, by its number."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(work: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            step()
            result = await work(*args, **kwargs)
            step()
            return result

        return call

    for name in STEPS:
        setattr(store, name, wrapped(getattr(store, name)))


async def main(version: str, url: str, at: int) -> None:
    from diptych.app import databases
    from diptych.read.following.engine import Engine

    assert Engine.__init__.__kwdefaults__ is not None
    Engine.__init__.__kwdefaults__["page"] = 50  # so that there are more steps to die at
    make = databases.Databases.store

    def store(self: Any, where: Any) -> Any:
        found: Any = make(self, where)
        if not hasattr(found, "dies"):
            found.dies = True
            dying(found, at)
        return found

    databases.Databases.store = store  # type: ignore[method-assign]
    app = VERSIONS[version](slices=4).app
    async with app.open(log=url, views=url, rebuild="manual") as running:
        print(*[one.state for one in await running.projections.rebuild()])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
