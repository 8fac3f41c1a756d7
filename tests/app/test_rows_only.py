"""Databases that keep rows only: how they are addressed, what is refused, what kills leave."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diptych import App, Event, Key, View
from diptych.app.databases import Where
from diptych.errors import DefinitionError, Invalid
from diptych.read.port import Transaction
from diptych.testing.servers import RedisServer
from tests.app.counting import Count, Times, app

CACHE = "redis://127.0.0.1:1/0"


class Happened(Event):
    name: str


class Seen(View, store="cache"):
    name: Key[str]


@pytest.mark.parametrize("views", [CACHE, {"cache": CACHE}, {"main": CACHE, "cache": CACHE}])
async def test_rows_without_a_main_read_database_are_refused(views: str | dict[str, str]) -> None:
    """There is no place for their checkpoints; the error says what to give."""
    with pytest.raises(Invalid, match="'main'"):
        async with app.open(log="memory:", views=views):
            pass


@pytest.mark.parametrize("url", ["redis://", f"{CACHE}?prefix=", f"{CACHE}?x=1", "duckdb:///"])
async def test_an_address_that_is_none_is_invalid(url: str) -> None:
    """The rule says how it is written."""
    with pytest.raises(Invalid, match=r"views\.cache"):
        async with app.open(log="memory:", views={"main": "memory:", "cache": url}):
            pass


@pytest.mark.parametrize("path", ["abc", "-1", "1/2", "1/", "0x1", "٣", "%31", " 1"])
async def test_a_path_that_is_no_number_is_not_taken_for_database_0(path: str) -> None:
    """The rows would be somewhere else than meant."""
    url = f"redis://user:secret@127.0.0.1:1/{path}"
    with pytest.raises(Invalid, match="a database's number") as caught:
        async with app.open(log="memory:", views={"main": "memory:", "cache": url}):
            pass
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["h:abc", "h:99999", "[::1"])
def test_a_port_that_is_none_is_invalid(host: str) -> None:
    """It is not the driver that says so, without a code."""
    with pytest.raises(Invalid, match="no address of Redis"):
        Where.parse(f"redis://{host}/0", "views")


@pytest.mark.parametrize("path", ["", "/", "/0", "/15", "?prefix=shop:", "/3?prefix=shop:"])
def test_a_path_may_be_left_out(path: str) -> None:
    """It is database 0 then."""
    assert Where.parse(f"redis://127.0.0.1{path}", "views").kind == "redis"


def test_the_rule_of_views_names_what_keeps_rows_only() -> None:
    """That of a log does not: it cannot lie there."""
    with pytest.raises(Invalid, match=r"redis://host:6379/0.*duckdb:///file"):
        Where.parse("mysql://x", "views")
    with pytest.raises(Invalid) as caught:
        Where.parse("mysql://x", "log")
    assert "redis" not in caught.value.rule


async def test_a_log_in_redis_is_refused() -> None:
    """It keeps no log."""
    with pytest.raises(Invalid, match="no log"):
        async with app.open(log=CACHE, views="memory:"):
            pass


async def test_handlers_and_inline_projections_of_rows_only_are_refused() -> None:
    """There is no transaction."""
    handled, inline = App("handled"), App("inline")

    @handled.handles(Seen)
    async def see(event: Happened, tx: Transaction) -> None:
        await tx.put(Seen(event.name))

    @inline.projects(Seen, inline=True)
    def seen(row: Seen | None, event: Happened) -> Seen:
        return Seen(event.name)

    for one in (handled, inline):
        with pytest.raises(DefinitionError, match="transactions"):
            async with one.open(log="memory:", views={"main": "memory:", "cache": CACHE}):
                pass


async def test_nothing_is_lost_or_doubled_by_workers_that_are_killed(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """Each is killed at a moment of its own, while commands go on; the end is a cold fold."""
    log, luck = f"sqlite:///{tmp_path}/log.db", random.Random(1)
    views = {
        "main": f"sqlite:///{tmp_path}/main.db",
        "cache": f"{redis_server.url}?prefix={tmp_path.name}:",
    }
    async with app.open(log=log, views=views, projections=False) as running:
        for _ in range(4):
            with subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.app.counting", log, *views.values()],
                stdout=subprocess.PIPE,
            ) as worker:
                assert worker.stdout is not None
                worker.stdout.readline()
                end = time.monotonic() + luck.uniform(0.05, 0.3)
                while time.monotonic() < end:
                    await running.do(Count(f"n{luck.randrange(5)}"))
                worker.kill()
        await running.catch_up()
        (proof,), (rowwise,) = await running.verify(), await running.verify_rows()
        assert (proof.ok, rowwise.ok) == (True, True), (proof, rowwise)
        rows = [await running.views.get(Times, f"n{n}") for n in range(5)]
        assert sum(row.times for row in rows if row) == await running.log.head()
