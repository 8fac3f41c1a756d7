"""The application that is tortured: accounts, moves between them, and a journal of the moves."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated

from msgspec import Struct

from diptych import (
    App,
    Command,
    DiptychError,
    Event,
    Key,
    Query,
    Rejected,
    Tag,
    Transaction,
    View,
    Views,
    select,
)
from diptych.testing.recording import AppRecorder

ACCOUNTS = 6

AccountId = Annotated[str, Tag("account")]


class Account(Struct, frozen=True):
    """What decisions know of an account."""

    open: bool = False
    moves: int = 0


class Opened(Event):
    account: AccountId


class Moved(Event):
    """``number`` counts the moves in which the source took part."""

    source: AccountId
    target: AccountId
    amount: int
    number: int


class Open(Command):
    account: AccountId


class Move(Command):
    source: AccountId
    target: AccountId
    amount: int


class Balance(View):
    account: Key[str]
    balance: int
    moves: int


class Balances(View, table="balance", indexes=(("largest",),)):
    """The next version of ``Balance``: it has another column."""

    account: Key[str]
    balance: int
    moves: int
    largest: int


class Turnover(View):
    source: Key[str]
    entries: int
    amount: int


class BalanceOf(Query[int]):
    account: str


class Books(Query[tuple[int, int]]):
    """The sum of all balances, and of all their moves."""


def accounts(
    *,
    inline: bool = False,
    changed: bool = False,
    slices: int | None = None,
    fresh_within: float | None = None,
) -> App:
    """Return the application; ``inline``: balances are kept in the appends' own transactions.

    ``changed``: of the balances it has the next version. ``slices`` of the balances: with one, all
    rows are as of one position, even where several work on them. ``fresh_within``: what is
    promised of the balances, seconds.
    """
    app = App("accounts")

    @app.model(Account())
    def account(state: Account, event: Opened | Moved) -> Account:
        return Account(True, state.moves + isinstance(event, Moved))

    @app.decides
    def open_account(command: Open, account: Account) -> Iterator[Opened]:
        if account.open:
            raise Rejected("account is open", account=command.account)
        yield Opened(command.account)

    @app.decides
    def move(command: Move, source: Account, target: Account) -> Iterator[Moved]:
        if not (source.open and target.open):
            raise Rejected("account is not open")
        yield Moved(command.source, command.target, command.amount, source.moves + 1)
        if command.amount % 7 == 0:  # and a fee, so that some commands have two events
            yield Moved(command.source, command.target, 1, source.moves + 2)

    def touched(event: Opened | Moved) -> list[str]:
        if isinstance(event, Opened):
            return [event.account]
        return [event.source, event.target]

    def signed(event: Moved, key: str) -> int:
        return (event.target == key) * event.amount - (event.source == key) * event.amount

    table: type[Balance] | type[Balances] = Balances if changed else Balance
    if changed:

        @app.projects(Balances, key=touched, slices=slices)
        def balances(row: Balances | None, event: Opened | Moved, key: str) -> Balances:
            row = row or Balances(key, 0, 0, 0)
            if isinstance(event, Opened):
                return row
            largest = max(row.largest, event.amount)
            return Balances(key, row.balance + signed(event, key), row.moves + 1, largest)

    else:

        @app.projects(Balance, key=touched, inline=inline, slices=slices, fresh_within=fresh_within)
        def balance(row: Balance | None, event: Opened | Moved, key: str) -> Balance | None:
            row = row or Balance(key, 0, 0)
            if isinstance(event, Opened):
                return row
            return Balance(key, row.balance + signed(event, key), row.moves + 1)

    @app.handles(Turnover)
    async def turnover(event: Moved, tx: Transaction) -> None:
        row = await tx.get(Turnover, event.source) or Turnover(event.source, 0, 0)
        await tx.put(Turnover(event.source, row.entries + 1, row.amount + event.amount))

    @app.answers
    async def balance_of(query: BalanceOf, views: Views) -> int:
        row = await views.get(table, query.account)
        return 0 if row is None else row.balance

    @app.answers
    async def books(_: Books, views: Views) -> tuple[int, int]:
        rows = await views.all(select(table))
        return sum(row.balance for row in rows), sum(row.moves for row in rows)

    return app


async def customer(app: AppRecorder, number: int, rng: random.Random) -> None:
    """Open an account, move money, ask for it. Keys are those of earlier processes too."""
    a, b = rng.sample(range(ACCOUNTS), 2)
    with suppress(DiptychError):
        await app.do(Open(f"a{a}"))
    with suppress(DiptychError):
        key = f"{number}-{rng.randrange(200)}" if rng.random() < 0.6 else None
        receipt = await app.do(Move(f"a{a}", f"a{b}", 1 + rng.randrange(3) * 6), key=key)
        await app.ask(BalanceOf(f"a{b}"), after=receipt.token, wait=0.1)
