"""A model never rejects: what it raises is a fault, and nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import pytest

from diptych.codec import Codec
from diptych.errors import DecisionFailed, Invalid, Rejected
from diptych.logs.memory import MemoryLog
from diptych.messages import Command, Event, Tag
from diptych.write.bus import CommandBus
from diptych.write.definitions import ModelDeclaration, compile_write_side


class Fill(Command):
    tank: Annotated[str, Tag("tank")]
    litres: int


class Filled(Event):
    tank: Annotated[str, Tag("tank")]
    litres: int


def level(state: int, event: Filled) -> int:
    if state + event.litres > 100:
        raise Rejected("too much")
    return state + event.litres


def fill(command: Fill, level: int) -> Iterator[Filled]:
    yield Filled(command.tank, command.litres)


async def test_a_rejection_raised_by_a_model_on_new_events_is_a_fault_and_stores_nothing() -> None:
    codec, log = Codec(), MemoryLog()
    bus = CommandBus(
        compile_write_side([ModelDeclaration(level, 0, None)], [fill], codec), codec, log
    )
    await bus.submit(Fill("a", 90))
    with pytest.raises(DecisionFailed, match="too much"):
        await bus.submit(Fill("a", 20))
    assert await log.head() == 1
    await bus.submit(Fill("a", 10))
    assert await log.head() == 2


def leak(command: Fill, level: int) -> Iterator[Filled]:
    yield command  # type: ignore[misc]


async def test_only_events_are_stored() -> None:
    """A decision that yields a command is at fault, and the log is as before."""
    codec, log = Codec(), MemoryLog()
    bus = CommandBus(
        compile_write_side([ModelDeclaration(level, 0, None)], [leak], codec), codec, log
    )
    with pytest.raises(Invalid, match="is not an event"):
        await bus.submit(Fill("a", 90))
    assert await log.head() == 0
