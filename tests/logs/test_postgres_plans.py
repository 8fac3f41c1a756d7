"""In a long log every statement goes by an index, however PostgreSQL plans it.

DIPTYCH_PLAN_EVENTS says how long it is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from diptych.logs.postgres.statements import Statements
from diptych.sql.ranges import Leg
from diptych.testing.servers import PostgresServer
from tests.logs.filled import TYPES, fill
from tests.logs.on_postgres import SCHEMA, connected, opened
from tests.logs.test_postgres_rules import LEGS, text_between

EVENTS = int(os.environ.get("DIPTYCH_PLAN_EVENTS", "1000000"))
MIDDLE = EVENTS // 2
SQL = Statements(SCHEMA)


def array(*values: object) -> str:
    return "{" + ",".join(str(value) for value in values) + "}"


def over(legs: list[Leg], name: str = "read_legs") -> tuple[str, list[Any]]:
    [(text, parameters)] = SQL.over_legs(name, legs, MIDDLE, EVENTS, 1000)
    return text, parameters


def checks_of_the_function() -> dict[str, tuple[str, list[Any]]]:
    """Return what the append function looks up, as statements with parameters."""
    ranges = text_between(LEGS, " THEN").removeprefix("IF cardinality(leg_tag) > 0 AND ")
    for number, name in enumerate(("leg_tag", "leg_type", "leg_after"), 1):
        kind = "bigint" if number == 3 else "text"
        ranges = ranges.replace(f"{name},", f"${number}::{kind}[],")
        ranges = ranges.replace(f"{name})", f"${number}::{kind}[])")
    order = f"order:{MIDDLE // 10}"
    since = text_between("SELECT '[' || string_agg(", ";").replace("INTO since ", "")
    since = since.replace("expected", "$1::bigint").replace("base", "$2::bigint")
    return {
        "ranges": (f"SELECT {ranges}", [array(order), array("Paid"), array(EVENTS)]),
        "since": (since, [EVENTS - 100, EVENTS]),
        "ids": (
            f"SELECT 1 FROM {SCHEMA}.events AS e WHERE e.position > $1 AND e.id = ANY ($2)",
            [EVENTS - 100, array("id-1", "id-2")],
        ),
        "keys": (
            f"SELECT 1 FROM {SCHEMA}.idempotency_keys AS k WHERE k.key = ANY ($1)",
            [array("key-1", "key-2")],
        ),
    }


def statements() -> dict[str, tuple[str, list[Any]]]:
    """Return every statement on the long tables, with parameters."""
    order, customer = f"order:{MIDDLE // 10}", "customer:7"
    tags, types = array(*[order] * 5), array(*TYPES)
    numbers, afters = array(*[0] * 5), array(*[0] * 5)
    return {
        "a boundary": (
            SQL.read_points,
            [numbers, tags, types, afters, array(*[2**62] * 5), 2000],
        ),
        "a hundred boundaries": (
            SQL.read_points,
            [
                array(*range(100)),
                array(*(f"order:{n}" for n in range(100))),
                array(*["Paid"] * 100),
                array(*[0] * 100),
                array(*[2**62] * 100),
                2000,
            ],
        ),
        "a page": (SQL.read_all, [MIDDLE, MIDDLE + 1000]),
        "a type": over([("", "Paid", ())]),
        "three types": over([("", name, ()) for name in TYPES[:3]]),
        "a type of a tag": over([(customer, "Paid", ())]),
        "two tags": over([(customer, name, (order,)) for name in TYPES]),
        "the types of a tag": (SQL.types_of_tag, [customer]),
        "the first matches": (
            SQL.first_matches,
            [numbers, tags, types, afters, EVENTS],
        ),
        "matches of two tags": over([(customer, "Paid", (order,))], "match_legs"),
        "any match": (SQL.match_any, [MIDDLE, EVENTS, 5]),
        "what was appended since": (SQL.appended_since, [EVENTS - 100]),
        "what is stored": (SQL.stored_since, [EVENTS - 100, array("id-1", "id-2")]),
        "keys": (SQL.recall, [array("key-1", "key-2")]),
        **{f"the function: {name}": found for name, found in checks_of_the_function().items()},
    }


@pytest.fixture(scope="module")
def long_log(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a database with a long log, of which PostgreSQL has no statistics yet."""
    url = postgres_server.new_database()
    yield url
    postgres_server.drop_database(url)


def scans(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the kinds of scan of a plan, with their tables."""
    found = [(plan["Node Type"], plan["Relation Name"])] if "Relation Name" in plan else []
    return found + [scan for part in plan.get("Plans", ()) for scan in scans(part)]


async def test_every_statement_goes_by_an_index(long_log: str) -> None:
    """With generic and with custom plans, before statistics were gathered and after."""
    async with opened(long_log), connected(long_log) as connection:
        await connection.execute("SET max_parallel_workers_per_gather = 0")
        await fill(connection, EVENTS)
        found = statements()
        for number, (sql, _) in enumerate(found.values()):
            await connection.execute(f"PREPARE s{number} AS {sql}")
        look = f"SELECT 1 FROM {SCHEMA}.events WHERE id = 'id-7'"
        text = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {look}")
        assert scans(json.loads(text)[0]["Plan"]) == [("Seq Scan", "events")]  # it would be seen
        assert await connection.fetchval(f"SELECT count(*) FROM {SCHEMA}.event_tags") == 2 * EVENTS
        bad: list[str] = []
        for analyzed in (False, True):
            if analyzed:
                await connection.execute("ANALYZE")
            for mode in ("force_generic_plan", "force_custom_plan"):
                await connection.execute(f"SET plan_cache_mode = {mode}")
                for number, (name, (_, parameters)) in enumerate(found.items()):
                    plan = await _plan(connection, number, parameters)
                    used = scans(plan)
                    assert used, name
                    if any(kind == "Seq Scan" and table != "log" for kind, table in used):
                        bad.append(f"{name}, {mode}, analyzed {analyzed}: {used}")
        assert bad == []


async def _plan(
    connection: asyncpg.Connection[Any], number: int, parameters: list[Any]
) -> dict[str, Any]:
    given = ", ".join("'" + str(value).replace("'", "''") + "'" for value in parameters)
    text = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE s{number}({given})")
    plan: dict[str, Any] = json.loads(text)[0]["Plan"]
    return plan
