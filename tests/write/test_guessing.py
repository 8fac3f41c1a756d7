"""What is most likely new is decided without reading it, and never believed unproved."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from diptych.errors import DecisionFailed, Rejected
from diptych.log import EVERY_EVENT, Log, Page
from diptych.logs.memory import MemoryLog
from diptych.write import guessing
from diptych.write.bus import CommandBus, Limits
from diptych.write.entry import Receipt
from tests.write import shop
from tests.write.logs import Troubled
from tests.write.test_bus import never


async def used_to_new_accounts(log: Log, limits: Limits | None = None) -> CommandBus:
    """Return a bus that has found many accounts new, one after the other."""
    bus, _ = shop.make_bus(log, limits)
    for number in range(guessing.GUESS_AFTER):
        await bus.submit(shop.Open(f"new {number}"))
    return bus


async def test_what_was_always_new_is_decided_without_reading() -> None:
    """After some first reads that found nothing, a kind of command is decided at once."""
    log = Troubled(MemoryLog(), random.Random(7), never)
    bus = await used_to_new_accounts(log)
    assert log.reads == guessing.GUESS_AFTER
    await asyncio.gather(*[bus.submit(shop.Open(str(n))) for n in range(20)])
    assert log.reads == guessing.GUESS_AFTER
    await bus.submit(shop.Close("5"))
    assert (log.reads, log.refused) == (guessing.GUESS_AFTER, [])


async def test_a_wrong_guess_is_noticed_and_costs_no_attempt() -> None:
    """What is there after all is read, and decided upon; the next time it is read first."""
    log = Troubled(MemoryLog(), random.Random(8), never)
    other, _ = shop.make_bus(log)
    for name in "abc":
        await other.submit(shop.Open(name))
    await other.submit(shop.Close("a"))
    bus = await used_to_new_accounts(log, Limits(attempts=1))
    receipt = await bus.submit(shop.Open("a"))
    assert receipt.last == await log.head()
    assert log.refused == ["conflict"]
    for name in "bc":
        with pytest.raises(Rejected):
            await bus.submit(shop.Open(name))
    assert log.refused == ["conflict"]


@pytest.mark.parametrize("place", ["decide", "evolve"])
async def test_a_fault_on_a_guess_is_no_answer(place: str) -> None:
    """A function that fails on what was guessed is asked again with what is there."""
    log = MemoryLog()
    other, _ = shop.make_bus(log)
    await other.submit(shop.Open("a"))
    await other.submit(shop.Close("a"))
    await other.submit(shop.Touch("a"))
    bus = await used_to_new_accounts(log)
    side = bus._side

    def fussy(state: Any) -> None:
        if not state.touched:
            raise ZeroDivisionError("planted")

    def decide(command: Any, state: Any) -> Any:
        fussy(state)
        yield from shop.open_account(command, state)

    def evolve(state: Any, event: Any) -> Any:
        if isinstance(event, shop.Opened):
            fussy(state)
        return shop.account(state, event)

    if place == "decide":
        decision = side.decisions[shop.Open]
        # The need stays the same: it is what the bus has learnt about.
        changed = msgspec.structs.replace(decision, function=decide)
        bus._side = msgspec.structs.replace(side, decisions={shop.Open: changed})
    else:
        [(model, instance)] = side.touched[shop.Opened]
        fussed = msgspec.structs.replace(model, evolve=evolve)
        bus._side = msgspec.structs.replace(side, touched={shop.Opened: ((fussed, instance),)})
    receipt = await bus.submit(shop.Open("a"))
    assert receipt.last == await log.head()
    with pytest.raises(DecisionFailed):
        await bus.submit(shop.Open("really new"))


async def test_a_fault_on_the_guess_of_another_is_no_answer() -> None:
    """A command that does not ask for a state is not failed by what another has guessed of it."""
    log = MemoryLog()
    other, _ = shop.make_bus(log)
    await other.submit(shop.Open("a"))
    await other.submit(shop.Touch("a"))
    bus = await used_to_new_accounts(log)
    [(model, instance)] = bus._side.touched[shop.Touched]

    def evolve(state: Any, event: Any) -> Any:
        if not state.touched:
            raise ZeroDivisionError("planted")
        return shop.account(state, event)

    fussed = msgspec.structs.replace(model, evolve=evolve)
    touched = dict(bus._side.touched)
    touched[shop.Touched] = ((fussed, instance),)
    bus._side = msgspec.structs.replace(bus._side, touched=touched)
    opening, touching = bus.submit(shop.Open("a")), bus.submit(shop.Touch("a"))
    with pytest.raises(Rejected):
        await opening
    assert isinstance(await touching, Receipt)


async def test_a_rejection_on_a_guess_is_not_given() -> None:
    """Closing what was never there is rejected on a guess; what is there is closed."""
    log = MemoryLog()
    other, _ = shop.make_bus(log)
    await other.submit(shop.Open("a"))
    bus, _ = shop.make_bus(log)
    for number in range(guessing.GUESS_AFTER):
        with pytest.raises(Rejected):
            await bus.submit(shop.Close(f"never {number}"))
    assert (await bus.submit(shop.Close("a"))).last == 2


async def test_who_waits_for_another_state_is_not_forgotten_when_a_guess_is_given_up() -> None:
    """A command that touches a guessed state without proving it has it read, for those who wait."""
    log = Troubled(MemoryLog(), random.Random(11), never)
    other, _ = shop.make_bus(log)
    bus, _ = shop.make_bus(log)
    targets = [str(number) for number in range(guessing.GUESS_AFTER + 1)]
    for target in targets:
        await other.submit(shop.Open(target))
    for target in targets[1:]:
        with pytest.raises(Rejected):
            await bus.submit(shop.Pay(f"new {target}", target, 1))
    paying, touching = bus.submit(shop.Pay("new", targets[0], 1)), bus.submit(shop.Touch("new"))
    with pytest.raises(Rejected):
        await asyncio.wait_for(paying, 10.0)
    assert isinstance(await touching, Receipt)


async def test_what_is_being_read_is_not_guessed() -> None:
    """A command that comes while its state is read waits for that, and so do those before it."""
    held = asyncio.Event()

    class Holding(Troubled):
        async def read(self, query: Any = EVERY_EVENT, **bounds: Any) -> Page:
            if query == bus._side.models[0].query(("account:a",)):
                await held.wait()
            return await super().read(query, **bounds)

    log = Holding(MemoryLog(), random.Random(12), never)
    other, _ = shop.make_bus(log._log)
    await asyncio.gather(*[other.submit(shop.Open(name)) for name in "ab"])
    bus, _ = shop.make_bus(log)
    for number in range(guessing.GUESS_AFTER):
        await bus.submit(shop.Open(f"new {number}"))
    paying, opening = bus.submit(shop.Pay("b", "a", 1)), bus.submit(shop.Open("a"))
    await until(lambda: bus._cache._slots["account", ("account:b",)].loaded)
    held.set()
    assert isinstance(await paying, Receipt)
    with pytest.raises(Rejected):
        await opening
    assert log.refused == []


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10.0):
        while not condition():
            await asyncio.sleep(0)
