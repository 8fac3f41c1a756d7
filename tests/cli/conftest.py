"""A small shop in a folder of its own, and the command line called from there."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from diptych.cli import main

SHOP = '''
"""A shop for the tests of the command line."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta, Struct

from diptych import App, Command, Event, Key, Module, Query, Recorded, Rejected, Tag, View, select
from diptych import Events, Views

OrderId = Annotated[str, Tag("order")]
Customer = Annotated[str | None, Tag("customer")]

orders = Module("orders")
reading = Module("reading", orders)


class Line(Struct, frozen=True):
    sku: str
    pieces: Annotated[int, Meta(ge=1)]


class Place(Command):
    """Place an order."""

    order: OrderId
    customer: Customer
    total: Annotated[Decimal, Meta()]
    lines: list[Line] = []
    channel: Literal["web", "desk"] = "web"


class Touch(Command):
    order: OrderId


class Placed(Event, version=2):
    """An order was placed."""

    order: OrderId
    customer: Customer
    total: Decimal
    lines: list[Line] = []


class Order(Struct, frozen=True):
    placed: bool = False


@orders.model(Order(), tag="order")
def order(state: Order, event: Placed) -> Order:
    return Order(placed=True)


@orders.decides
def place(command: Place, order: Order) -> Iterator[Placed]:
    if order.placed:
        raise Rejected("order already placed", order=command.order)
    if command.customer == "boom":
        raise RuntimeError("the decision is broken")
    yield Placed(command.order, command.customer, command.total, command.lines)


@orders.decides
def touch(command: Touch, order: Order) -> Iterator[Placed]:
    yield from ()


class Summary(View):
    order: Key[str]
    customer: str | None
    total: Decimal
    pieces: int = 0


@reading.projects(Summary)
def summary(row: Summary | None, event: Placed) -> Summary | None:
    """One row an order."""
    if event.customer == "poison":
        raise ValueError("the fold is broken")
    pieces = sum(line.pieces for line in event.lines)
    return Summary(event.order, event.customer, event.total, pieces)


class OrdersOf(Query[list[Summary]]):
    """The orders of a customer."""

    customer: str
    least: Decimal = Decimal(0)


@reading.answers
async def orders_of(query: OrdersOf, views: Views) -> list[Summary]:
    found = await views.all(select(Summary).where(Summary.customer == query.customer))
    return [row for row in found if row.total >= query.least]


class One(Query[Summary | None]):
    order: str


@reading.answers
async def one(query: One, views: Views) -> Summary | None:
    return await views.get(Summary, query.order)


class HowMany(Query[int]):
    pass


@reading.answers
async def how_many(query: HowMany, views: Views) -> int:
    return len(await views.all(select(Summary)))


class History(Query[list[Recorded]]):
    order: OrderId


@reading.answers
async def history(query: History, events: Events) -> list[Recorded]:
    return await events.read(tags=[f"order:{query.order}"])


class Crash(Query[int]):
    pass


@reading.answers
def crash(query: Crash) -> int:
    raise RuntimeError("the answer is broken")


app = App("shop", reading)
'''

URL = "sqlite:///shop.db"


class Result(NamedTuple):
    """What a call of the command line came to."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON documents on stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> Any:
        """The JSON error on stderr."""
        return json.loads(self.err)["error"]


class Cli:
    """Calls the command line in this process; `cli("status")`."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> Result:
        """Run it and return exit status, stdout and stderr."""
        self._capsys.readouterr()
        status = main(words)
        captured = self._capsys.readouterr()
        return Result(status, captured.out, captured.err)

    def bare(self, *words: str) -> Result:
        """Run it without what the fixture puts into the environment."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("DIPTYCH_APP", "DIPTYCH_LOG", "DIPTYCH_VIEWS"):
                patch.delenv(name, raising=False)
            return self(*words)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the shop in it, as the current one; what is imported from it is forgotten."""
    (tmp_path / "cli_shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def cli(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line with the shop, its log and views in the environment."""
    monkeypatch.setenv("DIPTYCH_APP", "cli_shop:app")
    monkeypatch.setenv("DIPTYCH_LOG", URL)
    monkeypatch.setenv("DIPTYCH_VIEWS", URL)
    return Cli(capsys)


@pytest.fixture
def filled(cli: Cli) -> Cli:
    """The same after three orders, none of them in the views."""
    for order, customer in (("1", "ada"), ("2", "bob"), ("3", "ada")):
        done = cli("do", "Place", f"order={order}", f"customer={customer}", f"total={order}.50")
        assert done.status == 0, done.err
    return cli
