"""An application whose views are in Redis; run as a program it projects until it is killed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Annotated

from diptych import App, Command, Event, Key, Tag, View

Name = Annotated[str, Tag("name")]
app = App("counting")


class Count(Command):
    name: Name


class Counted(Event):
    name: Name


@app.decides
def count(command: Count) -> Iterator[Counted]:
    yield Counted(command.name)


class Times(View, store="cache"):
    name: Key[str]
    times: int


@app.projects(Times)
def times(row: Times | None, event: Counted) -> Times:
    return Times(event.name, 1 + (row.times if row else 0))


async def project(log: str, main: str, cache: str) -> None:
    """Project until the end."""
    async with app.open(log=log, views={"main": main, "cache": cache}) as running:
        print("ready", flush=True)
        while True:
            await running.catch_up()


if __name__ == "__main__":
    asyncio.run(project(*sys.argv[1:]))
