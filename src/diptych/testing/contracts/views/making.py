"""How the contract's tests come by a store, and what they keep in it."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Literal, TypeVar
from uuid import UUID

import msgspec

from diptych.read.port import Change, Checkpoint, Kept, Tally, ViewStore, Writes
from diptych.read.views import Key, View, definition_of

E = TypeVar("E", bound=BaseException)

LOG = "log"


class Colour(enum.Enum):
    """An enum of texts."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    """An enum of numbers."""

    LOW = -1
    HIGH = 2


class Point(msgspec.Struct, frozen=True):
    """Something nested."""

    x: int
    name: str = ""
    at: datetime | None = None


class Everything(View, indexes=(("maybe_int", "text"), ("money",))):
    """A field of every kind."""

    key: Key[str]
    text: str
    number: int
    real: float
    flag: bool
    money: Decimal
    at: datetime
    day: date
    id: UUID
    colour: Colour
    level: Level
    size: Literal["s", "l"]
    point: Point
    names: list[str]
    maybe: Decimal | None = None
    maybe_at: datetime | None = None
    maybe_int: int | None = None
    maybe_text: str | None = None
    maybe_id: UUID | None = None
    maybe_flag: bool | None = None
    maybe_colour: Colour | None = None
    maybe_point: Point | None = None


class Leg(View):
    """A key of several parts, of which one is a number and one has a type of its own."""

    flight: Key[int]
    day: Key[date]
    leg: Key[Level]
    text: str


class Counter(View):
    """One number, and nothing that needs converting."""

    name: Key[str]
    value: int


class Marker(View):
    """Nothing but a key."""

    key: Key[UUID]


AT = datetime(2026, 1, 31, 12, 30, 59, 123456, UTC)

SAMPLE = Everything(
    key="k",
    text="text",
    number=1,
    real=1.5,
    flag=True,
    money=Decimal("9.50"),
    at=AT,
    day=date(2026, 1, 31),
    id=UUID(int=7),
    colour=Colour.RED,
    level=Level.LOW,
    size="s",
    point=Point(1),
    names=["a"],
)

VIEWS: dict[str, Kept] = {
    "everything": Kept((Everything,)),
    "leg": Kept((Leg,), 8),
    "counter": Kept((Counter, Marker)),
}


def sample(key: str, **fields: Any) -> Everything:
    """Return a row."""
    return msgspec.structs.replace(SAMPLE, key=key, **fields)


def replace(thing: Any, **fields: Any) -> Any:
    """Return a struct with other fields."""
    return msgspec.structs.replace(thing, **fields)


class StoreMaker:
    """To be subclassed: says how to make a store."""

    async def make_store(self) -> ViewStore:
        """Return a store on a new, empty database, not opened yet."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to make a store")

    async def same(self, store: ViewStore) -> ViewStore | None:
        """Return another store on the same database; None where there can be no other."""
        del store
        return None

    @asynccontextmanager
    async def new_store(self) -> AsyncGenerator[ViewStore, None]:
        """Make a store with the contract's views, and close it in the end."""
        store = await self.make_store()
        try:
            await store.open(LOG, VIEWS)
            yield store
        finally:
            await store.close()


def step(
    before: Checkpoint,
    *rows: View,
    deleted: Sequence[Any] = (),
    view: type[View] | None = None,
    blocks: dict[int, Tally] | None = None,
) -> Change:
    """Return a step of one event that writes these rows of one view and deletes these keys."""
    view = view or (type(rows[0]) if rows else None)
    writes = () if view is None else (Writes(view, list(rows), list(deleted)),)
    after = replace(
        before,
        position=before.position + 1,
        event_id=f"event-{before.position + 1}",
        count=before.count + 1,
        digest=before.digest + 2**100 + 1,
        time=AT,
    )
    return Change(before, after, blocks or {}, writes)


async def put(store: ViewStore, *rows: View, deleted: Sequence[Any] = (), **options: Any) -> None:
    """Write rows of one view, in a step of the projection that keeps it."""
    view = options.get("view") or type(rows[0])
    name = next(name for name, one in VIEWS.items() if view in one.views)
    change = step((await store.checkpoints())[name][0], *rows, deleted=deleted, view=view)
    assert await store.apply([change]) == [True]


async def error_of(work: Awaitable[Any], *expected: type[E]) -> E:
    """Return the error that something raises, which must be one of these."""
    try:
        await work
    except expected as error:
        return error
    raise AssertionError("it was not refused")


def by_key(rows: Sequence[View]) -> dict[Any, View]:
    """Return rows by their keys."""
    return {definition_of(type(row)).key_of(row): row for row in rows}


def same_row(one: View, other: View) -> bool:
    """Whether rows are equal, their values of the same types, and decimals of the same scale."""
    values = [[getattr(row, name) for name in one.__struct_fields__] for row in (one, other)]
    return one == other and all(
        type(a) is type(b) and (not isinstance(a, Decimal) or str(a) == str(b))
        for a, b in zip(*values, strict=True)
    )
