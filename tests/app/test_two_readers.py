"""Two processes keep the same views current: one may overtake the other at any point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from diptych import App, Command, Event, Key, Tag, View

OrderId = Annotated[str, Tag("order")]


class Step(Command):
    order: OrderId


class First(Event):
    order: OrderId


class Later(Event):
    order: OrderId


class Steps(View):
    order: Key[str]
    count: int


def make_app() -> App:
    app = App("steps")

    @app.model(0)
    def taken(state: int, event: First | Later) -> int:
        return state + 1

    @app.decides
    def step(command: Step, taken: int) -> Iterator[First | Later]:
        yield Later(command.order) if taken else First(command.order)

    @app.projects(Steps)
    def steps(row: Steps | None, event: First | Later) -> Steps:
        if isinstance(event, First):
            assert row is None, "a row from the future"
            return Steps(event.order, 1)
        assert row is not None
        return Steps(event.order, row.count + 1)

    return app


async def test_a_fold_on_rows_of_a_faster_reader_is_no_failure(tmp_path: Path) -> None:
    """Rows that another reader has moved on are found out, even where the fold raises on them."""
    log, views = f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/views.db"
    async with (
        make_app().open(log=log, views=views, projections=False) as slow,
        make_app().open(log=log, views=views, projections=False) as fast,
    ):
        for _ in range(3):
            await slow.do(Step("1"))
        [engine] = slow._engines
        load = engine.store.load

        async def overtaken(view: type[View], keys: Sequence[Any]) -> dict[Any, Any]:
            await fast.catch_up()
            return await load(view, keys)

        engine.store.load = overtaken  # type: ignore[method-assign]
        await slow.catch_up()
        assert await slow.views.get(Steps, "1") == Steps("1", 3)
        assert [verdict.ok for verdict in await slow.verify()] == [True]
