"""One look at the log's head serves all who ask in one round of the event loop."""

import asyncio
from typing import Any, cast

from diptych.log import Log
from diptych.read.present import Present


class Heads:
    """A log of which only the head is asked; ``slow``: not before a round of the loop."""

    def __init__(self, *, slow: bool = False) -> None:
        self.position = 7
        self.looks = 0
        self._slow = slow

    async def head(self) -> int:
        self.looks += 1
        found = self.position
        if self._slow:
            await asyncio.sleep(0)
        return found


def present_of(heads: Heads) -> Present:
    return Present(cast("Log", cast("Any", heads)))


async def test_those_who_ask_in_one_round_share_a_look() -> None:
    heads = Heads()
    present = present_of(heads)

    found = await asyncio.gather(*(present.head() for _ in range(20)))

    assert found == [7] * 20
    assert heads.looks == 1


async def test_each_round_looks_anew() -> None:
    heads = Heads()
    present = present_of(heads)
    assert await present.head() == 7
    heads.position = 8
    await asyncio.sleep(0)
    assert await present.head() == 8
    heads.position = 9
    await asyncio.sleep(0)
    assert await present.head() == 9


async def test_what_a_connection_has_answered_late_is_nobody_elses_present() -> None:
    heads = Heads(slow=True)
    present = present_of(heads)

    async def after_the_change() -> int:
        await asyncio.sleep(0)  # another round, in which the first look is still under way
        heads.position = 8
        return await present.head()

    first, second = await asyncio.gather(present.head(), after_the_change())

    assert (first, second) == (7, 8)
    assert await present.head() == 8
    assert heads.looks == 3
