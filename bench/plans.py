"""How the database finds one boundary in a log: the plans of the very statements that read it.

``require_index`` raises where one of them would go through a table.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from bench.places import file_of
from diptych.log import EventQuery
from diptych.logs.postgres.statements import Statements
from diptych.logs.sqlite import statements as sqlite_statements
from diptych.sql.ranges import FOREVER, Leg, legs_of

LIMIT: Final = 1000
SCHEMA: Final = "diptych"
_TABLES: Final = ("events", "event_tags")
_BAD: Final = ("SCAN t", "SCAN e", "USE TEMP B-TREE")


class Scanned(Exception):
    """A statement that reads one boundary would go through a table."""


async def require_index(url: str, types: Sequence[str], tag: str) -> None:
    """Raise `Scanned` unless the events of one tag are found by an index, in the log of a URL."""
    legs = legs_of(EventQuery.of(types, [tag]).items, lambda _: ())
    if url.startswith("sqlite:"):
        _require_in_sqlite(file_of(url), legs)
    else:
        await _require_in_postgres(url, legs)


def _require_in_sqlite(path: str, legs: list[Leg]) -> None:
    alone = list(sqlite_statements.over_legs("read_legs", legs, 0, FOREVER, LIMIT))
    points = [(0, tag, name, 0, FOREVER) for tag, name, _ in legs]
    connection = sqlite3.connect(path)
    try:
        for sql, values in [*alone, sqlite_statements.over_points("read_points", points, LIMIT)]:
            steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
            sought = [step for step in steps if step.startswith("SEARCH t USING PRIMARY KEY")]
            bad = [step for step in steps if step.startswith(_BAD)]
            if bad or not sought:
                raise Scanned("; ".join(steps))
    finally:
        connection.close()


async def _require_in_postgres(url: str, legs: list[Leg]) -> None:
    statements = Statements(SCHEMA)
    alone = list(statements.over_legs("read_legs", legs, 0, FOREVER, LIMIT))
    count = len(legs)
    numbers, afters, untils = [0] * count, [0] * count, [FOREVER] * count
    tags, types = [tag for tag, _, _ in legs], [name for _, name, _ in legs]
    points: list[Any] = [numbers, tags, types, afters, untils, LIMIT]
    connection = await asyncpg.connect(url)
    try:
        for number, (sql, values) in enumerate([*alone, (statements.read_points, points)]):
            await connection.execute(f"PREPARE s{number} AS {sql}")
            given = ", ".join(map(_literal, values))
            for mode in ("force_custom_plan", "force_generic_plan"):
                await connection.execute(f"SET plan_cache_mode = {mode}")
                text = await connection.fetchval(
                    f"EXPLAIN (FORMAT JSON) EXECUTE s{number}({given})"
                )
                found = _scans(json.loads(text)[0]["Plan"])
                sought = {table for kind, table in found if kind != "Seq Scan"}
                if not sought.issuperset(_TABLES) or ("Seq Scan", "events") in found:
                    raise Scanned(f"{mode}: {found}")
    finally:
        await connection.close()


def _literal(value: list[object] | str | int) -> str:
    text = "{" + ",".join(map(str, value)) + "}" if isinstance(value, list) else str(value)
    return "'" + text.replace("'", "''") + "'"


def _scans(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the kinds of scan of a plan, with their tables."""
    found = [(plan["Node Type"], plan["Relation Name"])] if "Relation Name" in plan else []
    return found + [scan for part in plan.get("Plans", ()) for scan in _scans(part)]
