"""A small application for the tests of the write side: accounts that are opened, paid, closed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Struct

from diptych.codec import Codec
from diptych.errors import Rejected
from diptych.log import Log
from diptych.messages import Command, Event, Tag
from diptych.write.bus import CommandBus, Limits
from diptych.write.definitions import ModelDeclaration, compile_write_side

AccountId = Annotated[str, Tag("account")]


class Open(Command):
    account: AccountId


class Pay(Command):
    source: AccountId
    target: AccountId
    amount: int


class Close(Command):
    account: AccountId


class Touch(Command):
    """Changes the account without asking for its state."""

    account: AccountId


class Opened(Event):
    account: AccountId


class Paid(Event):
    source: AccountId
    target: AccountId
    amount: int


class Closed(Event):
    account: AccountId


class Touched(Event):
    account: AccountId


class Account(Struct, frozen=True):
    opened: bool = False
    paid: int = 0
    touched: int = 0


def account(state: Account, event: Opened | Paid | Closed | Touched) -> Account:
    match event:
        case Opened():
            return Account(True, 0, state.touched)
        case Paid():
            return Account(state.opened, state.paid + 1, state.touched)
        case Closed():
            return Account(False, 0, state.touched)
        case Touched():
            return Account(state.opened, state.paid, state.touched + 1)


def open_account(command: Open, account: Account) -> Iterator[Opened]:
    if account.opened:
        raise Rejected("account is open", account=command.account)
    yield Opened(command.account)


def pay(command: Pay, source: Account, target: Account) -> Iterator[Paid]:
    if not (source.opened and target.opened):
        raise Rejected("account is not open")
    yield Paid(command.source, command.target, command.amount)


def close_account(command: Close, account: Account) -> Iterator[Closed]:
    if not account.opened:
        raise Rejected("account is not open", account=command.account)
    yield Closed(command.account)


def touch(command: Touch) -> Iterator[Touched]:
    yield Touched(command.account)


def make_bus(log: Log, limits: Limits | None = None) -> tuple[CommandBus, Codec]:
    codec = Codec()
    side = compile_write_side(
        [ModelDeclaration(account, Account(), None)],
        [open_account, pay, close_account, touch],
        codec,
    )
    return CommandBus(side, codec, log, limits), codec
