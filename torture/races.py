"""Races for one place: of those who saw the same, exactly one may win; of the others, everyone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Literal

from diptych.log import Append, Appended, Condition, EventQuery, Log, NewEvent, QueryItem
from diptych.messages import new_id
from diptych.testing.checker import Violation, check_history
from diptych.testing.history import History
from diptych.testing.recording import Recorder
from torture.backends import Backend, open_log
from torture.clients import METADATA, pause

RACERS = 16

Shape = Literal["same", "overlapping", "disjoint"]
SHAPES: tuple[Shape, ...] = ("same", "overlapping", "disjoint")


async def races(backend: Backend, rng: random.Random) -> list[Violation]:
    """One race of each shape on one log, opened once to four times."""
    url = backend.new_log()
    logs: list[Log] = []
    history = History()
    found: list[Violation] = []
    try:
        for _ in range(rng.choice((1, 2, 4))):
            logs.append(await open_log(url, remembered=rng.choice((3, 25_000))))
        for shape in SHAPES:
            found += await race(logs, history, rng, shape)
        return found + await check_history(history, logs[0])
    finally:
        for log in logs:
            await log.close()


async def race(
    logs: Sequence[Log], history: History, rng: random.Random, shape: Shape
) -> list[Violation]:
    """Let racers take a place; say when the number of winners is not what it must be."""
    barrier = asyncio.Barrier(RACERS) if rng.random() < 0.5 else None
    mixed = rng.choice(("nobody", "strangers", "rivals"))
    place = new_id()
    outcomes = await asyncio.gather(
        *(
            _racer(Recorder(rng.choice(logs), history, f"{shape}-{n}"), place, n, shape, barrier, r)
            for n, r in enumerate(random.Random(rng.random()) for _ in range(RACERS))
        ),
        *(
            _writer(Recorder(rng.choice(logs), history, f"writer-{n}"), place, mixed, rng)
            for n in range(0 if mixed == "nobody" else 4)
        ),
    )
    won = sum(outcomes[:RACERS])
    text = ""
    if mixed != "rivals" and shape == "same" and won != 1:
        text = "Not exactly one of those who raced for one place has won"
    elif mixed != "rivals" and shape == "disjoint" and won != RACERS:
        text = "Some who raced for different places have lost"
    elif mixed != "rivals" and not won:
        text = "Nobody has won"
    facts = {"shape": shape, "beside": mixed, "barrier": barrier is not None, "won": won}
    return [Violation(6 if won > 1 and shape == "same" else 7, text, facts)] if text else []


def _tags(place: str, number: int, shape: Shape) -> tuple[str, ...]:
    match shape:
        case "same":
            return (f"place:{place}",)
        case "overlapping":
            return (f"place:{place}-{number // 2}", f"place:{place}-{(number + 1) // 2}")
        case "disjoint":
            return (f"place:{place}-{number}",)


async def _racer(
    log: Recorder,
    place: str,
    number: int,
    shape: Shape,
    barrier: asyncio.Barrier | None,
    rng: random.Random,
) -> bool:
    tags = tuple(dict.fromkeys(_tags(place, number, shape)))
    query = EventQuery(tuple([QueryItem(frozenset(["Taken"]), frozenset([tag])) for tag in tags]))
    if barrier is None:
        await pause(rng)  # the others are anywhere: before they read, between, after they appended
    page = await log.read(query)
    if barrier is not None:
        await barrier.wait()
    if page.events:
        return False
    event = NewEvent(new_id(), "Taken", tags, b"{}", METADATA)
    condition = Condition(query, rng.choice((0, page.upto)))
    (outcome,) = await log.append([Append((event,), (condition,))])
    return isinstance(outcome, Appended)


async def _writer(log: Recorder, place: str, mixed: str, rng: random.Random) -> bool:
    """Append without a condition: what racers must not mind, or what they must."""
    name = "Taken" if mixed == "rivals" else "Noted"
    for number in range(4):
        tags = _tags(place, rng.randrange(RACERS), SHAPES[number % 3])
        event = NewEvent(new_id(), name, tuple(dict.fromkeys(tags)), b"{}", METADATA)
        await log.append([Append((event,))])
        await pause(rng)
    return False
