"""How bugs of the PostgreSQL log are planted, and how the runs are set on them."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest

from diptych.logs.postgres import statements, writing
from diptych.sql import migrations
from diptych.testing.checker import Violation
from torture.interleavings.orders import how_many
from torture.interleavings.running import play
from torture.interleavings.scripts import Script

LOCK = "SELECT l.head INTO base FROM {schema}.log AS l FOR UPDATE;"
MOVE = "UPDATE {schema}.log AS l SET head = base + cardinality(ids);"
KEYS = "    IF cardinality(keys) > 0 THEN\n"

APART = 693
"""One of so many interleavings is tried."""


class Planter:
    """Changes the schema of logs that are made from now on, and the statements on them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def schema(self, *changes: tuple[str, str], behind: str = "") -> None:
        """Change texts of the schema's files, and add SQL at its end."""
        read = migrations._read

        def planted(package: str, folder: str) -> list[migrations.Step]:
            steps = read(package, folder)
            if package != "diptych.logs.postgres" or folder != "schema":
                return steps
            for old, new in changes:
                assert sum(step.sql.count(old) for step in steps) == 1, old
                steps = [migrations.Step(s.name, s.sql.replace(old, new)) for s in steps]
            return [*steps, *([migrations.Step("behind", behind)] if behind else [])]

        self._monkeypatch.setattr(migrations, "_read", planted)

    def function_only(self) -> None:
        """Have every batch go by the function, or under the lock."""
        self._monkeypatch.setattr(writing, "next_of", lambda *_: None)

    def statement(self, name: str, old: str, new: str) -> None:
        """Change a statement."""
        text = statements._NAMED[name]
        assert text.count(old) == 1, old
        self._monkeypatch.setitem(statements._NAMED, name, text.replace(old, new))


def points(found: list[Violation]) -> set[int]:
    """Return the numbers of what does not hold."""
    return {violation.point for violation in found}


async def finds(
    point: int, run: Callable[[random.Random], Awaitable[list[Violation]]], rounds: int = 10
) -> bool:
    """Whether a run comes to break a point within some rounds; others may break before."""
    for number in range(rounds):
        if point in points(await run(random.Random(f"planted:{number}"))):
            return True
    return False


async def interleaved(url: str, script: Script) -> set[int]:
    """Return what some interleavings of a script break, evenly chosen from all."""
    return points(await play(url, script, range(0, how_many(script.counts), APART)))
