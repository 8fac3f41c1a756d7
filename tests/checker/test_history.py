"""Histories survive kills, are joined, and come back as they were taken down."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from diptych.errors import Unavailable
from diptych.log import Append, Appended, Condition, EventQuery, NewEvent, Outcome
from diptych.logs.memory import MemoryLog
from diptych.testing.checker import POINTS, check_history, judge
from diptych.testing.history import (
    Answered,
    AppendRequest,
    Call,
    HeadRequest,
    History,
    Outcomes,
    load,
)
from diptych.testing.recording import Recorder


def event(identity: str, *tags: str) -> NewEvent:
    return NewEvent(identity, "Moved", tags, b'{"n":1}', b"{}")


async def test_a_history_comes_back_from_its_file(tmp_path: Path) -> None:
    """What a file holds is what a history in memory holds, but for the clock."""
    kept: list[list[Call]] = []
    for path in (None, tmp_path / "history.jsonl"):
        times = iter(range(1000))
        history = History(path, clock=lambda times=times: next(times))  # type: ignore[misc]
        log = Recorder(MemoryLog(), history, "ann")
        condition = Condition(EventQuery.of(["Moved"], ["a:1"]), 0, (1,))
        await log.append([Append((event("1", "a:1"),)), Append((), (condition,), "k", b"\xff")])
        await log.read(limit=1)
        await log.wait(0, timeout=0)
        await log.recall(["k", "other"])
        history.saw("relay", (await log.read()).events, after=0, upto=1)
        history.close()
        kept.append(history.calls)
    memory, file = (
        [(c.client == "ann", c.request, c.start, c.end, c.answer) for c in k] for k in kept
    )
    assert memory == file
    assert kept[1] == load(tmp_path / "history.jsonl")
    assert [c.operation for c in kept[0]] == ["append", "read", "wait", "recall", "read", "saw"]
    assert {c.outcome for c in kept[0]} == {"ok"}


async def test_what_was_under_way_is_unknown(tmp_path: Path) -> None:
    """A call without an answer is unknown, and a line torn by a kill is left out."""
    path = tmp_path / "history.jsonl"
    history = History(path)
    first = history.begin("ann", HeadRequest())
    second = history.begin("ann", HeadRequest())
    history.end(second, "ok")
    history.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])  # killed within the last line
    again = History(path)
    third = again.begin("ann", HeadRequest())
    again.close()
    calls = load(path)
    assert [(c.id, c.outcome) for c in calls] == [(i, "unknown") for i in (first, second, third)]


async def test_outcomes() -> None:
    """Only an error that promises that nothing was stored is a failure."""

    class Raising(MemoryLog):
        error: BaseException = Unavailable("away")

        async def append(self, batch: Sequence[Append]) -> list[Outcome]:
            raise self.error

    history, log = History(), Raising()
    for error in (Unavailable("away"), ValueError("?"), asyncio.CancelledError()):
        log.error = error
        with pytest.raises(type(error)):
            await Recorder(log, history).append([])
    assert [(c.outcome, c.error) for c in history.calls] == [
        ("failed", "unavailable"),
        ("unknown", "ValueError"),
        ("unknown", "cancelled"),
    ]


async def test_events_of_others(tmp_path: Path) -> None:
    """An event that is in no history is found, unless others may append too."""
    log, history = MemoryLog(), History()
    await log.append([Append((event("1"),))])
    (found,) = await check_history(history, log)
    assert found.point == 3
    assert str(found).startswith("[3] An event that nobody appended (position: 1, id: 1)")
    assert str(found).endswith(POINTS[3])
    assert await check_history(history, log, alone=False) == []


async def test_an_append_that_lies_before_what_it_came_after() -> None:
    """Bug: sessions hand out positions from blocks of their own, so the later append is lower."""
    log = MemoryLog()
    await log.append([Append((event("late"),)), Append((event("early"),))])
    stored = (await log.read()).events

    def call(identity: str, position: int, start: int, end: int) -> Call:
        request = AppendRequest((Append((event(identity),)),))
        answer = Outcomes((Answered(position, position),))
        return Call(
            id=identity,
            client="ann",
            request=request,
            start=start,
            end=end,
            outcome="ok",
            answer=answer,
        )

    assert judge([call("early", 2, 1, 3), call("late", 1, 2, 4)], stored) == []
    found = judge([call("early", 2, 1, 2), call("late", 1, 3, 4)], stored)
    assert [one.point for one in found] == [5]


async def test_a_retry_with_the_same_events_is_one_append() -> None:
    """An append of unknown outcome that is made again with its key counts once."""

    class Losing(MemoryLog):
        lost = 0

        async def append(self, batch: Sequence[Append]) -> list[Outcome]:
            outcomes = await super().append(batch)
            self.lost += 1
            if self.lost == 1:
                raise ConnectionError("lost")
            return outcomes

    history, log = History(), Losing()
    recorder, append = Recorder(log, history), Append((event("1", "a:1"),), (), "k", b"c")
    with pytest.raises(ConnectionError):
        await recorder.append([append])
    assert await recorder.append([append]) == [Appended(1, 1, replayed=True)]
    assert await check_history(history, log) == []


async def test_a_log_that_finds_its_own_answer() -> None:
    """An append without events leaves nothing but its key, also to the log that sends it again."""

    class Losing(MemoryLog):
        async def append(self, batch: Sequence[Append]) -> list[Outcome]:
            await super().append(batch)  # the answer is lost
            return await super().append(batch)

    class Inventing(MemoryLog):
        async def append(self, batch: Sequence[Append]) -> list[Outcome]:
            return [Appended(0, 0, replayed=True) for _ in batch]

    for log, append, points in (
        (Losing(), Append((), (), "k", b"c", b"{}"), set[int]()),
        (Losing(), Append((event("1"),), (), "k", b"c"), set[int]()),
        (Inventing(), Append((event("1"),), (), "k", b"c"), {1}),
    ):
        history = History()
        await Recorder(log, history).append([append])
        assert {found.point for found in await check_history(history, log)} == points
