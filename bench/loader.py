"""Fill a log fast, through its port, in big batches: orders as 256 clients would have made them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, TypeAlias

import msgspec

from bench.orders import Added, Confirmed, Opened, opened
from diptych import Metadata, Running
from diptych.log import Append, NewEvent
from diptych.messages import event_id, new_id

CLIENTS: Final = 256
ROUND: Final = CLIENTS * 4
"""Events of as many orders as there are clients: as many are interleaved."""

BATCH: Final = 8 * ROUND
ORDERS_OF_A_CUSTOMER: Final = 10

Made: TypeAlias = tuple[str, str, str, bytes, bytes]
"""Id, type, tag, data and metadata of an event."""

_encode = msgspec.json.Encoder().encode


def order_of(number: int) -> str:
    """Return the id of an order; a client's orders bear its number, as in the order workload."""
    return f"o-{number % CLIENTS}-{number // CLIENTS}"


def customer_of(number: int) -> str:
    """Return who made an order."""
    return f"c-{number // ORDERS_OF_A_CUSTOMER}"


def made(count: int, start: int = 0) -> Iterator[Made]:
    """Yield so many events, from the order of number ``start`` on: four of each, interleaved."""
    left = count
    while left > 0:
        numbers = range(start, start + CLIENTS)
        start += CLIENTS
        metadata = _metadata()
        for step in range(4):
            for number in numbers:
                if not left:
                    return
                left -= 1
                order = order_of(number)
                event = _event(step, order, number)
                command = new_id()
                data = metadata % (command.encode(), command.encode())
                name = type(event).__name__
                yield event_id(command, 1), name, f"order:{order}", _encode(event), data


def _event(step: int, order: str, number: int) -> Opened | Added | Confirmed:
    if step == 0:
        return Opened(order, customer_of(number))
    if step == 3:
        return Confirmed(order)
    return Added(order, "tea" if step == 1 else "cup", 3 - step)


def _metadata() -> bytes:
    """Return the metadata of now, with places for the two ids."""
    return _encode(Metadata(datetime.now(UTC), "%b", "%b"))


async def fill(url: str, events: int) -> None:
    """Put so many events into the empty log of a URL."""
    async with opened(url, "memory:") as running:
        await load(running, events)


async def load(running: Running, events: int, start: int = 0) -> None:
    """Append so many events, from the order of number ``start`` on."""
    batch: list[NewEvent] = []
    for identity, name, tag, data, metadata in made(events, start):
        batch.append(NewEvent(identity, name, (tag,), data, metadata))
        if len(batch) == BATCH:
            await running.log.append([Append(tuple(batch))])
            batch = []
    if batch:
        await running.log.append([Append(tuple(batch))])
