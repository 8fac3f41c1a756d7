"""A database is away: what can still be told is told, of the others and of what was known last."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import pytest

from diptych import App, Command, Event, Key, Running, Tag, View
from diptych.errors import Unavailable
from diptych.http import service
from diptych.testing.servers import PostgresServer, redis
from diptych.testing.servers import postgres as server_of_its_own
from tests.app.counting import Count
from tests.app.counting import app as counting
from tests.app.test_databases import Asked, Place, app
from tests.http.conftest import client_of
from tests.logs.on_postgres import until

both = App("both")


class Note(Command):
    name: Annotated[str, Tag("name")]


class Noted(Event):
    name: Annotated[str, Tag("name")]


@both.decides
def note(command: Note) -> Iterator[Noted]:
    yield Noted(command.name)


class Kept(View):
    name: Key[str]


class Cached(View, store="cache"):
    name: Key[str]


@both.projects(Kept)
def kept(row: Kept | None, event: Noted) -> Kept:
    return Kept(event.name)


@both.projects(Cached)
def cached(row: Cached | None, event: Noted) -> Cached:
    return Cached(event.name)


TABLE = """
SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables
WHERE table_name = 'diptych_checkpoints'
"""


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """One that may be stopped."""
    with server_of_its_own(source="any") as server:
        yield server


async def told(running: Running) -> dict[str, tuple[str, int, int]]:
    return {s.projection: (s.state, s.position, s.lag) for s in await running.status()}


async def figures(running: Running) -> dict[str, float]:
    lines = (await running.metrics()).splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


def diptych(*words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("diptych")), *words]
    return subprocess.run(
        command, env=os.environ | env, capture_output=True, text=True, check=False, timeout=120
    )


async def test_one_read_database_is_away(own_server: PostgresServer, tmp_path: Path) -> None:
    """The others are told, and of its own ones what was known last; all goes on by itself."""
    log, main = (f"sqlite:///{tmp_path / name}.db" for name in ("log", "main"))
    views = {"main": main, "reports": own_server.new_database()}
    env = {
        "DIPTYCH_APP": "tests.app.test_databases:app",
        "DIPTYCH_LOG": log,
        "DIPTYCH_VIEWS": " ".join(f"{name}={url}" for name, url in views.items()),
    }
    async with app.open(log=log, views=views) as running:
        receipt = await running.do(Place("1", "ann"))
        await running.ask(Asked(), after=receipt.token, strict=True)
        assert (await figures(running))["diptych_log_up"] == 1
        await asyncio.to_thread(own_server.kill)
        await running.do(Place("2", "ann"))

        async def away() -> bool:
            found = await told(running)
            return found == {"order": ("running", 2, 0), "customer": ("away", 1, 1)}

        await until(away)
        found = await figures(running)
        assert found['diptych_projection_state{projection="customer",state="away"}'] == 1
        assert found['diptych_projection_state{projection="customer",state="running"}'] == 0
        assert found['diptych_projection_state{projection="order",state="away"}'] == 0
        assert found['diptych_projection_lag_events{projection="customer",slices="0-63"}'] == 1
        assert found["diptych_log_head"] == 2

        words = (("status",), ("status", "--json"), ("metrics",), ("verify",))
        calls = [asyncio.to_thread(diptych, *each, env=env) for each in words]
        text, data, metrics, verified = await asyncio.gather(*calls)
        assert text.returncode == 0, text.stderr
        assert "\ncustomer: " in text.stdout
        rows = {one["projection"]: one for one in json.loads(data.stdout)["projections"]}
        assert [rows[name]["state"] for name in ("order", "customer")] == ["current", "away"]
        assert "\ndiptych_log_head 2\n" in metrics.stdout
        assert verified.returncode == 3  # nobody can prove anything of what is away

        await asyncio.to_thread(own_server.start)

        async def back() -> bool:
            found = await told(running)
            return found == {"order": ("running", 2, 0), "customer": ("running", 2, 0)}

        await until(back)


async def test_rows_are_away_or_gone(tmp_path: Path) -> None:
    """Of a row store, too: whoever works on them has them folded anew by itself."""
    log, main = (f"sqlite:///{tmp_path / name}.db" for name in ("log", "main"))
    with redis() as server:
        views = {"main": main, "cache": server.url}
        env = {
            "DIPTYCH_APP": "tests.app.counting:app",
            "DIPTYCH_LOG": log,
            "DIPTYCH_VIEWS": " ".join(f"{name}={url}" for name, url in views.items()),
        }
        async with counting.open(log=log, views=views) as running:
            await running.do(Count("a"))
            await running.catch_up()
        # This one may not make tables, and follows nothing: it only looks.
        opening = counting.open(log=log, views=views, create="nothing", projections=False)
        async with opening as running, client_of(service(running)) as client:

            async def looked() -> list[tuple[str, bool, str]]:
                found: Any = (await client.get("/health/ready")).json()
                listed = await running.status()
                assert [one.position for one in listed] == [1]  # the checkpoints are elsewhere
                return [
                    (one.state, "folded anew" in (one.error or ""), found["status"])
                    for one in listed
                ]

            assert await looked() == [("running", False, "ready")]
            server.kill()
            assert await looked() == [("away", False, "degraded")]
            with pytest.raises(Unavailable):
                await running.verify()
            server.start()
            assert await looked() == [("away", True, "degraded")]
            (verdict,) = await running.verify()
            assert (verdict.ok, verdict.outcome) == (False, "refused")
            (rows,) = await running.verify_rows()
            assert (rows.outcome, rows.reason) == ("refused", verdict.reason)
            assert "database was emptied" in verdict.reason
            words = (("status",), ("metrics",), ("verify",))
            calls = [asyncio.to_thread(diptych, *each, env=env) for each in words]
            text, metrics, verified = await asyncio.gather(*calls)
            assert (text.returncode, "was emptied" in text.stdout) == (0, True), text
            assert (metrics.returncode, "diptych_log_up 1" in metrics.stdout) == (0, True), metrics
            here = await figures(running)
            assert here['diptych_projection_state{projection="times",state="away"}'] == 1
            assert verified.returncode != 0
            assert "database was emptied" in verified.stdout + verified.stderr
            async with counting.open(log=log, views=views) as worker:
                await worker.catch_up()
            assert await looked() == [("running", False, "ready")]
            (verdict,) = await running.verify()
            assert verdict.ok


@pytest.mark.parametrize("gone", ["rows", "checkpoint"])
async def test_lost_rows_concern_their_projection_only(gone: str, tmp_path: Path) -> None:
    """Whoever looks is told of the others; and what is recommended mends it."""
    log, main = (f"sqlite:///{tmp_path / name}.db" for name in ("log", "main"))
    with redis() as server:
        env = {
            "DIPTYCH_APP": "tests.app.test_away:both",
            "DIPTYCH_LOG": log,
            "DIPTYCH_VIEWS": f"main={main} cache={server.url}",
        }

        async def said(*words: str) -> subprocess.CompletedProcess[str]:
            return await asyncio.to_thread(diptych, *words, env=env)

        async with both.open(log=log, views={"main": main, "cache": server.url}) as running:
            await running.do(Note("a"))
            await running.catch_up()
        if gone == "rows":
            await asyncio.to_thread(server.restart)
        else:
            with closing(sqlite3.connect(tmp_path / "main.db")) as connection, connection:
                connection.execute("DELETE FROM diptych_checkpoints WHERE projection = 'cached'")
        found = json.loads((await said("status", "--json")).stdout)["projections"]
        states = {one["projection"]: one["state"] for one in found}
        assert states == {"kept": "current", "cached": "away" if gone == "rows" else "refused"}
        assert (await said("verify", "kept")).returncode == 0
        verdicts = json.loads((await said("verify", "--json")).stdout)["projections"]
        assert {one["projection"]: one["outcome"] for one in verdicts} == {
            "kept": "compared",
            "cached": "refused",
        }
        for words in (("parked", "list"), ("projections", "list"), ("metrics",)):
            assert (await said(*words)).returncode == 0, words
        if gone == "checkpoint":
            rewound = await said("projections", "rewind", "cached", "--yes")
            assert rewound.returncode == 0, rewound.stderr
        async with both.open(log=log, views={"main": main, "cache": server.url}) as running:
            await running.catch_up()
            assert [one.ok for one in await running.verify_rows()] == [True, True]
        assert (await said("verify")).returncode == 0


async def test_a_table_that_was_dropped_is_not_passed_over(tmp_path: Path) -> None:
    """Rows and checkpoints are in one database: whoever looks is told, rather than `current`."""
    log, main = (f"sqlite:///{tmp_path / name}.db" for name in ("log", "main"))
    views = {"main": main, "reports": f"sqlite:///{tmp_path / 'reports.db'}"}
    async with app.open(log=log, views=views) as running:
        await running.do(Place("1", "ann"))
        await running.catch_up()
        (row,) = [one for one in await running.projections.versions() if one.projection == "order"]
    with closing(sqlite3.connect(tmp_path / "main.db")) as connection, connection:
        connection.execute(f'DROP TABLE "{row.tables[0]}"')
    env = {
        "DIPTYCH_APP": "tests.app.test_databases:app",
        "DIPTYCH_LOG": log,
        "DIPTYCH_VIEWS": " ".join(f"{name}={url}" for name, url in views.items()),
    }
    for command in ("status", "metrics", "verify"):
        said = await asyncio.to_thread(diptych, command, env=env)
        assert (said.returncode, "view-lost" in said.stderr) == (2, True), said


async def test_health_names_what_is_away(own_server: PostgresServer, tmp_path: Path) -> None:
    """Requests may come: commands and the other views work."""
    log, main = (f"sqlite:///{tmp_path / name}.db" for name in ("log", "main"))
    views = {"main": main, "reports": own_server.new_database()}
    async with app.open(log=log, views=views) as running, client_of(service(running)) as client:
        assert (await client.get("/health/ready")).json()["status"] == "ready"
        await asyncio.to_thread(own_server.kill)

        async def degraded() -> Any:
            answer: Any = (await client.get("/health/ready")).json()
            return answer if "projections" in answer else None  # known as soon as it is given up

        assert await until(degraded) == {
            "status": "degraded",
            "role": "all",
            "projections": [{"projection": "customer", "state": "away"}],
            "views": "unavailable",
        }
        assert (await client.get("/metrics")).status_code == 200


async def test_the_log_is_away(own_server: PostgresServer, tmp_path: Path) -> None:
    """Metrics tell so, and what was seen last; the state of projections cannot be told."""
    views = {name: f"sqlite:///{tmp_path / name}.db" for name in ("main", "reports")}
    async with app.open(log=own_server.new_database(), views=views) as running:
        receipt = await running.do(Place("1", "ann"))
        await running.ask(Asked(), after=receipt.token, strict=True)
        found = await figures(running)
        assert found["diptych_log_up"] == found["diptych_log_head"] == 1
        await asyncio.to_thread(own_server.kill)

        async def away() -> bool:
            return (await figures(running))["diptych_log_up"] == 0

        await until(away)
        assert (await figures(running))["diptych_log_head"] == 1
        with pytest.raises(Unavailable):
            await running.status()


async def test_a_database_that_is_silent_is_away(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes connections and never answers holds nobody up."""
    monkeypatch.setattr("diptych.read.status.STORE_SECONDS", 0.2)
    log, main = (f"sqlite:///{tmp_path / name}.db" for name in ("log", "main"))
    async with app.open(log=log, views={"main": main, "reports": postgres_url}) as running:
        connection = await asyncpg.connect(postgres_url)
        try:
            table = await connection.fetchval(TABLE)
            async with connection.transaction():
                await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
                found = await told(running)
        finally:
            await connection.close()
        assert {name: state for name, (state, *_) in found.items()} == {
            "order": "running",
            "customer": "away",
        }
