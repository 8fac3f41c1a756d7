"""A log that has become another server's behind the same address is not read on as if it were not.

Where that server has lost events, their positions are given to others: a running worker whose
checkpoint lies there would pass over them.
"""

import asyncio
from collections.abc import Awaitable, Sequence

import pytest

from diptych.errors import ForeignCheckpoint
from diptych.log import EVERY_EVENT, Append, Appended, EventQuery, Outcome, Page
from diptych.logs.memory import MemoryLog
from diptych.messages import Event
from diptych.read.projections import Projection
from tests.read.world import (
    Moved,
    Noted,
    OrdersOf,
    World,
    append,
    journals,
    orders,
    placed,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::diptych.errors.SqliteVersionWarning"),
    pytest.mark.usefixtures("backend"),
]


class Address:
    """A log at an address, where one server takes over from another; it counts how often."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.identity = self.log.identity
        self.renewals = 1

    async def fail_over(self, *left: Event) -> None:
        """Lead to a server that holds nothing but these events."""
        self.log = MemoryLog()
        await append(self.log, *left)
        self.renewals += 1

    def append(self, batch: Sequence[Append]) -> Awaitable[list[Outcome]]:
        return self.log.append(batch)

    def read(
        self,
        query: EventQuery = EVERY_EVENT,
        *,
        after: int = 0,
        until: int | None = None,
        limit: int = 1000,
    ) -> Awaitable[Page]:
        return self.log.read(query, after=after, until=until, limit=limit)

    async def head(self) -> int:
        return await self.log.head()

    async def wait(self, after: int, timeout: float | None = None) -> int:
        return await self.log.wait(after, timeout)

    async def recall(self, keys: Sequence[str]) -> dict[str, Appended]:
        return await self.log.recall(keys)

    async def close(self) -> None:
        await self.log.close()


@pytest.mark.parametrize(
    ("one", "lost"),
    [
        (orders(), placed(1, 2, 3)),
        (journals(), [Noted("a"), Noted("b"), Noted("c")]),
        (orders(), [Moved("a", "b", 1)] * 3),
    ],
    ids=["a fold", "a handler", "nothing it uses"],
)
async def test_events_at_lost_positions_are_not_passed_over(
    one: Projection, lost: Sequence[Event]
) -> None:
    """A worker that has applied lost events, and is not started anew, is refused."""
    address = Address()
    async with World([one], log=address) as world:
        await world.append(*lost)
        await world.engine.catch_up()
        before = await world.store.checkpoints()
        await address.fail_over(*placed(*range(10, 20)))
        with pytest.raises(ForeignCheckpoint, match="has gone on differently"):
            await world.engine.catch_up()
        assert await world.store.checkpoints() == before


async def test_a_worker_that_rests_finds_out() -> None:
    """Also without a new event; then queries are not answered from what is lost."""
    address = Address()
    async with World([orders()], log=address) as world:
        await world.append(*placed(1, 2, 3))
        await world.engine.catch_up()
        await world.engine.start()
        await address.fail_over(*placed(1))
        async with asyncio.timeout(30):
            while [one.state for one in await world.engine.status()] != ["refused"]:
                await asyncio.sleep(0.01)
        with pytest.raises(ForeignCheckpoint, match="beyond the head"):
            await world.queries.ask(OrdersOf("ada"))


async def test_where_nothing_is_lost_work_goes_on() -> None:
    """Another server that holds the same events is none that is refused."""
    address = Address()
    async with World([orders(), journals()], log=address) as world:
        await world.append(*placed(1, 2, 3))
        await world.engine.catch_up()
        address.renewals += 1
        await world.append(*placed(4), Noted("a"))
        await world.engine.catch_up()
        assert {one.position for one in await world.engine.status()} == {5}
