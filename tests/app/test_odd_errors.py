"""Whatever a decision, a model, a rule or an answer raises is an error of this call alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Struct

from diptych import Actor, App, Command, Event, Query, Running, Tag, Views
from diptych.errors import DecisionFailed, FunctionFailed, RuleFailed, UndecodableEvent

Name = Annotated[str, Tag("thing")]


class Mute(Exception):
    """Says nothing, and raises when it is asked to."""

    def __str__(self) -> str:
        raise SystemExit(4)

    __repr__ = __str__


ENDING: list[Callable[[], BaseException]] = [
    asyncio.CancelledError,
    lambda: SystemExit(3),
    GeneratorExit,
    lambda: BaseExceptionGroup("all", [SystemExit(3)]),
]
"""What would end a task or the process."""

ODD: list[Callable[[], BaseException]] = [
    *ENDING,
    Mute,
    StopIteration,
    StopAsyncIteration,
    RecursionError,
    lambda: ExceptionGroup("some", [ValueError(1)]),
]

app = App("odd")
make: Callable[[], BaseException] = ValueError
strict = False


class Do(Command):
    thing: Name
    where: str = ""


class Done(Event):
    thing: Name
    where: str

    def __post_init__(self) -> None:
        if strict and self.where == "event":
            raise make()


class Seen(Struct, frozen=True):
    times: int = 0


def allowed(actor: Actor, message: Do) -> bool:
    if message.where == "rule":
        raise make()
    return True


def everybody(actor: Actor, message: Query[int]) -> bool:
    return True


@app.model(Seen(), tag="thing")
def seen(state: Seen, event: Done) -> Seen:
    if event.where == "model":
        raise make()
    return Seen(state.times + 1)


@app.decides(allow=allowed)
def decide(command: Do, seen: Seen) -> Iterator[Done]:
    if command.where == "decision":
        raise make()
    yield Done(command.thing, command.where)


class Ask(Query[int]):
    bad: bool


class AskLater(Query[int]):
    bad: bool


@app.answers(allow=everybody)
def ask(query: Ask) -> int:
    if query.bad:
        raise make()
    return 1


@app.answers(allow=everybody)
async def ask_later(query: AskLater, views: Views) -> int:
    await asyncio.sleep(0)
    if query.bad:
        raise make()
    return 1


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    url = f"sqlite:///{tmp_path / 'odd.db'}"
    async with app.open(log=url, views="memory:") as opened:
        yield opened


@pytest.mark.parametrize("kind", ODD, ids=lambda kind: type(kind()).__name__)
async def test_whatever_decisions_models_and_rules_raise_is_an_error_of_that_command(
    running: Running, monkeypatch: pytest.MonkeyPatch, kind: Callable[[], BaseException]
) -> None:
    monkeypatch.setattr("tests.app.test_odd_errors.make", kind)
    name = type(kind()).__name__
    for where in ("decision", "model"):
        with pytest.raises(DecisionFailed) as told:
            await running.do(Do(where, where), actor="ada")
        # A generator turns a StopIteration into a RuntimeError.
        generated = name == "StopIteration" and where == "decision"
        assert told.value.why.startswith("RuntimeError" if generated else name)
    with pytest.raises(RuleFailed, match=name):
        await running.do(Do("x", "rule"), actor="ada")
    for _ in range(3):
        await running.do(Do("x"), actor="ada")


@pytest.mark.parametrize("kind", ENDING, ids=lambda kind: type(kind()).__name__)
async def test_what_would_end_the_process_is_a_coded_error_of_that_query(
    running: Running, monkeypatch: pytest.MonkeyPatch, kind: Callable[[], BaseException]
) -> None:
    monkeypatch.setattr("tests.app.test_odd_errors.make", kind)
    for query in (Ask, AskLater):
        with pytest.raises(FunctionFailed, match=type(kind()).__name__) as told:
            await running.ask(query(True), actor="ada")
        assert "test_odd_errors.py" in told.value.at
        with pytest.raises(FunctionFailed):
            await anext(running.live(query(True), actor="ada"))
        assert (await running.ask(query(False), actor="ada")).value == 1


async def test_a_query_whose_caller_is_cancelled_is_cancelled(running: Running) -> None:
    """That is no failure of the answer."""
    asking = asyncio.create_task(running.ask(AskLater(False), actor="ada"))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert asking.cancelled()


@pytest.mark.parametrize("kind", ODD, ids=lambda kind: type(kind()).__name__)
async def test_an_event_that_raises_when_it_is_made_cannot_be_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Callable[[], BaseException]
) -> None:
    """Its type says since then that it is wrong."""
    url = f"sqlite:///{tmp_path / 'odd.db'}"
    async with app.open(log=url, views="memory:") as running:
        await running.do(Do("x", "event"), actor="ada")
        await running.do(Do("y"), actor="ada")
    monkeypatch.setattr("tests.app.test_odd_errors.strict", True)
    monkeypatch.setattr("tests.app.test_odd_errors.make", kind)
    async with app.open(log=url, views="memory:") as running:
        with pytest.raises(UndecodableEvent) as told:
            await running.do(Do("x"), actor="ada")
        assert told.value.position == 1
        assert (await running.do(Do("y"), actor="ada")).token.position == 3
