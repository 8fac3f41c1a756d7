"""A stateful model of the contract: any sequence of calls answers as the log in memory does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from diptych.log import Append, Condition, EventQuery, Log, NewEvent, QueryItem
from diptych.logs.memory import MemoryLog
from diptych.testing.contracts.making import METADATA, LogMaker

TYPES = ("Opened", "Moved", "Closed")
TAGS = ("a:1", "a:2", "b:1", "b:2")
KEYS = ("k1", "k2", "k3")


class ModelContract(LogMaker):
    """Needs Hypothesis, which is imported only here."""

    def test_any_sequence_of_calls_answers_as_the_specification(self) -> None:
        """Random appends and reads are answered exactly as ``MemoryLog`` answers them."""
        from hypothesis import HealthCheck, settings
        from hypothesis.stateful import run_state_machine_as_test

        checks = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
        run_state_machine_as_test(
            _machine(self),
            settings=settings(
                max_examples=40,
                stateful_step_count=15,
                deadline=None,
                database=None,
                suppress_health_check=checks,
            ),
        )


def _machine(contract: LogMaker) -> Any:
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, rule

    items = st.builds(
        QueryItem,
        types=st.frozensets(st.sampled_from(TYPES), max_size=2),
        tags=st.frozensets(st.sampled_from(TAGS), max_size=2),
    )
    queries = st.builds(EventQuery, st.lists(items, max_size=3).map(tuple))
    events = st.builds(
        NewEvent,
        id=st.uuids().map(str),
        type=st.sampled_from(TYPES),
        tags=st.lists(st.sampled_from(TAGS), max_size=3, unique=True).map(tuple),
        data=st.sampled_from((b"{}", b'{"n":1}', '{"t":"é\\n\U0001f6eb"}'.encode())),
        metadata=st.just(METADATA),
    )

    def conditions(index: int, head: int) -> Any:
        earlier = st.integers(0, index - 1) if index else st.nothing()
        return st.builds(
            Condition,
            query=queries,
            after=st.integers(max(0, head - 4), head + 1) | st.just(0),
            known=st.lists(st.integers(1, head + 1), max_size=3, unique=True).map(tuple),
            since=st.none() | earlier,
            seen=(st.lists(earlier, max_size=2, unique=True) if index else st.just([])).map(tuple),
        )

    @st.composite
    def batches(draw: Any, head: int) -> list[Append]:
        batch: list[Append] = []
        for index in range(draw(st.integers(1, 4))):
            key = draw(st.none() | st.sampled_from(KEYS))
            rejection = draw(st.none() | st.just(b'{"code":"no"}')) if key else None
            found = draw(st.lists(conditions(index, head), max_size=2).map(tuple))
            news = () if rejection else draw(st.lists(events, max_size=3).map(tuple))
            content = draw(st.sampled_from((b"", b"\xff\x00")))
            batch.append(Append(news, found, key, content, rejection))
        return batch

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.runner = asyncio.Runner()
            self.model = MemoryLog()
            self.log: Log = self.runner.run(contract.make_log())

        def both(self, call: Callable[[Log], Awaitable[object]]) -> None:
            async def answer(log: Log) -> object:
                return await call(log)

            ours = self.runner.run(answer(self.log))
            wanted = self.runner.run(answer(self.model))
            assert ours == wanted, f"answered {ours}, where the specification says {wanted}"

        @rule(data=st.data())
        def append(self, data: Any) -> None:
            batch = data.draw(batches(self.runner.run(self.model.head())))
            self.both(lambda log: log.append(batch))
            self.both(lambda log: log.head())

        @rule(
            query=queries,
            after=st.integers(0, 12),
            until=st.none() | st.integers(0, 12),
            limit=st.sampled_from((1, 2, 5, 1000)),
        )
        def read(self, query: EventQuery, after: int, until: int | None, limit: int) -> None:
            self.both(lambda log: log.read(query, after=after, until=until, limit=limit))

        @rule()
        def recall(self) -> None:
            self.both(lambda log: log.recall(KEYS))

        @rule()
        def reopen(self) -> None:
            async def again() -> None:
                await self.log.close()
                reopened = await contract.reopen(self.log)
                assert reopened is not None
                self.log = reopened

            if self.durable:
                self.runner.run(again())

        @property
        def durable(self) -> bool:
            return type(contract).reopen is not LogMaker.reopen

        def teardown(self) -> None:
            self.runner.run(self.log.close())
            self.runner.close()

    return Machine
